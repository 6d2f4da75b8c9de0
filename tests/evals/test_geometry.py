"""Geometry against naive loops and the exact values of the papers' definitions."""

import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.config import ConfigError
from evals import geometry
from evals.embedding_geometry import embedding_geometry
from evals.metrics import unit
from input_pipeline.tasks import Bitext, RankingTask, RetrievalTask
from tests.oracles import geometry as oracle


def cloud(seed, n, d):
    return unit(np.random.default_rng(seed).normal(size=(n, d)), "rows")


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.integers(2, 12), st.integers(1, 5))
def test_all_equal_the_loops(seed, n, d):
    x, y = cloud(seed, n, d), cloud(seed + 1, n, d)
    assert geometry.alignment(x, y) == pytest.approx(oracle.alignment(x, y))
    assert geometry.alignment(x, y, power=1) == pytest.approx(oracle.alignment(x, y, 1))
    assert geometry.uniformity(x) == pytest.approx(oracle.uniformity(x), abs=1e-12)
    assert geometry.uniformity(x, t=1.5) == pytest.approx(oracle.uniformity(x, 1.5), abs=1e-12)
    assert geometry.mean_cosine(x) == pytest.approx(oracle.mean_cosine(x), abs=1e-12)
    assert geometry.uniformity(x) >= -8 - 1e-9  # -4 t
    singular = np.sqrt(np.linalg.eigvalsh(x.T @ x).clip(min=0))
    assert geometry.effective_rank(x) == pytest.approx(oracle.effective_rank(singular), rel=1e-5)


def test_blocks_change_nothing(monkeypatch):
    x = cloud(0, 50, 4)
    whole = geometry.uniformity(x)
    monkeypatch.setattr(geometry, "BLOCK_ROWS", 7)
    assert geometry.uniformity(x) == pytest.approx(whole, rel=1e-14)


def test_collapsed_set():
    x = np.tile(cloud(1, 1, 16), (40, 1))
    assert geometry.alignment(x, x[::-1]) == 0
    assert geometry.uniformity(x) == pytest.approx(0, abs=1e-12)
    assert geometry.mean_cosine(x) == pytest.approx(1, abs=1e-12)
    assert geometry.isoscore(x) == 0
    assert geometry.effective_rank(x) == pytest.approx(1, abs=1e-9)
    assert geometry.effective_rank(x, epsilon=1e-7) == pytest.approx(1.000024, abs=5e-7)


def test_orthonormal_columns_use_all_dimensions():
    x = np.linalg.qr(np.random.default_rng(2).normal(size=(64, 16)))[0]
    assert geometry.effective_rank(x) == pytest.approx(16, abs=1e-9)
    assert geometry.effective_rank(x, epsilon=1e-7) == pytest.approx(16.000045, abs=5e-7)


@pytest.mark.parametrize("k, d", [(1, 16), (2, 16), (5, 8), (8, 8)])
def test_isoscore_counts_equal_variances(k, d):
    signs = np.concatenate([np.eye(d)[:k], -np.eye(d)[:k]])
    assert geometry.isoscore(signs) == pytest.approx((k - 1) / (d - 1), abs=1e-12)


def test_rotations_change_nothing():
    x, y = cloud(3, 60, 6), cloud(4, 60, 6)
    turn = np.linalg.qr(np.random.default_rng(5).normal(size=(6, 6)))[0]
    for measure in (geometry.alignment, geometry.modality_gap):
        assert measure(x @ turn, y @ turn) == pytest.approx(measure(x, y), rel=1e-12)
    for measure in (geometry.uniformity, geometry.mean_cosine, geometry.effective_rank, geometry.isoscore):
        assert measure(x @ turn) == pytest.approx(measure(x), rel=1e-9)


