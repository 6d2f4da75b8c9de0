"""The order of rows depends on the seed and the row alone: threads, workers, processes and restarts change nothing."""

import numpy as np
import pytest
from core.config import ConfigError
from ml_collections import ConfigDict

from input_pipeline import batching


def config(**changes):
    data = dict(
        global_batch=8, shuffle=True, threads=0, workers=0, max_bad_fraction=0.0,
        sources=dict(main=dict(name="digits", weight=1.0, options=dict(split="test", size=8))),
        tokenizer=dict(name="bpe", options=dict(vocab_size=300)),
        transforms=dict(
            image=dict(name="augment", options=dict(shift=0.1, scale=0.1, rotate=8.0, noise=0.05)),
            text=dict(name="tokenize", options=dict(length=8)),
        ),
    )  # fmt: skip
    return ConfigDict(data | changes)


@pytest.fixture(scope="module")
def digits():
    sources = batching.make_sources(config())
    return sources, batching.make_tokenizer(config(), sources)


def read(digits, count, *, start=0, **options):
    changes = options.pop("changes", {})
    with batching.batches(config(**changes), *digits, seed=0, start=start, **options) as iterator:
        return [next(iterator) for _ in range(count)]


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_a_run_that_starts_anywhere_goes_on_as_the_whole_run(digits):
    whole = read(digits, 6)
    for start in range(6):
        for a, b in zip(whole[start:], read(digits, 6 - start, start=start), strict=True):
            assert_same(a, b)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_processes_share_a_global_batch_without_overlap(digits, count):
    whole = read(digits, 3)
    parts = [read(digits, 3, process_index=p, process_count=count) for p in range(count)]
    for step, batch in enumerate(whole):
        joined = {name: np.concatenate([part[step][name] for part in parts]) for name in batch}
        assert_same(batch, joined)


def test_a_global_batch_that_does_not_split_is_an_error(digits):
    with pytest.raises(ConfigError, match="config.data.global_batch is 8.* set it to 6 or 9"):
        read(digits, 1, process_count=3)
