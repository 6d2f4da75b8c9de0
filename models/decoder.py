"""A decoder language model as an encoder: rotary positions, RMS norms, SwiGLU, grouped queries, last-token pooling."""

from collections.abc import Mapping
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict
from jaxtyping import Array, Bool, Float, Int, Key

from models import packing
from models.attention import Attention
from models.layers import axes, check_length, dropout, lookup, rms_norm
from models.position import rope
from models.read_out import needs_layers, projection, read_out, width
from models.transformer import GatedMlp, Hook, Stack, adapt

STD = 0.02


class SwiGluBlock(nn.Module):
    """x + Attention(RMS(x)), then x + SwiGLU(RMS(x)); `shared` holds the rotary angles."""

    heads: int
    kv_heads: int
    head_dim: int
    mlp_ratio: float
    activation: str
    causal: bool
    window: int
    qk_norm: bool
    qkv_bias: bool
    norm_eps: float
    dropout: float
    attention_dropout: float
    bottleneck: int
    dtype: str

    @nn.compact
    def __call__(self, x, mask=None, keys=None, index: int | Array = 0, shared=None):
        attention = Attention(
            self.heads, self.causal, kv_heads=self.kv_heads, head_dim=self.head_dim, window=self.window,
            qkv_bias=self.qkv_bias, out_bias=False, qk_norm_eps=self.norm_eps if self.qk_norm else None,
            in_std=STD, out_std=STD, dropout=self.attention_dropout, dtype=self.dtype, name="attention",
        )  # fmt: skip
        y = attention(rms_norm(self.norm_eps, self.dtype, "norm_attention")(x), mask, shared, keys=keys, index=index)
        x = x + dropout(y, self.dropout, keys, 2 * index + 1)
        y = rms_norm(self.norm_eps, self.dtype, "norm_mlp")(x)
        y = GatedMlp(self.mlp_ratio, self.activation, STD, STD, self.dtype, name="mlp")(y)
        return adapt(x + dropout(y, self.dropout, keys, 2 * index + 2), self.bottleneck, self.dtype)


class Decoder(nn.Module):
    """Token ids to one vector; Qwen3-Embedding-0.6B by its defaults.

    `qk_norm` is Qwen3's, `qkv_bias` Qwen2's; without either it is Llama's and, with `window`, Mistral's block.
    `causal=False` lets every token see all kept ones (NV-Embed, LLM2Vec).
    Rotary positions make scores depend on distances alone, so padding may lie on either side.

    Source: Touvron et al. 2023 (arXiv:2302.13971); Ainslie et al. 2023 (grouped queries); Zhang et al. 2025 (arXiv:2506.05176).
    """

    vocab_size: int = 151_669
    length: int = 32_768
    width: int = 1024
    layers: int = 28
    heads: int = 16
    kv_heads: int = 8
    head_dim: int = 128  # 0: width / heads
    mlp_ratio: float = 3.0
    embed_dim: int = 0  # 0: the pooled state itself
    projection_bias: bool = False
    projection_activation: str = ""  # after the projection; empty: none
    activation: str = "silu"
    causal: bool = True
    window: int = 0  # how far back (and, if not causal, ahead) a token sees; 0: all the way
    pooling: str = "last"
    pooling_options: Mapping = FrozenDict()
    qk_norm: bool = True
    qkv_bias: bool = False
    rope_theta: float = 1_000_000.0
    rope_scaling: Mapping = FrozenDict()  # {name, options} of models/position.py:SCALINGS
    dropout: float = 0.0
    attention_dropout: float = 0.0
    bottleneck: int = 0  # features of an adapter at the end of each block; 0: none
    norm_eps: float = 1e-6
    dtype: str = "float32"
    scan: bool = False
    remat: bool = False

    @property
    def output_dim(self) -> int:
        """Features of an embedding."""
        return self.embed_dim or width(self.pooling, self.pooling_options, self.width)

    @nn.compact
    def __call__(
        self,
        ids: Int[Array, "B T"],
        mask: Bool[Array, "B T"] | None = None,
        keys: Key[Array, " B"] | None = None,
        *,
        pool_mask: Bool[Array, "B T"] | None = None,
        places: Int[Array, "B G 2"] | None = None,
        capture: tuple[str, ...] = (),
        hook: Hook | None = None,
    ) -> dict[str, Float[Array, "..."]]:
        """Returns `embedding [B output_dim]` and what `capture` names of `tokens`, `layers`, `layers_pooled`.

        Args:
            ids: tokens.
            mask: False leaves a token out of attention and pooling.
            keys: one dropout key per example.
            pool_mask: False leaves a token out of pooling alone (an instruction).
            places: where texts begin in rows of `length` tokens that they share, see `models/packing.py`; instead of masks. Rotary angles
                only count distances, so that they may count on from one text to the next.

        Raises:
            ValueError: more tokens than `length`.
        """
        check_length(ids.shape[1], self.length)
        packed = None if places is None else packing.rows(ids, keys, places, self.length)
        ids, keys, mask = (ids, keys, mask) if packed is None else (packed.ids, packed.keys, packed.texts)
        table = self.param("token_embedding", axes(nn.initializers.normal(STD), "vocab", "embed"), (self.vocab_size, self.width))
        x = dropout(lookup(table, ids).astype(self.dtype), self.dropout, keys, 0)
        head_dim = self.head_dim or self.width // self.heads
        angles = jax.tree.map(jnp.asarray, rope(ids.shape[1], head_dim, self.rope_theta, self.rope_scaling))
        block = partial(
            SwiGluBlock, self.heads, self.kv_heads or self.heads, head_dim, self.mlp_ratio, self.activation, self.causal, self.window,
            self.qk_norm, self.qkv_bias, self.norm_eps, self.dropout, self.attention_dropout, self.bottleneck, self.dtype,
        )  # fmt: skip
        stack = Stack(self.layers, block, self.scan, self.remat, name="blocks")
        x, mask, layers = stack(x, mask, keys, angles, hook=hook, keep_layers=needs_layers(self.pooling, capture))
        if packed is not None:
            _, x, layers, mask = packing.unpack(packed, ids, x, layers)
        norm = rms_norm(self.norm_eps, self.dtype, "norm")
        return read_out(self, "decoder", x, layers, norm, capture, mask, pool_mask=pool_mask, **projection(self))
