"""Text tower: token and position embeddings, pre-norm blocks, pooling, projection. CLIP's text transformer by its defaults."""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int, Key

from core.mesh import BATCH, constrain
from models import pooling
from models.layers import axes, dense, dropout, layer_norm
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
    eos_id: int = 2  # negative: the largest id of a row, as in CLIP's first release
    attend_padding: bool = False  # leave the mask unused
    projection_bias: bool = False
    dropout: float = 0.0
    norm_eps: float = 1e-5
    dtype: str = "float32"
    scan: bool = False
    remat: bool = False

    @property
    def output_dim(self) -> int:
        """Features of an embedding."""
        return self.embed_dim or self.width

    @nn.compact
    def __call__(
        self,
        ids: Int[Array, "B T"],
        mask: Bool[Array, "B T"] | None = None,
        keys: Key[Array, " B"] | None = None,
        *,
        capture: tuple[str, ...] = (),
        hook: Hook | None = None,
    ) -> dict[str, Float[Array, "..."]]:
        """Returns `embedding [B embed_dim]` and what `capture` names of `tokens`, `layers`, `layers_pooled`.

        Raises:
            ValueError: more tokens than `length`.
        """
        if ids.shape[1] > self.length:
            raise ValueError(
                f"texts of {ids.shape[1]} tokens, but the position table holds {self.length}; "
                f"set config.data.transforms.text.options.length "
                f"to {self.length} or raise the tower's options.length."
            )
        mask = None if self.attend_padding else mask
        table = self.param("token_embedding", axes(nn.initializers.normal(0.02), "vocab", "embed"), (self.vocab_size, self.width))
        position = self.param("position_embedding", axes(nn.initializers.normal(0.01), "position", "embed"), (self.length, self.width))
        # A table split over its width would hand that split to the hidden states, and every device would compute all rows.
        x = constrain(jnp.take(constrain(table, P()), ids, axis=0) + position[None, : ids.shape[1]], P(BATCH)).astype(self.dtype)
        x = dropout(x, self.dropout, keys, 0)
        # CLIP's depth-aware widths: residual branches start small, so that the sum over layers keeps its scale.
        residual = self.width**-0.5 * (2 * self.layers) ** -0.5
        block = partial(
            Block, self.heads, self.mlp_ratio, self.activation, self.causal, self.norm_eps, self.dropout,
            (residual, (2 * self.width) ** -0.5, residual),
            self.dtype,
        )  # fmt: skip
        # Under a causal mask nothing kept can see the padding that follows it, so the padding mask is only needed without one.
        stack = Stack(self.layers, block, self.scan, self.remat, name="blocks")
        x, after, layers = stack(
            x, None if self.causal else mask, keys, hook=hook, keep_layers=bool({"layers", "layers_pooled"} & set(capture))
        )
        mask = mask if self.causal else after
        norm = layer_norm(self.norm_eps, self.dtype, "norm")
        fields = dict(heads=self.heads, mlp_ratio=self.mlp_ratio, activation=self.activation, norm_eps=self.norm_eps, dtype=self.dtype)
        pool = pooling.make(self.pooling, "the text tower's options.pooling", **fields)
        init = nn.initializers.normal(self.width**-0.5)
        project = (
            dense(self.embed_dim, ("embed", "output"), init=init, use_bias=self.projection_bias, name="projection")
            if self.embed_dim
            else lambda v: v
        )
        is_eos = ids == (jnp.max(ids, axis=1, keepdims=True) if self.eos_id < 0 else self.eos_id)
        finish = lambda hidden: project(pool(norm(hidden), mask, is_eos).astype(jnp.float32))
        return outputs(x, layers, norm, finish, capture)


def outputs(x, layers, norm, finish, capture: tuple[str, ...]) -> dict[str, Float[Array, "..."]]:
    """What a tower returns: the embedding, and the inner states that were asked for.

    Args:
        x: last hidden states `[B T w]`.
        layers: states after each layer `[N B T w]`, or None.
        norm: the final norm.
        finish: hidden states to an embedding.
        capture: any of `tokens` (normed states), `layers` (as they are), `layers_pooled` `[N B d]` (each layer through `finish`).

    Raises:
        ValueError: another name in `capture`.
    """
    if unknown := set(capture) - {"tokens", "layers", "layers_pooled"}:
        raise ValueError(f"a tower has no {sorted(unknown)} to capture; choices: layers, layers_pooled, tokens.")
    result = {"embedding": finish(x)}
    if "tokens" in capture:
        result["tokens"] = norm(x)
    if "layers" in capture:
        result["layers"] = layers
    if "layers_pooled" in capture:
        result["layers_pooled"] = jnp.stack([finish(layer) for layer in layers])
    return result
