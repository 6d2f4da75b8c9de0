"""Tables of Apache Arrow: Parquet files, and the folders in which the Hugging Face `datasets` library saves.

A column that says so there has names for its numbers (`ClassLabel`), and images are structs of `bytes` and `path`.
"""

import itertools
import json
import logging
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from input_pipeline import files
from input_pipeline.bad_records import BadRecord, readable

log = logging.getLogger(__name__)

GROUPS = 8  # decoded row groups kept of a Parquet file
LARGE_GROUP = 20_000  # rows in a group from which single rows in random order are slow to read


class Parquet:
    """A Parquet file, read by row groups; `columns` are all that is decoded.

    Raises:
        ValueError: no Parquet file, or a column that it lacks.
        OSError: no such file.
    """

    def __init__(self, path: str, columns: Sequence[str]):
        import pyarrow.parquet

        self._source = files.open_binary(path) if files.is_remote(path) else None
        try:
            # Not mapped into memory: a mapped file that is cut short under us ends the process.
            self._file = pyarrow.parquet.ParquetFile(self._source or path)
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise ValueError(f"{path} is not a Parquet file: {error}") from error
        check_columns(path, self._file.schema_arrow.names, columns)
        self._path, self._columns, self._lock, self._groups = path, tuple(columns), threading.Lock(), {}
        metadata = self._file.metadata
        sizes = [metadata.row_group(g).num_rows for g in range(metadata.num_row_groups)]
        if min(sizes, default=0) < 0:
            raise ValueError(f"{path} is not a Parquet file: a row group of {min(sizes)} rows.")
        self._bounds = np.cumsum([0, *sizes])
        if len(sizes) > GROUPS and max(sizes) > LARGE_GROUP:
            log.warning("%s has row groups of up to %d rows, each decoded whole for a row; write it with groups of 1,000", path, max(sizes))

    def __reduce__(self):
        return Parquet, (self._path, self._columns)  # open files and locks do not travel to workers

    def __len__(self) -> int:
        return int(self._bounds[-1])

    def __getitem__(self, i: int) -> dict[str, Any]:
        group = int(np.searchsorted(self._bounds, i, side="right")) - 1
        table = self._group(group)
        return _row(self._path, table, self._columns, i - int(self._bounds[group]), i)

    def rows(self) -> Iterator[dict[str, Any] | None]:
        """All rows in order; None for one that cannot be read."""
        for group, size in enumerate(np.diff(self._bounds).tolist()):
            try:
                yield from self._group(group).to_pylist()
            except (BadRecord, UnicodeDecodeError):
                yield from itertools.repeat(None, size)

    def names(self, column: str) -> tuple[str, ...]:
        """What the numbers of a column stand for; () where the file does not say."""
        return _class_names(self._file.schema_arrow, column)

    def _group(self, number: int):
        import pyarrow

        with self._lock:
            if number not in self._groups:
                while len(self._groups) >= GROUPS:
                    del self._groups[next(iter(self._groups))]
                first, end = self._bounds[number : number + 2].tolist()
                try:
                    table = self._file.read_row_group(number, columns=list(self._columns))
                    if table.num_rows != end - first:
                        raise ValueError(f"{table.num_rows} rows, where {end - first} were promised")
                except (pyarrow.ArrowException, OSError, ValueError) as error:
                    raise BadRecord(f"{self._path} row group {number} cannot be read: {error}", "malformed", until=end) from error
                self._groups[number] = table
            return self._groups[number]


class Arrow:
    """A folder that `datasets.Dataset.save_to_disk` wrote, without that library; its files are mapped into memory.

    They may be deleted while they are read, but not cut short or written over.

    Raises:
        ValueError: no such folder, one of several splits, or a column that it lacks.
    """

    def __init__(self, path: str, columns: Sequence[str]):
        import pyarrow

        with files.described_by(f"{path}/state.json", "files"):
            tables = [_open_stream(files.join(path, entry["filename"])) for entry in _state(path)["_data_files"]]
        self._table = pyarrow.concat_tables(tables)
        check_columns(path, self._table.column_names, columns)
        self._path, self._columns = path, tuple(columns)
        self._table = self._table.select(list(dict.fromkeys(columns)))

    def __reduce__(self):
        return Arrow, (self._path, self._columns)

    def __len__(self) -> int:
        return self._table.num_rows

    def __getitem__(self, i: int) -> dict[str, Any]:
        return _row(self._path, self._table, self._columns, i, i)

    def rows(self) -> Iterator[dict[str, Any] | None]:
        """All rows in order; None for one that cannot be read."""
        return readable(self)

    def names(self, column: str) -> tuple[str, ...]:
        """What the numbers of a column stand for; () where the folder does not say."""
        return _class_names(self._table.schema, column)


def is_saved_dataset(path: str) -> bool:
    """Whether a path is a folder of `save_to_disk`: of one data set, or of several splits."""
    return not files.is_remote(path) and any(files.exists(f"{path}/{name}") for name in ("state.json", "dataset_dict.json"))


def check_columns(path: str, found: Sequence[str], needed: Sequence[str]) -> None:
    """Raises `ValueError` where a table lacks a column."""
    if missing := [name for name in needed if name not in found]:
        raise ValueError(f"{path} has no column {missing[0]!r}; it has: {', '.join(found) or 'none'}.")


def _row(path: str, table, columns: Sequence[str], place: int, number: int) -> dict[str, Any]:
    import pyarrow

    try:
        row = {name: table[name].slice(place, 1) for name in columns}
        for column in row.values():
            column.validate(full=True)  # a damaged offset would lead anywhere in memory
        return {name: column[0].as_py() for name, column in row.items()}
    except UnicodeDecodeError as error:
        raise BadRecord(f"{path} row {number + 1} is not UTF-8 at its byte {error.start + 1}", "encoding") from error
    except (pyarrow.ArrowException, ValueError, OverflowError) as error:
        kind = "encoding" if "UTF8" in str(error) else "malformed"
        raise BadRecord(f"{path} row {number + 1}: {error}", kind) from error


def _state(path: str) -> dict[str, Any]:
    if files.exists(f"{path}/dataset_dict.json"):
        splits = json.loads(files.read(f"{path}/dataset_dict.json"))["splits"]
        raise ValueError(f"{path} holds the splits {', '.join(splits)}; set options.files to one of them, such as {path}/{splits[0]}.")
    state = json.loads(files.read(f"{path}/state.json"))
    if "_indices_data_files" in state and state["_indices_data_files"]:
        raise ValueError(f"{path} was saved with an order of its own; call flatten_indices() before save_to_disk().")
    return state


def _open_stream(path: str):
    import pyarrow

    try:
        with pyarrow.memory_map(path) as source:
            return pyarrow.ipc.open_stream(source).read_all()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"{path} is not an Arrow stream: {error}") from error


def _class_names(schema, column: str) -> tuple[str, ...]:
    text = (schema.metadata or {}).get(b"huggingface")
    feature = json.loads(text)["info"]["features"].get(column) if text else None
    return tuple(feature["names"]) if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" else ()