def test_gap_is_zero_between_equal_clouds_and_two_between_opposite_ones():
    x = cloud(6, 20, 3)
    assert geometry.modality_gap(x, x[::-1]) == pytest.approx(0, abs=1e-15)
    pole = np.tile([[1.0, 0, 0]], (5, 1))
    assert geometry.modality_gap(pole, -pole) == 2


def test_one_row_has_no_pairs():
    for measure in (geometry.uniformity, geometry.mean_cosine):
        with pytest.raises(ValueError, match="1 rows have no distinct pair"):
            measure(np.ones((1, 3)))


def test_partition_isotropy_is_that_of_the_definition():
    x = cloud(7, 40, 5)
    _, axes = np.linalg.eigh(x.T @ x)
    sums = [sum(np.exp(sign * float(row @ axis)) for row in x) for axis in axes.T for sign in (1, -1)]
    assert geometry.partition_isotropy(x) == pytest.approx(min(sums) / max(sums))
    assert geometry.partition_isotropy(np.tile(x[:1], (9, 1))) == pytest.approx(np.exp(-2))  # all along one axis, none against it
    assert geometry.partition_isotropy(np.concatenate([np.eye(4), -np.eye(4)])) == pytest.approx(1)


@pytest.mark.parametrize("k, d", [(1, 6), (3, 6), (6, 6)])
def test_the_rank_of_the_covariance_counts_equal_variances(k, d):
    signs = np.concatenate([np.eye(d)[:k], -np.eye(d)[:k]])
    assert geometry.effective_rank_covariance(signs) == pytest.approx(k)
    assert geometry.effective_rank_covariance(signs + 3.0) == pytest.approx(k)  # centred, unlike the other rank
    assert geometry.effective_rank_covariance(np.tile(cloud(0, 1, d), (20, 1))) == 0
    uneven = np.concatenate([signs, [[2.0] + [0.0] * (d - 1), [-2.0] + [0.0] * (d - 1)]])
    shares = np.diag(np.cov(uneven, rowvar=False)) / np.trace(np.cov(uneven, rowvar=False))
    assert geometry.effective_rank_covariance(uneven) == pytest.approx(np.exp(-sum(p * np.log(p) for p in shares if p > 0)))


def test_the_gap_is_closed_by_moving_both_sides():
    x, y = unit(cloud(1, 30, 4) + [1, 0, 0, 0], "x"), unit(cloud(2, 50, 4) - [1, 0, 0, 0], "y")
    for amount, same in zip(geometry.shift(x, y, 0.0), (x, y), strict=True):
        np.testing.assert_allclose(amount, same)
    gaps = [geometry.modality_gap(*geometry.shift(x, y, amount)) for amount in (-1.0, 0.0, 0.5, 1.0)]
    assert gaps == sorted(gaps, reverse=True) and gaps[-1] < gaps[1] / 3
    delta = x.mean(axis=0) - y.mean(axis=0)
    moved = x[0] - delta / 2
    np.testing.assert_allclose(geometry.shift(x, y, 1.0)[0][0], moved / np.linalg.norm(moved))


def test_a_probe_tells_modalities_apart_only_where_they_differ():
    x = cloud(3, 400, 6)
    assert geometry.modality_accuracy(x[:100], unit(x[100:200] + [1, 0, 0, 0, 0, 0], "y")) > 0.8
    assert geometry.modality_accuracy(x[:200], x[200:]) == pytest.approx(0.5, abs=0.12)
    assert geometry.modality_accuracy(np.tile(x[:1], (50, 1)), np.tile(x[1:2], (10, 1))) == 1  # however many there are of each
    turn = np.linalg.qr(np.random.default_rng(5).normal(size=(6, 6)))[0]
    for measure in (geometry.partition_isotropy, geometry.effective_rank_covariance):
        assert measure(x @ turn) == pytest.approx(measure(x), rel=1e-9)


def evaluate(task, method="retrieval", first="image", second="text", **options):
    encode = {"image": lambda rows: np.array(rows), "text": lambda rows: np.array(rows)}
    data = types.SimpleNamespace(**{method: lambda: task})
    return embedding_geometry(encode, data, task=method, first=first, second=second, **options)


