"""Geometry against naive loops and the exact values of the papers' definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals import geometry
from evals.metrics import unit
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
