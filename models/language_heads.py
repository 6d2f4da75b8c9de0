"""Heads that pretrain a text tower by its own tokens: a masked-language head, and decoders that are thrown away afterwards.

They end before the vocabulary: a loss multiplies states with the table of words, part by part, since all scores at once are the largest
array of a step. The table is the tower's own (one leaf of the parameters), named by its path in the head's inputs.
"""

from collections.abc import Callable, Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from core.config import choose
from models.attention import attend
from models.layers import ACTIVATIONS, axes, dense, layer_norm, lookup, normalize
from models.transformer import Mlp

STD = 0.02  # of every matrix, as in BERT
MASKS = 1 << 30  # folded into the key of a step, beyond the rows that losses fold in
SENTENCES = ("cls", "mean")


class MaskedLanguage(nn.Module):
    """BERT's head between hidden tokens and the vocabulary: a layer, an activation, a norm.

    Makes `states`, and what scores words with them: `table`, the tower's own, and `bias`, one number for each word.

    Source: Devlin et al. 2019, arXiv:1810.04805, as in the released code.
    """

    activation: str = "gelu"
    norm_eps: float = 1e-12

    @nn.compact
    def __call__(self, tokens: Float[Array, "B T w"], table: Float[Array, "V w"]) -> dict[str, Float[Array, "..."]]:
        activation = choose(ACTIVATIONS, self.activation, "the head's options.activation")
        states = dense(tokens.shape[-1], ("embed", None), init=nn.initializers.normal(STD), name="linear")(tokens)
        bias = self.param("bias", axes(nn.initializers.zeros, "vocab"), table.shape[:1])
        return {"states": layer_norm(self.norm_eps, "float32", "norm")(activation(states)), "table": table, "bias": bias}


class RetroMae(nn.Module):
    """RetroMAE's second decoder beside a masked-language head: one layer that rebuilds a whole text from its vector and half its tokens.

    Row i of the decoder asks with the text's vector at place i and sees the vector (column 0) and its own sample of the text's other
    tokens, never token i; the residual comes from what it asks with, so the answer cannot pass around the attention. Makes `encoder` and
    `decoder`, states `[B T w]` for `losses/masked_language.py` and `losses/bag_of_words.py`, and `table` and `bias` as `MaskedLanguage`.

    Otherwise than in the released code, tokens are drawn one by one, not by whole words. Chosen here: each with probability `visible`.

    Source: Xiao & Liu 2022 (arXiv:2205.12035), enhanced decoding. That the query has the place, type and norm of the tower's embeddings
        is how the released code of DupMAE asks (Xiao & Liu 2022, arXiv:2211.08769).
    """

    heads: int = 12
    mlp_ratio: float = 4.0
    activation: str = "gelu"
    norm_eps: float = 1e-12
    visible: float = 0.5  # of a text's tokens that a row of the decoder sees
    masks: int = 256  # samples drawn for a text at most; each row takes one of them
    sentence: str = "cls"  # the vector: the first token's state, or the mean of all
    position_offset: int = 0  # of the tower

    @nn.compact
    def __call__(
        self,
        tokens: Float[Array, "B T w"],
        ids: Int[Array, "B T"],
        own: Int[Array, "B T"],
        mask: Bool[Array, "B T"],
        table: Float[Array, "V w"],
        places: Float[Array, "L w"],
        types: Float[Array, "k w"] | None = None,
        scale: Float[Array, " w"] | None = None,
        bias: Float[Array, " w"] | None = None,
        key: Key[Array, ""] | None = None,
    ) -> dict[str, Float[Array, "..."]]:
        """Makes what the class says.

        Args:
            tokens: last states of the tower.
            ids: what the tower read, some of it hidden.
            own: the text's own tokens, unhidden; -1 on tokens around it and on padding.
            mask: False on padding.
            table: the tower's embedding of words.
            places: that of positions.
            types: that of token types; texts are of type 0.
            scale: of the norm after embeddings, where the tower has one.
            bias: of that norm.
            key: of the step; None shows every row all other tokens.
        """
        choose(dict.fromkeys(SENTENCES), self.sentence, "the head's options.sentence")
        language = MaskedLanguage(self.activation, self.norm_eps, name="language")
        vector = tokens[:, :1] if self.sentence == "cls" else mean(tokens, mask)
        added, norm = around_words(ids.shape[1], self.position_offset, self.norm_eps, places, types, scale, bias)
        words = norm(lookup(table, jnp.where(own >= 0, own, ids), added))
        seen = jnp.concatenate([vector, words[:, 1:]], axis=1)
        layer = Decoder(self.heads, self.mlp_ratio, self.activation, self.norm_eps, name="decoder")
        decoded = layer(norm(vector + added), seen, visibility(key, own, mask, self.visible, self.masks))
        made = language(tokens, table)
        return {"encoder": made.pop("states"), "decoder": language(decoded, table)["states"]} | made


