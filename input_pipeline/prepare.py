"""Any source as shards of ArrayRecord: what each record is like, which to keep, and how they are written.

Two passes: `scan` looks at every record, `decide` picks from what it found, `write` reads what is kept again. Parts of a source are
independent of each other, so passes run in parallel and go on after a stop. Leaves folders, processes and progress to `launch/prepare.py`.
"""

import collections
import hashlib
import io
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from core.config import ConfigError
from input_pipeline import decode, examples, near_duplicates
from input_pipeline.bad_records import BadRecord
from input_pipeline.text_filter import LISTS, trimmer

SHARES = (0, 1, 5, 25, 50, 75, 95, 99, 100)  # percentiles in the statistics


class Rules(NamedTuple):
    """What a record must be like to be kept.

    Args:
        min_characters: of a caption or text; a record keeps those that are long enough.
        max_characters: likewise.
        languages: of the texts of a column, codes of those that may stay; likewise.
        min_side: pixels of the shorter side of an image.
        max_aspect: longer by shorter side of an image; 0 for any.
        least: of columns of numbers.
        decode: every image is decoded, else its header read.
        duplicates: True keeps records whose image (or whose texts, without one) came before.
        near: Jaccard similarity of texts from which a record without an image counts as a duplicate; 0 for none.
    """

    min_characters: int = 1
    max_characters: int = 1_000_000
    languages: Mapping[str, Sequence[str]] = {}
    min_side: int = 1
    max_aspect: float = 0.0
    least: Mapping[str, float] = {}
    decode: bool = False
    duplicates: bool = False
    near: float = 0.0

    def trimmer(self) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
        """What leaves a record those of its texts that may stay, see `text_filter.trimmer`."""
        return trimmer(self.min_characters, self.max_characters, self.languages)


def whole(source: Any, i: int) -> dict[str, Any]:
    """Record i with all that a source draws from; arrays as the bytes of a PNG.

    Raises:
        BadRecord: it cannot be read.
    """
    record = source.whole(i) if hasattr(source, "whole") else source[i]
    return {name: _png(value) if isinstance(value, np.ndarray) else value for name, value in record.items()}


def scan(source: Any, rows: Sequence[int], rules: Rules) -> dict[str, np.ndarray]:
    """What every record of a part is like, an array [N] for each fact.

    `reason` is empty for a record that may be kept, else the kind of its damage or the rule it breaks, with `detail`. Others:
    `image.width`, `image.height`, `image.bytes`, `text.count`, `text.characters` (of the first text), `digest` (of image or
    texts), `signature` [N P] and the record's numbers.
    """
    trim = rules.trimmer()
    facts = [_look(source, i, rules, trim) for i in rows]
    names = {name: type(value) for fact in facts for name, value in fact.items()}
    arrays = {}
    for name, kind in names.items():
        default = np.zeros(near_duplicates.SIZE, np.uint32) if kind is np.ndarray else kind()
        dtype = {int: np.uint64 if name == "digest" else np.int64, float: np.float64, str: np.str_, np.ndarray: np.uint32}[kind]
        arrays[name] = np.array([fact[name] if name in fact else default for fact in facts], dtype)
    return arrays


def _look(source: Any, i: int, rules: Rules, trim: Callable) -> dict[str, Any]:
    facts: dict[str, Any] = {"reason": "", "detail": ""}
    try:
        record = trim(whole(source, i))
        texts = [text for name, value in record.items() if isinstance(value, list) and name not in LISTS for text in value]
        facts |= {name: value for name, value in record.items() if isinstance(value, (int, float))}
        facts |= {"text.count": len(texts), "text.characters": len(texts[0]) if texts else 0}
        image = record.get("image")
        facts["digest"] = _digest([image] if image is not None else [text.encode() for text in texts])
        if rules.near and image is None:
            facts["signature"] = near_duplicates.signature("\n".join(texts))
        for name, least in rules.least.items():
            if name not in record:
                raise ConfigError(f"records have no {name!r}; the source's options.numbers brings columns of numbers.")
            if not record[name] >= least:
                raise BadRecord(f"{name} is {record[name]}", f"low_{name}")
        if image is not None:
            facts |= _check_image(image, rules)
    except BadRecord as error:
        facts |= {"reason": error.kind, "detail": str(error)}
    return facts


