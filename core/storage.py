"""Folders on this machine or on an object store (`gs://`): one kind of path for both, and stand-ins for what a store cannot do.

A store can neither append nor rename: what grows is written to this machine and uploaded whole (`spooled`), and a file appears with its
last byte (`written_whole`). Who works in a folder need not know which kind it is; locks are in `workdir.py`.
"""

import contextlib
import importlib.util
import io
import logging
import os
import pathlib
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import fsspec
from etils import epath

from core.config import ConfigError

UPLOAD_SECONDS = 30.0  # what a killed process loses of its lines, at most

log = logging.getLogger(__name__)


def is_remote(path) -> bool:
    """Whether a path is a URL."""
    return "://" in os.fspath(path)


def as_path(path) -> pathlib.Path | epath.Path:
    """A folder by its name: `pathlib.Path` on this machine, `epath.Path`, which has the same methods, for `gs://`.

    A store is looked at once, so that a missing package, bucket or right is one line.

    Raises:
        ConfigError: another kind of URL, a package that is not installed, or a bucket that cannot be read.
    """
    if not isinstance(path, str) or not is_remote(path):
        return path if isinstance(path, epath.Path) else pathlib.Path(path)
    if not path.startswith("gs://"):
        raise ConfigError(f"{path} is neither a folder nor gs://bucket/folder, the object store that Orbax writes checkpoints to.")
    if importlib.util.find_spec("gcsfs") is None:
        raise ConfigError(f"{path} needs a package that is not here: pip install gcsfs")
    # Listings are kept for ever by default: who follows a run would never see its next checkpoint.
    fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False
    found = epath.Path(path)
    try:
        found.exists()
    except Exception as error:  # of gcsfs, aiohttp or google.auth
        raise ConfigError(
            f"{path} cannot be read ({type(error).__name__}: {error}); is the bucket there, and does "
            "`gcloud auth application-default login` or the machine's account give access to it?"
        ) from error
    return found


def on_this_machine(path: str, flag: str) -> pathlib.Path:
    """A folder for what is only written to disks.

    Raises:
        ConfigError: a URL.
    """
    if is_remote(path):
        raise ConfigError(f"{flag}={path}: this is written to a folder on this machine; give one, and copy it from there.")
    return pathlib.Path(path)


def resolved(path) -> pathlib.Path | epath.Path:
    """The absolute path, which Orbax asks for."""
    return as_path(path) if is_remote(path) else pathlib.Path(path).resolve()


@contextlib.contextmanager
def written_whole(path) -> Iterator[BinaryIO]:
    """A file to write to that a reader sees whole or not at all; after an exception nothing has changed."""
    path = as_path(path)
    if is_remote(path):
        content = io.BytesIO()
        yield content
        path.write_bytes(content.getvalue())
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


@contextlib.contextmanager
def spooled(folder, begin_with: Sequence[str] = (), seconds: float = UPLOAD_SECONDS) -> Iterator[pathlib.Path]:
    """A folder to write to as one likes: on this machine it is `folder` itself, else a `Spool` of it.

    Args:
        folder: where everything is to lie in the end.
        begin_with: patterns of what to fetch from a store first, so that it can be read or added to.
        seconds: between uploads.
    """
    if not is_remote(folder):
        yield as_path(folder)
        return
    spool = Spool(os.fspath(folder), begin_with, seconds)
    try:
        yield spool.local
    finally:
        spool.close()


