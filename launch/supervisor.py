"""Several processes of one command on this machine: started together, heard together, and started again together after a crash.

An evaluation may run next to them; its crashes are its own (`launch/beside.py`).
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from core.watchdog import LOST_PEER
from launch import beside, children, process

# After one has ended the others notice within a second or two; what they would say later helps nobody.
GRACE_SECONDS = 5.0
FINAL = (process.CONFIG_ERROR, process.BAD_LOSS, process.STOPPED)  # codes that a restart would only repeat, or that were asked for


def supervise(
    command: Sequence[str], count: int, *, restarts: int, port: int = 0, grace_seconds: float = GRACE_SECONDS,
    variables: Sequence[Mapping[str, str]] = (), evaluation: beside.Keeper | None = None, follows: bool = True,
) -> int:  # fmt: skip
    """Runs a command as `count` processes that know of each other, until they are done, a restart would not help, or a signal comes.

    Args:
        command: words of the command, the same for each.
        count: processes.
        restarts: how often all are started again after a crash.
        port: of the coordinator; 0 takes a free one for each start.
        grace_seconds: how long the others may go on after one has ended badly.
        variables: of each process, beside those of this one.
        evaluation: a process of its own, which never ends the others.
        follows: whether it runs beside them; else after them.

    Returns:
        The exit code of the whole: of the processes, or where they are done of the evaluation.
    """
    with children.Stop() as stop, contextlib.ExitStack() as stack:
        look = evaluation.look if evaluation is not None and follows else lambda: None
        if evaluation is not None:
            stack.callback(evaluation.close)
        for attempt in range(restarts + 1):
            group = Group(command, count, port or children.free_port(), variables)
            code, index = verdict(*group.wait(stop, grace_seconds, look))
            if code in (process.DONE, *FINAL) or stop.wanted:
                break
            then = f"starting all again from the last checkpoint, {attempt + 1} of {restarts}" if attempt < restarts else "giving up"
            process.log.error("process %d ended with %s; %s", index, children.how(group.codes[index]), then)
        if evaluation is None or code not in (process.DONE, process.BAD_LOSS) or stop.wanted:
            return code
        evaluated = evaluation.finish(stop)
        if evaluated not in (process.DONE, process.STOPPED):
            process.log.error("training has ended, but not every checkpoint is evaluated; launch.evaluate goes on from there")
        return code or evaluated


def verdict(order: Sequence[int], codes: Mapping[int, int]) -> tuple[int, int]:
    """The code of the whole, and the process that decided it.

    Args:
        order: indices in the order in which the processes ended.
        codes: their codes, negative after a signal.
    """
    for wanted in FINAL:  # one finds a mistake, the others then lose it
        for index in order:
            if codes[index] == wanted:
                return wanted, index
    bad = [index for index in order if codes[index] != process.DONE]
    index = bad[0] if bad else order[0]
    return (LOST_PEER if codes[index] < 0 else codes[index]), index


class Group:
    """The processes of one start; none outlives `wait`."""

    def __init__(self, command: Sequence[str], count: int, port: int, variables: Sequence[Mapping[str, str]] = ()):
        self.codes: dict[int, int] = {}
        coordinator = f"127.0.0.1:{port}" if count > 1 else process.ALONE
        shared = os.environ | {process.COORDINATOR: coordinator, "TANDEM_PROCESSES": str(count), "PYTHONUNBUFFERED": "1"}
        own = [{"TANDEM_PROCESS": str(i)} | (variables[i] if variables else {}) for i in range(count)]
        self._running = {i: children.start(command, shared | own[i]) for i in range(count)}
        self._readers = [heard(p, f"[{i}] " if count > 1 else "") for i, p in self._running.items()]
        process.log.info("processes %s", ", ".join(f"{index} is {p.pid}" for index, p in self._running.items()))

    def wait(self, stop: children.Stop, grace_seconds: float, look: Callable[[], None]) -> tuple[list[int], dict[int, int]]:
        """Indices in the order of their ends, and all codes; looks at something else meanwhile."""
        told, deadline = False, None
        try:
            while self._running:
                for index in [i for i, p in self._running.items() if p.poll() is not None]:
                    self.codes[index] = self._running.pop(index).returncode
                    if self.codes[index] != process.DONE and deadline is None and not stop.wanted:
                        deadline = time.monotonic() + grace_seconds
                if stop.wanted and not told:
                    self._signal(signal.SIGTERM)
                    told = True
                if stop.forced or (deadline is not None and time.monotonic() > deadline):
                    self._signal(signal.SIGKILL)
                if not stop.wanted:
                    look()
                time.sleep(0.05)
        finally:
            self._signal(signal.SIGKILL)
        for reader in self._readers:
            reader.join(5)  # a grandchild may hold the pipe
        return list(self.codes), self.codes

    def _signal(self, number: int) -> None:
        for one in self._running.values():
            one.send_signal(number)


def heard(child, prefix: str) -> threading.Thread:
    """Passes on what a process says, line by line with a prefix where it has not put that there itself; returns who does."""
    reader = threading.Thread(target=_relay, args=(prefix, child.stdout), daemon=True)
    reader.start()
    return reader


def _relay(prefix: str, lines) -> None:
    with lines:
        for line in lines:
            if text := line.rstrip():
                sys.stderr.write((text if text.startswith(prefix) else prefix + text) + "\n")
