"""Files by name, on this machine or behind a URL that fsspec knows (`gs://`, `s3://`, `memory://`, ...): lists of them, parts of them.

Every failure to read is a `BadRecord`, so that a file that disappears in the middle of a run is counted and stepped over.
"""

import contextlib
import glob
import itertools
import json
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from input_pipeline.bad_records import BadRecord

_INNERMOST = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_WILD = re.compile(r"[*?\[]")


def expand(patterns: Sequence[str], option: str = "files") -> list[str]:
    """The files that patterns name: each pattern's in the order of its braces, then of their names; none twice.

    Args:
        patterns: paths or URLs with wildcards (`*`, `**`, `?`, `[ab]`), alternatives (`{train,extra}`) or numbers (`{00000..00099}`).
        option: of the source, which errors name.

    Raises:
        ValueError: no pattern, or one that matches nothing.
    """
    if isinstance(patterns, str):
        raise ValueError(f"options.{option} is the text {patterns!r}; set it to a list of paths or patterns.")
    if wrong := [pattern for pattern in patterns if not isinstance(pattern, str)]:
        raise ValueError(f"options.{option} holds {wrong[0]!r}, which is no path; set it to a list of paths or patterns.")
    found = dict.fromkeys(path for pattern in patterns for one in braces(pattern) for path in _matches(one, option))
    if not found:
        raise ValueError(f"options.{option} is empty; set it to paths or patterns of files.")
    return list(found)


def braces(text: str) -> Iterator[str]:
    """`a{1..3}{x,y}` as a1x, a1y, a2x, ...; numbers keep leading zeros; braces without a comma or range stay."""
    match = next((m for m in _INNERMOST.finditer(text) if "," in m[1] or _RANGE.fullmatch(m[1])), None)
    if match is None:
        yield text
        return
    for choice in _choices(match[1]):
        # What is innermost and first varies slowest only if the rest is expanded for each of its values.
        yield from braces(text[: match.start()] + choice + text[match.end() :])


def _choices(inside: str) -> Iterator[str]:
    numbers = _RANGE.fullmatch(inside)
    if numbers is None:
        yield from inside.split(",")
        return
    first, last = int(numbers[1]), int(numbers[2])
    for number in range(first, last + 1) if first <= last else range(first, last - 1, -1):
        yield f"{number:0{len(numbers[1])}d}"


def _matches(pattern: str, option: str) -> list[str]:
    if is_remote(pattern):
        system, path = _system(pattern)
        try:
            # A name without wildcards is looked at when it is opened: asking for each of 10,000 shards would take minutes.
            found = [system.unstrip_protocol(name) for name in sorted(system.glob(path))] if _WILD.search(path) else [pattern]
        except Exception as error:  # the libraries of stores raise what they like
            raise ValueError(f"{pattern} cannot be listed: {error}; set options.{option} to what this account may read.") from error
    else:
        found = sorted(glob.glob(pattern, recursive=True))
    if not found:
        raise ValueError(f"no file matches {pattern}; set options.{option} to paths or patterns of files.")
    return found


def below(folder: str) -> list[str]:
    """Paths of all files below a folder, relative to it, with slashes, sorted; those that begin with a dot are left out.

    Raises:
        ValueError: no such folder.
    """
    if is_remote(folder):
        system, top = _system(folder.rstrip("/"))
        paths = [path[len(top) :].lstrip("/") for path in system.find(top)]
    else:
        found = ((pathlib.Path(at).relative_to(folder).as_posix(), names) for at, _, names in os.walk(folder))
        paths = [f"{at}/{name}".removeprefix("./") for at, names in found for name in names]
    if not paths:
        cure = "unpack it, or set options.folder to a .tar" if os.path.isfile(folder) else "set options.folder to one"
        raise ValueError(f"{folder} is no folder with files; {cure}.")
    return sorted(path for path in paths if not any(part.startswith(".") for part in path.split("/")))


def is_remote(path: str) -> bool:
    """Whether a path is a URL."""
    return "://" in path


def need_disk(path: str, what: str, option: str) -> None:
    """Refuses a URL for what only a library reads that knows no URLs.

    Raises:
        ValueError: a URL.
    """
    if is_remote(path):
        raise ValueError(f"{path}: {what} can be read from a disk alone; copy it to this machine and set options.{option} to the copy.")


def exists(path: str) -> bool:
    """Whether there is such a file or folder."""
    if not is_remote(path):
        return os.path.exists(path)
    system, name = _system(path)
    return system.exists(name)


def suffix(path: str) -> str:
    """`.tar` of `a/B.TAR`."""
    return pathlib.PurePosixPath(path).suffix.lower()


def join(folder: str, name: str) -> str:
    """A path below a folder.

    Raises:
        BadRecord: the name leads out of the folder.
    """
    parts = pathlib.PurePosixPath(name).parts
    inside = parts[1:] if folder == "/" and parts[:1] == ("/",) else parts
    if not inside or ".." in parts or inside[0] == "/" or is_remote(name) or "\0" in name:
        raise BadRecord(f"the path {name[:200]!r} leads out of {folder}", "malformed")
    return f"{folder.rstrip('/')}/{'/'.join(inside)}"


def open_binary(path: str) -> BinaryIO:
    """A file for reading.

    Raises:
        OSError: it cannot be opened.
    """
    if not is_remote(path):
        return open(path, "rb")
    system, name = _system(path)
    return system.open(name, "rb")


def read(path: str, start: int = 0, stop: int | None = None) -> bytes:
    """Bytes [start, stop) of a file, or all from `start` on.

    Raises:
        BadRecord: it cannot be read (`gone`), or is shorter than that (`truncated`).
    """
    refused = Exception if is_remote(path) else (OSError, ValueError)  # the libraries of stores raise what they like
    try:
        with open_binary(path) as file:  # a handle for each read: threads and workers share nothing
            file.seek(start)
            data = file.read(-1 if stop is None else stop - start)
    except refused as error:
        raise BadRecord(f"{path} cannot be read: {error}", "gone") from error
    if stop is not None and len(data) != stop - start:
        raise BadRecord(f"{path} ends at byte {start + len(data)}, in the middle of a record", "truncated")
    return data


@contextlib.contextmanager
def described_by(path: str, option: str) -> Iterator[None]:
    """While what a JSON file says of the files beside it is read and used.

    Args:
        path: of the file.
        option: of the source, which errors name.

    Raises:
        ValueError: it is not there, is no JSON, or lacks what was looked for.
    """
    try:
        yield
    except (BadRecord, json.JSONDecodeError, UnicodeDecodeError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} does not describe the files beside it: {error!r}; set options.{option} to a whole copy.") from error


def identity(path: str) -> tuple[str, int, str]:
    """Absolute path, bytes, and when or as what it was written: equal while the file is the same.

    Raises:
        OSError: it is not there.
    """
    if not is_remote(path):
        found = os.stat(path)
        return os.path.abspath(path), found.st_size, str(found.st_mtime_ns)
    system, name = _system(path)
    facts = system.info(name)
    marks = [str(facts[key]) for key in ("etag", "ETag", "md5Hash", "mtime", "LastModified", "created") if key in facts]
    return path, int(facts["size"]), " ".join(itertools.islice(marks, 1))


def _system(path: str):
    import fsspec  # many remote systems, each loaded when it is asked for

    try:
        return fsspec.core.url_to_fs(path)
    except ImportError as error:  # says what to install
        raise ValueError(f"{path} cannot be read: {error}") from error
