"""Several processes of one command on this machine: started together, heard together, and started again together after a crash."""

import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence

from core.watchdog import LOST_PEER
from launch import children, process

# After one has ended the others notice within a second or two; what they would say later helps nobody.
GRACE_SECONDS = 5.0
FINAL = (process.CONFIG_ERROR, process.BAD_LOSS, process.STOPPED)  # codes that a restart would only repeat, or that were asked for


def supervise(command: Sequence[str], count: int, *, restarts: int, port: int = 0, grace_seconds: float = GRACE_SECONDS) -> int:
    """Runs a command as `count` processes that know of each other, until they are done, a restart would not help, or a signal comes.

    Args:
        command: words of the command, the same for each.
        count: processes.
        restarts: how often all are started again after a crash.
        port: of the coordinator; 0 takes a free one for each start.
        grace_seconds: how long the others may go on after one has ended badly.

    Returns:
        The exit code of the whole.
    """
    with children.Stop() as stop:
        for attempt in range(restarts + 1):
            group = Group(command, count, port or children.free_port())
            code, index = verdict(*group.wait(stop, grace_seconds))
            if code in (process.DONE, *FINAL) or stop.wanted:
                return code
            how = signal.Signals(-group.codes[index]).name if group.codes[index] < 0 else f"code {group.codes[index]}"
            then = f"starting all again from the last checkpoint, {attempt + 1} of {restarts}" if attempt < restarts else "giving up"
            process.log.error("process %d ended with %s; %s", index, how, then)
    return code


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

    def __init__(self, command: Sequence[str], count: int, port: int):
        self.codes: dict[int, int] = {}
        shared = os.environ | {process.COORDINATOR: f"127.0.0.1:{port}", "TANDEM_PROCESSES": str(count), "PYTHONUNBUFFERED": "1"}
        if count == 1:
            shared.pop(process.COORDINATOR)
        self._running = {index: children.start(command, shared | {"TANDEM_PROCESS": str(index)}) for index in range(count)}
        self._readers = [threading.Thread(target=_relay, args=(i, p.stdout), daemon=True) for i, p in self._running.items()]
        for reader in self._readers:
            reader.start()
        process.log.info("processes %s", ", ".join(f"{index} is {p.pid}" for index, p in self._running.items()))

    def wait(self, stop: children.Stop, grace_seconds: float) -> tuple[list[int], dict[int, int]]:
        """Indices in the order of their ends, and all codes."""
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
                time.sleep(0.05)
        finally:
            self._signal(signal.SIGKILL)
        for reader in self._readers:
            reader.join(5)  # a grandchild may hold the pipe
        return list(self.codes), self.codes

    def _signal(self, number: int) -> None:
        for one in self._running.values():
            one.send_signal(number)


def _relay(index: int, lines) -> None:
    """Passes lines on with the index before them, where the process has not put it there itself."""
    prefix = f"[{index}] "
    with lines:
        for line in lines:
            if text := line.rstrip():
                sys.stderr.write((text if text.startswith(prefix) else prefix + text) + "\n")
