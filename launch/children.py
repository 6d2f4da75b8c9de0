"""Processes that a launcher starts: they hear one wish to stop, and end with the launcher."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence


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


def start(command: Sequence[str], environment: Mapping[str, str], output=subprocess.PIPE) -> subprocess.Popen:
    """A process in a session of its own: Ctrl-C in a terminal reaches the launcher alone, which passes it on once."""
    return subprocess.Popen(
        command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, text=True,
        errors="replace", start_new_session=True, preexec_fn=_ending_with(os.getpid()) if sys.platform == "linux" else None,
    )  # fmt: skip


def _ending_with(parent: int) -> Callable[[], None]:
    """What a child does first, so that a launcher that is killed leaves no orphans."""
    library = ctypes.CDLL(None)  # here: loading it between fork and exec could wait for a lock that nobody holds any more

    def end_with_parent() -> None:
        library.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # killed before the child came to ask
            os._exit(1)

    return end_with_parent


def how(code: int) -> str:
    """How a process ended: `code 3`, or `SIGKILL` for a negative code."""
    return signal.Signals(-code).name if code < 0 else f"code {code}"


def without(arguments: Sequence[str], names: Sequence[str]) -> list[str]:
    """The words of a command line without some flags and their values."""
    kept, skip = [], False
    for word in arguments:
        name, equals, _ = word.lstrip("-").partition("=")
        own = word.startswith("-") and name in names
        if not own and not (skip and not word.startswith("-")):
            kept.append(word)
        skip = own and not equals
    return kept


def free_port() -> int:
    """A port of this machine that nothing listens to now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
