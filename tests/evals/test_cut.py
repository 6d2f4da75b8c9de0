"""A cut keeps judgements true: what was relevant still is, and nothing else became so."""

import types

import numpy as np
import pytest

from core.config import ConfigError
from evals.cut import Cut
from input_pipeline.tasks import Bitext, Labelled, PairScores, ProbeTask, RankingTask

RELEVANT = np.array([(q, (7 * q + j) % 40, 1 + j) for q in range(10) for j in range(q % 3)])  # queries 0, 3, 6, 9 are not judged
SEARCH = RankingTask([f"q{q}" for q in range(10)], [f"c{c}" for c in range(40)], RELEVANT, corpus_ids=[f"id{c}" for c in range(40)])
DATA = types.SimpleNamespace(
    ranking=lambda: SEARCH,
    pairs=lambda: PairScores(list("abcdef"), list("ABCDEF"), np.arange(6)),
    labelled=lambda: Labelled(list("abcdef"), np.arange(12).reshape(6, 2)),
    probe=lambda: ProbeTask(*[Labelled(list("abcdef"), np.arange(12).reshape(6, 2))] * 2),
    bitext=lambda: Bitext(list("abcdef"), list("FEDCBA"), np.arange(6)[::-1]),
)


def named(task):
    return {(task.queries[q], task.corpus[c], grade) for q, c, grade in task.relevant.tolist()}


@pytest.mark.parametrize("items, candidates", [(0, 0), (3, 0), (0, 20), (4, 12), (2, 1)])
def test_a_cut_search_keeps_what_is_relevant(items, candidates):
    task = Cut(DATA, items=items, candidates=candidates).ranking()
    assert named(task) == {row for row in named(SEARCH) if row[0] in task.queries}
    assert len(task.queries) == (items or 6) and len(set(task.corpus)) == len(task.corpus)
    assert len(task.corpus) == max(candidates or 40, len({row[1] for row in named(task)}))
    assert [f"id{c[1:]}" for c in task.corpus] == task.corpus_ids and task.query_ids == [q[1:] for q in task.queries]


def test_rows_stay_together():
    pairs, labelled, bitext = (getattr(Cut(DATA, items=3, seed=1), name)() for name in ("pairs", "labelled", "bitext"))
    assert [a.upper() for a in pairs.first] == pairs.second == [chr(65 + s) for s in pairs.score]
    assert [chr(97 + row // 2) for row in labelled.labels[:, 0]] == labelled.values and labelled.labels.shape == (3, 2)
    assert [bitext.targets[g].lower() for g in bitext.gold] == bitext.sources and len(bitext.targets) == 3
    probe = Cut(DATA, items=3, seed=1).probe()
    assert probe.test.values == labelled.values and len(probe.train.values) == 6 and probe.validation is None


def test_draws_depend_on_the_seed_alone():
    draw = lambda seed: Cut(DATA, items=3, candidates=15, seed=seed).ranking().corpus
    assert draw(0) == draw(0) != draw(1)


def test_a_cut_below_nothing_is_refused():
    with pytest.raises(ConfigError, match="-1 items and 0 candidates"):
        Cut(DATA, items=-1)
