"""Notices that no step finishes any more: shows what every thread is doing and, where waiting is hopeless, ends the process."""

import faulthandler
import logging
import os
import threading
import time
from collections.abc import Callable

LOST_PEER = 5  # exit code
# The first step waits for the restore and the compiler, which may take many times as long as a step; compiling must not look like a hang.
FIRST_STEP_ALLOWANCE = 4

log = logging.getLogger(__name__)


class Watchdog:
    """Context in which `beat` must be called at least every `seconds`; the first time within `FIRST_STEP_ALLOWANCE * seconds`.

    A process alone goes on waiting after the dump (its disk or debugger may come back), and shows its stacks again after each
    further `seconds`. One of several ends with code 5: a collective whose peer is gone may never return, and the machines are paid for.
    The thread that watches needs the interpreter's lock, so code that never gives the lock back is not seen.
    """

    def __init__(
        self, seconds: float | None, *, ends: bool, dump: Callable[[], object] = faulthandler.dump_traceback,
        leave: Callable[[int], object] = os._exit, clock: Callable[[], float] = time.monotonic,
    ):  # fmt: skip
        """Prepares, without starting to watch.

        Args:
            seconds: longest time between two beats; None watches nothing.
            ends: whether to end the process after the dump.
            dump: writes the stacks of all threads.
            leave: ends the process with a code, without waiting for anything.
            clock: seconds that never run backwards.
        """
        self._seconds, self._ends, self._dump, self._leave, self._clock = seconds, ends, dump, leave, clock
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._deadline = 0.0
        self._allowed = 0.0

    def __enter__(self):
        if self._seconds is not None:
            self.allow(FIRST_STEP_ALLOWANCE * self._seconds)
            self._thread.start()
        return self

    def __exit__(self, *_):
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()

    def beat(self) -> None:
        """A step has finished."""
        if self._seconds is not None:
            self.allow(self._seconds)

    def allow(self, seconds: float) -> None:
        """The next beat may take this long."""
        self._allowed, self._deadline = seconds, self._clock() + seconds

    def look(self) -> float:
        """Acts if the deadline is past; returns seconds until the next look."""
        left = self._deadline - self._clock()
        if left > 0:
            return min(left, self._seconds)  # a beat may bring the deadline nearer than the first step's
        then = f"leaving with code {LOST_PEER}, as a process of this run may be lost" if self._ends else "still waiting"
        log.error("no step finished for %.0f s (config.train.stall_seconds); the stacks of all threads follow; %s", self._allowed, then)
        self._dump()
        if self._ends:
            self._leave(LOST_PEER)
        self.beat()
        return self._seconds

    def _watch(self) -> None:
        wait = self._seconds
        while not self._closed.wait(wait):
            wait = self.look()
