"""What a source hands to an evaluator, and what it raises for a record it cannot read.

Leaves encoding and metrics to `evals/`.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np


class BadRecord(Exception):
    """A record that cannot be read; batching replaces it by its successor and counts it."""


@dataclasses.dataclass(frozen=True)
class RetrievalTask:
    """Images and texts to rank against each other.

    Args:
        images: uint8 arrays [H W C], the queries of img2txt.
        texts: the candidates of img2txt, the queries of txt2img; distinct.
        relevant: int array [P 2] of (image index, text index), each pair once, sorted.
        groups: one label per image, for colouring plots.
    """

    images: Sequence[np.ndarray]
    texts: Sequence[str]
    relevant: np.ndarray
    groups: Sequence[str]


@dataclasses.dataclass(frozen=True)
class RankingTask:
    """Candidates to rank for each query, as a search engine does.

    Args:
        queries: raw values of one view, texts as a rule.
        corpus: raw values of another view, the candidates of every query.
        relevant: int array [P 2] of (query index, corpus index), or [P 3] with a grade; each pair once. A grade of 0 or below is not
            relevant, a query that no row names is not judged.
        query_ids: names of the queries; () numbers them.
        corpus_ids: names of the candidates, which decide between equal scores; () numbers them.
    """

    queries: Sequence[Any]
    corpus: Sequence[Any]
    relevant: np.ndarray
    query_ids: Sequence[str] = ()
    corpus_ids: Sequence[str] = ()


def ranking_task(pairs: Iterable[tuple[str, str]], others: Iterable[str] = ()) -> RankingTask:
    """Every distinct query against every distinct passage; a passage is relevant to the queries it comes with.

    Args:
        pairs: (query, passage).
        others: passages that come with no query.
    """
    queries: dict[str, int] = {}
    corpus: dict[str, int] = {}
    relevant = {(queries.setdefault(q, len(queries)), corpus.setdefault(p, len(corpus))) for q, p in pairs}
    for passage in others:
        corpus.setdefault(passage, len(corpus))
    return RankingTask(list(queries), list(corpus), np.array(sorted(relevant), np.int64).reshape(-1, 2))


@dataclasses.dataclass(frozen=True)
class ClassificationTask:
    """Images to sort into named classes through prompts.

    Args:
        images: uint8 arrays [H W C].
        labels: int array [N], index into `class_names`.
        class_names: what a template's `{}` becomes, in the words of the training captions.
        templates: prompts with one `{}` each.
        prompts: prompts of each class, where templates would not do: they are used instead.
    """

    images: Sequence[np.ndarray]
    labels: np.ndarray
    class_names: Sequence[str]
    templates: Sequence[str]
    prompts: Sequence[Sequence[str]] | None = None
