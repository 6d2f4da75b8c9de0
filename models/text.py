"""Text tower: token and position embeddings, pre-norm blocks, pooling, projection. CLIP's text transformer by its defaults."""

from collections.abc import Mapping
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from flax.core import FrozenDict
from jaxtyping import Array, Bool, Float, Int, Key

from core.config import ConfigError
from models import packing
from models.layers import axes, check_length, dropout, layer_norm, lookup
from models.read_out import needs_layers, read_out, width
from models.transformer import Block, Hook, Stack


class Text(nn.Module):
    """Token ids to one vector.

    `causal=True, pooling="eos"` is CLIP's text tower: tokens after the end-of-text token never change the output.
    `causal=False, pooling="mean"` is a bidirectional encoder that leaves padding out by the mask.
    `causal=False, pooling="last", attend_padding=True` is SigLIP's: padding is read like any token, so every batch must be padded to
    `length`.
    `length` bounds the number of tokens; shorter batches use the first rows of the position table.

    Source: Radford et al. 2021 (arXiv:2103.00020), initialisation as in the released code.
    """

    vocab_size: int = 1024
    length: int = 32
    width: int = 256
    layers: int = 4
    heads: int = 4
    mlp_ratio: float = 4.0
    embed_dim: int = 256  # 0: the pooled state itself
    activation: str = "gelu"
    causal: bool = True
    pooling: str = "eos"
    pooling_options: Mapping = FrozenDict()
    eos_id: int = 2  # negative: the largest id of a row, as in CLIP's first release
    attend_padding: bool = False  # leave the mask unused
    projection_bias: bool = False
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
            places: where texts begin in rows of `length` tokens that they share, see `models/packing.py`; instead of masks.

        Raises:
            ValueError: more tokens than `length`.
        """
        check_length(ids.shape[1], self.length)
        if places is not None and self.attend_padding:
            raise ConfigError("packed texts have no padding to read; set the text tower's options.attend_padding to False.")
        packed = None if places is None else packing.rows(ids, keys, places, self.length)
        ids, keys = (ids, keys) if packed is None else (packed.ids, packed.keys)
        mask = None if self.attend_padding else mask
        table = self.param("token_embedding", axes(nn.initializers.normal(0.02), "vocab", "embed"), (self.vocab_size, self.width))
        position = self.param("position_embedding", axes(nn.initializers.normal(0.01), "position", "embed"), (self.length, self.width))
        added = position[None, : ids.shape[1]] if packed is None else jnp.take(position, packed.position, axis=0)
        x = lookup(table, ids, added).astype(self.dtype)
        x = dropout(x, self.dropout, keys, 0)
        # CLIP's depth-aware widths: residual branches start small, so that the sum over layers keeps its scale.
        residual = self.width**-0.5 * (2 * max(self.layers, 1)) ** -0.5
        block = partial(
            Block, self.heads, self.mlp_ratio, self.activation, self.causal, self.norm_eps, self.dropout,
            (residual, (2 * self.width) ** -0.5, residual),
            self.dtype, self.attention_dropout, self.bottleneck,
        )  # fmt: skip
        # Under a causal mask nothing kept can see the padding that follows it: the padding mask is for others, and for hooks.
        stack = Stack(self.layers, block, self.scan, self.remat, name="blocks")
        seen = packed.texts if packed is not None else None if self.causal and hook is None else mask
        x, after, layers = stack(x, seen, keys, hook=hook, keep_layers=needs_layers(self.pooling, capture))
        mask = mask if seen is None else after
        if packed is not None:
            ids, x, layers, mask = packing.unpack(packed, ids, x, layers)
        is_eos = ids == (jnp.max(ids, axis=1, keepdims=True) if self.eos_id < 0 else self.eos_id)
        norm = layer_norm(self.norm_eps, self.dtype, "norm")
        return read_out(
            self, "text", x, layers, norm, capture, mask, pool_mask=pool_mask, is_eos=is_eos, projection_bias=self.projection_bias
        )
