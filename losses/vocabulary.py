"""Scores of words at the tokens of a batch, a block of tokens at a time: all of them at once are the largest array of a step."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from losses.similarity import einsum


def scores(states: Float[Array, "B c w"], table: Float[Array, "V w"], bias: Float[Array, " V"] | None, dtype: str) -> Float[Array, "B c V"]:
    """Logit of every word at some tokens."""
    found = einsum("btw,vw->btv", states, table, dtype)
    return found if bias is None else found + bias[None, None].astype(found.dtype)


def blocks(a: Shaped[Array, "B T *rest"], size: int, fill) -> Shaped[Array, "n B size *rest"]:
    """The tokens of each row in blocks of at most `size`, as equal as they can be; the last is filled up."""
    length = a.shape[1]
    count = -(-length // size)
    each = -(-length // count)
    a = jnp.pad(a, [(0, 0), (0, count * each - length), *[(0, 0)] * (a.ndim - 2)], constant_values=fill)
    return jnp.moveaxis(a.reshape(a.shape[0], count, each, *a.shape[2:]), 1, 0)


def kept(states: Float[Array, "B T w"], asked: Bool[Array, "B T"]) -> Float[Array, "B T w"]:
    """States of tokens that are asked for, zeros elsewhere: padding may hold NaN, which a zero weight would not stop."""
    return jnp.where(asked[..., None], states, 0)


def check(block_size: int) -> None:
    """Refuses blocks of nothing.

    Raises:
        ValueError: names the option.
    """
    if block_size < 1:
        raise ValueError(f"block_size is {block_size}; set config.losses.<label>.options.block_size to tokens of a row at once, 64.")
