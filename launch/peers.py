"""What one of several processes does when another is lost: one line, code 5, and no waiting.

A lost process shows in three ways. A collective that needs it raises in the step (gloo, within a second). Or the coordination service
misses its heartbeats (100 s by default), or the service itself goes with process 0 (at once): then JAX's client calls `abort` on a
thread of its own, from which no Python exception comes. Or nothing is said at all: that is for `core/watchdog.py`.
"""

import contextlib
import ctypes
import faulthandler
import logging
import os
import signal
import sys
import threading
import traceback

from core.config import ConfigError
from core.watchdog import LOST_PEER

CRASHED = 1
# A process that stops alone (only the first sees that the folder is locked) waits this long for the others to stop too;
# `TANDEM_PARTING_SECONDS` changes it.
PARTING_SECONDS = 30
_SIGNS = (
    "gloo", "coordination service", "coordinationservice", "unavailable:", "socket closed", "connection reset", "heartbeat",
    "deadline_exceeded",
)  # fmt: skip

log = logging.getLogger("tandem")


class Aborts:
    """Turns an abort on a thread that is not Python's into one line and an exit code, `LOST_PEER` until `code` is set;
    once it is, on any thread.

    JAX 0.10.2 offers a callback for a lost peer, but calling it from Python ends in `std::bad_cast`, an abort too. Aborts of
    Python's own threads (a failed check under a call) keep their meaning and their code. One of XLA's own threads that aborts for
    another reason also leaves with 5: its message stands above the line.
    """

    def __init__(self):
        self.code = LOST_PEER
        self._handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(self._note)  # kept: C calls it
        install = ctypes.CDLL(None).signal
        install.argtypes, install.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p
        install(signal.SIGABRT, ctypes.cast(self._handler, ctypes.c_void_p))

    def _note(self, _number):
        parting = self.code != LOST_PEER  # the end is decided; giving up on the others may abort on any thread
        if not parting and threading.get_ident() in {thread.ident for thread in threading.enumerate()}:
            faulthandler.dump_traceback()
            return  # to abort(), which now ends the process
        if not parting:
            os.write(2, f"a process of this run is lost, says the message above; leaving with code {LOST_PEER}\n".encode())
        os._exit(self.code)


def is_lost_peer(error: BaseException) -> bool:
    """Whether an exception is how a collective, or a barrier, tells that another process is gone."""
    text = str(error).lower()
    return not isinstance(error, ConfigError) and any(sign in text for sign in _SIGNS)


@contextlib.contextmanager
def leaving(aborts: Aborts | None):
    """Ends one of several processes in bounded time, whatever happens inside; does nothing in a process that is alone.

    An exception that tells of a lost peer is one line and code 5. Any other error is a traceback and code 1, at once, so that the
    others lose this process and leave. An agreed end (`SystemExit`) waits for the others, `PARTING_SECONDS` at most.
    """
    if aborts is None:
        yield
        return
    try:
        yield
    except SystemExit as end:
        _part(aborts, end.code or 0)
    except BaseException as error:
        if is_lost_peer(error):
            log.error("a process of this run is lost: %s; leaving with code %d", " ".join(str(error).split())[:300], LOST_PEER)
            _exit(LOST_PEER)
        traceback.print_exc()
        _exit(CRASHED)


def _part(aborts: Aborts, code: int) -> None:
    import jax

    aborts.code = code  # what this process found counts, should another be gone before
    with contextlib.suppress(Exception):
        jax.distributed.shutdown()
    _exit(code)


def _exit(code: int) -> None:
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
