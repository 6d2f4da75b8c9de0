"""Vision transformer for images of any shape: each comes as a sequence of patches with places, and a mask that is False on padding.

Leaves cutting images into patches to `input_pipeline/patches.py`.
"""

from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax.numpy as jnp
from flax.core import FrozenDict
from jaxtyping import Array, Bool, Float, Int, Key, Num

from core.config import ConfigError
from models.layers import axes, scale_pixels
from models.read_out import width
from models.transformer import Hook
from models.vit import embed_patches, through_blocks

PLACES = 2  # values after the pixels of a patch: its row and its column


class NaFlex(nn.Module):
    """Patches to one vector; the parameters are those of `vit`, so that weights of a square image serve any shape.

    The table of positions, of `grid` by `grid` patches, is resized linearly to the rows and columns of each image, smoothed where it
    shrinks. The defaults with `pooling="attention", embed_dim=0` are SigLIP 2's.

    Source: Tschannen et al. 2025 (arXiv:2502.14786); Dehghani et al. 2023 (arXiv:2307.06304).
    """

    grid: int = 16
    patch_size: int = 16
    channels: int = 3
    width: int = 192
    layers: int = 6
    heads: int = 3
    mlp_ratio: float = 4.0
    embed_dim: int = 256  # 0: the pooled state itself
    activation: str = "gelu_tanh"
    pooling: str = "mean"
    pooling_options: Mapping = FrozenDict()
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
        """Patches of an image in a batch of a shape, padding included."""
        return shape[1]

    @nn.compact
    def __call__(
        self,
        image: Num[Array, "B p s C"],
        mask: Bool[Array, "B p"] | None = None,
        keys: Key[Array, " B"] | None = None,
        *,
        capture: tuple[str, ...] = (),
        hook: Hook | None = None,
    ) -> dict[str, Float[Array, "..."]]:
        """Returns `embedding [B embed_dim]` and what `capture` names of `tokens`, `layers`, `layers_pooled`.

        Args:
            image: of each patch its pixels and then its row and column, in every channel; uint8, or float: bytes divided by 255.
            mask: False on padding, which changes nothing; None for none.
            keys: one dropout key per example.
            capture: extra outputs.
            hook: runs after the embeddings and each layer.

        Raises:
            ValueError: patches of another size than the tower was made for.
        """
        wanted = (self.patch_size**2 + PLACES, self.channels)
        if image.ndim != 4 or image.shape[2:] != wanted:
            raise ValueError(
                f"images of {tuple(image.shape[1:])}, but the tower takes (patches, {wanted[0]}, {wanted[1]}); set config.data.transforms "
                f"of its view to 'patches' with options.patch {self.patch_size} and options.channels {self.channels}."
            )
        if self.pooling == "cls":
            raise ConfigError("a naflex tower has no class token; set its options.pooling to 'attention' or 'mean'.")
        mask = jnp.ones(image.shape[:2], bool) if mask is None else mask
        pixels = scale_pixels(image[:, :, :-PLACES], self.pixel_mean, self.pixel_std, self.dtype)
        places = image[:, :, -PLACES:, 0]
        places = jnp.round(255 * places) if jnp.issubdtype(places.dtype, jnp.floating) else places
        places = places.astype(jnp.int32) * mask[..., None]
        x = embed_patches(self, pixels.reshape(*pixels.shape[:2], -1)) + self._positions(places)
        return through_blocks(self, "naflex", x.astype(self.dtype), mask, keys, capture, hook)

    def _positions(self, places: Int[Array, "B p 2"]) -> Float[Array, "B p w"]:
        init = nn.initializers.normal(self.width**-0.5)
        table = self.param("position_embedding", axes(init, None, "position", "embed"), (1, self.grid**2, self.width))
        sides = 1 + jnp.max(places, axis=1, keepdims=True)
        down, right = (shares(places[..., i], sides[..., i], self.grid) for i in range(2))
        # Rows and columns in one product: one after the other would keep a row of the table for each patch.
        both = (down[..., None] * right[..., None, :]).reshape(*places.shape[:2], -1)
        return jnp.einsum("bpg,gw->bpw", both.astype(self.dtype), table[0].astype(self.dtype), preferred_element_type=jnp.float32)


def shares(place: Int[Array, "B p"], count: Int[Array, "B 1"], entries: int) -> Float[Array, "B p g"]:
    """What each of some entries adds to a place among `count`, where they are resized to so many: linearly, smoothed where they shrink.

    Source: the antialiased bilinear kernel of Pillow, `jax.image.resize` and torch.
    """
    scale = (entries / count)[..., None]
    centre = (place[..., None] + 0.5) * scale - 0.5
    distance = jnp.abs(jnp.arange(entries)[None, None] - centre) / jnp.maximum(scale, 1.0)
    weight = jnp.maximum(1.0 - distance, 0.0)
    return weight / weight.sum(-1, keepdims=True)
