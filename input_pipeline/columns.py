"""What the columns of a table hold, whatever the format: texts, bytes of images, and values that number records."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from input_pipeline import files
from input_pipeline.bad_records import BadRecord


def texts(row: Mapping[str, Any], name: str, i: int, most: int) -> list[str]:
    """The texts of a column that are not blank: it may hold one, a list of them, or nothing.

    Args:
        row: of a table.
        name: of the column; one that the row lacks holds nothing.
        i: number of the row, for errors.
        most: characters of a text.

    Raises:
        BadRecord: something that is no text, or a longer one.
    """
    value = row.get(name)
    values = value if isinstance(value, list) else [] if value is None else [value]
    return [text for text in (as_text(v, f"row {i + 1}: {name!r}", most) for v in values) if text.strip()]


def as_text(value: Any, place: str, most: int) -> str:
    """A text, or the UTF-8 bytes of one.

    Raises:
        BadRecord: something else, or more than `most` characters.
    """
    if isinstance(value, bytes):
        try:
            value = value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise BadRecord(f"{place} is not UTF-8 at its byte {error.start + 1}", "encoding") from error
    if not isinstance(value, str):
        raise BadRecord(f"{place} holds a {type(value).__name__}, not a text", "malformed")
    if len(value) > most:
        raise BadRecord(f"{place} has {len(value)} characters, more than {most}", "too_large")
    return value


def image(row: Mapping[str, Any], name: str, i: int, root: str) -> bytes:
    """The bytes of an image: those of the column, or of the file it names; a struct may have `bytes` or else `path`.

    Args:
        row: of a table.
        name: of the column.
        i: number of the row, for errors.
        root: folder or URL that paths are below.

    Raises:
        BadRecord: no image, or a file that cannot be read or is outside of `root`.
    """
    value = row.get(name)
    if isinstance(value, Mapping):
        value = value["bytes"] if value.get("bytes") is not None else value.get("path")
    if isinstance(value, str):
        value = files.read(files.join(root, value)) if value else None
    if value is None:
        raise BadRecord(f"row {i + 1}: {name!r} holds no image", "missing")
    if not isinstance(value, bytes):
        raise BadRecord(f"row {i + 1}: {name!r} holds a {type(value).__name__}, not an image", "malformed")
    if not value:
        raise BadRecord(f"row {i + 1}: {name!r} has no bytes", "empty")
    return value


def number(row: Mapping[str, Any], name: str, place: str) -> float:
    """The number of a column.

    Raises:
        BadRecord: something else, or nothing.
    """
    value = row.get(name)
    try:
        if value is None or isinstance(value, bool):
            raise ValueError
        return float(value)
    except (TypeError, ValueError):
        raise BadRecord(f"{place}: {name!r} holds {value!r}, not a number", "missing" if value is None else "malformed") from None


def numbers_of(row: Mapping[str, Any], name: str, place: str) -> float | np.ndarray:
    """The number of a column, or its list of numbers as float32 [n].

    Raises:
        BadRecord: something else, nothing, or a number that is not finite.
    """
    value = row.get(name)
    listed = isinstance(value, (list, tuple))
    found = [number({name: one}, name, place) for one in (value if listed else [value])]
    if not found or not np.isfinite(found).all():
        raise BadRecord(f"{place}: {name!r} holds {value!r}, not finite numbers", "malformed")
    return np.array(found, np.float32) if listed else found[0]


def drawn(values: list, k: int, rng: np.random.Generator | None) -> list:
    """k of some values, the first ones or drawn; fewer than k are repeated."""
    order = range(len(values)) if rng is None else rng.permutation(len(values)).tolist()
    return [values[order[n % len(order)]] for n in range(k)]


def of_rows(rows: Any, name: str) -> Iterator[Any]:
    """The values of one column of a table; None for a row that cannot be read or has none."""
    for row in rows.rows():
        value = None if row is None else row.get(name)
        yield value["path"] if isinstance(value, Mapping) and "path" in value else value


def numbers(values: Iterable[Any]) -> np.ndarray:
    """Dense int32 numbers, equal where the values are, from 0; a None is equal to nothing. No value is kept, but 8 bytes of its hash."""
    digest = lambda value: int.from_bytes(hashlib.blake2b(value, digest_size=8).digest(), "little")
    keys = (b"row %d" % i if value is None else b"value " + _bytes(value) for i, value in enumerate(values))
    return np.unique(np.fromiter(map(digest, keys), np.uint64), return_inverse=True)[1].astype(np.int32)


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
