"""ModernBERT: rotary positions, gated MLP, no biases, and attention that is global in every few layers only."""

from collections.abc import Mapping
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict
from jaxtyping import Array, Bool, Float, Int, Key

from models import packing
from models.attention import Attention
from models.layers import axes, check_length, dropout, layer_norm, lookup
from models.position import rope
from models.read_out import needs_layers, projection, read_out, width
from models.transformer import GatedMlp, Hook, Stack, adapt

STD = 0.02


class GeGluBlock(nn.Module):
    """x + Attention(LN(x)), then x + GeGLU(LN(x)); `shared` holds the angles of global and of local layers.

    The first block reads embeddings that are normed already, so it has no norm of its own before attention.
    """

    heads: int
    mlp_ratio: float
    activation: str
    window: int  # 0: global
    first: bool
    norm_eps: float
    dropout: float
    attention_dropout: float
    bottleneck: int
    out_std: float
    dtype: str

    @nn.compact
    def __call__(self, x, mask=None, keys=None, index: int | Array = 0, shared=None):
        attention = Attention(
            self.heads, window=self.window, qkv_bias=False, out_bias=False,
            in_std=STD, out_std=self.out_std, dropout=self.attention_dropout, dtype=self.dtype, name="attention",
        )  # fmt: skip
        norm = lambda name: layer_norm(self.norm_eps, self.dtype, name, use_bias=False)
        angles = shared["local" if self.window else "global"]
        y = attention(x if self.first else norm("norm_attention")(x), mask, angles, keys=keys, index=index)
        x = x + dropout(y, self.dropout, keys, 2 * index + 1)
        y = GatedMlp(self.mlp_ratio, self.activation, STD, self.out_std, self.dtype, name="mlp")(norm("norm_mlp")(x))
        return adapt(x + dropout(y, self.dropout, keys, 2 * index + 2), self.bottleneck, self.dtype)


class ModernBert(nn.Module):
    """Token ids to one vector; ModernBERT-base by its defaults.

    Layer i is global if `global_every` divides i; the others see `window` tokens to either side, in blocks once a text is longer than a
    few windows (`models/attention.py`), so that no [T T] scores exist there.

    Source: Warner et al. 2024 (arXiv:2412.13663).
    """

    vocab_size: int = 50_368
    length: int = 8192
    width: int = 768
    layers: int = 22
    heads: int = 12
    mlp_ratio: float = 1.5
    embed_dim: int = 0  # 0: the pooled state itself
    projection_bias: bool = False
    projection_activation: str = ""  # after the projection; empty: none
    activation: str = "gelu"
    pooling: str = "mean"
    pooling_options: Mapping = FrozenDict()
    global_every: int = 3
    window: int = 64
    global_theta: float = 160_000.0
    local_theta: float = 10_000.0
    dropout: float = 0.0
    attention_dropout: float = 0.0
    bottleneck: int = 0  # features of an adapter at the end of each block; 0: none
    norm_eps: float = 1e-5
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
        normal = lambda std: nn.initializers.truncated_normal(std, lower=-2.0, upper=2.0)
        table = self.param("token_embedding", axes(normal(STD), "vocab", "embed"), (self.vocab_size, self.width))
        x = layer_norm(self.norm_eps, self.dtype, "norm_embedding", use_bias=False)(lookup(table, ids))
        x = dropout(x, self.dropout, keys, 0)
        thetas = {"global": self.global_theta, "local": self.local_theta}
        angles = {kind: self._angles(ids.shape[1], theta) for kind, theta in thetas.items()}
        stack = Stack(self.layers, self._blocks(), self.scan, self.remat, name="blocks")
        x, mask, layers = stack(x, mask, keys, angles, hook=hook, keep_layers=needs_layers(self.pooling, capture))
        if packed is not None:
            _, x, layers, mask = packing.unpack(packed, ids, x, layers)
        norm = layer_norm(self.norm_eps, self.dtype, "norm", use_bias=False)
        return read_out(self, "modernbert", x, layers, norm, capture, mask, pool_mask=pool_mask, **projection(self))

    def _angles(self, length: int, theta: float):
        return jax.tree.map(jnp.asarray, rope(length, self.width // self.heads, theta))

    def _blocks(self):
        return [
            partial(
                GeGluBlock, self.heads, self.mlp_ratio, self.activation, self.window if i % self.global_every else 0, i == 0,
                self.norm_eps, self.dropout, self.attention_dropout, self.bottleneck, STD * (2 * self.layers) ** -0.5, self.dtype,
            )
            for i in range(self.layers)
        ]  # fmt: skip
