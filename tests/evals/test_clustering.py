"""Clustering: the v-measure by definition, both protocols, levels, and options and labels that are refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import v_measure_score

from core.config import ConfigError
from evals.clustering import clustering
from input_pipeline.tasks import Labelled
from tests.oracles import text_metrics as oracle

CLASSES = st.integers(0, 3)


class Data:
    def __init__(self, rows, labels):
        self.task = Labelled(list(rows), np.array(labels))

    def labelled(self):
        return self.task


def run(rows, labels, **options):
    return clustering({"text": lambda some: np.array(some, np.float32)}, Data(rows, labels), **options).metrics


@settings(deadline=None)
@given(st.lists(st.tuples(CLASSES, CLASSES), min_size=1, max_size=14))
def test_v_measure_is_that_of_the_definition(pairs):
    labels, clusters = (list(row) for row in zip(*pairs, strict=True))
    assert v_measure_score(labels, clusters) == pytest.approx(oracle.v_measure(labels, clusters), abs=1e-9)


def test_v_measure_rewards_splitting():
    assert oracle.v_measure([0, 0, 1, 1], [0, 1, 2, 3]) == pytest.approx(2 / 3)
    assert oracle.v_measure([0, 0, 0], [0, 1, 2]) == 0 and oracle.v_measure([0, 0], [5, 5]) == 1


def blobs(classes, each, spread=0.01):
    rng = np.random.default_rng(0)
    labels = np.arange(classes * each) % classes
    return 10 * np.eye(classes)[labels] + spread * rng.normal(size=(classes * each, classes)), labels


def test_two_blobs_are_found_by_both_protocols():
    rows, labels = blobs(2, 30)
    for options in ({"protocol": "legacy"}, {"size": 40, "draws": 3}):
        values = run(rows, labels, **options)
        assert values["v_measure"] == pytest.approx(1) and values["ami"] == pytest.approx(1) and values["std/v_measure"] == pytest.approx(0)
        assert values["count/classes"] == 2 and values["count/values"] == 60


def test_draws_follow_the_seed():
    rows, labels = np.random.default_rng(1).normal(size=(50, 3)), np.arange(50) % 3
    options = dict(size=30, draws=2)
    assert run(rows, labels, **options) == run(rows, labels, **options) != run(rows, labels, seed=1, **options)


def test_levels_are_scored_apart_and_values_without_a_class_left_out():
    rows, fine = blobs(4, 20)
    labels = np.stack([np.zeros(80, int), fine], axis=1)
    labels[:40, 0], labels[:4, 1] = 0, -1
    values = run(rows, labels, size=60, draws=2)
    assert values["v_measure/level_0"] == 1  # a single class
    assert values["v_measure"] == pytest.approx((1 + values["v_measure/level_1"]) / 2) and values["count/classes"] == 4


def test_only_the_drawn_share_is_encoded():
    rows, labels = blobs(2, 50)
    encoded = []
    clustering({"text": lambda some: (encoded.append(len(some)), np.array(some))[1]}, Data(rows, labels), share=0.1, size=20, draws=1)
    assert encoded == [10]


def test_one_class_is_found_by_definition():
    assert run(np.random.default_rng(0).normal(size=(9, 2)), np.full(9, 3), protocol="legacy")["v_measure"] == 1


@pytest.mark.parametrize(
    "labels, options, error, message",
    [
        ([], {}, ValueError, "for 0 values"),
        ([0, 1], {}, ValueError, r"shape \(2, 1\) for 4 values"),
        ([0.0, 1, 2, 3], {}, ValueError, "float64"),
        ([-1, -1, -1, -1], {}, ValueError, "none of 4 values has a class"),
        ([0, 1, 2, 3], {"size": 3}, ValueError, "samples of 3 rows for 4 classes"),
        ([0, 1, 2, 3], {"share": 0.1}, ValueError, "is none"),
        ([0, 1, 2, 3], {"share": 0.0}, ConfigError, "share is 0.0"),
        ([0, 1, 2, 3], {"draws": 0}, ConfigError, "draws is 0"),
        ([0, 1, 2, 3], {"protocol": "slow"}, ConfigError, "'slow'; set it to fast or legacy"),
    ],
)
def test_labels_and_options_that_do_not_fit_are_refused(labels, options, error, message):
    with pytest.raises(error, match=message):
        run(np.eye(4) if len(labels) else [], labels, **options)
