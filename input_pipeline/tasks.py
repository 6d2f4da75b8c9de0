"""What a source hands to an evaluator.

Leaves encoding and metrics to `evals/`.
"""

import collections
import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np


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


def judgements(rows: Iterable[tuple[str, str, int]], query_ids: Sequence[str], corpus_ids: Sequence[str]) -> np.ndarray:
    """Judgements by name (qrels) as the `relevant` [P 3] of a `RankingTask`, in the order of the rows.

    Args:
        rows: (query id, candidate id, grade).
        query_ids: names of the queries; those that no row names are not judged.
        corpus_ids: names of the candidates.

    Raises:
        ValueError: no candidate, an id that stands twice, a row that names an unknown id, a pair judged twice, or no row.
    """
    numbers = []
    for kind, ids in (("query", query_ids), ("candidate", corpus_ids)):
        if not len(ids):
            raise ValueError(f"there is no {kind}; a ranking needs queries and a corpus.")
        if twice := [name for name, count in collections.Counter(ids).items() if count > 1]:
            raise ValueError(f"{len(twice)} {kind} ids stand twice: {_some(twice)}; each text needs an id of its own.")
        numbers.append({name: i for i, name in enumerate(ids)})
    rows = list(rows)
    for kind, column, known in zip(("queries", "candidates"), (0, 1), numbers, strict=True):
        if unknown := list(dict.fromkeys(row[column] for row in rows if row[column] not in known)):
            raise ValueError(f"judgements name {len(unknown)} {kind} that do not exist: {_some(unknown)}.")
    if twice := [pair for pair, count in collections.Counter((q, c) for q, c, _ in rows).items() if count > 1]:
        raise ValueError(f"{len(twice)} pairs of query and candidate are judged twice: {_some(twice)}.")
    if not rows:
        raise ValueError("there is no judgement, so no query has anything to find.")
    return np.array([(numbers[0][q], numbers[1][c], grade) for q, c, grade in rows], np.int64)


def _some(names: Sequence) -> str:
    return ", ".join(map(str, names[:5])) + (", ..." if len(names) > 5 else "")


@dataclasses.dataclass(frozen=True)
class PairScores:
    """Pairs with what people say of them.

    Args:
        first: raw values of one view, texts as a rule.
        second: raw values of a view, as many.
        score: how alike they are [N], on any scale; where pairs are to be told apart, 1 for those that belong together and else 0.
    """

    first: Sequence[Any]
    second: Sequence[Any]
    score: np.ndarray


@dataclasses.dataclass(frozen=True)
class Labelled:
    """Values that belong to classes.

    Args:
        values: raw values of one view.
        labels: int array [N], or [N L] with the coarsest of L levels first; below 0 where a level says nothing.
    """

    values: Sequence[Any]
    labels: np.ndarray


@dataclasses.dataclass(frozen=True)
class ProbeTask:
    """Values with classes to learn from, and others to be measured on; delivered by `probe()`.

    Args:
        train: what a probe may learn from; labels [N] from 0, of one class each.
        test: what it is measured on, of classes that `train` has.
        validation: what choices are made on; None leaves it to the probe to set a part of `train` aside.
    """

    train: Labelled
    test: Labelled
    validation: Labelled | None = None


def probe_task(
    train: Iterable[tuple[Any, str]], test: Iterable[tuple[Any, str]], validation: Iterable[tuple[Any, str]] | None = None
) -> ProbeTask:
    """Classes by name as numbers, in the order of their sorted names over all parts: a part that lacks one counts the others alike.

    Args:
        train: (value, name of its class).
        test: the same.
        validation: the same; None where there is none.

    Raises:
        ValueError: a part without a row.
    """
    parts = {name: list(rows) for name, rows in (("train", train), ("test", test), ("validation", validation)) if rows is not None}
    if empty := [name for name, rows in parts.items() if not rows]:
        raise ValueError(f"there is nothing to learn from or to measure: {', '.join(empty)} has no row.")
    number = {name: i for i, name in enumerate(sorted({label for rows in parts.values() for _, label in rows}))}
    labelled = {name: Labelled([row[0] for row in rows], np.array([number[row[1]] for row in rows])) for name, rows in parts.items()}
    return ProbeTask(**labelled)


@dataclasses.dataclass(frozen=True)
class Bitext:
    """Sentences and their translations, to be found among all of them.

    Args:
        sources: sentences that are looked up.
        targets: sentences of the other language, each a candidate of every source.
        gold: int array [N], the index of each source's translation.
    """

    sources: Sequence[Any]
    targets: Sequence[Any]
    gold: np.ndarray


@dataclasses.dataclass(frozen=True)
class CandidatesTask:
    """Queries that each pick one out of a list of their own; delivered by `candidates()`.

    Args:
        queries: raw values of one view.
        candidates: raw values of a view; lists may share them.
        lists: of each query, indices into `candidates`, at least two, none twice.
        right: int array [N], index into `candidates` of the one that is right, which is in the list.
        groups: a label of each query to report by, in lower case and without spaces; () leaves it out.
    """

    queries: Sequence[Any]
    candidates: Sequence[Any]
    lists: Sequence[Sequence[int]]
    right: np.ndarray
    groups: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class NeedleTask:
    """Long texts of about one length, and questions that one sentence in one of them answers.

    Args:
        length: tokens that the texts are to fit in.
        queries: the questions.
        corpus: the texts.
        right: int array [Q], index into `corpus` of the text that answers.
        depth: float array [Q], share of that text's words before the answer, 0 to 1.
    """

    length: int
    queries: Sequence[str]
    corpus: Sequence[str]
    right: np.ndarray
    depth: np.ndarray
