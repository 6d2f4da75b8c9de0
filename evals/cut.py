"""A part of an evaluation's data, the same for every model: for sets whose whole takes longer than a table is worth.

A cut search is an easier one, so its scores stand beside each other and not beside published ones; labels of tasks should say so.
"""

import dataclasses
from typing import Any

import numpy as np

from core.config import ConfigError
from input_pipeline.tasks import Bitext, Labelled, PairScores, ProbeTask, RankingTask


class Cut:
    """A set with fewer items; each of its tasks is cut in its own way, and one that is not listed here cannot be cut.

    Args:
        data: the set.
        items: queries, pairs, sentences or values that are kept, drawn at random in the order of the data; 0 keeps all.
        candidates: of a search, documents at least: those relevant to a kept query, and others drawn at random; 0 keeps all.
        seed: of the draws.

    Raises:
        ConfigError: a number below 0.
    """

    def __init__(self, data: Any, *, items: int = 0, candidates: int = 0, seed: int = 0):
        if min(items, candidates) < 0:
            raise ConfigError(f"a cut to {items} items and {candidates} candidates; set each to 0, which keeps all, or more.")
        self._data, self._items, self._candidates, self._seed = data, items, candidates, seed

    def _some(self, count: int, most: int) -> np.ndarray:
        rows = np.random.default_rng(self._seed).permutation(count)
        return np.sort(rows[:most] if most else rows)

    def ranking(self) -> RankingTask:
        task = self._data.ranking()
        judged = np.unique(task.relevant[:, 0])
        queries = judged[self._some(len(judged), self._items)]
        relevant = task.relevant[np.isin(task.relevant[:, 0], queries)]
        corpus = np.arange(len(task.corpus))
        if self._candidates:
            named = np.unique(relevant[:, 1])
            others = np.setdiff1d(corpus, named)
            more = max(0, self._candidates - len(named))
            corpus = np.sort(np.concatenate([named, others[self._some(len(others), more) if more else []]])).astype(np.int64)
        take = lambda values, rows: [values[i] for i in rows] if len(values) else ()
        rows = relevant.copy()
        rows[:, 0], rows[:, 1] = np.searchsorted(queries, relevant[:, 0]), np.searchsorted(corpus, relevant[:, 1])
        query_ids, corpus_ids = task.query_ids or range(len(task.queries)), task.corpus_ids or range(len(task.corpus))
        texts = take(task.queries, queries), take(task.corpus, corpus)
        return RankingTask(*texts, rows, [str(i) for i in take(query_ids, queries)], [str(i) for i in take(corpus_ids, corpus)])

    def similarity(self) -> PairScores:
        return self._rows(self._data.similarity(), "first", "second", "score")

    def pairs(self) -> PairScores:
        return self._rows(self._data.pairs(), "first", "second", "score")

    def labelled(self) -> Labelled:
        return self._rows(self._data.labelled(), "values", "labels")

    def probe(self) -> ProbeTask:
        """What is measured is cut; what is learnt from stays whole."""
        task = self._data.probe()
        return dataclasses.replace(task, test=self._rows(task.test, "values", "labels"))

    def bitext(self) -> Bitext:
        """The sentences that are kept look among their own translations."""
        task = self._data.bitext()
        rows = self._some(len(task.sources), self._items)
        targets, gold = np.unique(np.asarray(task.gold)[rows], return_inverse=True)
        return Bitext([task.sources[i] for i in rows], [task.targets[i] for i in targets], gold)

    def _rows(self, task: Any, *fields: str) -> Any:
        rows = self._some(len(getattr(task, fields[0])), self._items)
        take = lambda values: values[rows] if isinstance(values, np.ndarray) else [values[i] for i in rows]
        return dataclasses.replace(task, **{name: take(getattr(task, name)) for name in fields})
