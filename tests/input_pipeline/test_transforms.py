"""Texts become rows of the smallest width that holds them; lists, prompts and mistakes."""

import numpy as np
import pytest

from core.config import ConfigError
from input_pipeline import batching, tokenize, transforms
from tests.input_pipeline.toys import toy_config

TEXTS = ["a", "a b", "a b c d", "a b c d e f g h"]


@pytest.fixture(scope="module")
def tokenizer():
    return tokenize.train_bpe(TEXTS * 9, vocab_size=270)


def arrays(tokenizer, values, **options):
    return transforms.tokenize(values, None, tokenizer, **options)


@pytest.mark.parametrize("count", range(1, 5))
def test_the_smallest_bucket_that_holds_the_longest_text(tokenizer, count):
    whole = arrays(tokenizer, TEXTS[:count], length=24)
    longest = whole["_mask"].sum(1).max()
    found = arrays(tokenizer, TEXTS[:count], length=24, buckets=(3, 4, 8))
    width = min(w for w in (3, 4, 8, 24) if w >= longest)
    assert found[""].shape == found["_mask"].shape == (count, width)
    for name in ("", "_mask"):
        np.testing.assert_array_equal(found[name], whole[name][:, :width])
    assert arrays(tokenizer, [], length=24, buckets=(3,))[""].shape == (0, 3)


def test_lists_of_texts_get_an_axis_of_their_own(tokenizer):
    lists = [TEXTS[:2], TEXTS[2:], ["", "b"]]
    found = arrays(tokenizer, lists, length=9, pool_prompt=False, prompt="c ")
    flat = arrays(tokenizer, sum(lists, []), length=9, pool_prompt=False, prompt="c ")
    assert found.keys() == {"", "_mask", "_pool_mask"}
    for name, array in found.items():
        assert array.shape == (3, 2, 9)
        np.testing.assert_array_equal(array.reshape(6, 9), flat[name])


def test_a_prompt_stands_before_every_text_and_may_be_left_out_of_pooling(tokenizer):
    found = arrays(tokenizer, TEXTS, length=24, prompt="q: ", pool_prompt=False)
    plain = arrays(tokenizer, ["q: " + text for text in TEXTS], length=24)
    np.testing.assert_array_equal(found[""], plain[""])
    np.testing.assert_array_equal(found["_mask"], plain["_mask"])
    own = found["_mask"].sum(1) - found["_pool_mask"].sum(1)
    assert (own == tokenizer.prompt_tokens("q: ")).all() and own[0] > 2
    assert not found["_pool_mask"][:, : own[0]].any() and (found["_pool_mask"] <= found["_mask"]).all()
    np.testing.assert_array_equal(plain["_mask"], arrays(tokenizer, ["q: " + t for t in TEXTS], length=24, pool_prompt=False)["_pool_mask"])
    assert "_pool_mask" not in plain


def test_either_side_may_be_cut(tokenizer):
    (whole,) = tokenizer.rows(TEXTS[-1:])
    right, left = (arrays(tokenizer, TEXTS[-1:], length=6, truncate_side=side)[""][0].tolist() for side in ("right", "left"))
    assert len(whole) > 6
    assert right == whole[:5] + whole[-1:] and left == whole[:1] + whole[-5:]


def test_bytes_are_texts_and_broken_ones_have_a_row(tokenizer):
    as_bytes = arrays(tokenizer, [text.encode() for text in TEXTS], length=24)
    np.testing.assert_array_equal(as_bytes[""], arrays(tokenizer, TEXTS, length=24)[""])
    broken = arrays(tokenizer, [b"a \xff", "a \ud800", "a \udfff"], length=24)
    np.testing.assert_array_equal(broken[""], arrays(tokenizer, ["a \ufffd"] * 3, length=24)[""])
    halves = arrays(tokenizer, ["\ud83d\ude00"], length=24)  # a pair that belongs together
    np.testing.assert_array_equal(halves[""], arrays(tokenizer, ["\U0001f600"], length=24)[""])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(buckets=(8, 4)), "options.buckets is .*rising widths of at most options.length, 32"),
        (dict(buckets=(64,)), "options.buckets"),
        (dict(truncate_side="both"), "options.truncate_side is 'both'; set it to 'right' or 'left'"),
        (dict(truncate_side="left", prompt="q: "), "which would cut the prompt away; set it to 'right'"),
        (dict(length=4, prompt="q: q: "), "the prompt takes 8 of options.length = 4 tokens; set length to 16"),
        (dict(length=1), "options.length to 2 or more"),
    ],
)
def test_options_that_cannot_be_name_themselves(tokenizer, options, message):
    with pytest.raises(ValueError, match=message):
        arrays(tokenizer, TEXTS, **options)


