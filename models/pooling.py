"""Tokens to one vector: `pooling(tokens, mask, is_eos=, visible=, layers=)`.

`mask` says which tokens are pooled (all, if None), `visible` which ones attention saw: instructions may be read and yet not be pooled.
`is_eos` marks end-of-text tokens, `layers [N B T w]` are the states after each block, for the poolings that read them.
Poolings that attend are in `models/attention_pooling.py`; `models/read_out.py` lists all.
"""

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from models.layers import axes, dense, layer_norm, unit
from models.transformer import Mlp


class First(nn.Module):
    """The first token (a class token)."""

    @nn.compact
    def __call__(self, tokens: Float[Array, "B T w"], mask: Bool[Array, "B T"] | None = None, **_) -> Float[Array, "B w"]:
        return tokens[:, 0]


class Pooler(nn.Module):
    """tanh(W first token + b). Source: Devlin et al. 2019, the layer of the next-sentence objective."""

    INHERITED: ClassVar[tuple[str, ...]] = ("dtype",)
    dtype: str = "float32"

    @nn.compact
    def __call__(self, tokens: Float[Array, "B T w"], mask: Bool[Array, "B T"] | None = None, **_) -> Float[Array, "B w"]:
        return jnp.tanh(dense(tokens.shape[-1], ("embed", "heads"), dtype=self.dtype, name="dense")(tokens[:, 0]))


class Mean(nn.Module):
    """Mean over kept tokens; a row that keeps none gives zeros."""

    @nn.compact
    def __call__(self, tokens: Float[Array, "B T w"], mask: Bool[Array, "B T"] | None = None, **_) -> Float[Array, "B w"]:
        return mean(tokens, mask)


class MeanSqrtLength(nn.Module):
    """Sum over kept tokens, divided by the root of their number."""

    @nn.compact
    def __call__(self, tokens: Float[Array, "B T w"], mask: Bool[Array, "B T"] | None = None, **_) -> Float[Array, "B w"]:
        summed, count = total(tokens, mask)
        return summed / jnp.sqrt(jnp.maximum(count, 1)).astype(tokens.dtype)


class WeightedMean(nn.Module):
    """Mean over kept tokens in which the i-th visible token weighs i: under a causal mask, later ones have seen more.

    Source: Muennighoff 2022 (SGPT, arXiv:2202.08904), eq. 3.
    """

    @nn.compact
    def __call__(
        self,
        tokens: Float[Array, "B T w"],
        mask: Bool[Array, "B T"] | None = None,
        visible: Bool[Array, "B T"] | None = None,
        **_,
    ) -> Float[Array, "B w"]:
        mask = jnp.ones((1, tokens.shape[1]), bool) if mask is None else mask
        place = jnp.cumsum(mask if visible is None else visible, axis=1, dtype=jnp.float32)
        weight = place * mask
        weight = weight / jnp.maximum(weight.sum(axis=1, keepdims=True), 1)
        return (tokens * weight[..., None]).sum(axis=1).astype(tokens.dtype)


class Max(nn.Module):
    """The largest of each feature over kept tokens; a row that keeps none gives zeros."""

    @nn.compact
    def __call__(self, tokens: Float[Array, "B T w"], mask: Bool[Array, "B T"] | None = None, **_) -> Float[Array, "B w"]:
        if mask is None:
            return tokens.max(axis=1)
        largest = jnp.where(mask[..., None], tokens, -jnp.inf).max(axis=1)
        return jnp.where(mask.any(axis=1)[:, None], largest, 0.0)


class Last(nn.Module):
    """The last kept token, whichever side the padding is on; a row that keeps none gives its first token."""

    @nn.compact
    def __call__(self, tokens: Float[Array, "B T w"], mask: Bool[Array, "B T"] | None = None, **_) -> Float[Array, "B w"]:
        return last(tokens, mask)


class Eos(nn.Module):
    """The first end-of-text token; a row without one gives its first token. Source: CLIP, by first match of the id."""

    @nn.compact
    def __call__(
        self,
        tokens: Float[Array, "B T w"],
        mask: Bool[Array, "B T"] | None = None,
        is_eos: Bool[Array, "B T"] | None = None,
        **_,
    ) -> Float[Array, "B w"]:
        if is_eos is None:
            raise ValueError(
                "pooling 'eos' needs token ids and their end of text, which only the 'text' tower knows; "
                "set the tower's options.pooling to 'last', or for images to 'cls', 'mean' or 'attention'."
            )
        return take(tokens, jnp.argmax(is_eos, axis=1))


