"""Vectors or scores that a teacher made once, read from a folder by what they belong to: a text, or a number such as an id.

The folder holds `keys.npy` (8 bytes of a hash of each value, in order), `rows.npy` (what is stored of each, in the same order) and
`about.json`. Files are mapped into memory, not read, so that all threads and workers share what the system keeps of them.
"""

import hashlib
import json
import pathlib
from collections.abc import Sequence

import numpy as np

from input_pipeline.bad_records import BadRecord


def write(folder: pathlib.Path, values: Sequence[str | int], rows: np.ndarray, teacher: str) -> None:
    """Stores a row for each value; of values that come twice the first row counts.

    Args:
        folder: made if it is not there.
        values: texts or whole numbers, as the sources have them.
        rows: numbers [N ...], kept as float32: a teacher's vectors in float16 would have no unit length.
        teacher: what made them; a name, or the fingerprint of an encoder.

    Raises:
        ValueError: no values, another number of rows than of values, or a row that is not finite.
    """
    rows = np.asarray(rows, np.float32)
    if not len(values) or len(rows) != len(values) or not np.isfinite(rows).all():
        raise ValueError(f"{len(rows)} rows for {len(values)} values, {int((~np.isfinite(rows)).sum())} numbers not finite.")
    keys, first = np.unique(_keys(values), return_index=True)
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "keys.npy", keys)
    np.save(folder / "rows.npy", rows[first])
    (folder / "about.json").write_text(json.dumps({"teacher": teacher, "values": len(keys)}))


def stored(values, rngs, tokenizer, *, path: str = "", teacher: str = "") -> dict[str, np.ndarray]:
    """What is stored of each value, float32 [N ...]; of lists of values [N K ...].

    Args:
        values: texts or whole numbers, or a list of them in each row.
        rngs: not used.
        tokenizer: not used.
        path: a folder that `write` made.
        teacher: what must have made it; empty: anything.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: another teacher made it.
        BadRecord: nothing is stored of a value.
    """
    folder = pathlib.Path(path)
    if not path or not (folder / "about.json").exists():
        raise FileNotFoundError(
            f"{path or 'no path'}: no about.json of stored rows; set options.path to a folder with keys.npy and rows.npy."
        )
    found = json.loads((folder / "about.json").read_text())["teacher"]
    if teacher and found != teacher:
        raise ValueError(f"{path} was made by {found!r}, not by {teacher!r}; make it anew, or set options.teacher to {found!r}.")
    keys, rows = (np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ("keys", "rows"))
    listed = bool(values) and isinstance(values[0], (list, tuple))
    flat = [one for value in values for one in value] if listed else list(values)
    wanted = _keys(flat)
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    if missing := np.flatnonzero(keys[place] != wanted).tolist():
        per_row = len(flat) // len(values)
        raise BadRecord(f"nothing is stored of {flat[missing[0]]!r} in {path}", "missing", row=missing[0] // per_row)
    taken = np.asarray(rows[place])
    return {"": taken.reshape(len(values), -1, *taken.shape[1:]) if listed else taken}


def _keys(values: Sequence[str | int]) -> np.ndarray:
    """uint64 [N]; a text and a number that reads like it differ."""
    kind = lambda value: b"text " if isinstance(value, str) else b"number "
    hashed = lambda value: hashlib.blake2b(kind(value) + str(value).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return np.fromiter((int.from_bytes(hashed(value), "little") for value in values), np.uint64, len(values))