class StarbucksMae(nn.Module):
    """Starbucks' pretraining: hidden tokens, and a text rebuilt from its vector, at each of a few sizes of the tower.

    At size (l, m) the first m values of layer l's states pass a masked-language head that all sizes share, whose linear layer has only
    its first m rows then. What it makes of the text's vector takes the first place before a decoder, one layer of BERT, that fills the
    holes of another, emptier copy of the text. Makes `encoder_<l>x<m>` and `decoder_<l>x<m>`, states `[B T w]` for
    `losses/masked_language.py`, and `table` and `bias` as `MaskedLanguage`.

    Source: Zhuang et al. 2024, arXiv:2410.13230, as in the released code, but that its decoder starts as the encoder's first layer and
        that tokens hidden from the encoder are hidden from the decoder too; here each copy is drawn alone.
    """

    sizes: Sequence[Sequence[int]] = ()  # (layer, width) of each, layers from 1
    heads: int = 12
    mlp_ratio: float = 4.0
    activation: str = "gelu"
    norm_eps: float = 1e-12
    sentence: str = "cls"  # the vector: the first token's state, or the mean of all
    position_offset: int = 0  # of the tower

    @nn.compact
    def __call__(
        self,
        layers: Float[Array, "N B T w"],
        ids: Int[Array, "B T"],
        mask: Bool[Array, "B T"],
        table: Float[Array, "V w"],
        places: Float[Array, "L w"],
        types: Float[Array, "k w"] | None = None,
        scale: Float[Array, " w"] | None = None,
        bias: Float[Array, " w"] | None = None,
    ) -> dict[str, Float[Array, "..."]]:
        """Makes what the class says.

        Args:
            layers: states after each layer of the tower.
            ids: what the decoder reads: the text with other tokens hidden than the tower's.
            mask: False on padding.
            table: the tower's embedding of words.
            places: that of positions.
            types: that of token types; texts are of type 0.
            scale: of the norm after embeddings, where the tower has one.
            bias: of that norm.

        Raises:
            ValueError: no sizes, or one that the tower has not.
        """
        choose(dict.fromkeys(SENTENCES), self.sentence, "the head's options.sentence")
        depth, width = len(layers), table.shape[1]
        if not self.sizes or not all(1 <= layer <= depth and 1 <= m <= width for layer, m in self.sizes):
            raise ValueError(
                f"sizes are {tuple(map(tuple, self.sizes))}; set the head's options.sizes to (layer, width) pairs within "
                f"({depth}, {width})."
            )
        language = MaskedLanguage(self.activation, self.norm_eps, name="language")
        layer = Decoder(self.heads, self.mlp_ratio, self.activation, self.norm_eps, name="decoder")
        added, norm = around_words(ids.shape[1], self.position_offset, self.norm_eps, places, types, scale, bias)
        words, made = norm(lookup(table, ids, added)), {}
        for number, m in self.sizes:
            states = jnp.where(jnp.arange(width) < m, layers[number - 1], 0)  # a linear layer's other rows then add nothing
            vector = states[:, :1] if self.sentence == "cls" else mean(states, mask)
            seen = jnp.concatenate([language(vector, table)["states"], words[:, 1:]], axis=1)
            decoded = layer(seen, seen, jnp.broadcast_to(mask[:, None], (*mask.shape, mask.shape[1])))
            encoder, decoder = language(states, table), language(decoded, table)
            made |= {f"encoder_{number}x{m}": encoder.pop("states"), f"decoder_{number}x{m}": decoder["states"]} | encoder
        return made


