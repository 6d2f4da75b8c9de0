"""Trains in several processes on this machine, and starts all of them again from the last checkpoint when one crashes.

    python -m launch.local --processes=2 --config=configs/glyphs.py --workdir=runs/two [--config.train.steps=100] [--restarts=3]

Each process runs `launch.train` with the same words; what it says comes with its index before it. Ctrl-C or SIGTERM is passed on
once: all save and leave with 75. Codes are those of `launch.train`; where restarts do not help, 5 for a process that was killed, else
the code of the one that crashed.
"""

import ctypes
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence

from absl import flags
from ml_collections import config_flags

from core.watchdog import LOST_PEER
from launch import process

_PROCESSES = flags.DEFINE_integer("processes", None, "how many processes", 1)
_RESTARTS = flags.DEFINE_integer("restarts", 3, "how often all are started again after a crash", 0)
_PORT = flags.DEFINE_integer("port", 0, "of the coordinator; 0 takes one that is free", 0, 65535)
_CONFIG = config_flags.DEFINE_config_file("config", None, "path of a config, with its argument after a colon", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run")
_CHANGE = flags.DEFINE_bool("allow_config_change", False, "go on in a workdir that another config made")

OWN = ("processes", "restarts", "port")  # flags that the trainer does not know
# After one has ended the others notice within a second or two; what they would say later helps nobody.
GRACE_SECONDS = 5.0
_FINAL = (process.CONFIG_ERROR, process.BAD_LOSS, process.STOPPED)  # codes that a restart would only repeat, or that were asked for


def main(_) -> None:
    from core.workdir import locked

    process.log_to_stderr("[launcher] ")
    with process.exit_codes(), locked(pathlib.Path(_WORKDIR.value), "supervised", name="launcher.lock"):
        command = [sys.executable, "-m", "launch.train", *without(sys.argv[1:], OWN)]
        code = supervise(command, _PROCESSES.value, restarts=_RESTARTS.value, port=_PORT.value)
    sys.exit(code)


def without(arguments: Sequence[str], names: Sequence[str]) -> list[str]:
    """The words of a command line without some flags and their values."""
    kept, skip = [], False
    for word in arguments:
        name, equals, _ = word.lstrip("-").partition("=")
        own = word.startswith("-") and name in names
        if not own and not skip:
            kept.append(word)
        skip = own and not equals
    return kept


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
    with Stop() as stop:
        for attempt in range(restarts + 1):
            group = Group(command, count, port or free_port())
            code, index = verdict(*group.wait(stop, grace_seconds))
            if code in (process.DONE, *_FINAL) or stop.wanted:
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
    for wanted in _FINAL:  # one finds a mistake, the others then lose it
        for index in order:
            if codes[index] == wanted:
                return wanted, index
    bad = [index for index in order if codes[index] != process.DONE]
    index = bad[0] if bad else order[0]
    return (LOST_PEER if codes[index] < 0 else codes[index]), index


def free_port() -> int:
    """A port of this machine that nothing listens to now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Stop:
    """Context in which the first SIGINT or SIGTERM is a wish, to be passed on; a second one ends the processes at once."""

    def __init__(self):
        self.wanted = self.forced = False
        self._before = {}

    def __enter__(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, _number, _frame):
        self.wanted, self.forced = True, self.wanted


class Group:
    """The processes of one start; none outlives `wait`."""

    def __init__(self, command: Sequence[str], count: int, port: int):
        self.codes: dict[int, int] = {}
        shared = os.environ | {process.COORDINATOR: f"127.0.0.1:{port}", "TANDEM_PROCESSES": str(count), "PYTHONUNBUFFERED": "1"}
        if count == 1:
            shared.pop(process.COORDINATOR)
        self._running = {index: _start(command, shared | {"TANDEM_PROCESS": str(index)}) for index in range(count)}
        self._readers = [threading.Thread(target=_relay, args=(i, p.stdout), daemon=True) for i, p in self._running.items()]
        for reader in self._readers:
            reader.start()
        process.log.info("processes %s", ", ".join(f"{index} is {p.pid}" for index, p in self._running.items()))

    def wait(self, stop: Stop, grace_seconds: float) -> tuple[list[int], dict[int, int]]:
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


def _start(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen:
    """A process in a session of its own: Ctrl-C in a terminal reaches the launcher alone, which passes it on once."""
    return subprocess.Popen(
        command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace", start_new_session=True, preexec_fn=_end_with_parent if sys.platform == "linux" else None,
    )  # fmt: skip


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: a launcher that is killed leaves no orphans


def _relay(index: int, lines) -> None:
    """Passes lines on with the index before them, where the process has not put it there itself."""
    prefix = f"[{index}] "
    with lines:
        for line in lines:
            if text := line.rstrip():
                sys.stderr.write((text if text.startswith(prefix) else prefix + text) + "\n")


if __name__ == "__main__":
    flags.mark_flags_as_required(["processes", "config", "workdir"])
    process.run(main)
