"""Metrics against naive loops, and the exact properties of the protocols."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals import metrics
from tests.oracles import ranking


@st.composite
def tasks(draw, most: int = 7):
    """Small integer embeddings, so that products are exact in both precisions and ties are common; several relevant each."""
    n, m, d = draw(st.integers(1, most)), draw(st.integers(1, most)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    queries, candidates = rng.integers(-2, 3, (n, d)), rng.integers(-2, 3, (m, d))
    pairs = [(q, c) for q in range(n) for c in rng.permutation(m)[: rng.integers(1, m + 1)]]
    rng.shuffle(pairs)
    return queries.astype(np.float32), candidates.astype(np.float32), np.array(pairs)


def distinct(rng, n, d):
    return metrics.unit(rng.normal(size=(n, d)), "rows")


@settings(deadline=None, max_examples=40)
@given(tasks(most=9), st.sampled_from([4, 8]))
def test_ranks_equal_the_double_loop_at_every_block_size(task, queries_at_once):
    queries, candidates, relevant = task
    reference, pessimistic = ranking.ranks(queries, candidates, relevant)
    found = metrics.ranks(queries, candidates, relevant, query_rows=queries_at_once, block_rows=8)
    assert found.reference.tolist() == reference
    assert found.pessimistic.tolist() == pessimistic


@settings(deadline=None, max_examples=40)
@given(tasks())
def test_summary_equals_the_loop(task):
    queries, candidates, relevant = task
    reference, pessimistic = ranking.ranks(queries, candidates, relevant)
    values = metrics.retrieval_metrics(metrics.ranks(queries, candidates, relevant), (1, 3), "q2p")
    for k in (1, 3):
        assert values[f"q2p/recall@{k}"] == pytest.approx(sum(r < k for r in reference) / len(reference))
        assert values[f"q2p/recall@{k}_pessimistic"] == pytest.approx(sum(r < k for r in pessimistic) / len(reference))
    assert values["q2p/tie_rate"] == pytest.approx(sum(a != b for a, b in zip(reference, pessimistic, strict=True)) / len(reference))
    assert values["q2p/mean_rank"] == pytest.approx(sum(reference) / len(reference) + 1)
    assert values["q2p/median_rank"] == int(ranking.median(reference)) + 1


@given(st.integers(2, 8), st.integers(1, 8), st.integers(0, 100))
@settings(deadline=None, max_examples=40)
def test_counting_equals_sorting_without_ties(n, k, seed):
    rng = np.random.default_rng(seed)
    queries, candidates, own = distinct(rng, n, 5), distinct(rng, n + 2, 5), rng.integers(0, n + 2, n)
    found = metrics.ranks(queries, candidates, np.stack([np.arange(n), own], 1))
    sorted_hits = [ranking.hit_by_sorting(q, candidates, {c}, k) for q, c in zip(queries, own, strict=True)]
    assert (found.reference < k).tolist() == sorted_hits
    assert (found.reference == found.pessimistic).all()


def test_one_caption_an_image_makes_the_directions_transposes():
    rng = np.random.default_rng(0)
    images, texts, pairs = distinct(rng, 30, 4), distinct(rng, 30, 4), np.repeat(np.arange(30)[:, None], 2, 1)
    np.testing.assert_array_equal(
        metrics.ranks(images, texts, pairs).reference,
        [sum(other > own[i] for other in row) for i, (row, own) in enumerate(zip(*[metrics.scores(images, texts)] * 2, strict=True))],
    )
    there, back = metrics.ranks(images, texts, pairs), metrics.ranks(texts, images, pairs[:, ::-1])
    swapped = metrics.ranks(np.roll(texts, 3, 0), np.roll(images, 3, 0), pairs)
    np.testing.assert_array_equal(np.roll(back.reference, 3), swapped.reference)
    assert metrics.rsum(there, back) == pytest.approx(metrics.rsum(back, there))


def test_identity_similarity_is_perfect():
    eye, pairs = np.eye(12), np.repeat(np.arange(12)[:, None], 2, 1)
    found = metrics.ranks(eye, eye, pairs)
    assert metrics.hit_rate(found.pessimistic, 1) == 1
    assert metrics.rsum(found, found) == 600


def test_more_captions_help_only_their_own_image():
    rng = np.random.default_rng(1)
    images, texts = distinct(rng, 10, 3), distinct(rng, 30, 3)
    owner = np.arange(30) % 10
    pairs = np.stack([owner, np.arange(30)], 1)
    without = (owner != 4) | (np.arange(30) < 10)
    fewer = np.stack([owner[without], np.arange(without.sum())], 1)
    more, less = metrics.ranks(images, texts, pairs).reference, metrics.ranks(images, texts[without], fewer).reference
    others = np.arange(10) != 4
    assert more[4] <= less[4]
    assert (more[others] >= less[others]).all() and (more[others] > less[others]).any()


def test_constant_embeddings_score_nothing_when_ties_count_against():
    queries, candidates, pairs = np.ones((6, 3)), np.ones((9, 3)), np.stack([np.arange(6), np.arange(6)], 1)
    found = metrics.ranks(queries, candidates, pairs)
    assert (found.reference == 0).all() and (found.pessimistic == 8).all()


def test_equal_candidates_tie_wherever_they_stand():
    """A float32 product may differ between the body and the edge of a matrix, which would break ties at random."""
    rng = np.random.default_rng(2)
    candidates = np.tile(distinct(rng, 1, 193).astype(np.float32), (67, 1))
    queries = distinct(rng, 41, 193).astype(np.float32)
    found = metrics.ranks(queries, candidates, np.stack([np.arange(41), np.arange(41)], 1), query_rows=8, block_rows=2)
    assert (found.reference == 0).all() and (found.pessimistic == 66).all()


def test_repeated_pairs_change_nothing():
    pairs = np.array([[0, 1], [1, 0], [0, 1], [0, 2]])
    rows = distinct(np.random.default_rng(3), 3, 2)
    assert metrics.ranks(rows[:2], rows, pairs).pessimistic.tolist() == metrics.ranks(rows[:2], rows, pairs[1:]).pessimistic.tolist()


@pytest.mark.parametrize("own, candidates, k", [(1, 5, 1), (2, 5, 2), (3, 6, 5), (1, 3, 10), (4, 4, 1)])
def test_chance_equals_listing_all_draws(own, candidates, k):
    relevant = np.array([(0, c) for c in range(own)])
    assert metrics.chance(relevant, 1, candidates, k) == pytest.approx(ranking.chance_by_listing(own, candidates, k))


@pytest.mark.parametrize(
    "relevant, message",
    [
        ([[0, 0]], "queries without a relevant candidate in rows 1 .1 of 2"),
        ([[0, 0], [1, 5]], "outside 2 queries x 3 candidates"),
        ([], "rows 0, 1"),
    ],
)
def test_bad_pairs_are_named(relevant, message):
    with pytest.raises(ValueError, match=message):
        metrics.ranks(np.ones((2, 2)), np.ones((3, 2)), np.array(relevant))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_rows_that_are_not_finite_are_named(bad):
    rows = np.ones((40, 2), np.float32)
    rows[[3, 17], 1] = bad
    for call in (lambda: metrics.unit(rows, "text embeddings"), lambda: metrics.check_rows(rows, "text embeddings")):
        with pytest.raises(ValueError, match=r"text embeddings: values that are not finite in rows 3, 17 \(2 of 40\)"):
            call()
    with pytest.raises(ValueError, match="candidates: .* rows 3, 17"):
        metrics.ranks(np.ones((1, 2)), rows, np.zeros((1, 2), int))


def test_a_row_of_length_zero_is_named():
    with pytest.raises(ValueError, match="length 0.* rows 1 "):
        metrics.unit(np.array([[1.0, 0], [0, 0]]), "image embeddings")


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 12), st.integers(1, 7), st.integers(0, 100))
def test_classification_equals_the_loop(n, classes, seed):
    rng = np.random.default_rng(seed)
    similarity = (rng.integers(-4, 5, (n, classes)) / 8).astype(np.float32)  # ties are common
    labels = rng.integers(0, classes, n)
    values = metrics.classification_metrics(similarity, labels)
    assert values["accuracy@1"] == pytest.approx(ranking.accuracy(similarity.tolist(), labels.tolist(), 1))
    assert ("accuracy@5" in values) == (classes >= 5)
    if classes >= 5:
        assert values["accuracy@5"] == pytest.approx(ranking.accuracy(similarity.tolist(), labels.tolist(), 5))
    assert values["mean_per_class_recall"] == pytest.approx(ranking.mean_per_class_recall(similarity.tolist(), labels.tolist()))
    assert values["cross_entropy"] == pytest.approx(ranking.cross_entropy(similarity.tolist(), labels.tolist()), rel=1e-9, abs=1e-12)
    best = [[c for c in range(classes) if row[c] == max(row)] for row in similarity.tolist()]
    alone = [found == [label] for found, label in zip(best, labels, strict=True)]
    assert values["accuracy@1_pessimistic"] == pytest.approx(np.mean(alone))
    ties = [sum(value == row[label] for value in row) > 1 for row, label in zip(similarity.tolist(), labels, strict=True)]
    assert values["tie_rate"] == pytest.approx(np.mean(ties))


def test_class_weights_equal_the_loop_and_normalise_twice():
    prompts = np.random.default_rng(4).normal(size=(5, 3, 4)) * np.array([1.0, 10.0, 0.1])[:, None]
    expected = [ranking.class_weight(prompt) for prompt in prompts]
    weights = metrics.class_weights(prompts)
    np.testing.assert_allclose(weights, expected, atol=1e-14)
    assert not np.allclose(weights, metrics.unit(prompts.mean(axis=1), "averaged first"), atol=1e-3)


def test_class_weights_ignore_order_repetition_and_length():
    prompts = np.random.default_rng(5).normal(size=(6, 4, 8))
    weights = metrics.class_weights(prompts)
    np.testing.assert_allclose(metrics.class_weights(prompts[:, ::-1]), weights, atol=1e-14)
    np.testing.assert_allclose(metrics.class_weights(np.concatenate([prompts, prompts], 1)), weights, atol=1e-14)
    lengths = np.random.default_rng(6).uniform(0.1, 9, (6, 4, 1))
    np.testing.assert_allclose(metrics.class_weights(prompts * lengths), weights, atol=1e-14)
    np.testing.assert_allclose(metrics.class_weights(prompts[:, :1]), metrics.unit(prompts[:, 0], "one template"), atol=1e-14)
    images = distinct(np.random.default_rng(7), 9, 8)
    order = np.random.default_rng(8).permutation(6)
    np.testing.assert_array_equal(metrics.scores(images, metrics.class_weights(prompts[order])), metrics.scores(images, weights)[:, order])


def test_the_scale_of_probabilities_is_100_and_moves_no_argmax():
    similarity = np.random.default_rng(9).uniform(-0.1, 0.1, (20, 6)).astype(np.float32)
    probability = metrics.probabilities(similarity)
    np.testing.assert_allclose(probability.sum(1), 1)
    np.testing.assert_array_equal(probability.argmax(1), similarity.argmax(1))
    np.testing.assert_allclose(np.log(probability[:, 0] / probability[:, 1]), 100 * (similarity[:, 0].astype(float) - similarity[:, 1]))


def test_constant_images_score_the_frequency_of_the_first_maximum():
    similarity = np.tile(np.float32([0.2, 0.7, 0.7, 0.1]), (10, 1))
    labels = np.array([1] * 4 + [2] * 5 + [0])
    values = metrics.classification_metrics(similarity, labels)
    assert values["accuracy@1"] == 0.4
    assert values["accuracy@1_pessimistic"] == 0
    assert values["mean_per_class_recall"] == pytest.approx(1 / 3)  # class 3 does not occur
