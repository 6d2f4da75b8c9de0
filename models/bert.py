"""BERT and its kin: embeddings with learned positions, blocks that normalise after each sum, no final norm."""

from collections.abc import Mapping
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from flax.core import FrozenDict
from jaxtyping import Array, Bool, Float, Int, Key

from models import packing
from models.attention import Attention
from models.layers import axes, check_length, dropout, layer_norm, lookup
from models.position import relative_buckets
from models.read_out import needs_layers, projection, read_out, width
from models.transformer import Hook, Mlp, Stack, adapt

STD = 0.02  # of every matrix and table


class PostBlock(nn.Module):
    """LN(x + Attention(x)), then LN(x + MLP(x)); `shared` is None or what is added to every block's scores `[1 h T T]`."""

    heads: int
    mlp_ratio: float
    activation: str
    norm_eps: float
    dropout: float
    attention_dropout: float
    bottleneck: int
    dtype: str

    @nn.compact
    def __call__(self, x, mask=None, keys=None, index: int | Array = 0, shared=None):
        attention = Attention(self.heads, in_std=STD, out_std=STD, dropout=self.attention_dropout, dtype=self.dtype, name="attention")
        y = attention(x, mask, bias=shared, keys=keys, index=index)
        x = layer_norm(self.norm_eps, self.dtype, "norm_attention")(x + dropout(y, self.dropout, keys, 2 * index + 1))
        y = Mlp(self.mlp_ratio, self.activation, STD, STD, self.dtype, name="mlp")(x)
        norm = layer_norm(self.norm_eps, self.dtype, "norm_mlp")
        return norm(adapt(x + dropout(y, self.dropout, keys, 2 * index + 2), self.bottleneck, self.dtype, norm))


class Bert(nn.Module):
    """Token ids to one vector; by its defaults the graph of MiniLM-L6 with a masked mean.

    `token_types=0` is DistilBERT; `position_offset=2, token_types=1, norm_eps=1e-5` is RoBERTa and XLM-R, whose positions count kept
    tokens only; `position_offset=2, token_types=0, relative_buckets=32` is MPNet.
    Every token is of type 0: the row of the table is added, though no input names it.

    Source: Devlin et al. 2019 (arXiv:1810.04805); Wang et al. 2020 (MiniLM); Song et al. 2020 (MPNet). `dropout` acts on
        embeddings and on what the two sums of a block add, `attention_dropout` on attention weights.
    """

    vocab_size: int = 30_522
    length: int = 512
    width: int = 384
    layers: int = 6
    heads: int = 12
    mlp_ratio: float = 4.0
    embed_dim: int = 0  # 0: the pooled state itself
    projection_bias: bool = False
    projection_activation: str = ""  # after the projection; empty: none
    activation: str = "gelu"
    pooling: str = "mean"
    pooling_options: Mapping = FrozenDict()
    token_types: int = 2
    position_offset: int = 0  # rows of the position table that are never a kept token's
    relative_buckets: int = 0  # buckets of distance with a learned score per head, for all blocks; 0: none
    dropout: float = 0.0
    attention_dropout: float = 0.0
    bottleneck: int = 0  # features of an adapter at the end of each block; 0: none
    norm_eps: float = 1e-12
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
        packed = None if places is None else packing.rows(ids, keys, places, self.length)
        ids, keys, mask = (ids, keys, mask) if packed is None else (packed.ids, packed.keys, packed.texts)
        x = dropout(self._embed(ids, mask, None if packed is None else packed.position), self.dropout, keys, 0)
        rates = (self.dropout, self.attention_dropout)
        block = partial(PostBlock, self.heads, self.mlp_ratio, self.activation, self.norm_eps, *rates, self.bottleneck, self.dtype)
        stack = Stack(self.layers, block, self.scan, self.remat, name="blocks")
        x, mask, layers = stack(x, mask, keys, self._scores(ids.shape[1]), hook=hook, keep_layers=needs_layers(self.pooling, capture))
        if packed is not None:
            _, x, layers, mask = packing.unpack(packed, ids, x, layers)
        return read_out(self, "bert", x, layers, lambda tokens: tokens, capture, mask, pool_mask=pool_mask, **projection(self))

    def _embed(self, ids, mask, place=None):
        table = lambda name, rows, axis: self.param(name, axes(nn.initializers.normal(STD), axis, "embed"), (rows, self.width))
        words = table("token_embedding", self.vocab_size, "vocab")
        positions = table("position_embedding", self.length + self.position_offset, "position")
        if place is not None or (self.position_offset and mask is not None):
            place = jnp.cumsum(mask, axis=1) - 1 if place is None else place
            place = jnp.where(mask != 0, place + self.position_offset, 0)
            added = jnp.take(positions, place, axis=0)
        else:
            added = positions[None, self.position_offset : self.position_offset + ids.shape[1]]
        if self.token_types:
            # Added to the positions, which are one text, rather than to the batch.
            added = added + table("type_embedding", self.token_types, None)[:1, None]
        return layer_norm(self.norm_eps, self.dtype, "norm_embedding")(lookup(words, ids, added))

    def _scores(self, length: int) -> Float[Array, "1 h T T"] | None:
        if not self.relative_buckets:
            return None
        init = axes(nn.initializers.normal(STD), None, "heads")
        table = self.param("relative_bias", init, (self.relative_buckets, self.heads))
        return jnp.moveaxis(jnp.take(table, relative_buckets(length, self.relative_buckets), axis=0), 2, 0)[None]
