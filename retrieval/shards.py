"""Vectors on disk: a folder of shards with a manifest that says what made them and how far it came.

`manifest.json` `00000.npy` (or `00000.arrow`) `00000.ids.json` `00001.npy` ... `bad_rows.jsonl`. Shard k holds the rows k * shard_rows to
(k + 1) * shard_rows of the input, less the bad ones. Each file appears whole or not at all, and the manifest names a shard only after
its files are there: whoever is killed goes on after the last shard that the manifest names, and the same bytes come out.
"""

import hashlib
import io
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as arrow

from core.config import ConfigError, differences
from core.workdir import read_json, write_json

MANIFEST = "manifest.json"
DTYPES = ("float32", "float16")
FORMATS = ("npy", "arrow")


class Writer:
    """Appends shards to a folder; opened again with the same settings, it goes on.

    Args:
        folder: made if it is not there.
        made_by: all that the vectors depend on, ready for JSON.

    Raises:
        ConfigError: the folder holds vectors made otherwise, files that its manifest does not know, or a shard that was changed.
    """

    def __init__(self, folder: str | os.PathLike, made_by: Mapping[str, Any], *, dtype: str = "float32", format: str = "npy"):
        self.folder, self.format, self.dtype = pathlib.Path(folder), format, dtype
        fresh = {"made_by": dict(made_by) | {"dtype": dtype, "format": format}, "shards": [], "counts": {}, "complete": False}
        self.folder.mkdir(parents=True, exist_ok=True)
        if (self.folder / MANIFEST).exists():
            self.manifest = read_json(self.folder / MANIFEST)
            self._check(fresh["made_by"])
        else:
            others = sorted(path.name for path in self.folder.iterdir() if not path.name.startswith("."))
            if others and others != ["lock"]:
                raise ConfigError(f"{self.folder} holds {others[0]} but no {MANIFEST}; choose an --output that is empty or not there.")
            self.manifest = fresh
            write_json(self.folder / MANIFEST, fresh)

    @property
    def shards(self) -> int:
        """How many are there."""
        return len(self.manifest["shards"])

    @property
    def complete(self) -> bool:
        """Whether the input came to its end."""
        return self.manifest["complete"]

    def append(self, vectors: np.ndarray, ids: Sequence[str], rows: int, faults: Sequence[Mapping[str, Any]] = ()) -> None:
        """One more shard.

        Args:
            vectors: float32 [N d].
            ids: N names.
            rows: of the input that were read for it, bad ones included.
            faults: one entry for each bad row, kept in `bad_rows.jsonl` up to the first thousand of a shard.
        """
        name, vectors = f"{self.shards:05d}", vectors.astype(self.dtype)
        made = {f"{name}.{self.format}": _encoded(vectors, ids, self.format), f"{name}.ids.json": json.dumps(list(ids)).encode()}
        made |= {f"{name}.bad.json": json.dumps(list(faults)[:1000]).encode()} if faults else {}
        for file, content in made.items():
            _write(self.folder / file, content)
        files = {file: hashlib.sha256(content).hexdigest() for file, content in made.items()}
        entry = {"name": name, "vectors": len(vectors), "rows": rows, "bad": len(faults), "sha256": files}
        shards = [*self.manifest["shards"], entry]
        counts = {key: sum(shard[key] for shard in shards) for key in ("rows", "vectors", "bad")}
        self.manifest |= {"shards": shards, "counts": counts}
        write_json(self.folder / MANIFEST, self.manifest)

    def finish(self) -> None:
        """Marks the folder as complete."""
        self.manifest |= {"complete": True}
        write_json(self.folder / MANIFEST, self.manifest)

    def _check(self, made_by: Mapping[str, Any]) -> None:
        found = differences(self.manifest["made_by"], made_by, "made_by")
        if found:
            raise ConfigError(f"{self.folder} holds vectors that were made otherwise: {'; '.join(found)}. Choose another --output.")
        _verify(self.folder, self.manifest["shards"])


def _verify(folder: pathlib.Path, shards: Sequence[Mapping]) -> None:
    for shard in shards:
        for file, digest in shard["sha256"].items():
            path = folder / file
            if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
                raise ConfigError(
                    f"{path} is not what {MANIFEST} says: it was changed, cut off or deleted. Choose another --output, or delete this one."
                )


def _encoded(vectors: np.ndarray, ids: Sequence[str], format: str) -> bytes:
    buffer = io.BytesIO()
    if format == "npy":
        np.save(buffer, vectors, allow_pickle=False)
        return buffer.getvalue()
    column = arrow.FixedSizeListArray.from_arrays(arrow.array(vectors.reshape(-1)), vectors.shape[1])
    table = arrow.table({"id": arrow.array(list(ids), arrow.string()), "vector": column})
    with arrow.ipc.new_file(buffer, table.schema) as file:
        file.write_table(table)
    return buffer.getvalue()


def _write(path: pathlib.Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())  # a manifest must not outlive, in a power cut, the shard that it names
    os.replace(temporary, path)


def read(folder: str | os.PathLike) -> tuple[list[str], list[np.ndarray]]:
    """Names of all vectors, and the vectors of each shard [N d]; those of `.npy` stay on disk until they are used.

    Raises:
        FileNotFoundError: no manifest there.
        ValueError: the folder is not complete.
    """
    folder = pathlib.Path(folder)
    if not (folder / MANIFEST).exists():
        raise FileNotFoundError(f"{folder} holds no {MANIFEST}; give the --output of launch.embed.")
    manifest = read_json(folder / MANIFEST)
    if not manifest["complete"]:
        raise ValueError(f"{folder} is not complete: {manifest['counts']}; run the command that made it again.")
    ids, vectors = [], []
    for shard in manifest["shards"]:
        ids += read_json(folder / f"{shard['name']}.ids.json")
        vectors.append(_decoded(folder / f"{shard['name']}.{manifest['made_by']['format']}"))
    return ids, vectors


def _decoded(path: pathlib.Path) -> np.ndarray:
    if path.suffix == ".npy":
        return np.load(path, mmap_mode="r", allow_pickle=False)
    with arrow.memory_map(str(path)) as file:
        column = arrow.ipc.open_file(file).read_all()["vector"].combine_chunks()
        return column.values.to_numpy().reshape(len(column), -1)
