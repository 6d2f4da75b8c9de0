"""Tokens to one vector: `pooling(tokens, mask, is_eos) -> [B, w]`. A mask of False leaves a token out."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from core.config import choose
from models.attention import attend, keep
from models.layers import axes, dense, layer_norm
from models.transformer import Mlp


class First(nn.Module):
    """The first token (a class token)."""

    @nn.compact
    def __call__(self, tokens: Float[Array, "B T w"], mask: Bool[Array, "B T"] | None = None, is_eos=None) -> Float[Array, "B w"]:
        return tokens[:, 0]


class Mean(nn.Module):
    """Mean over kept tokens; a row that keeps none gives zeros."""

    @nn.compact
    def __call__(self, tokens: Float[Array, "B T w"], mask: Bool[Array, "B T"] | None = None, is_eos=None) -> Float[Array, "B w"]:
        if mask is None:
            return tokens.mean(axis=1)
        weight = mask[..., None].astype(tokens.dtype)
        return (tokens * weight).sum(axis=1) / jnp.maximum(weight.sum(axis=1), 1)


class Last(nn.Module):
    """The last kept token; a row that keeps none gives its first token."""

    @nn.compact
    def __call__(self, tokens: Float[Array, "B T w"], mask: Bool[Array, "B T"] | None = None, is_eos=None) -> Float[Array, "B w"]:
        length = tokens.shape[1]
        last = length - 1 if mask is None else jnp.max(jnp.where(mask, jnp.arange(length)[None, :], 0), axis=1)
        return take(tokens, jnp.broadcast_to(jnp.asarray(last), tokens.shape[:1]))


class Eos(nn.Module):
    """The first end-of-text token; a row without one gives its first token. Source: CLIP, by first match of the id."""

    @nn.compact
    def __call__(
        self, tokens: Float[Array, "B T w"], mask: Bool[Array, "B T"] | None = None, is_eos: Bool[Array, "B T"] | None = None
    ) -> Float[Array, "B w"]:
        if is_eos is None:
            raise ValueError("pooling 'eos' needs token ids; for images set the tower's options.pooling to 'cls', 'mean' or 'attention'.")
        return take(tokens, jnp.argmax(is_eos, axis=1))


class AttentionPool(nn.Module):
    """A learned probe attends to the tokens: a + MLP(LN(a)). Source: Zhai et al. 2022 (MAP head), card conventions of big_vision."""

    heads: int = 4
    mlp_ratio: float = 4.0
    activation: str = "gelu"
    norm_eps: float = 1e-6
    dtype: str = "float32"

    @nn.compact
    def __call__(self, tokens: Float[Array, "B T w"], mask: Bool[Array, "B T"] | None = None, is_eos=None) -> Float[Array, "B w"]:
        width = tokens.shape[-1]
        split = lambda x: jnp.moveaxis(x.reshape(x.shape[:-1] + (self.heads, width // self.heads)), -2, 1)
        linear = lambda x, name: dense(width, ("embed", "heads"), dtype=self.dtype, name=name)(x)
        probe = self.param("probe", axes(nn.initializers.xavier_uniform(), None, None, None), (1, 1, width)).astype(tokens.dtype)
        query = jnp.broadcast_to(linear(probe, "query"), (tokens.shape[0], 1, width))
        a = attend(split(query), split(linear(tokens, "key")), split(linear(tokens, "value")), keep(mask, tokens.shape[1], False))
        a = dense(width, ("heads", "embed"), dtype=self.dtype, name="out")(jnp.moveaxis(a, 1, 2).reshape(tokens.shape[0], width))
        y = layer_norm(self.norm_eps, self.dtype, "norm")(a)
        return a + Mlp(self.mlp_ratio, self.activation, dtype=self.dtype, name="mlp")(y)


def take(tokens: Float[Array, "B T w"], position) -> Float[Array, "B w"]:
    """Row b's token at `position[b]`, by a one-hot product: a gather over a sharded batch would move whole rows."""
    one_hot = (jnp.arange(tokens.shape[1])[None, :] == position[:, None]).astype(tokens.dtype)
    return jnp.einsum("bt,btw->bw", one_hot, tokens)


POOLINGS = {
    "attention": AttentionPool,
    "cls": First,
    "eos": Eos,
    "last": Last,
    "mean": Mean,
}


def make(name: str, key: str, **fields) -> nn.Module:
    """The pooling that a tower's `options.pooling` names; `fields` are those of `AttentionPool`, whose layers are like the tower's.

    Raises:
        ConfigError: no such pooling.
    """
    pooling = choose(POOLINGS, name, key)
    return pooling(**fields, name="pool") if pooling is AttentionPool else pooling(name="pool")
