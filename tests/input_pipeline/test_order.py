"""The order of rows by definition, on sizes hypothesis draws."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from input_pipeline import order


@settings(max_examples=40, deadline=None)
@given(size=st.integers(1, 300), seed=st.integers(0, 2**31), shuffle=st.booleans())
def test_each_epoch_has_each_record_once(size, seed, shuffle):
    keys = order.keys({"main": size}, {"main": 1.0}, seed=seed, shuffle=shuffle)
    assert len(keys) == size
    for epoch in range(3):
        rows = [keys[epoch * size + i] for i in range(size)]
        assert {key.epoch for key in rows} == {epoch}
        assert sorted(key.record for key in rows) == list(range(size))
        if not shuffle:
            assert [key.record for key in rows] == list(range(size))


# Grain walks tens of thousands of steps to shuffle a handful of records, so the sizes here are not the smallest.
@settings(max_examples=15, deadline=None)
@given(sizes=st.lists(st.integers(20, 60), min_size=2, max_size=4), weights=st.lists(st.integers(1, 9), min_size=4, max_size=4))
def test_a_mixture_keeps_to_its_weights_at_every_row(sizes, weights):
    labels = [f"s{i}" for i in range(len(sizes))]
    shares = np.array(weights[: len(sizes)]) / sum(weights[: len(sizes)])
    keys = order.keys(dict(zip(labels, sizes, strict=True)), dict(zip(labels, shares.tolist(), strict=True)), seed=0, shuffle=True)
    rows = [keys[i] for i in range(200)]
    counts = np.cumsum([[key.source == s for s in range(len(sizes))] for key in rows], axis=0)
    expected = np.arange(1, 201)[:, None] * shares
    # Weights are rounded to 1% of the smallest, and each split of two is off by less than one row.
    assert np.abs(counts - expected).max() <= len(sizes) + 0.01 * 200
    for s, size in enumerate(sizes):
        mine = [key for key in rows if key.source == s]
        for start in range(0, len(mine) - size + 1, size):
            assert sorted(key.record for key in mine[start : start + size]) == list(range(size))


def test_epochs_and_seeds_have_orders_of_their_own():
    def rows(seed, epoch):
        keys = order.keys({"main": 50}, {"main": 1.0}, seed=seed, shuffle=True)
        return tuple(keys[epoch * 50 + i].record for i in range(50))

    assert len({rows(seed, epoch) for seed in range(4) for epoch in range(4)}) == 16


def test_generators_repeat_and_differ():
    draws = {}
    for stream in (1, 2):
        for record in (0, 1):
            for epoch in (0, 1):
                key = order.Key(0, record, epoch)
                draws[stream, record, epoch] = tuple(order.generator(stream, key).random(4))
                assert draws[stream, record, epoch] == tuple(order.generator(stream, key).random(4))
    assert len(set(draws.values())) == 8


def test_streams_differ_by_seed_and_purpose():
    assert len({order.stream(seed, purpose) for seed in range(20) for purpose in ("image a", "image b", "shuffle a")}) == 60


@settings(max_examples=4, deadline=None)
@given(
    sizes=st.lists(st.integers(20, 40), min_size=2, max_size=3), weights=st.lists(st.integers(1, 3), min_size=3, max_size=3),
    run=st.integers(1, 5), shuffle=st.booleans(),
)  # fmt: skip
def test_aligned_runs_are_of_one_source_and_its_records_are_those_of_the_mixture_row_by_row(sizes, weights, run, shuffle):
    labels = [f"s{i}" for i in range(len(sizes))]
    sizes, weights = (dict(zip(labels, values, strict=False)) for values in (sizes, weights))
    runs, rows = (order.keys(sizes, weights, seed=3, shuffle=shuffle, run=k) for k in (run, 1))
    found = [runs[i] for i in range(run * 40)]
    assert all(len({key.source for key in found[start : start + run]}) == 1 for start in range(0, len(found), run))
    assert [key.source for key in found[::run]] == [rows[i].source for i in range(40)]  # so the weights hold as they do for rows
    plain = [rows[i] for i in range(run * 100)]
    for source in range(len(sizes)):
        mine = [key for key in found if key.source == source]
        assert mine == [key for key in plain if key.source == source][: len(mine)]
    assert len(runs) == len(rows)