def hidden(tokenizer, texts, seed=0, **options):
    rngs = (np.random.default_rng((seed, i)) for i in range(len(texts)))
    return transforms.mask_tokens(texts, rngs, tokenizer, **(dict(length=32, mask_id=270) | options))


def test_hidden_tokens_are_those_that_are_asked_for(tokenizer):
    texts = ["a b c d e f g h " * 2] * 400
    whole, found = arrays(tokenizer, texts, length=32), hidden(tokenizer, texts)
    target, own = found["_target"], whole["_mask"].copy()
    own[:, 0] = False
    own[np.arange(len(texts)), whole["_mask"].sum(1) - 1] = False  # what stands around a text is never asked for
    np.testing.assert_array_equal(found["_own"], np.where(own, whole[""], -1))
    asked = target >= 0
    np.testing.assert_array_equal(target[asked], whole[""][asked])
    np.testing.assert_array_equal(found[""][~asked], whole[""][~asked])
    np.testing.assert_array_equal(found["_mask"], whole["_mask"])
    assert not asked[~own].any()
    count = asked.sum()
    # Several thousand draws: shares are known to about 0.01.
    assert abs(count / own.sum() - 0.15) < 0.02
    assert abs((found[""][asked] == 270).sum() / count - 0.8) < 0.05
    assert abs((found[""][asked] == whole[""][asked]).sum() / count - 0.1) < 0.05
    assert found[""].max() == 270 and found[""][found[""] != 270].max() < tokenizer.vocab_size


def test_what_a_row_hides_is_its_own(tokenizer):
    whole = hidden(tokenizer, TEXTS)
    short = hidden(tokenizer, TEXTS, buckets=(16,))
    for name in ("", "_target"):
        np.testing.assert_array_equal(short[name], whole[name][:, : short[name].shape[1]])
    assert not np.array_equal(hidden(tokenizer, TEXTS, seed=1)["_target"], whole["_target"])
    plain = transforms.mask_tokens(TEXTS, None, tokenizer, length=32, mask_id=270)
    np.testing.assert_array_equal(plain[""], arrays(tokenizer, TEXTS, length=32)[""])
    assert plain.keys() == {"", "_mask"}


@pytest.mark.parametrize("options", [dict(mask_id=-1), dict(share=0.0), dict(keep=0.6, replace=0.6)])
def test_hiding_needs_a_token_and_shares(tokenizer, options):
    with pytest.raises(ValueError, match="set mask_id to a token, 103 for BERT's"):
        hidden(tokenizer, TEXTS, **options)


class Lists:
    """Record i has `sizes[i]` texts."""

    counts = {"id": 4}

    def __init__(self, sizes):
        self.sizes = sizes

    def __len__(self):
        return len(self.sizes)

    def __getitem__(self, i):
        return {"negatives": ["a"] * self.sizes[i], "id": i}


@pytest.mark.parametrize(
    ("sizes", "options", "message"),
    [
        ((2, 2, 3, 2), {}, "texts of 'negatives': 2 in record 0 of config.data.sources.main but 3 in record 2 of config.data.sources.main"),
        ((0, 0, 0, 0), {}, "texts of 'negatives': 0 in record 0 of config.data.sources.main; let the source give .* 1 or more"),
        ((2, 2, 2, 2), dict(buckets=(99,)), "config.data.transforms.negatives: options.buckets"),
        ((2, 2, 2, 2), None, r"'negatives' is text, .* config.data.transforms.negatives to dict\(name='tokenize'"),
    ],
)
def test_a_batch_names_the_key_of_what_it_cannot_hold(tokenizer, sizes, options, message):
    chosen = {} if options is None else dict(negatives=dict(name="tokenize", options=options))
    data = toy_config(transforms=chosen, global_batch=4, shuffle=False)
    with batching.batches(data, {"main": Lists(sizes)}, tokenizer, seed=0) as rows:
        with pytest.raises(ConfigError, match=message):
            next(rows)


def test_a_text_that_is_none_says_so(tokenizer):
    with pytest.raises(TypeError, match="a text must be str or UTF-8 bytes, not NoneType"):
        arrays(tokenizer, ["a", None])
