"""What a text tower may and may not see."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models import toys

BIDIRECTIONAL = [dict(causal=False, pooling=p) for p in ("mean", "attention", "last", "eos")]


@functools.lru_cache
def applied(capture=(), **options):
    tower = toys.tower("text", **options)
    params = toys.init(tower, *toys.texts())
    return jax.jit(lambda ids, mask: tower.apply({"params": params}, ids, mask, capture=capture))


def embed(ids, mask, **options):
    return np.asarray(applied(**options)(ids, mask)["embedding"])


def test_what_follows_the_end_of_text_changes_nothing():
    ids, mask = toys.texts()
    noise = jnp.asarray(np.random.default_rng(1).integers(0, 40, ids.shape), jnp.int32)  # may hold further ends of text
    np.testing.assert_array_equal(embed(jnp.where(mask, ids, noise), mask), embed(ids, mask))
    np.testing.assert_array_equal(embed(ids, None), embed(ids, mask))


@pytest.mark.parametrize("place", [1, 3, 5])
def test_a_token_changes_no_state_before_it(place):
    ids, mask = toys.texts()
    states = lambda ids: np.asarray(applied(("tokens",))(ids, mask)["tokens"])
    before, after = states(ids), states(ids.at[:, place].set(7))
    np.testing.assert_array_equal(after[:, :place], before[:, :place])
    assert np.abs(after[:, place:] - before[:, place:]).max() > 1e-2


def test_the_first_end_of_text_is_argmax_where_its_id_is_the_largest():
    ids, mask = toys.texts()
    largest = jnp.where(ids == toys.EOS, 39, jnp.where(ids == 39, 4, ids))
    tokens = applied(("tokens",), eos_id=39, embed_dim=0)(largest, mask)
    expected = np.asarray(tokens["tokens"])[np.arange(4), np.argmax(largest, axis=1)]
    np.testing.assert_array_equal(tokens["embedding"], expected)


@pytest.mark.parametrize("options", [{}, *BIDIRECTIONAL], ids=str)
def test_shorter_padding_changes_nothing(options):
    ids, mask = toys.texts(rows=5, seed=3)
    ids, mask = ids[1:], mask[1:]  # row 0 is full
    longest = int(mask.sum(1).max())
    assert longest < 6
    np.testing.assert_allclose(embed(ids[:, :longest], mask[:, :longest], **options), embed(ids, mask, **options), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", BIDIRECTIONAL, ids=str)
def test_what_the_mask_hides_changes_nothing(options):
    ids, mask = toys.texts()
    np.testing.assert_array_equal(embed(jnp.where(mask, ids, 17), mask, **options), embed(ids, mask, **options))
    assert np.abs(embed(ids, None, **options) - embed(ids, mask, **options)).max() > 1e-3


def test_more_tokens_than_positions_are_refused():
    ids, mask = toys.texts(length=7)
    with pytest.raises(ValueError, match="texts of 7 tokens, but the tower takes 6; set config.data.transforms.text.options.length to 6"):
        embed(ids, mask)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(activation="gelo"), "the tower's options.activation is 'gelo', which is not among: gelu, .* Did you mean 'gelu'"),
        (
            dict(pooling="averge"),
            "the text tower's options.pooling is 'averge', which is not among: adapted, attention, cls, eos, .*mean",
        ),
        (dict(heads=3), "a width of 16 does not split into 3 heads; change the tower's options.heads"),
    ],
    ids=str,
)
def test_wrong_options_name_the_key(options, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda: toys.tower("text", **options).init(jax.random.key(0), *toys.texts()))