class LayerMix(nn.Module):
    """A learned weighting of all layers' means over kept tokens; it starts as their average. Source: Peters et al. 2018, eq. 1."""

    READS_LAYERS: ClassVar[bool] = True

    @nn.compact
    def __call__(
        self,
        tokens: Float[Array, "B T w"],
        mask: Bool[Array, "B T"] | None = None,
        layers: Float[Array, "N B T w"] | None = None,
        **_,
    ) -> Float[Array, "B w"]:
        weight = self.param("weight", axes(nn.initializers.zeros, None), (layers.shape[0],))
        pooled = jnp.stack([mean(layer, mask) for layer in layers])
        return jnp.einsum("n,nbw->bw", nn.softmax(weight), pooled.astype(jnp.float32)).astype(tokens.dtype)


class JoinedLayers(nn.Module):
    """The means over kept tokens of the last `joined` layers, one behind the other. Source: Barkan et al. 2020 (arXiv:1908.05161)."""

    READS_LAYERS: ClassVar[bool] = True
    joined: int = 4

    @nn.compact
    def __call__(
        self,
        tokens: Float[Array, "B T w"],
        mask: Bool[Array, "B T"] | None = None,
        layers: Float[Array, "N B T w"] | None = None,
        **_,
    ) -> Float[Array, "B W"]:
        if not 1 <= self.joined <= layers.shape[0]:
            raise ValueError(
                f"{self.joined} layers of {layers.shape[0]}; set the tower's options.pooling_options.joined from 1 to {layers.shape[0]}."
            )
        return jnp.concatenate([mean(layer, mask) for layer in layers[-self.joined :]], axis=1)


class Adapted(nn.Module):
    """Residual blocks x + MLP(LN(x)) on the mean over kept tokens at unit length, and a last LN: LLM2CLIP's adapter of a frozen tower.

    Blocks start as the identity. Everything before it may be frozen, and its mean be kept for all epochs:
    `config.optimizer.freeze = ("towers_text/(?!pool|projection)",)`.

    Source: Huang et al. 2024 (LLM2CLIP, arXiv:2411.04997), four blocks of expansion 2 as released. That they start as the identity is ours.
    """

    INHERITED: ClassVar[tuple[str, ...]] = ("dtype",)
    blocks: int = 4
    expansion: float = 2.0
    dtype: str = "float32"

    @nn.compact
    def __call__(self, tokens: Float[Array, "B T w"], mask: Bool[Array, "B T"] | None = None, **_) -> Float[Array, "B w"]:
        x = unit(mean(tokens, mask).astype(jnp.float32))
        for i in range(self.blocks):
            mlp = Mlp(self.expansion, "gelu", out_std=0.0, dtype=self.dtype, name=f"block_{i}")
            x = x + mlp(layer_norm(1e-5, self.dtype, f"norm_{i}")(x))
        return layer_norm(1e-5, "float32", "norm")(x)


def take(tokens: Float[Array, "B T w"], position) -> Float[Array, "B w"]:
    """Row b's token at `position[b]`, by a one-hot product: a gather over a sharded batch would move whole rows."""
    one_hot = (jnp.arange(tokens.shape[1])[None, :] == position[:, None]).astype(tokens.dtype)
    return jnp.einsum("bt,btw->bw", one_hot, tokens)


def total(tokens: Float[Array, "B T w"], mask: Bool[Array, "B T"] | None) -> tuple[Float[Array, "B w"], Float[Array, "#B 1"]]:
    """Sum over kept tokens, and how many there are."""
    if mask is None:
        return tokens.sum(axis=1), jnp.full((1, 1), tokens.shape[1], jnp.float32)
    return (tokens * mask[..., None].astype(tokens.dtype)).sum(axis=1), mask.sum(axis=1, dtype=jnp.float32)[:, None]


def mean(tokens: Float[Array, "B T w"], mask: Bool[Array, "B T"] | None) -> Float[Array, "B w"]:
    """Mean over kept tokens; a row that keeps none gives zeros."""
    summed, count = total(tokens, mask)
    return summed / jnp.maximum(count, 1).astype(tokens.dtype)


def last(tokens: Float[Array, "B T w"], mask: Bool[Array, "B T"] | None) -> Float[Array, "B w"]:
    """The last kept token; a row that keeps none gives its first."""
    if mask is None:
        return tokens[:, -1]
    return take(tokens, jnp.max(jnp.where(mask, jnp.arange(tokens.shape[1])[None, :], 0), axis=1))
