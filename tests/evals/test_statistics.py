"""Intervals, paired tests and ranks over models, by definition and by their laws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import rankdata

from evals import statistics
from evals.statistics import STATISTICS

SCORES = arrays(float, st.tuples(st.integers(1, 5), st.integers(1, 6)), elements=st.sampled_from([0.0, 0.25, 0.5, 1.0, np.nan]))


def test_an_interval_is_the_percentiles_of_the_redrawn_score():
    items = np.random.default_rng(0).normal(size=(30, 2)) @ [[1, 0.7], [0, 0.7]]
    drawn = [STATISTICS["spearman"](items[rows]) for rows in statistics.resamples(30, 200, 5)]
    found = statistics.interval(items, "spearman", number=200, seed=5, level=0.8)
    assert found == pytest.approx((np.percentile(drawn, 10), np.percentile(drawn, 90)))
    assert found[0] < STATISTICS["spearman"](items) < found[1]


def test_the_interval_of_a_mean_is_near_that_of_its_standard_error():
    items = np.random.default_rng(1).normal(size=400)
    error = items.std() / 20
    assert statistics.interval(items) == pytest.approx((items.mean() - 1.96 * error, items.mean() + 1.96 * error), abs=0.15 * error)


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(2)
    bounds = [statistics.interval(rng.normal(size=60), number=200, level=0.9) for _ in range(400)]
    assert np.mean([low < 0 < high for low, high in bounds]) == pytest.approx(0.9, abs=0.05)  # 0.9 +- three standard errors


def test_equal_items_leave_no_doubt_and_undefined_ones_no_interval():
    assert statistics.interval(np.full(9, 0.5)) == (0.5, 0.5)
    assert np.isnan(statistics.interval(np.ones((9, 2)), "spearman")).all()


def test_resamples_without_a_positive_are_left_out():
    items = np.array([[0.9, 1], [0.1, 0]])
    assert statistics.interval(items, "max_ap", number=50) == (1.0, 1.0)


def test_pairing_takes_out_what_makes_an_item_hard():
    rng = np.random.default_rng(3)
    hard = rng.normal(size=200)
    found = statistics.paired(hard, hard + 0.1 + 0.05 * rng.normal(size=200))
    assert found.difference == pytest.approx(0.1, abs=0.02) and found.low > 0.08 and found.p == pytest.approx(2 / 2001)
    low, high = statistics.interval(hard)
    assert high - low > 10 * (found.high - found.low)


def test_one_model_twice_differs_by_nothing():
    items = np.random.default_rng(4).normal(size=(40, 2))
    assert statistics.paired(items, items, "spearman", number=100) == (0.0, 0.0, 0.0, 1.0)


def test_the_order_of_two_models_turns_the_sign():
    a, b = np.random.default_rng(5).normal(size=(2, 50))
    one, other = statistics.paired(a, b, number=300), statistics.paired(b, a, number=300)
    assert other == pytest.approx((-one.difference, -one.high, -one.low, one.p))


def test_equal_models_are_rarely_told_apart():
    rng = np.random.default_rng(6)
    p = [statistics.paired(*rng.normal(size=(2, 60)), number=200).p for _ in range(400)]
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=0.04)


def test_other_items_are_not_compared():
    with pytest.raises(ValueError, match="3 and 4 items are not the same ones"):
        statistics.paired(np.zeros(3), np.zeros(4))


def test_holm_by_hand():
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.9, 0.8]) == pytest.approx([1, 1]) and statistics.holm([0.3]) == pytest.approx([0.3])
    assert len(statistics.holm([])) == 0


@given(SCORES)
def test_borda_counts_who_is_beaten(scores):
    points = statistics.borda(scores)
    expected = np.zeros(len(scores))
    for column in scores.T:
        there = ~np.isnan(column)
        expected[there] += len(scores) - rankdata(-column[there])
    assert points == pytest.approx(expected)


@given(SCORES.map(np.nan_to_num))
def test_borda_points_are_shared_out_whole_and_know_only_order(scores):
    models, tasks = scores.shape
    points = statistics.borda(scores)
    assert points.sum() == pytest.approx(tasks * models * (models - 1) / 2)
    slopes = np.arange(1, tasks + 1)
    np.testing.assert_allclose(statistics.borda(np.exp(scores * slopes) - slopes), points)


def test_places_by_borda():
    assert statistics.places(statistics.borda(np.full((4, 3), 0.5))) == [1, 1, 1, 1]
    # The third has nothing on the second task, and gets no point there: 1.5 + 2, 1.5 + 1, 0 + 0.
    points = statistics.borda(np.array([[0.9, 0.3], [0.9, 0.2], [0.1, np.nan]]))
    assert points.tolist() == [3.5, 2.5, 0.0] and statistics.places(points) == [1, 2, 3]
    assert statistics.places(np.array([2.0, 3.0, 2.0])) == [2, 1, 2]


def test_average_precision_enters_ties_together():
    """Golden value of scikit-learn: a rank-based average would be 0.7556 or 0.9167, as rows happen to lie."""
    score, positive = np.array([0.9, 0.5, 0.5, 0.5, 0.1, 0.5]), np.array([1, 0, 1, 0, 0, 1])
    assert STATISTICS["max_ap"](np.stack([score, positive], axis=1)) == pytest.approx(0.7333333333)
    assert STATISTICS["max_ap"](np.stack([score, -score, positive], axis=1)) == pytest.approx(0.7333333333)
