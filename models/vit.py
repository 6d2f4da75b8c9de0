"""Vision transformer: patches, position table, pre-norm blocks, pooling, projection."""

from collections.abc import Mapping, Sequence
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from flax.core import FrozenDict
from jaxtyping import Array, Float, Key, Num

from core.config import ConfigError
from models.layers import axes, check_size, dropout, layer_norm, scale_pixels
from models.position import sincos_2d
from models.read_out import needs_layers, read_out, width
from models.transformer import Block, Hook, Stack


class ViT(nn.Module):
    """Images to one vector.

    `pooling` is `mean`, `attention` (a learned probe, the SigLIP head) or `cls` (a class token, put first).
    `posemb` is `learn` or `sincos2d`; the class token has no position, or with `class_position` the first row of the learned table.
    `pre_norm=True, patch_bias=False, pooling="cls", class_position=True` is CLIP's vision tower; the defaults with
    `pooling="attention", embed_dim=0` are SigLIP's.

    Source: Dosovitskiy et al. 2021 (arXiv:2010.11929); pooling and initialisation as in big_vision.
    """

    image_size: int = 32
    patch_size: int = 4
    channels: int = 3
    width: int = 192
    layers: int = 6
    heads: int = 3
    mlp_ratio: float = 4.0
    embed_dim: int = 256  # 0: the pooled state itself
    activation: str = "gelu_tanh"
    pooling: str = "mean"
    pooling_options: Mapping = FrozenDict()
    posemb: str = "learn"
    class_position: bool = False
    patch_bias: bool = True
    drop_edge: bool = False  # leave out pixels right of and below the last whole patch, as a convolution does
    pre_norm: bool = False  # a LayerNorm between embeddings and blocks
    dropout: float = 0.0
    attention_dropout: float = 0.0
    bottleneck: int = 0  # features of an adapter at the end of each block; 0: none
    norm_eps: float = 1e-6
    pixel_mean: Sequence[float] = (0.5,)
    pixel_std: Sequence[float] = (0.5,)
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
        image: Num[Array, "B H W C"],
        mask=None,
        keys: Key[Array, " B"] | None = None,
        *,
        capture: tuple[str, ...] = (),
        hook: Hook | None = None,
    ) -> dict[str, Float[Array, "..."]]:
        """Returns `embedding [B embed_dim]` and what `capture` names of `tokens`, `layers`, `layers_pooled`.

        Args:
            image: uint8 in 0-255, or float already in 0-1.
            mask: unused; images have no padding.

        Raises:
            ValueError: images of another size than the tower was made for.
        """
        check_size(image.shape, self.image_size, self.channels)
        if self.image_size % self.patch_size and not self.drop_edge:
            raise ConfigError(
                f"patches of {self.patch_size} do not tile {self.image_size} pixels; change the vit tower's options.patch_size, "
                "or set its options.drop_edge."
            )
        x = self._embed(image)
        if self.pre_norm:
            x = layer_norm(self.norm_eps, self.dtype, "norm_embedding")(x)
        x = dropout(x, self.dropout, keys, 0)
        block = partial(Block, self.heads, self.mlp_ratio, self.activation, False, self.norm_eps, self.dropout)
        block = partial(block, dtype=self.dtype, attention_dropout=self.attention_dropout, bottleneck=self.bottleneck)
        stack = Stack(self.layers, block, self.scan, self.remat, name="blocks")
        x, after, layers = stack(x, None, keys, hook=hook, keep_layers=needs_layers(self.pooling, capture))
        norm = layer_norm(self.norm_eps, self.dtype, "norm")
        return read_out(self, "vit", x, layers, norm, capture, after)

    def _embed(self, image: Num[Array, "B H W C"]) -> Float[Array, "B p w"]:
        """Linear patch embedding, class token and positions.

        A convolution whose stride is its kernel is one matrix product, and faster so on CPU.
        """
        size, side = self.patch_size, self.image_size // self.patch_size
        x = scale_pixels(image[:, : side * size, : side * size], self.pixel_mean, self.pixel_std, self.dtype)
        init = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal", in_axis=(0, 1, 2), out_axis=3)
        kernel = self.param("patch_kernel", axes(init, None, None, "channels_in", "embed"), (size, size, self.channels, self.width))
        patches = (
            x.reshape(-1, side, size, side, size, self.channels)
            .transpose(0, 1, 3, 2, 4, 5)
            .reshape(-1, side * side, size * size * self.channels)
        )
        # Bias and positions are added in float32: bfloat16 would lose small learned offsets.
        x = (patches @ kernel.reshape(-1, self.width).astype(self.dtype)).astype(jnp.float32)
        if self.patch_bias:
            x = x + self.param("patch_bias", axes(nn.initializers.zeros, "embed"), (self.width,))[None, None]
        if self.class_position:
            return (self._class_first(x) + self._positions(side)).astype(self.dtype)
        x = x + self._positions(side)
        return (self._class_first(x) if self.pooling == "cls" else x).astype(self.dtype)

    def _class_first(self, x: Float[Array, "B p w"]) -> Float[Array, "B t w"]:
        token = self.param("class_token", axes(nn.initializers.zeros, None, None, "embed"), (1, 1, self.width))
        return jnp.concatenate([jnp.broadcast_to(token.astype(x.dtype), (x.shape[0], 1, self.width)), x], axis=1)

    def _positions(self, side: int) -> Float[Array, "1 p w"]:
        if self.class_position and (self.pooling != "cls" or self.posemb != "learn"):
            raise ConfigError(
                "the vit tower's options.class_position needs a class token and a learned table; "
                "set options.pooling to 'cls' and options.posemb to 'learn', or class_position to False."
            )
        if self.posemb == "sincos2d":
            return jnp.asarray(sincos_2d(side, side, self.width))[None]
        if self.posemb != "learn":
            raise ConfigError(f"the vit tower's options.posemb is {self.posemb!r}; choices: learn, sincos2d.")
        init = nn.initializers.normal(self.width**-0.5)
        return self.param("position_embedding", axes(init, None, "position", "embed"), (1, side * side + self.class_position, self.width))
