"""Rows of JSONL, CSV, TSV and Parquet files by number, without holding a file in memory.

A text file costs 8 bytes a row, for where it begins; of a Parquet file a few decoded row groups are kept.
Leaves what a row means to `input_pipeline/sources/pairs.py`.
"""

import array
import csv
import io
import itertools
import json
import logging
import pathlib
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from input_pipeline.bad_records import BadRecord

log = logging.getLogger(__name__)

GROUPS = 8  # decoded row groups kept of a Parquet file
LARGE_GROUP = 20_000  # rows in a group from which single rows in random order are slow to read


class Lines:
    """A text file whose rows begin at known bytes.

    Args:
        path: of the file.
        offsets: int64 [N + 1], where each row begins, and the end of the file.
        parse: makes a dict of the text of one row, or raises ValueError.
    """

    def __init__(self, path: str, offsets: np.ndarray, parse: Callable[[str], dict[str, Any]]):
        self._path, self._offsets, self._parse = path, offsets, parse

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, i: int) -> dict[str, Any]:
        with open(self._path, "rb") as file:  # a handle for each read: threads and workers share nothing
            return self._read(file, i)

    def rows(self) -> Iterator[dict[str, Any] | None]:
        """All rows in order; None for one that cannot be read."""
        with open(self._path, "rb") as file:
            for i in range(len(self)):
                try:
                    yield self._read(file, i)
                except BadRecord:
                    yield None

    def _read(self, file: BinaryIO, i: int) -> dict[str, Any]:
        start, stop = self._offsets[i : i + 2].tolist()
        file.seek(start)
        try:
            return self._parse(file.read(stop - start).decode("utf-8"))
        except UnicodeDecodeError as error:
            raise BadRecord(f"{self._path} row {i + 1} is not UTF-8 at its byte {error.start + 1}") from error
        except (ValueError, csv.Error, StopIteration, RecursionError) as error:
            raise BadRecord(f"{self._path} row {i + 1}: {error}") from error


class Parquet:
    """A Parquet file, read by row groups; `columns` are all that is decoded.

    Raises:
        ValueError: no Parquet file, or a column that it lacks.
    """

    def __init__(self, path: str, columns: Sequence[str]):
        import pyarrow.parquet

        try:
            self._file = pyarrow.parquet.ParquetFile(path, memory_map=True)
        except pyarrow.ArrowInvalid as error:
            raise ValueError(f"{path} is not a Parquet file: {error}") from error
        _check_columns(path, self._file.schema_arrow.names, columns)
        self._path, self._columns, self._lock, self._groups = path, tuple(columns), threading.Lock(), {}
        metadata = self._file.metadata
        sizes = [metadata.row_group(g).num_rows for g in range(metadata.num_row_groups)]
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
        return {name: table[name][i - int(self._bounds[group])].as_py() for name in self._columns}

    def rows(self) -> Iterator[dict[str, Any] | None]:
        """All rows in order."""
        return itertools.chain.from_iterable(self._group(g).to_pylist() for g in range(len(self._bounds) - 1))

    def _group(self, number: int):
        with self._lock:
            if number not in self._groups:
                while len(self._groups) >= GROUPS:
                    del self._groups[next(iter(self._groups))]
                self._groups[number] = self._file.read_row_group(number, columns=list(self._columns))
            return self._groups[number]


def open_table(path: str, needed: Sequence[str], header: Sequence[str] = ()) -> Lines | Parquet:
    """The rows of a file, by its suffix: .jsonl, .csv, .tsv or .parquet.

    JSONL has an object a line. CSV quotes as spreadsheets do, so that a field may span lines; TSV knows no quotes. Empty lines
    are no rows.

    Args:
        path: of the file.
        needed: columns that will be asked for.
        header: names of the columns of a CSV or TSV file whose first row is data; () takes them from the first row.

    Raises:
        ValueError: another suffix, or a table without a needed column.
    """
    suffix = pathlib.Path(path).suffix.lower()
    if suffix == ".parquet":
        return Parquet(path, needed)
    if suffix == ".jsonl":
        return Lines(path, _offsets(path, _one_by_one), _parse_json)
    if suffix not in (".csv", ".tsv"):
        raise ValueError(f"{path} must end in .jsonl, .csv, .tsv or .parquet, unpacked, so that rows can be found; convert it.")
    csv.field_size_limit(sys.maxsize)  # else a field of more than 128 KiB is an error
    dialect = Dialect(",", csv.QUOTE_MINIMAL) if suffix == ".csv" else Dialect("\t", csv.QUOTE_NONE)
    offsets = _offsets(path, dialect.rows)
    if not header:
        header = _first_row(path, offsets, dialect)
        offsets = offsets[1:] if len(offsets) > 1 else offsets
    _check_columns(path, header, needed)
    return Lines(path, offsets, ParseCsv(tuple(header), dialect))


class Dialect(NamedTuple):
    """How a file separates and quotes its fields."""

    delimiter: str
    quoting: int

    def rows(self, lines: Iterable[str]) -> Iterator[list[str]]:
        return csv.reader(lines, delimiter=self.delimiter, quoting=self.quoting)


class ParseCsv(NamedTuple):
    """The text of one row as a dict."""

    header: tuple[str, ...]
    dialect: Dialect

    def __call__(self, text: str) -> dict[str, Any]:
        fields = next(row for row in self.dialect.rows(io.StringIO(text, newline="")) if row)
        if len(fields) != len(self.header):
            raise ValueError(f"{len(fields)} fields, where there are {len(self.header)} columns")
        return dict(zip(self.header, fields, strict=True))


def _parse_json(text: str) -> dict[str, Any]:
    row = json.loads(text.removeprefix("\ufeff"))
    if not isinstance(row, dict):
        raise ValueError(f"a {type(row).__name__}, not an object")
    return row


def _one_by_one(lines: Iterable[str]) -> Iterator[list[str]]:
    """Each line as a row, an empty one as none."""
    return ([line] if line.strip() else [] for line in lines)


def _offsets(path: str, rows: Callable[[Iterable[str]], Iterator[list[str]]]) -> np.ndarray:
    """Where each row that is not empty begins, and the end of the file; `rows` draws as many lines as a row has."""
    place = 0

    def lines(file: BinaryIO) -> Iterator[str]:
        nonlocal place
        for line in file:
            place += len(line)
            yield line.decode("latin-1")  # separators and quotes are the same bytes in UTF-8, and no byte is an error

    starts, before = array.array("q"), 0
    with open(path, "rb") as file:
        for row in rows(lines(file)):
            if row:
                starts.append(before)
            before = place
    return np.array(starts + array.array("q", [place]), np.int64)


def _first_row(path: str, offsets: np.ndarray, dialect: Dialect) -> list[str]:
    with open(path, "rb") as file:
        text = file.read(int(offsets[1])) if len(offsets) > 1 else b""
    return next((row for row in dialect.rows(io.StringIO(text.decode("utf-8-sig"), newline="")) if row), [])


def _check_columns(path: str, found: Sequence[str], needed: Sequence[str]) -> None:
    if missing := [name for name in needed if name not in found]:
        raise ValueError(f"{path} has no column {missing[0]!r}; it has: {', '.join(found) or 'none'}.")
