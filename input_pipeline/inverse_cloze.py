"""Pairs out of single texts: a part of a passage asks for the rest of it."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

# Where sentences end: a full stop, then a beginning; or an empty line, as after a heading.
ENDS = {"sentence": re.compile(r"(?<=[.!?])\s+(?=[^\W_a-z]|[\"'`(\[<*:>-])|\n\s*\n"), "line": re.compile(r"\n")}
JOINTS = {"sentence": " ", "line": "\n"}
WORD = re.compile(r"\w+")


class InverseCloze:
    """A source whose passages are halves of pairs: `query`, one part of a passage, and `passage`, the others.

    Parts that hold the query's words too go with it, so that a query is no piece of its passage; but in a share of the reads the passage
    stays whole. Passages without a part that could ask are left out, once and for all. Training draws another part in each epoch;
    elsewhere the first one that can asks. Other texts of the records are dropped, numbers stay: `id` is that of the passage.

    Args:
        source: any source of texts.
        column: the passages.
        unit: parts of a passage: `sentence`, or `line` for code.
        keep: how often the passage stays whole.
        least: words of a query at least; of a passage without it too.

    Raises:
        ValueError: a column that records lack, another unit, a share that is none, or no passage that can be split.

    Source: Lee et al. 2019 (ORQA), arXiv:1906.00300; Chang et al. 2020, arXiv:2002.03932, removes the sentence
        always. Both put a title before the passage, which texts here have not.
    """

    def __init__(self, source: Any, *, column: str = "text", unit: str = "sentence", keep: float = 0.1, least: int = 3):
        if unit not in ENDS or not 0 <= keep <= 1 or least < 1:
            raise ValueError(
                f"inverse_cloze has unit {unit!r}, keep {keep} and least {least}; set unit to 'sentence' or 'line', keep to a share, 0.1, "
                "and least to 1 or more words."
            )
        if not isinstance(source[0].get(column), str):
            raise ValueError(f"inverse_cloze.column is {column!r}, but records hold {', '.join(source[0])}; set it to one that is a text.")
        self._source, self._column, self._unit, self._keep, self._least = source, column, unit, keep, least
        self._kept = [i for i in range(len(source)) if self._pair(self._parts(i)) is not None]
        if not self._kept:
            raise ValueError(f"no text of {column!r} has two {unit}s that could be parted; set inverse_cloze.unit to the other kind.")
        self.counts = getattr(source, "counts", {})

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return self.read(i, None)

    def read(self, i: int, rng: np.random.Generator | None) -> dict[str, Any]:
        """Record i with a part drawn by `rng`, or the first."""
        parts = self._parts(self._kept[i])
        whole = rng is not None and rng.random() < self._keep
        query, passage = self._pair(parts, None if rng is None else rng.permutation(len(parts)))
        others = {name: value for name, value in self._source[self._kept[i]].items() if not isinstance(value, (str, list))}
        return {"query": query, "passage": JOINTS[self._unit].join(parts) if whole else passage} | others

    def id(self, i: int) -> int:
        """What records that are positives of each other share."""
        i = self._kept[i]
        return self._source.id(i) if hasattr(self._source, "id") else self._source[i]["id"]

    def texts(self) -> Iterator[str]:
        """Those of the source."""
        return self._source.texts()

    def _parts(self, i: int) -> list[str]:
        found = (part for part in ENDS[self._unit].split(self._source[i][self._column]) if part.strip())
        return [part.rstrip() for part in found] if self._unit == "line" else [" ".join(part.split()) for part in found]

    def _pair(self, parts: list[str], order=None) -> tuple[str, str] | None:
        """The first part in some order that leaves a passage without itself, and that passage."""
        for k in range(len(parts)) if order is None else order:
            query = parts[k].strip()
            passage = JOINTS[self._unit].join(part for part in parts if query not in part)
            if len(WORD.findall(query)) >= self._least <= len(WORD.findall(passage)) and query not in passage:
                return query, passage
        return None
