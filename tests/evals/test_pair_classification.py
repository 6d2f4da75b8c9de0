"""Average precision and the best threshold: the definition, golden values, and labels that are refused."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.pair_classification import ap_chance, pair_classification, threshold_metrics
from input_pipeline.tasks import PairScores
from tests.evals import toys
from tests.oracles import text_metrics as oracle


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=14), st.randoms())
def test_thresholds_are_those_of_the_definition_in_any_row_order(pairs, random):
    pairs += [(2, True), (3, False)]
    score, positive = (list(row) for row in zip(*pairs, strict=True))
    found = threshold_metrics(np.array(score, np.float32), np.array(positive))
    assert found["ap"] == pytest.approx(oracle.average_precision(score, positive), abs=1e-12)
    assert found["f1"] == pytest.approx(oracle.best_f1(score, positive), abs=1e-12)
    assert found["accuracy"] == pytest.approx(oracle.best_accuracy(score, positive), abs=1e-12)
    random.shuffle(pairs)
    score, positive = (np.array(row) for row in zip(*pairs, strict=True))
    assert threshold_metrics(np.exp(score.astype(np.float32)), positive) == pytest.approx(found, abs=1e-12)


def test_pairs_of_one_score_enter_together():
    """By scikit-learn 1.8: 0.7333; by rank it would be 0.7556 or 0.9167, as rows happen to stand."""
    found = threshold_metrics(np.array([0.9, 0.5, 0.5, 0.5, 0.1, 0.5]), np.array([1, 0, 1, 0, 0, 1], bool))
    assert found["ap"] == pytest.approx(0.7333333333, abs=1e-9)


def test_a_constant_score_has_the_share_of_positives():
    found = threshold_metrics(np.ones(8, np.float32), np.arange(8) < 3)
    assert found == {"ap": 3 / 8, "accuracy": 0, "f1": 0, "precision": 0, "recall": 0}


@pytest.mark.parametrize("positives, pairs", [(1, 2), (2, 5), (3, 6)])
def test_chance_is_the_mean_over_all_orders(positives, pairs):
    orders = list(itertools.combinations(range(pairs), positives))
    every = [oracle.average_precision([-i for i in range(pairs)], [i in some for i in range(pairs)]) for some in orders]
    assert ap_chance(positives, pairs) == pytest.approx(np.mean(every), abs=1e-12)


class Data:
    def __init__(self, label):
        self.task = PairScores(["a", "ab", "cat"], ["a", "cd", "act"], np.array(label))

    def pairs(self):
        return self.task


def test_the_maximum_is_over_the_four_similarities():
    values = pair_classification({"text": toys.letters}, Data([1, 0, 1]), controls=("bag_of_words",)).metrics
    assert values["max_ap"] == max(values[f"{name}_ap"] for name in ("cosine", "manhattan", "euclidean", "dot")) == 1
    assert values["bag_of_words/max_ap"] == values["bag_of_words/cosine_ap"] < 1


@pytest.mark.parametrize(
    "label, message",
    [([1, 1, 1], "all 3 pairs have one label"), ([0, 0, 0], "one label"), ([0, 2, 1], "labelled"), ([1, 0], r"shape \(2,\)")],
)
def test_labels_that_tell_nothing_apart_are_refused(label, message):
    with pytest.raises(ValueError, match=message):
        pair_classification({"text": toys.letters}, Data(label))