def test_the_evaluator_takes_all_measures_of_pairs_and_sides():
    x, y = cloud(1, 12, 5), cloud(2, 9, 5)
    pairs = np.array([(i, i % 9) for i in range(12)])
    values = evaluate(RetrievalTask(list(x), list(y), pairs, [])).metrics
    assert values["geometry/alignment"] == pytest.approx(geometry.alignment(x, y[pairs[:, 1]]))
    assert values["geometry/modality_gap"] == pytest.approx(geometry.modality_gap(x, y))
    a, b = x.mean(axis=0), y.mean(axis=0)
    assert values["geometry/centroid_cosine"] == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    for name, side in (("image", x), ("text", y)):
        for key, measure in (("uniformity", geometry.uniformity), ("mean_cosine", geometry.mean_cosine), ("isoscore", geometry.isoscore),
                             ("partition_isotropy", geometry.partition_isotropy), ("effective_rank", geometry.effective_rank),
                             ("effective_rank_covariance", geometry.effective_rank_covariance)):  # fmt: skip
            assert values[f"geometry/{key}_{name}"] == pytest.approx(measure(side)), key
        assert values[f"geometry/rankme_{name}"] == pytest.approx(geometry.effective_rank(side, epsilon=1e-7))
    uniform = (values["geometry/uniformity_image"] + values["geometry/uniformity_text"]) / 2
    assert values["align_uniform"] == pytest.approx(-values["geometry/alignment"] - uniform / 2)
    assert (values["count/pairs"], values["count/image"], values["count/text"]) == (12, 12, 9)


def test_judged_pairs_count_where_they_are_relevant_and_one_view_may_read_both_sides():
    x, y = cloud(1, 6, 4), cloud(2, 8, 4)
    graded = np.array([(0, 1, 2), (0, 2, 0), (3, 5, 1), (4, 4, -1)])
    values = evaluate(RankingTask(list(x), list(y), graded), "ranking", first="text").metrics
    assert values["geometry/alignment"] == pytest.approx(geometry.alignment(x[[0, 3]], y[[1, 5]])) and values["count/pairs"] == 2
    assert (values["count/text_1"], values["count/text_2"]) == (6, 8)
    assert evaluate(RankingTask(list(x), list(y), graded[:, :2]), "ranking").metrics["count/pairs"] == 4
    translated = evaluate(Bitext(list(x), list(y), np.arange(6)[::-1]), "bitext").metrics
    assert translated["geometry/alignment"] == pytest.approx(geometry.alignment(x, y[:6][::-1]))


def test_rows_are_drawn_where_there_are_too_many():
    x = cloud(1, 40, 4)
    task = RetrievalTask(list(x), list(x), np.stack([np.arange(40)] * 2, axis=1), [])
    few = evaluate(task, rows=10)
    assert few.count == 10 and few.metrics["count/image"] == few.metrics["count/text"] == 10
    assert few.metrics["geometry/alignment"] == pytest.approx(0, abs=1e-12)
    assert few.metrics == evaluate(task, rows=10).metrics != evaluate(task, rows=10, seed=1).metrics


def test_what_has_no_geometry_is_refused():
    x = list(cloud(1, 5, 4))
    with pytest.raises(ConfigError, match="rows is 3; set it to 4 or more"):
        evaluate(RetrievalTask(x, x, np.array([(0, 0)]), []), rows=3)
    with pytest.raises(ConfigError, match="options.task is 'sts', which is not among: bitext, ranking, retrieval"):
        evaluate(None, "sts")
    for task in (RetrievalTask(x, x[:3], np.array([(0, 0)]), []), RetrievalTask(x, x, np.zeros((0, 2), int), [])):
        with pytest.raises(ValueError, match="needs a pair and four values a side"):
            evaluate(task)