class Spool:
    """A folder on this machine whose files are uploaded whole when they have changed, again and again until it is closed.

    No outage ends a run: what could not be uploaded is tried again with the next upload, and what the last one leaves is kept and named.
    """

    def __init__(self, url: str, begin_with: Sequence[str], seconds: float):
        """Fetches, and starts the thread that uploads.

        Args:
            url: as fsspec knows it.
            begin_with: patterns of what to fetch.
            seconds: between uploads.
        """
        self._system, self._root = fsspec.core.url_to_fs(url)
        self._top = pathlib.Path(tempfile.mkdtemp(prefix="tandem-"))
        self.local = self._top / self._root.rstrip("/").rpartition("/")[2]
        self.local.mkdir()
        self._sent: dict[str, tuple[int, int]] = {}
        for pattern in begin_with:
            for name in self._system.glob(f"{self._root}/{pattern}"):
                self._fetch(name)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._keep_uploading, args=(seconds,), name="upload", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Uploads the last changes."""
        self._closed.set()
        self._thread.join()
        if self._upload():
            shutil.rmtree(self._top)
        else:
            log.error("what could not be uploaded to %s stays in %s", self._root, self.local)

    def _fetch(self, name: str) -> None:
        path = self.local / name.rpartition("/")[2]
        self._system.get_file(name, str(path))
        changed = self._system.info(name).get("mtime")
        if changed is not None:  # when the file was last written, not when it was fetched
            os.utime(path, (changed.timestamp(),) * 2)
        self._sent[path.name] = _mark(path)

    def _keep_uploading(self, seconds: float) -> None:
        while not self._closed.wait(seconds):
            self._upload()

    def _upload(self) -> bool:
        """Sends what has changed; whether all went well."""
        complete = True
        for path in sorted(path for path in self.local.rglob("*") if path.is_file()):
            name, mark = path.relative_to(self.local).as_posix(), _mark(path)  # marked first: what is added meanwhile is sent next time
            if self._sent.get(name) == mark:
                continue
            try:
                self._system.put_file(str(path), f"{self._root}/{name}")
                self._sent[name] = mark
            except Exception as error:  # whatever the store's library raises
                complete = False
                log.warning("%s cannot be uploaded now: %s", name, " ".join(str(error).split())[:300])
        return complete


def _mark(path: pathlib.Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def remove_folder(folder) -> None:
    """Deletes a folder with everything in it, if it is there."""
    if is_remote(folder):
        epath.Path(folder).rmtree(missing_ok=True)
    elif folder.exists():
        shutil.rmtree(folder)


def copy_folder(source, target) -> None:
    """Copies everything in a folder; on a store without passing this machine.

    Raises:
        FileNotFoundError: something vanished meanwhile.
    """
    if not is_remote(source):
        shutil.copytree(source, target)
        return
    system, top = fsspec.core.url_to_fs(os.fspath(source))
    _, below = fsspec.core.url_to_fs(os.fspath(target))
    names = system.find(top)
    system.copy(names, [below + name[len(top) :] for name in names])


def exchange(fresh, folder, last: str) -> None:
    """Puts a folder in the place of another one, if there is one; after a kill, `mend_exchange` ends it.

    On a disk a reader finds the old one or the new one. A store has no folders to rename: there the file `last` is missing from the
    deletion of the old one until the new one is whole.

    Args:
        fresh: beside `folder`, and gone afterwards.
        folder: the place.
        last: a file in `fresh`.
    """
    if is_remote(folder):
        remove_folder(folder)
        _move(fresh, folder, last)
        return
    old = _old(folder)
    if folder.exists():
        remove_folder(old)
        folder.rename(old)
    fresh.rename(folder)
    remove_folder(old)


def mend_exchange(fresh, folder, last: str) -> None:
    """Ends or takes back an exchange that was cut short; `fresh` counts only where it holds `last`, written as its last file."""
    if is_remote(folder):
        if (fresh / last).exists() and not (folder / last).exists():
            _move(fresh, folder, last)
    elif _old(folder).exists() and not folder.exists():
        _old(folder).rename(folder)


def _old(folder):
    return folder.with_name(f"{folder.name}.old")


def _move(fresh, folder, last: str) -> None:
    for part in sorted(fresh.iterdir()):
        if part.name != last:
            copy_folder(part, folder / part.name)
    (folder / last).write_bytes((fresh / last).read_bytes())
    remove_folder(fresh)
