"""Vision transformer: patches, position table, pre-norm blocks, pooling, projection."""

from collections.abc import Mapping, Sequence
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from flax.core import FrozenDict
from jaxtyping import Array, Bool, Float, Key, Num

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

    @nn.nowrap
    def patches(self, shape: tuple[int, ...]) -> int:
        """Patches of an image in a batch of a shape."""
        return (shape[1] // self.patch_size) * (shape[2] // self.patch_size)

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
        return through_blocks(self, "vit", x, None, keys, capture, hook)

    def _embed(self, image: Num[Array, "B H W C"]) -> Float[Array, "B p w"]:
        """Patch embedding, class token and positions."""
        size, side = self.patch_size, self.image_size // self.patch_size
        x = scale_pixels(image[:, : side * size, : side * size], self.pixel_mean, self.pixel_std, self.dtype)
        patches = (
            x.reshape(-1, side, size, side, size, self.channels)
            .transpose(0, 1, 3, 2, 4, 5)
            .reshape(-1, side * side, size * size * self.channels)
        )
        x = embed_patches(self, patches, self.patch_bias)
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


def embed_patches(tower: nn.Module, patches: Float[Array, "B p k"], bias: bool = True) -> Float[Array, "B p w"]:
    """A linear map of the scaled pixels of each patch, by row, column and channel; called inside a tower, whose parameters it makes.

    A convolution whose stride is its kernel is this one matrix product, and faster so on CPU.
    """
    size = tower.patch_size
    init = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal", in_axis=(0, 1, 2), out_axis=3)
    kernel = tower.param("patch_kernel", axes(init, None, None, "channels_in", "embed"), (size, size, tower.channels, tower.width))
    # Bias and positions are added in float32: bfloat16 would lose small learned offsets.
    x = (patches @ kernel.reshape(-1, tower.width).astype(tower.dtype)).astype(jnp.float32)
    return x + tower.param("patch_bias", axes(nn.initializers.zeros, "embed"), (tower.width,))[None, None] if bias else x


def through_blocks(
    tower: nn.Module,
    kind: str,
    x: Float[Array, "B p w"],
    mask: Bool[Array, "B p"] | None,
    keys: Key[Array, " B"] | None,
    capture: tuple[str, ...],
    hook: Hook | None,
) -> dict[str, Float[Array, "..."]]:
    """Embedded patches to what a tower returns: blocks, norm, read-out; `kind` is its name in the table of towers."""
    x = dropout(x, tower.dropout, keys, 0)
    block = partial(Block, tower.heads, tower.mlp_ratio, tower.activation, False, tower.norm_eps, tower.dropout)
    block = partial(block, dtype=tower.dtype, attention_dropout=tower.attention_dropout, bottleneck=tower.bottleneck)
    stack = Stack(tower.layers, block, tower.scan, tower.remat, name="blocks")
    x, after, layers = stack(x, mask, keys, hook=hook, keep_layers=needs_layers(tower.pooling, capture))
    norm = layer_norm(tower.norm_eps, tower.dtype, "norm")
    return read_out(tower, kind, x, layers, norm, capture, after)