def _check_image(data: bytes, rules: Rules) -> dict[str, int]:
    file = decode.ImageFile(data)
    if rules.decode:
        file.pixels()
    height, width = file.height, file.width
    if min(height, width) < rules.min_side:
        raise BadRecord(f"{width} x {height} pixels", "small")
    if rules.max_aspect and max(height, width) > rules.max_aspect * min(height, width):
        raise BadRecord(f"{width} x {height} pixels", "aspect")
    return {"image.width": width, "image.height": height, "image.bytes": len(data)}


def decide(facts: Mapping[str, np.ndarray], rules: Rules) -> np.ndarray:
    """The reason of each record [N] after looking at all of them together: the first of equal ones is kept."""
    reason = facts["reason"].astype("<U32")
    fine = np.flatnonzero(reason == "")
    if not rules.duplicates and len(fine):
        first = np.unique(facts["digest"][fine], return_index=True)[1]
        reason[np.delete(fine, first)] = "duplicate"
        fine = fine[np.sort(first)]
    if rules.near and "signature" in facts and len(fine):
        reason[fine[near_duplicates.repeated(facts["signature"][fine], rules.near)]] = "near_duplicate"
    return reason


def write(source: Any, rows: Sequence[int], path: str, rules: Rules) -> dict[str, Any]:
    """A shard with the records of `rows`, whole or not at all.

    Returns:
        Name, records, bytes and SHA-256 of the file, and the kind of each column.

    Raises:
        OSError: it cannot be written.
        RuntimeError: a record that `scan` could read cannot be read any more.
    """
    from array_record.python.array_record_module import ArrayRecordWriter

    temporary, schema, trim = f"{path}.unfinished", {}, rules.trimmer()
    writer = ArrayRecordWriter(temporary, "group_size:1")  # one record is read at a time
    try:
        for i in rows:
            try:
                record = trim(whole(source, i))
            except BadRecord as error:
                raise RuntimeError(f"record {i} could be read when it was looked at, and now cannot: {error}") from error
            schema |= {name: _kind(name, value) for name, value in record.items()}
            writer.write(examples.serialize(record))
    finally:
        writer.close()
    with open(temporary, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    os.replace(temporary, path)
    return {"name": os.path.basename(path), "records": len(rows), "bytes": os.path.getsize(path), "sha256": digest, "schema": schema}


def statistics(facts: Mapping[str, np.ndarray], reason: np.ndarray) -> dict[str, Any]:
    """Counts of records by what became of them, and percentiles of what the kept ones are like; ready for JSON."""
    kept = reason == ""
    found: dict[str, Any] = {"records": len(reason), "kept": int(kept.sum())}
    found["dropped"] = dict(sorted(collections.Counter(reason[~kept].tolist()).items()))
    for name, values in sorted(facts.items()):
        if kept.any() and ("." in name or np.issubdtype(values.dtype, np.floating)):  # an id has no percentiles
            levels = np.percentile(values[kept].astype(np.float64), SHARES)
            found[name] = {f"p{share}": round(float(level), 4) for share, level in zip(SHARES, levels, strict=True)}
    return found


def dense(numbers: np.ndarray) -> np.ndarray:
    """Whole numbers as int32 from 0 without gaps, equal where they were."""
    return np.unique(numbers, return_inverse=True)[1].astype(np.int32)


def _kind(name: str, value: Any) -> str:
    if isinstance(value, list):
        return "list" if name in LISTS else "texts"
    return {bytes: "image", int: "int", float: "float"}[type(value)]


def _digest(parts: Sequence[bytes]) -> int:
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return int.from_bytes(digest.digest(), "little")


def _png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "PNG")
    return file.getvalue()
