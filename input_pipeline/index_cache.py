"""Indexes of files that take long to make, kept between runs: arrays in a file of this user's cache folder.

An index belongs to the path, size and time of writing of its file; one that does not is made again. Leaves what is in it to its users.
"""

import contextlib
import hashlib
import logging
import os
import pathlib
import tempfile
import zipfile
from collections.abc import Callable

import numpy as np

from input_pipeline import files

log = logging.getLogger(__name__)

SMALL = 1 << 24  # bytes of a file whose index is made anew each time, which takes less than a second


def folder() -> pathlib.Path:
    """`$TANDEM_INDEX`, else `tandem/index` of the user's cache folder."""
    given = os.environ.get("TANDEM_INDEX")
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return pathlib.Path(given) if given else pathlib.Path(cache) / "tandem" / "index"


def cached(path: str, kind: str, build: Callable[[str], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The index of a file, from the cache or from `build(path)`, which is then kept.

    Args:
        path: of the file.
        kind: of the index; what `build` makes depends on nothing else but the file.
        build: makes it; for a small file, each time.

    Raises:
        OSError: the file is not there.
    """
    identity = files.identity(path)
    return build(path) if identity[1] < SMALL else kept((kind, *identity), lambda: build(path), f"the index of {path}")


def kept(identity: tuple, build: Callable[[], dict[str, np.ndarray]], what: str) -> dict[str, np.ndarray]:
    """Arrays from the cache, or from `build()`, which are then kept.

    Args:
        identity: all that they depend on, the version of their making too.
        build: makes them.
        what: they are, for the line in the log where they cannot be kept.
    """
    name = hashlib.sha256(repr(identity).encode()).hexdigest()[:32]
    place = folder() / f"{name}.npz"
    with contextlib.suppress(OSError, ValueError, EOFError, zipfile.BadZipFile), open(place, "rb") as file:
        return dict(np.load(file, allow_pickle=False))
    made = build()
    try:
        _write(place, made)
    except OSError as error:  # a full disk or a folder that cannot be written: slower next time, and nothing else
        log.warning("%s cannot be kept in %s: %s", what, place.parent, error)
    return made


def _write(place: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=place.parent, prefix=".", suffix=".npz")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **arrays)
        os.replace(temporary, place)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
