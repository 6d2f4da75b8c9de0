"""Bitext mining: weighted scores by definition, hubs and ties, and translations that do not exist."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals import bitext as module
from evals.bitext import bitext, weighted_scores
from input_pipeline.tasks import Bitext
from tests.oracles import text_metrics as oracle

TARGETS = st.integers(0, 5)


class Data:
    def __init__(self, sources, targets, gold):
        self.task = Bitext(sources, targets, np.array(gold))

    def bitext(self):
        return self.task


def run(sources, targets, gold, **options):
    """Values are rows already."""
    encode = {"text": lambda rows: np.array(rows, float)}
    return bitext(encode, Data(sources, targets, gold), **options).metrics


@settings(deadline=None)
@given(st.lists(st.tuples(TARGETS, TARGETS), min_size=1, max_size=14))
def test_scores_are_those_of_the_definition(pairs):
    taken, gold = (list(row) for row in zip(*pairs, strict=True))
    found = weighted_scores(np.array(taken), np.array(gold))
    assert (found["f1"], found["precision"], found["recall"]) == pytest.approx(oracle.weighted_translation_scores(taken, gold), abs=1e-12)
    assert found["recall"] == pytest.approx(np.mean([t == g for t, g in pairs]))


@settings(deadline=None)
@given(st.permutations(range(6)), st.lists(TARGETS, min_size=6, max_size=6))
def test_where_each_target_is_wanted_once_hubs_divide_f1(gold, taken):
    gold, taken = np.array(gold), np.array(taken)
    chosen = np.bincount(taken, minlength=6)
    closed = np.mean((taken == gold) * 2 / (1 + chosen[taken]))
    found = weighted_scores(taken, gold)
    assert found["f1"] == pytest.approx(closed, abs=1e-12) and found["f1"] <= found["recall"] + 1e-12


def test_every_source_at_one_target():
    n = 7
    values = run(np.ones((n, 3)).tolist(), np.vstack([[1, 1, 1], -np.ones((n - 1, 3))]).tolist(), range(n))
    assert values["f1"] == pytest.approx(2 / (1 + n) / n) and values["accuracy"] == pytest.approx(1 / n) and values["tie_rate"] == 0


def test_the_nearest_by_cosine_is_taken_in_blocks_too(monkeypatch):
    rng = np.random.default_rng(0)
    targets = rng.normal(size=(9, 4))
    gold = rng.permutation(9)
    sources = targets[gold] * rng.uniform(0.1, 9, (9, 1)) + 0.01 * rng.normal(size=(9, 4))
    whole = run(sources.tolist(), targets.tolist(), gold)
    monkeypatch.setattr(module.metrics, "BLOCK_ENTRIES", 20)
    assert run(sources.tolist(), targets.tolist(), gold) == whole and whole["f1"] == 1


def test_a_translation_that_stands_twice_ties():
    values = run([[1, 0], [0, 1]], [[1, 0], [1, 0], [0, 1]], [1, 2])
    assert values["accuracy"] == 0.5 and values["accuracy_pessimistic"] == 0.5 and values["tie_rate"] == 0.5
    values = run([[1, 0], [0, 1]], [[1, 0], [1, 0], [0, 1]], [0, 2])
    assert values["accuracy"] == 1 and values["accuracy_pessimistic"] == 0.5


def test_the_control_reads_the_texts():
    texts = ["the cat sat", "dogs bark", "red door"]
    values = bitext({"text": lambda some: np.eye(3)[[len(t) % 3 for t in some]]}, Data(texts, texts, range(3)), controls=("bag_of_words",))
    assert values.metrics["bag_of_words/f1"] == 1


@pytest.mark.parametrize(
    "sources, gold, message",
    [([], np.zeros(0, int), "0 sources"), ([[1]], [1], r"sources \[0\] name a translation outside the 1"), ([[1]], [-1], "outside"),
     ([[1]], [0.0], "float64"), ([[1]], [0, 0], r"shape \(2,\)")],
)  # fmt: skip
def test_translations_that_do_not_exist_are_refused(sources, gold, message):
    with pytest.raises(ValueError, match=message):
        run(sources, [[1]], gold)