def around_words(
    length: int, offset: int, eps: float, places: Float[Array, "L w"], types: Float[Array, "k w"] | None,
    scale: Float[Array, " w"] | None, bias: Float[Array, " w"] | None,
) -> tuple[Float[Array, "1 T w"], Callable]:  # fmt: skip
    """What the tower adds to the embeddings of words, and how it norms the sum."""
    added = places[None, offset : offset + length]
    return added if types is None else added + types[None, :1], (lambda x: x) if scale is None else partial(norm_rows, eps, scale, bias)


class Decoder(nn.Module):
    """One layer of BERT whose queries and residual come from one stream, keys and values from another."""

    heads: int
    mlp_ratio: float
    activation: str
    norm_eps: float

    @nn.compact
    def __call__(self, asked: Float[Array, "B T w"], seen: Float[Array, "B T w"], visible: Bool[Array, "B T T"]) -> Float[Array, "B T w"]:
        init, width = nn.initializers.normal(STD), asked.shape[-1]
        split = lambda x: jnp.moveaxis(x.reshape(*x.shape[:2], self.heads, -1), 1, 2)
        project = lambda name, x: split(dense(width, ("embed", "heads"), init=init, name=name)(x))
        y = attend(project("query", asked), project("key", seen), project("value", seen), visible[:, None])
        y = jnp.moveaxis(y, 1, 2).reshape(asked.shape)
        y = dense(width, ("heads", "embed"), init=init, name="out")(y)
        x = layer_norm(self.norm_eps, "float32", "norm_attention")(asked + y)
        y = Mlp(self.mlp_ratio, self.activation, STD, STD, name="mlp")(x)
        return layer_norm(self.norm_eps, "float32", "norm_mlp")(x + y)


def visibility(
    key: Key[Array, ""] | None, own: Int[Array, "B T"], mask: Bool[Array, "B T"], share: float, masks: int
) -> Bool[Array, "B T T"]:
    """Which columns each row of the decoder sees: column 0 (but for row 0), tokens around the text, a sample of its own, never itself.

    A text draws `masks` samples at most, from the key and its row in the global batch, and each row of it takes one at random.
    """
    rows, length = own.shape
    sampled = jnp.ones((1, 1, 1), bool)
    if key is not None:
        count = min(length, masks)

        def draw(key):
            drawn = jax.random.bernoulli(key, share, (count, length))
            return drawn[jax.random.randint(jax.random.fold_in(key, 1), (length,), 0, count)]

        key = jax.random.fold_in(key, MASKS)
        sampled = jax.vmap(lambda row: draw(jax.random.fold_in(key, row)))(jnp.arange(rows))
    place = jnp.arange(length)
    others = (place[:, None] != place[None, :])[None]
    return others & ((mask[:, None] & ((own < 0)[:, None] | sampled)) | (place == 0)[None, None])


def mean(tokens: Float[Array, "B T w"], mask: Bool[Array, "B T"]) -> Float[Array, "B 1 w"]:
    """Of the tokens that count; a text without any has zeros."""
    total = jnp.where(mask[..., None], tokens, 0).sum(1, keepdims=True)
    return total / jnp.maximum(mask.sum(1), 1)[:, None, None].astype(tokens.dtype)


def norm_rows(eps: float, scale: Float[Array, " w"], bias: Float[Array, " w"], x: Float[Array, "B T w"]) -> Float[Array, "B T w"]:
    """LayerNorm with parameters that belong to somebody else."""
    return normalize(eps, x.reshape(-1, x.shape[-1]), scale[None], bias[None]).reshape(x.shape)
