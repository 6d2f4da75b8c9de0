"""A source whose records share an `id` where their texts are nearly the same, so that none is taken for a wrong answer to another."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from input_pipeline import index_cache, near_duplicates
from input_pipeline.around import Around
from input_pipeline.bad_records import BadRecord


class Grouped(Around):
    """Records as the source has them, but for `id`: those that share one still do, and those with a text nearly alike in the same view.

    Similarity goes through others: a record may share an `id` with one that is less similar. Texts are compared once, at 512 bytes and a
    tenth of a millisecond each, and the outcome is kept with the indexes of files, by what the texts are; reading them stays.

    Args:
        source: any source of texts; negatives count for nothing, nor do images.
        similarity: Jaccard similarity of shingles of three words, by MinHash, from which texts count as the same: 0.8 for example.

    Raises:
        ValueError: a similarity that is not above 0 and at most 1.
    """

    def __init__(self, source: Any, similarity: float):
        if not 0 < similarity <= 1:
            raise ValueError(f"near_duplicates is {similarity}; set it above 0 and to at most 1, 0.8 for example.")
        super().__init__(source)
        digest, count, own = hashlib.blake2b(digest_size=16), len(source), {}
        for record, view, text in _texts(source):
            digest.update(repr((record, view, text)).encode("utf-8", "surrogatepass"))
        key = ("near duplicates 1", similarity, count, digest.hexdigest())
        alike = index_cache.kept(key, lambda: {"groups": _groups(source, similarity)}, "texts that are nearly alike")["groups"]
        ids = np.array([own.setdefault(self._own(i), len(own)) for i in range(count)], np.int64)
        rows = np.arange(count)
        self._ids = near_duplicates.joined(
            count + len(own) + count, np.concatenate([rows, rows]), np.concatenate([count + ids, count + len(own) + alike])
        )[:count]
        self._ids = np.unique(self._ids, return_inverse=True)[1].astype(np.int32)
        self.counts = self.counts | {"id": int(self._ids.max()) + 1}

    def _own(self, i: int) -> Any:
        try:
            return self._source.id(i) if hasattr(self._source, "id") else self._source[i]["id"]
        except BadRecord:
            return f"record {i}"

    def _changed(self, i: int, record: Mapping[str, Any]) -> dict[str, Any]:
        return dict(record) | {"id": self.id(i)}

    def id(self, i: int) -> int:
        """What records that are positives of each other share."""
        return int(self._ids[i])


def _texts(source: Any) -> Iterator[tuple[int, str, str]]:
    """(record, view, text) of all texts but negatives; a record that cannot be read has none."""
    for i in range(len(source)):
        try:
            if hasattr(source, "captions"):
                columns = {"text": source.captions(i)}  # without reading the image
            else:
                columns = source.whole(i) if hasattr(source, "whole") else source[i]
        except BadRecord:
            continue
        for view, value in columns.items():
            if isinstance(value, (str, list)) and view != "negatives":
                yield from ((i, view, text) for text in ([value] if isinstance(value, str) else value))


def _groups(source: Any, similarity: float) -> np.ndarray:
    """int64 [N], equal for records that texts of the same view connect."""
    found: dict[str, tuple[list[int], list[np.ndarray]]] = {}
    for record, view, text in _texts(source):
        rows, signatures = found.setdefault(view, ([], []))
        rows.append(record)
        signatures.append(near_duplicates.signature(text))
    nodes, first, second = len(source), [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for rows, signatures in found.values():
        groups = near_duplicates.groups(np.stack(signatures), similarity)
        first.append(np.array(rows))
        second.append(nodes + groups)
        nodes += int(groups.max()) + 1
    return near_duplicates.joined(nodes, np.concatenate(first), np.concatenate(second))[: len(source)]
