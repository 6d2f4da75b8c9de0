"""Correlations of pairs with scores: the definition, what leaves them alone, and what is refused."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from evals import bag_of_words, pair_scores
from evals.sts import pearson, spearman, sts
from input_pipeline.tasks import PairScores
from tests.evals import toys
from tests.oracles import text_metrics as oracle

FEW = st.integers(-4, 4)  # so that ties are common


class Data:
    def __init__(self, first, second, score):
        self.task = PairScores(first, second, np.asarray(score, float))

    def similarity(self):
        return self.task


@settings(deadline=None)
@given(st.lists(st.tuples(FEW, FEW), min_size=2, max_size=12))
def test_correlations_are_those_of_the_definition(pairs):
    a, b = (np.array(row, float) for row in zip(*pairs, strict=True))
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert math.isnan(pearson(a, b)) and math.isnan(spearman(a, b))
        return
    assert pearson(a, b) == pytest.approx(oracle.pearson(a, b), abs=1e-12)
    assert spearman(a, b) == pytest.approx(oracle.pearson(oracle.mean_ranks(a.tolist()), oracle.mean_ranks(b.tolist())), abs=1e-12)


@settings(deadline=None)
@given(st.lists(st.tuples(FEW, FEW), min_size=3, max_size=12), st.floats(0.1, 9), st.floats(-9, 9))
def test_what_leaves_a_correlation_alone(pairs, scale, shift):
    a, b = (np.array(row, float) for row in zip(*pairs, strict=True))
    assume(len(set(a)) > 1 and len(set(b)) > 1)
    assert spearman(np.exp(a), b) == pytest.approx(spearman(a, b), abs=1e-12)  # any increasing map
    assert pearson(scale * a + shift, b) == pytest.approx(pearson(a, b), abs=1e-9)  # an affine one only:
    assert pearson(a, b) == pytest.approx(pearson(b, a), abs=1e-12) and spearman(a, b) == pytest.approx(spearman(b, a), abs=1e-12)


def test_an_increasing_map_moves_pearson():
    a, b = np.array([0.0, 1, 2, 3]), np.array([0.0, 1, 2, 3])
    assert pearson(a, b) == pytest.approx(1) and pearson(np.exp(3 * a), b) < 0.8


def test_constants_that_a_mean_would_round_are_constants():
    assert math.isnan(pearson(np.full(7, 0.1), np.arange(7)))


def test_of_unit_rows_cosine_and_distance_have_one_order():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(2, 60, 8))
    one, other = rows / np.linalg.norm(rows, axis=2, keepdims=True)
    found, gold = pair_scores.similarities(one, other), rng.normal(size=60)
    assert spearman(found["cosine"], gold) == pytest.approx(spearman(found["euclidean"], gold), abs=1e-12)
    assert abs(pearson(found["cosine"], gold) - pearson(found["euclidean"], gold)) > 1e-6
    np.testing.assert_array_equal(found["dot"], found["cosine"].astype(np.float32))


def test_pairs_of_one_text_tie_whatever_their_rounding():
    rows = np.random.default_rng(1).normal(size=(200, 33))
    for name, score in pair_scores.similarities(rows, rows).items():
        if name != "dot":
            assert len(set(score)) == 1, name


def test_bag_of_words_counts_shared_words():
    first, second = ["A cat, a dog", "nothing here", "", "one two"], ["the dog: a cat!", "else there", "a", "ONE two"]
    # {a 2, cat, dog} with {the, dog, a, cat}: (2 + 1 + 1) / sqrt(6 * 4)
    np.testing.assert_allclose(bag_of_words.of_pairs(first, second), [4 / math.sqrt(24), 0, 0, 1], rtol=1e-6)
    everything = bag_of_words.bag_of_words(first, second)(np.arange(4))
    assert everything.shape == (4, 4) and everything.dtype == np.float32
    np.testing.assert_allclose(np.diag(everything), bag_of_words.of_pairs(first, second), rtol=1e-6)


def test_the_control_stands_beside_the_model():
    data = Data(["a cat", "a dog", "the end"], ["a cat", "one dog", "of all"], [5, 3, 0])
    values = sts({"text": toys.letters}, data, controls=("bag_of_words",)).metrics
    assert values["bag_of_words/cosine_spearman"] == pytest.approx(1)
    assert "bag_of_words/cosine_spearman" not in sts({"text": toys.letters}, data).metrics


@pytest.mark.parametrize(
    "data, message",
    [
        (Data([], [], []), "two pairs or more"),
        (Data(["a"], ["b"], [1]), "two pairs or more"),
        (Data(["a", "b"], ["b"], [1, 2]), "2 and 1 texts"),
        (Data(["a", "b"], ["b", "a"], [1, 1]), "all 2 pairs have the score 1.0"),
        (Data(["a", "b"], ["b", "a"], [1, math.nan]), r"pairs \[1\] are not finite"),
    ],
)
def test_pairs_that_say_nothing_are_refused(data, message):
    with pytest.raises(ValueError, match=message):
        sts({"text": toys.letters}, data)


def test_a_collapsed_model_is_counted_not_scored():
    same = toys.constant(None)["text"]
    values = sts({"text": same}, Data(["a", "b"], ["c", "d"], [1, 2])).metrics
    assert math.isnan(values["cosine_spearman"]) and values["count/undefined"] == 6
