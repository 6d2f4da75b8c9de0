"""Which texts are encoded together, and how wide."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval import buckets


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 300), max_size=120),
    tokens=st.sampled_from([1, 64, 512, 4096]),
    parts=st.sampled_from([1, 2, 8]),
)
def test_every_row_is_in_one_batch_that_holds_it(lengths, tokens, parts):
    lengths = np.array(lengths, np.int64)
    planned = buckets.plan(lengths, buckets.widths(300), tokens, parts)
    rows = [row for batch in planned for row in batch.rows]
    assert sorted(rows) == list(range(len(lengths)))
    assert (np.diff(lengths[rows]) <= 0).all()  # the widest first: what does not fit in memory fails at once
    for batch in planned:
        assert 0 < len(batch.rows) <= batch.size and batch.size % parts == 0
        assert lengths[batch.rows].max(initial=0) <= batch.width <= 300
        assert batch.size * batch.width <= max(tokens, batch.width * parts)


@pytest.mark.parametrize("longest", [1, 7, 8, 16, 77, 128, 512, 8192])
def test_widths_waste_little_and_are_few(longest):
    made = buckets.widths(longest)
    assert made[-1] == longest and list(made) == sorted(set(made))
    for length in range(33, longest + 1):
        assert min(width for width in made if width >= length) < 1.25 * length
    assert len(made) <= 16 + 8 * max(0, np.log2(longest / 128))


def test_shapes_stay_few_however_many_the_texts():
    lengths = np.random.default_rng(0).integers(5, 257, 5000)
    planned = buckets.plan(lengths, buckets.widths(256), 4096)
    assert len({(batch.size, batch.width) for batch in planned}) <= 2 * len(buckets.widths(256))
    assert sum(batch.size * batch.width for batch in planned) < 1.1 * lengths.sum()
    few = buckets.plan(lengths[:40], buckets.widths(256), 4096)
    assert len({(batch.size, batch.width) for batch in few}) <= 6
