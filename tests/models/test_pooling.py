"""Tokens to one vector, rows without any token too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import POOLINGS
from models.pooling import take
from tests.models import toys

MASK = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]], bool)
TOKENS = jnp.asarray(np.random.default_rng(0).standard_normal((4, 4, 8)), jnp.float32)


def pool(name, mask=MASK, is_eos=None, tokens=TOKENS):
    module, eos = POOLINGS[name](), jnp.asarray(MASK if is_eos is None else is_eos)
    mask = None if mask is None else jnp.asarray(mask)
    params = toys.init(module, tokens, mask, eos) if name == "attention" else {}
    return np.asarray(module.apply({"params": params}, tokens, mask, eos))


@pytest.mark.parametrize("name, place", [("cls", [0, 0, 0, 0]), ("last", [3, 1, 2, 0]), ("eos", [1, 3, 2, 0])])
def test_which_token_is_taken(name, place):
    is_eos = np.array([[0, 1, 1, 0], [0, 0, 0, 1], [0, 0, 1, 1], [0, 0, 0, 0]], bool)
    np.testing.assert_array_equal(pool(name, is_eos=is_eos), np.asarray(TOKENS)[np.arange(4), place])


def test_the_mean_is_over_kept_tokens():
    expected = [np.asarray(TOKENS[r], float)[MASK[r]].sum(0) / max(MASK[r].sum(), 1) for r in range(4)]
    np.testing.assert_allclose(pool("mean"), expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(pool("mean")[3], np.zeros(8))


@pytest.mark.parametrize("name", sorted(POOLINGS))
def test_no_mask_keeps_all(name):
    np.testing.assert_allclose(pool(name, None), pool(name, np.ones_like(MASK)), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["mean", "last", "attention"])
def test_hidden_tokens_change_nothing(name):
    other = jnp.where(jnp.asarray(MASK)[..., None], TOKENS, 100.0)
    np.testing.assert_array_equal(pool(name, tokens=other)[:3], pool(name)[:3])


@pytest.mark.parametrize("name", sorted(POOLINGS))
def test_rows_without_a_token_are_finite_with_finite_gradients(name):
    module, mask, eos = POOLINGS[name](), jnp.asarray(MASK), jnp.asarray(MASK)
    params = toys.init(module, TOKENS, mask, eos) if name == "attention" else {}
    value, gradient = jax.value_and_grad(lambda t: jnp.sum(module.apply({"params": params}, t, mask, eos) ** 2))(TOKENS)
    assert np.isfinite(value) and np.isfinite(gradient).all()


def test_eos_needs_ids():
    with pytest.raises(ValueError, match="for images set the tower's options.pooling to 'cls', 'mean' or 'attention'"):
        POOLINGS["eos"]().apply({}, TOKENS, None, None)


def test_take_is_indexing():
    place = np.array([3, 0, 2, 1])
    np.testing.assert_array_equal(take(TOKENS, jnp.asarray(place)), np.asarray(TOKENS)[np.arange(4), place])
