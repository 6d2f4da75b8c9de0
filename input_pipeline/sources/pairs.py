"""Pairs of texts from files of your own: queries, what answers them, and what does not.

Leaves finding and decoding rows to `input_pipeline/tables.py`.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from input_pipeline import columns, tables
from input_pipeline.bad_records import BadRecord
from input_pipeline.tasks import RankingTask, ranking_task


class Pairs:
    """Rows of files as pairs of texts; only rows that are asked for are read.

    Records have `query`, `passage`, `id` and, with `k`, `negatives`, a list of k texts. A column of positives or negatives holds a
    text, a list of texts, or nothing. Training draws one positive and k negatives anew in each epoch; elsewhere the first count. Fewer
    negatives than k are repeated. Columns of `numbers` (a teacher's scores, a label) are float32 columns of the batch by their own names.

    Args:
        files: paths, URLs or patterns (`data/*.jsonl`, `part-{00..09}.parquet`) of what `tables.open_table` reads: JSONL, CSV, TSV,
            Parquet, TFRecord, ArrayRecord, folders that the `datasets` library saved.
        query: column of the query.
        positive: column of what answers it.
        negatives: columns of what does not, together.
        k: negatives in a record; 0 leaves them out.
        draw: False takes the first positive and the first k negatives in training too.
        id: column whose equal values make rows positives of each other (it may be that of the positive); empty: no rows are.
        numbers: columns of numbers, or of lists with as many in every row, that records have too.
        header: names of the columns of CSV or TSV files whose first row is data already.
        max_characters: a longer text makes a record bad: splitting it into tokens would hold everything up.

    Raises:
        ValueError: no file, files without rows, a file of another kind, a column that is missing or of a name that is taken, or k
            without negatives.
    """

    def __init__(
        self, *, files: tuple[str, ...] = (), query: str = "query", positive: str = "positive", negatives: tuple[str, ...] = (),
        k: int = 0, draw: bool = True, id: str = "", numbers: tuple[str, ...] = (), header: tuple[str, ...] = (),
        max_characters: int = 1_000_000,
    ):  # fmt: skip
        if k and not negatives:
            raise ValueError(f"k is {k}, but no column holds negatives; set options.negatives to their names, or options.k to 0.")
        self._query, self._positive, self._negatives, self._k, self._draw = query, positive, tuple(negatives), k, draw
        if taken := {"query", "passage", "id", "negatives"} & set(numbers):
            raise ValueError(f"options.numbers names {sorted(taken)}, which records have already; give the column another name.")
        self._most, self._numbers = max_characters, tuple(numbers)
        self._rows = tables.open_rows(files, list(dict.fromkeys([query, positive, *negatives, *numbers])), header)
        self._ids = columns.numbers(columns.of_rows(tables.open_rows(files, [id], header), id)) if id else None
        self.counts = {"id": len(self) if self._ids is None else int(self._ids.max()) + 1}

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return self.read(i, None)

    def read(self, i: int, rng: np.random.Generator | None) -> dict[str, Any]:
        """Record i; `rng` draws the positive and the negatives.

        Raises:
            BadRecord: a row that cannot be decoded, or without one of the texts or numbers it needs.
        """
        rng = rng if self._draw else None
        query, positives, negatives = self._texts(i)
        positive = positives[0 if rng is None else int(rng.integers(len(positives)))]
        record = {"query": query, "passage": positive, "id": self.id(i)}
        row = self._rows[i] if self._numbers else {}
        record |= {name: columns.numbers_of(row, name, f"row {i + 1}") for name in self._numbers}
        if self._k:
            if not negatives:
                raise BadRecord(f"row {i + 1} has no negatives in {', '.join(self._negatives)}", "missing")
            record["negatives"] = columns.drawn(negatives, self._k, rng)
        return record

    def whole(self, i: int) -> dict[str, Any]:
        """Record i with all its positives and negatives, lists.

        Raises:
            BadRecord: as `read`.
        """
        query, positives, negatives = self._texts(i)
        return {"query": query, "passage": positives, "id": self.id(i)} | ({"negatives": negatives} if self._negatives else {})

    def id(self, i: int) -> int:
        """What rows that are positives of each other share."""
        return i if self._ids is None else int(self._ids[i])

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
        row = self._rows[i]
        texts = lambda name: columns.texts(row, name, i, self._most)
        query, positives = texts(self._query), texts(self._positive)
        if len(query) != 1 or not positives:
            name = self._positive if len(query) == 1 else self._query
            raise BadRecord(f"row {i + 1}: {name!r} holds {len(positives) if len(query) == 1 else len(query)} texts", "missing")
        return query[0], positives, [text for name in self._negatives for text in texts(name)]
