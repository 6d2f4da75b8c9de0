"""Poolings that attend: a probe, latents that tokens read, latents that read tokens or layers, low-rank maps."""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from core.config import ConfigError, choose
from models.attention import attend, keep
from models.layers import axes, dense, layer_norm
from models.pooling import last, mean
from models.transformer import GatedMlp, Mlp


class AttentionPool(nn.Module):
    """A learned probe attends to the tokens: a + MLP(LN(a)). Source: Zhai et al. 2022 (MAP head), card conventions of big_vision."""

    INHERITED: ClassVar[tuple[str, ...]] = ("heads", "mlp_ratio", "activation", "norm_eps", "dtype")
    heads: int = 4
    mlp_ratio: float = 4.0
    activation: str = "gelu"
    norm_eps: float = 1e-6
    dtype: str = "float32"

    @nn.compact
    def __call__(self, tokens: Float[Array, "B T w"], mask: Bool[Array, "B T"] | None = None, **_) -> Float[Array, "B w"]:
        width = tokens.shape[-1]
        split = lambda x: jnp.moveaxis(x.reshape(x.shape[:-1] + (self.heads, width // self.heads)), -2, 1)
        linear = lambda x, name: dense(width, ("embed", "heads"), dtype=self.dtype, name=name)(x)
        probe = self.param("probe", axes(nn.initializers.xavier_uniform(), None, None, None), (1, 1, width)).astype(tokens.dtype)
        query = jnp.broadcast_to(linear(probe, "query"), (tokens.shape[0], 1, width))
        a = attend(split(query), split(linear(tokens, "key")), split(linear(tokens, "value")), keep(mask, tokens.shape[1], False))
        a = dense(width, ("heads", "embed"), dtype=self.dtype, name="out")(jnp.moveaxis(a, 1, 2).reshape(tokens.shape[0], width))
        y = layer_norm(self.norm_eps, self.dtype, "norm")(a)
        return a + Mlp(self.mlp_ratio, self.activation, dtype=self.dtype, name="mlp")(y)


class CrossAttention(nn.Module):
    """What `x` reads in `context`, added to `x`, then a gated MLP: a = x + Attention(LN(x), LN(context)); a + GeGLU(LN(a)).

    The projections have no biases, the MLP has. A context of one row serves every row of `x`, and the other way round.
    """

    heads: int
    head_dim: int
    mlp_ratio: float
    norm_eps: float
    dtype: str

    @nn.compact
    def __call__(
        self, x: Float[Array, "#B Q w"], context: Float[Array, "#B K w"], mask: Bool[Array, "B K"] | None = None
    ) -> Float[Array, "B Q w"]:
        width = x.shape[-1]
        if not self.head_dim and width % self.heads:
            raise ConfigError(
                f"a width of {width} does not split into {self.heads} heads; change options.pooling_options.heads or head_dim."
            )
        head_dim = self.head_dim or width // self.heads
        norm = lambda a, name: layer_norm(self.norm_eps, self.dtype, name)(a.astype(self.dtype))
        xavier = lambda out, batch: nn.initializers.variance_scaling(1.0, "fan_avg", "uniform", in_axis=0, out_axis=out, batch_axis=batch)
        q_init, kv_init = (
            axes(xavier((1, 2), ()), "embed", "heads", "head_dim"),
            axes(xavier((2, 3), (1,)), "embed", None, "heads", "head_dim"),
        )
        q_kernel = self.param("q_kernel", q_init, (width, self.heads, head_dim)).astype(self.dtype)
        kv_kernel = self.param("kv_kernel", kv_init, (width, 2, self.heads, head_dim)).astype(self.dtype)
        q = jnp.einsum("bqw,whd->bhqd", norm(x, "norm_query"), q_kernel)
        k, v = jnp.einsum("bkw,wchd->cbhkd", norm(context, "norm_context"), kv_kernel)
        if context.shape[0] == 1 and mask is None:
            # One context for all rows: its keys serve the queries of every row as if they were one text, without copies.
            joined = jnp.moveaxis(q, 1, 0).reshape(1, self.heads, -1, head_dim)
            read = jnp.moveaxis(attend(joined, k, v, None).reshape(self.heads, *x.shape[:2], head_dim), 0, 1)
        else:
            read = attend(jnp.broadcast_to(q, (k.shape[0], *q.shape[1:])), k, v, keep(mask, k.shape[2], False))
        read = jnp.moveaxis(read, 1, 2).reshape(read.shape[0], x.shape[1], -1)
        a = x + dense(width, ("heads", "embed"), use_bias=False, dtype=self.dtype, name="out")(read)
        return a + GatedMlp(self.mlp_ratio, "gelu", use_bias=True, dtype=self.dtype, name="mlp")(norm(a, "norm_mlp"))


class LatentPool(nn.Module):
    """Every token reads a small learned dictionary; then the mean over kept tokens.

    The keys are latents, so padding needs no mask here; it only stays out of the mean.
    Source: Lee et al. 2024 (NV-Embed, arXiv:2405.17428), section 3.1; layers as in its released weights, whose `head_dim` is the width.
    """

    INHERITED: ClassVar[tuple[str, ...]] = ("dtype",)
    latents: int = 64
    heads: int = 8
    head_dim: int = 0  # 0: width / heads
    mlp_ratio: float = 4.0
    norm_eps: float = 1e-5
    dtype: str = "float32"

    @nn.compact
    def __call__(self, tokens: Float[Array, "B T w"], mask: Bool[Array, "B T"] | None = None, **_) -> Float[Array, "B w"]:
        latents = self.param("latents", axes(nn.initializers.normal(0.02), None, "embed"), (self.latents, tokens.shape[-1]))
        read = CrossAttention(self.heads, self.head_dim, self.mlp_ratio, self.norm_eps, self.dtype, name="read")
        return mean(read(tokens, latents[None].astype(tokens.dtype)), mask)


class QueryPool(nn.Module):
    """Learned latents read the kept tokens; then the mean over latents. The residual is on the latents, unlike `LatentPool`.

    A row that keeps no token reads the mean of all. Source: Tang & Yang 2024 (arXiv:2409.02727), the last-layer variant.
    """

    INHERITED: ClassVar[tuple[str, ...]] = ("dtype",)
    latents: int = 64
    heads: int = 8
    head_dim: int = 0  # 0: width / heads
    mlp_ratio: float = 4.0
    norm_eps: float = 1e-5
    std: float = 0.02  # of the latents; the source's 1 drowns narrow towers
    dtype: str = "float32"

    @nn.compact
    def __call__(self, tokens: Float[Array, "B T w"], mask: Bool[Array, "B T"] | None = None, **_) -> Float[Array, "B w"]:
        return self._read(tokens, mask)

    def _read(self, context, mask):
        latents = self.param("latents", axes(nn.initializers.normal(self.std), None, "embed"), (self.latents, context.shape[-1]))
        read = CrossAttention(self.heads, self.head_dim, self.mlp_ratio, self.norm_eps, self.dtype, name="read")
        return read(latents[None].astype(context.dtype), context, mask).mean(axis=1)


SUMMARIES = {"last": last, "mean": mean}


class LayersPool(QueryPool):
    """Learned latents read one summary of each layer (`mean` over kept tokens, or the `last` one), to which a learned row is added.

    Source: Tang & Yang 2024 (arXiv:2409.02727), multi-layers trainable pooling; embeddings are not among the layers.
    """

    READS_LAYERS: ClassVar[bool] = True
    summary: str = "mean"
    table: bool = True  # the learned row of each layer

    @nn.compact
    def __call__(
        self,
        tokens: Float[Array, "B T w"],
        mask: Bool[Array, "B T"] | None = None,
        layers: Float[Array, "N B T w"] | None = None,
        **_,
    ) -> Float[Array, "B w"]:
        summarise = choose(SUMMARIES, self.summary, "the tower's options.pooling_options.summary")
        summaries = jnp.stack([summarise(layer, mask) for layer in layers], axis=1)  # [B N w]
        if self.table:
            rows = self.param("layer_table", axes(nn.initializers.normal(self.std), None, "embed"), summaries.shape[1:])
            summaries = summaries + rows[None].astype(summaries.dtype)
        return self._read(summaries, None)


class LamaPool(nn.Module):
    """Attention maps scored by low-rank products of a token with the text's mean; their vectors one after the other: [B maps * w].

    Scores are unit length over the maps, so within [-1, 1]: over a long text they stay near the mean unless `temperature` is small.
    With a `rank` above 1 each score sums that many products. Source: Mehta et al. 2019 (LAMA, arXiv:1911.00197).
    """

    INHERITED: ClassVar[tuple[str, ...]] = ("dtype",)
    maps: int = 4
    rank: int = 1
    temperature: float = 1.0
    dtype: str = "float32"

    @nn.compact
    def __call__(self, tokens: Float[Array, "B T w"], mask: Bool[Array, "B T"] | None = None, **_) -> Float[Array, "B maps_w"]:
        bound = self.maps**-0.5
        uniform = lambda key, shape: jax.random.uniform(key, shape, jnp.float32, -bound, bound)
        shape = (tokens.shape[-1], self.maps, self.rank)
        of_text, of_token = (self.param(name, axes(uniform, "embed", None, None), shape) for name in ("text_kernel", "token_kernel"))
        text = jnp.einsum("bw,wmr->bmr", mean(tokens, mask), of_text.astype(tokens.dtype))
        token = jnp.einsum("btw,wmr->btmr", tokens, of_token.astype(tokens.dtype))
        score = jnp.tanh((text[:, None] * token).sum(axis=-1).astype(jnp.float32))  # [B T m]
        score = score * jax.lax.rsqrt(jnp.sum(score**2, axis=-1, keepdims=True) + 1e-6) / self.temperature
        if mask is not None:
            score = jnp.where(mask[..., None], score, -1e9)
        weight = jax.nn.softmax(score, axis=1)
        weight = weight if mask is None else weight * mask[..., None]  # a row without a token: zeros
        return jnp.einsum("btm,btw->bmw", weight.astype(tokens.dtype), tokens).reshape(tokens.shape[0], -1)
