"""Pairs of texts from files of your own: queries, what answers them, and what does not.

Leaves finding and decoding rows to `input_pipeline/tables.py`.
"""

import glob
import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from input_pipeline import tables
from input_pipeline.bad_records import BadRecord
from input_pipeline.tasks import RankingTask, ranking_task


class Pairs:
    """Rows of JSONL, CSV, TSV or Parquet files as pairs of texts; only rows that are asked for are read.

    Records have `query`, `passage`, `id` and, with `k`, `negatives`, a list of k texts. A column of positives or negatives holds a
    text, a list of texts, or nothing. Training draws one positive and k negatives anew in each epoch; elsewhere the first count. Fewer
    negatives than k are repeated.

    Args:
        files: paths or patterns such as `data/*.jsonl`; each pattern's files in the order of their names.
        query: column of the query.
        positive: column of what answers it.
        negatives: columns of what does not, together.
        k: negatives in a record; 0 leaves them out.
        draw: False takes the first positive and the first k negatives in training too.
        id: column whose equal values make rows positives of each other (it may be that of the positive); empty: no rows are.
        header: names of the columns of CSV or TSV files whose first row is data already.

    Raises:
        ValueError: no file, files without rows, a file of another kind, a column that is missing, or k without negatives.
    """

    def __init__(
        self, *, files: tuple[str, ...] = (), query: str = "query", positive: str = "positive", negatives: tuple[str, ...] = (),
        k: int = 0, draw: bool = True, id: str = "", header: tuple[str, ...] = (),
    ):  # fmt: skip
        if k and not negatives:
            raise ValueError(f"k is {k}, but no column holds negatives; set options.negatives to their names, or options.k to 0.")
        self._query, self._positive, self._negatives, self._k, self._draw = query, positive, tuple(negatives), k, draw
        columns = list(dict.fromkeys([query, positive, *negatives, *([id] if id else [])]))
        self._tables = [tables.open_table(path, columns, header) for path in _paths(files)]
        self._bounds = np.cumsum([0, *map(len, self._tables)])
        if not len(self):
            raise ValueError(f"the files of options.files have no rows: {', '.join(files)}.")
        self._ids = _ids(self._tables, id) if id else None
        self.counts = {"id": len(self) if self._ids is None else int(self._ids.max()) + 1}

    def __len__(self) -> int:
        return int(self._bounds[-1])

    def __getitem__(self, i: int) -> dict[str, Any]:
        return self.read(i, None)

    def read(self, i: int, rng: np.random.Generator | None) -> dict[str, Any]:
        """Record i; `rng` draws the positive and the negatives.

        Raises:
            BadRecord: a row that cannot be decoded, or without one of the texts it needs.
        """
        rng = rng if self._draw else None
        query, positives, negatives = self._texts(i)
        positive = positives[0 if rng is None else int(rng.integers(len(positives)))]
        record = {"query": query, "passage": positive, "id": i if self._ids is None else int(self._ids[i])}
        if self._k:
            if not negatives:
                raise BadRecord(f"row {i + 1} has no negatives in {', '.join(self._negatives)}")
            order = range(len(negatives)) if rng is None else rng.permutation(len(negatives)).tolist()
            record["negatives"] = [negatives[order[n % len(order)]] for n in range(self._k)]
        return record

    def texts(self) -> Iterator[str]:
        """All texts of the rows that can be read, in order; one that stands in several rows comes several times."""
        for i in range(len(self)):
            try:
                query, positives, negatives = self._texts(i)
            except BadRecord:
                continue
            yield query
            yield from positives + (negatives if self._k else [])

    def ranking(self) -> RankingTask:
        """Every query against all positives and negatives; all positives of a query, from whatever rows, are relevant.

        Raises:
            ValueError: a row that cannot be read.
        """
        try:
            rows = [self._texts(i) for i in range(len(self))]
        except BadRecord as error:
            raise ValueError(f"{error}; an evaluation needs every row of config.evals.<label>.data.options.files.") from error
        return ranking_task(((query, text) for query, positives, _ in rows for text in positives), (n for row in rows for n in row[2]))

    def _texts(self, i: int) -> tuple[str, list[str], list[str]]:
        number = int(np.searchsorted(self._bounds, i, side="right")) - 1
        row = self._tables[number][i - int(self._bounds[number])]
        query, positives = _in_column(row, self._query, i), _in_column(row, self._positive, i)
        if len(query) != 1 or not positives:
            name = self._positive if len(query) == 1 else self._query
            raise BadRecord(f"row {i + 1}: {name!r} holds {len(positives) if len(query) == 1 else len(query)} texts")
        return query[0], positives, [text for name in self._negatives for text in _in_column(row, name, i)]


def _paths(patterns: tuple[str, ...]) -> list[str]:
    found = {pattern: sorted(glob.glob(pattern, recursive=True)) for pattern in patterns}
    if missing := [pattern for pattern in patterns if not found[pattern]] or not patterns:
        raise ValueError(f"no file matches {missing[0] if patterns else 'nothing'}; set options.files to paths or patterns of files.")
    return [path for paths in found.values() for path in paths]


def _in_column(row: dict[str, Any], name: str, i: int) -> list[str]:
    """The texts of a column that are not blank."""
    value = row.get(name)
    values = value if isinstance(value, list) else [] if value is None else [value]
    for text in values:
        if not isinstance(text, str):
            raise BadRecord(f"row {i + 1}: {name!r} holds a {type(text).__name__}, not a text")
    return [text for text in values if text.strip()]


def _ids(files: list, column: str) -> np.ndarray:
    """Dense int32 numbers, equal where the column's values are; by 8 bytes of a hash, so that no value is kept."""
    digest = lambda value: int.from_bytes(hashlib.blake2b(value.encode(), digest_size=8).digest(), "little")
    rows = enumerate(row for table in files for row in table.rows())
    keys = (f"row {i}" if row is None or row.get(column) is None else f"value {row[column]}" for i, row in rows)
    return np.unique(np.fromiter(map(digest, keys), np.uint64), return_inverse=True)[1].astype(np.int32)
