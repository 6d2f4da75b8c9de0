"""What stands around a source and changes its records, one by one."""

import abc
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np


class Around(abc.ABC):
    """A source with as many records as another one, each of them changed by `_changed(i, record)`.

    Args:
        source: any source.
    """

    def __init__(self, source: Any):
        self._source = source
        self.counts = getattr(source, "counts", {})

    @abc.abstractmethod
    def _changed(self, i: int, record: Mapping[str, Any]) -> dict[str, Any]:
        """What record i of the source becomes."""

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return self._changed(i, self._source[i])

    def read(self, i: int, rng: np.random.Generator | None) -> dict[str, Any]:
        """Record i, with whatever the source draws."""
        return self._changed(i, self._source.read(i, rng) if hasattr(self._source, "read") else self._source[i])

    def id(self, i: int) -> int:
        """What records that are positives of each other share."""
        return self._source.id(i) if hasattr(self._source, "id") else self._source[i]["id"]

    def texts(self) -> Iterator[str]:
        """Those that tokenizers learn from, unchanged."""
        return self._source.texts()
