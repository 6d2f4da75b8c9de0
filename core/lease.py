"""A lock on an object store, which has none: an object that its holder rewrites every few seconds for as long as it lives.

Every write names the version of the object that it replaces, and the store refuses it where that is no longer the newest one; so of
two who take a lock at the same time, one gets it.
"""

import contextlib
import json
import logging
import os
import pathlib
import secrets
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

BEAT_SECONDS = 10.0
PATIENCE_SECONDS = 60.0  # a holder that is silent for so long is taken for dead
LOST = 3  # exit code of a holder that was taken for dead and is not

log = logging.getLogger(__name__)


class Held(Exception):
    """Another process holds the lock and lives; the message says which."""


class Lease:
    """Context that holds the lock.

    A holder on this machine that no longer runs is seen at once. Of one on another machine only its silence can be seen: taking over
    its lock lasts `patience_seconds`.
    """

    def __init__(
        self, folder: str, name: str, *, wait: bool = False, beat_seconds: float = BEAT_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS, leave: Callable[[int], Any] = os._exit,
    ):  # fmt: skip
        """Opens the store.

        Args:
            folder: URL as TensorStore knows it, with a slash at the end.
            name: of the object in it.
            wait: for a holder that lives, however long it lasts; else that is an error.
            beat_seconds: between rewrites.
            patience_seconds: how long a holder may be silent.
            leave: ends the process with a code, where another process has taken the lock of one that was silent for too long.
        """
        import tensorstore

        self._store, self._url, self._name = tensorstore.KvStore.open(folder).result(), folder + name, name
        self._wait, self._beat, self._patience, self._leave = wait, beat_seconds, patience_seconds, leave
        self._me = {"process": os.getpid(), "began": _began(os.getpid()), "machine": _machine(), "token": secrets.token_hex(8)}
        self._version, self._closed = None, threading.Event()
        self._thread = threading.Thread(target=self._keep_beating, name="lease", daemon=True)

    def __enter__(self):
        """Takes the lock.

        Raises:
            Held: without `wait`, another process holds it.
            ValueError: the store refuses.
        """
        watched, since = None, 0.0  # the version of a holder about which only time can tell
        while True:
            found = self._store.read(self._name).result()
            version = found.stamp.generation
            holder = json.loads(found.value) if found.state == "value" else None
            lives = False if holder is None else _lives(holder)
            if lives is None:
                if watched is None:
                    log.info("%s is held by %s; looking whether it lives", self._url, _words(holder))
                elif version != watched:
                    lives = True
                elif time.monotonic() - since > self._patience:
                    lives = False
                if version != watched:
                    watched, since = version, time.monotonic()
            if lives is False and self._write(version):
                self._thread.start()
                return self
            if lives and not self._wait:
                raise Held(_words(holder))
            time.sleep(min(self._beat, 1.0) / 4)

    def __exit__(self, *_):
        self._closed.set()
        self._thread.join()
        with contextlib.suppress(Exception):  # whoever wants it next waits, no more
            self._store.write(self._name, None, if_equal=self._version).result()

    def _write(self, version: bytes) -> bool:
        """Whether the lock was still at this version, and is now this process's."""
        beat = json.dumps(self._me | {"time": time.time()}).encode()
        written = self._store.write(self._name, beat, if_equal=version).result().generation
        self._version = written or self._version
        return bool(written)

    def _keep_beating(self) -> None:
        while not self._closed.wait(self._beat):
            try:
                if self._write(self._version):
                    continue
                found = self._store.read(self._name).result()
                if found.state == "value" and json.loads(found.value)["token"] == self._me["token"]:
                    self._version = found.stamp.generation  # an answer was lost, not the write
                    continue
            except Exception as error:  # an outage; who takes over meanwhile is seen by the next beat
                log.warning("%s cannot be written now: %s", self._url, " ".join(str(error).split())[:300])
                continue
            log.error("%s was silent for so long that another process has taken it; leaving, so that one alone writes", self._url)
            self._leave(LOST)
            return


def _machine() -> str:
    """A host, its start and its container: processes with equal ones can see each other."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts += [pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return " ".join(parts)


def _began(process: int) -> str | None:
    """When a process of this machine began; None where it does not run."""
    try:
        status = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if status[0] in "ZX" else status[19]  # one that was killed stays until its parent asks


def _lives(holder: dict) -> bool | None:
    """Whether a holder on this machine runs; None for one elsewhere."""
    if holder["machine"] != _machine() or holder["began"] is None:
        return None
    return _began(holder["process"]) == holder["began"]


def _words(holder: dict) -> str:
    return f"process {holder['process']} on {holder['machine'].split()[0]}"
