"""Texts that share rows: each lies where it is said to, whole, and what does not fit is cut by the tokenizer."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from input_pipeline import packing, transforms
from input_pipeline.tokenize import train_bpe

TEXTS = [" ".join(["a dog", "runs", "over green grass", "and barks"][: 1 + n % 4]) + f" {n}" for n in range(16)]


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(TEXTS, vocab_size=300)


@settings(max_examples=50, deadline=None)
@given(counts=st.lists(st.integers(0, 12), min_size=1, max_size=20), rows=st.integers(1, 8))
def test_texts_neither_overlap_nor_cross_rows(counts, rows):
    counts = np.array(counts)
    starts = packing.first_fit(counts, rows, 12)
    if starts is None:
        assert counts.sum() > 12 * rows / 2 or counts.max() > 6  # halves of half the room always fit
        return
    taken = np.concatenate([np.arange(start, start + count) for start, count in zip(starts, counts, strict=True)])
    assert len(set(taken)) == len(taken) == counts.sum() and (taken < 12 * rows).all()
    assert all(start // 12 == (start + count - 1) // 12 for start, count in zip(starts, counts, strict=True) if count)


def unpacked(arrays, group):
    """The tokens of each text."""
    flat, places = arrays[""].reshape(-1, group * arrays[""].shape[-1]), arrays["_places"].reshape(-1, group, 2)
    return [list(flat[i // group, start : start + count]) for i in range(len(places)) for start, count in [places[i, i % group]]]


@pytest.mark.parametrize("rows, most", [(6, 16), (3, None)])
def test_every_text_is_there(rows, most, tokenizer):
    found = transforms.pack(TEXTS, iter(()), tokenizer, length=16, group=8, rows=rows)
    assert found[""].shape == (16, 2 * rows) and found["_places"].shape == (16, 8, 2)
    texts = unpacked(found, 8)
    for start in (0, 8):
        limit = most or max(len(text) for text in texts[start : start + 8])
        assert most or limit < 16, "three rows hold less than the texts of a group have"
        ids, mask = tokenizer(TEXTS[start : start + 8], limit)
        assert texts[start : start + 8] == [list(row[kept]) for row, kept in zip(ids, mask, strict=True)]
    assert all(text[-1] == tokenizer.eos_id for text in texts)


def test_lists_of_texts_and_a_single_one(tokenizer):
    lists = [TEXTS[2 * n : 2 * n + 2] for n in range(8)]
    found, flat = (transforms.pack(texts, iter(()), tokenizer, length=16, group=8, rows=6) for texts in (lists, TEXTS))
    assert found[""].shape == (8, 2, 12) and found["_places"].shape == (8, 2, 8, 2)
    for name, array in found.items():
        np.testing.assert_array_equal(array.reshape(flat[name].shape), flat[name])
    one = transforms.pack(TEXTS[:1], iter(()), tokenizer, length=16, group=8, rows=6)
    assert {name: (array.shape[1:], array.dtype) for name, array in one.items()} == {
        name: (array.shape[1:], array.dtype) for name, array in flat.items()
    }


def test_in_evaluation_each_text_has_a_row(tokenizer):
    found, expected = transforms.pack(TEXTS, None, tokenizer, length=16), transforms.tokenize(TEXTS, None, tokenizer, length=16)
    assert found.keys() == expected.keys()
    np.testing.assert_array_equal(found[""], expected[""])


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(group=5, rows=5), "16 texts of this process do not split over 5 texts; change options.group"),
        (dict(group=8, rows=3, length=5), "3 rows of 5 tokens do not split over 8 texts"),
        (dict(group=16, rows=1), "16 texts do not fit into 1 rows of 16 tokens; raise options.rows"),
    ],
)
def test_sizes_that_do_not_fit_are_named(options, message, tokenizer):
    with pytest.raises(ValueError, match=message):
        transforms.pack(TEXTS, iter(()), tokenizer, **(dict(length=16) | options))
