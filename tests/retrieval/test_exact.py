"""Search and counts over blocks on every mesh, against the whole matrix and naive loops."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import retrieval
from core import mesh as meshes
from retrieval import exact

SMALL = dict(query_rows=8, block_rows=4)  # several groups and blocks, the last of each ragged


@pytest.fixture(scope="module", params=[(1, 1), (2, 1), (2, 2), (8, 1)], ids=str)
def mesh(request):
    data, fsdp = request.param
    return meshes.make(data=data, fsdp=fsdp, devices=jax.devices()[: data * fsdp])


@st.composite
def rows(draw):
    """Small integers: products are exact in any order, and ties are common."""
    n, m = draw(st.integers(1, 20)), draw(st.integers(1, 70))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return rng, *(rng.integers(-2, 3, (size, 3)).astype(np.float32) for size in (n, m))


def by_sorting(scores, k):
    """Rows of the k highest of each list, the earlier among equals."""
    return [sorted(range(len(row)), key=lambda c: (-row[c], c))[:k] for row in scores.tolist()]


@settings(deadline=None, max_examples=12)
@given(data=rows(), most=st.sampled_from([1, 3]))
def test_search_is_the_head_of_the_sorted_list(mesh, data, most):
    _, queries, candidates = data
    k = min(most, len(candidates))
    found = exact.search(queries, candidates, k, mesh=mesh, **SMALL)
    scores = queries @ candidates.T
    assert found.rows.tolist() == by_sorting(scores, k)
    np.testing.assert_array_equal(found.scores, np.take_along_axis(scores, found.rows, axis=1))


@settings(deadline=None, max_examples=12)
@given(data=rows())
def test_counts_are_those_of_the_loop(mesh, data):
    rng, queries, candidates = data
    scores, (n, m) = queries @ candidates.T, (len(queries), len(candidates))
    own = -np.sort(-np.stack([rng.permutation(np.append(np.arange(m), [-1] * 3))[:2] for _ in range(n)]))
    level = np.sort(np.where(rng.random((n, 2)) < 0.2, np.nan, rng.integers(-4, 5, (n, 2))).astype(np.float32))
    tie, place = rng.permutation(m), rng.integers(0, m, (n, 2))
    found = exact.count(queries, candidates, own, level, place=place, tie=tie, mesh=mesh, **SMALL)
    for q, at in np.ndindex(n, 2):
        others = [c for c in range(m) if c not in own[q]]
        tied = [c for c in others if scores[q, c] == level[q, at]]
        expected = (sum(scores[q, c] > level[q, at] for c in others), len(tied), sum(tie[c] < place[q, at] for c in tied))
        assert tuple(part[q, at] for part in found) == expected


def test_real_rows_give_the_answer_of_the_whole_matrix_bit_for_bit(mesh):
    """Large enough for the search by chunks, with candidates that occur twice, far apart."""
    rng = np.random.default_rng(0)
    queries, candidates = (rng.standard_normal((size, 70), np.float32) for size in (9, 1500))
    candidates[900:1200] = candidates[:300]
    unit = [z.astype(np.float64) / np.linalg.norm(z.astype(np.float64), axis=1, keepdims=True) for z in (queries, candidates)]
    scores = (unit[0] @ unit[1].T).astype(np.float32)
    found = retrieval.search(queries, candidates, 3, unit=True, mesh=mesh, block_rows=512)
    np.testing.assert_array_equal(found.rows, by_sorting(scores, 3))
    np.testing.assert_array_equal(found.scores, np.take_along_axis(scores, found.rows, axis=1))


def test_shards_are_searched_as_one(tmp_path):
    rng = np.random.default_rng(1)
    candidates = rng.standard_normal((50, 5)).astype(np.float16)
    queries = rng.standard_normal((4, 5)).astype(np.float32)
    np.save(tmp_path / "rows.npy", candidates[20:], allow_pickle=False)
    parts = [candidates[:20], np.load(tmp_path / "rows.npy", mmap_mode="r", allow_pickle=False)]
    for one, other in zip(exact.search(queries, parts, 3, **SMALL), exact.search(queries, candidates, 3, **SMALL), strict=True):
        np.testing.assert_array_equal(one, other)


def test_memory_holds_scores_of_one_block_however_many_are_counted():
    """Beside the scores of a block in float64 and float32 there is no other array of queries x candidates, and none for each level."""
    mesh, (n, m, levels) = meshes.make(devices=jax.devices()[:1]), (32, 1024, 64)
    shape = jax.ShapeDtypeStruct
    with jax.enable_x64(True):
        sides = [shape((n, 64), "float64"), *(shape((n, levels), dtype) for dtype in ("float32", "int32", "int32"))]
        block = [shape((m, 64), "float32"), shape((m,), "int32"), shape((), "int32"), shape((), "int32")]
        found = exact.Counts(*[shape((n, levels), "int32")] * 3)
        count = exact._count.lower(found, *sides, *block, unit=True, mesh=mesh).compile()
        best = exact._best.lower(exact.Found(shape((n, 10), "float32"), shape((n, 10), "int32")), sides[0], *block, unit=True, mesh=mesh)
    rows_in_float64 = 8 * m * 64
    for program in (count, best.compile()):
        assert 8 * n * m < program.memory_analysis().temp_size_in_bytes < (8 + 4) * n * m + rows_in_float64


@pytest.mark.parametrize("queries, candidates, k, message", [
    (np.ones((2, 3)), np.ones((4, 5)), 1, r"queries of shape \(2, 3\) and 4 candidates of shapes \[\(4, 5\)\]"),
    (np.ones(3), np.ones((4, 3)), 1, r"queries of shape \(3,\)"),
    (np.ones((2, 3)), [], 1, "and 0 candidates"),
    (np.ones((2, 3)), np.ones((4, 3)), 5, "k is 5, but there are 4 candidates"),
    (np.ones((2, 3)), np.array([[1, 1, 1], [0, 0, np.nan], [2, 1, 1]]), 1, "query 0 and candidate 1 have no"),
    (np.array([[1, 1, 1], [np.inf, 0, 0]]), np.ones((4, 3)), 1, "query 1 and candidate 0 have no"),
    (np.ones((2, 3)), np.array([[1, 1, 1], [0, 0, 0]]), 1, "query 0 and candidate 1 have no"),
])  # fmt: skip
def test_what_cannot_be_searched_is_named(queries, candidates, k, message):
    with pytest.raises(ValueError, match=message):
        exact.search(queries, candidates, k, unit=True, **SMALL)
