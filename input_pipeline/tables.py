"""Rows of files by number, without holding a file in memory.

A table has a length, rows by number (a dict, or `BadRecord`), `rows()` and travels to other processes. A text file costs 8 bytes a row,
for where it begins. Leaves what a row means to `input_pipeline/sources/`, Arrow and Parquet to `input_pipeline/arrow_tables.py`,
TFRecord and ArrayRecord to `input_pipeline/example_tables.py`.
"""

import array
import csv
import io
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple, Protocol

import numpy as np

from input_pipeline import files, index_cache
from input_pipeline.arrow_tables import Arrow, Parquet, check_columns, is_saved_dataset
from input_pipeline.bad_records import BadRecord
from input_pipeline.example_tables import ArrayRecord, TfRecord

ENDINGS = (".jsonl", ".csv", ".tsv", ".parquet", ".tfrecord", ".array_record")


class Table(Protocol):
    """Rows of one file."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> dict[str, Any]: ...

    def rows(self) -> Iterator[dict[str, Any] | None]: ...

    def names(self, column: str) -> tuple[str, ...]: ...


class Rows:
    """Tables one after the other, as one.

    Args:
        tables: in order.
    """

    def __init__(self, tables: Sequence[Table]):
        self._tables = list(tables)
        self._bounds = np.cumsum([0, *map(len, self._tables)])

    def __len__(self) -> int:
        return int(self._bounds[-1])

    def __getitem__(self, i: int) -> dict[str, Any]:
        number = int(np.searchsorted(self._bounds, i, side="right")) - 1
        first = int(self._bounds[number])
        try:
            return self._tables[number][i - first]
        except BadRecord as error:
            raise BadRecord(str(error), error.kind, until=None if error.until is None else first + error.until) from error

    def rows(self) -> Iterator[dict[str, Any] | None]:
        """All rows in order; None for one that cannot be read."""
        return (row for table in self._tables for row in table.rows())

    def names(self, column: str) -> tuple[str, ...]:
        """What the numbers of a column stand for, as the first table says; () where it does not."""
        return self._tables[0].names(column)


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
        start, stop = self._offsets[i : i + 2].tolist()
        return self._row(files.read(self._path, start, stop), i)

    def rows(self) -> Iterator[dict[str, Any] | None]:
        """All rows in order; None for one that cannot be read."""
        with files.open_binary(self._path) as file:
            for i, (start, stop) in enumerate(zip(self._offsets[:-1].tolist(), self._offsets[1:].tolist(), strict=True)):
                file.seek(start)
                try:
                    yield self._row(file.read(stop - start), i)
                except BadRecord:
                    yield None

    def names(self, column: str) -> tuple[str, ...]:
        """Text files do not say what numbers stand for."""
        return ()

    def _row(self, line: bytes, i: int) -> dict[str, Any]:
        try:
            return self._parse(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise BadRecord(f"{self._path} row {i + 1} is not UTF-8 at its byte {error.start + 1}", "encoding") from error
        except (ValueError, csv.Error, StopIteration, RecursionError) as error:
            raise BadRecord(f"{self._path} row {i + 1}: {error}", "malformed") from error


def open_rows(patterns: Sequence[str], needed: Sequence[str], header: Sequence[str] = ()) -> Rows:
    """The rows of all files that patterns name, one table after the other.

    Args:
        patterns: see `files.expand`; a folder of `datasets.Dataset.save_to_disk` counts as a file.
        needed: columns that will be asked for.
        header: see `open_table`.

    Raises:
        ValueError: no such file, a file of another kind, or one without a needed column.
    """
    rows = Rows([open_table(path, needed, header) for path in files.expand(patterns)])
    if not len(rows):
        raise ValueError(f"the files of options.files have no rows: {', '.join(patterns)}.")
    return rows


def open_table(path: str, needed: Sequence[str], header: Sequence[str] = ()) -> Table:
    """The rows of a file, by its ending, or of a folder that the `datasets` library saved.

    JSONL has an object a line. CSV quotes as spreadsheets do, so that a field may span lines; TSV knows no quotes. Empty lines
    are no rows. TFRecord and ArrayRecord files hold `tf.train.Example`s, whose features are the columns.

    Args:
        path: of the file; TFRecord and ArrayRecord files may end in `-00000-of-00010` too.
        needed: columns that will be asked for.
        header: names of the columns of a CSV or TSV file whose first row is data; () takes them from the first row.

    Raises:
        ValueError: another suffix, no such file, or a table without a needed column.
    """
    try:
        return _open_table(path, needed, header)
    except (FileNotFoundError, PermissionError) as error:
        raise ValueError(f"{path} cannot be opened: {error}; set options.files to paths or patterns of files.") from error


def _open_table(path: str, needed: Sequence[str], header: Sequence[str]) -> Table:
    if is_saved_dataset(path):
        return Arrow(path, needed)
    suffix = files.suffix(re.sub(r"-\d+-of-\d+$", "", path))
    if suffix == ".parquet":
        return Parquet(path, needed)
    if suffix in (".tfrecord", ".array_record"):
        return (TfRecord if suffix == ".tfrecord" else ArrayRecord)(path, needed)
    if suffix == ".jsonl":
        return Lines(path, _offsets(path, "jsonl", _one_by_one), _parse_json)
    if suffix not in (".csv", ".tsv"):
        raise ValueError(f"{path} must end in one of {', '.join(ENDINGS)}, unpacked, so that rows can be found; convert it.")
    csv.field_size_limit(sys.maxsize)  # else a field of more than 128 KiB is an error
    dialect = Dialect(",", csv.QUOTE_MINIMAL) if suffix == ".csv" else Dialect("\t", csv.QUOTE_NONE)
    offsets = _offsets(path, repr(dialect), dialect.rows)
    if not header:
        header = _first_row(path, offsets, dialect)
        offsets = offsets[1:] if len(offsets) > 1 else offsets
    check_columns(path, header, needed)
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


def _offsets(path: str, kind: str, rows: Callable[[Iterable[str]], Iterator[list[str]]]) -> np.ndarray:
    return index_cache.cached(path, f"rows 1 {kind}", lambda path: {"offsets": _find_rows(path, rows)})["offsets"]


def _find_rows(path: str, rows: Callable[[Iterable[str]], Iterator[list[str]]]) -> np.ndarray:
    """Where each row that is not empty begins, and the end of the file; `rows` draws as many lines as a row has."""
    place = 0

    def lines(file: BinaryIO) -> Iterator[str]:
        nonlocal place
        for line in file:
            place += len(line)
            yield line.decode("latin-1")  # separators and quotes are the same bytes in UTF-8, and no byte is an error

    starts, before = array.array("q"), 0
    with files.open_binary(path) as file:
        found = rows(lines(file))
        while True:
            try:
                row = next(found)
            except StopIteration:
                break
            except csv.Error:  # a row that is damaged, and will be when it is asked for
                row = ["damaged"]
            if row:
                starts.append(before)
            before = place
    return np.array(starts + array.array("q", [place]), np.int64)


def _first_row(path: str, offsets: np.ndarray, dialect: Dialect) -> list[str]:
    with files.open_binary(path) as file:
        text = file.read(int(offsets[1])) if len(offsets) > 1 else b""
    try:
        return next((row for row in dialect.rows(io.StringIO(text.decode("utf-8-sig"), newline="")) if row), [])
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"the first row of {path}, with the names of its columns, cannot be read: {error}") from error
