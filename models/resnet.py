"""A small residual convolutional tower without batch statistics, for images too small or too few for a transformer."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, Num

from models.layers import axes, check_size, dense, dropout, scale_pixels


class ResNet(nn.Module):
    """Stages of pre-activation residual blocks, each stage at half the resolution of the one before.

    GroupNorm instead of BatchNorm: no example sees another, so the batch may be split, padded or cached at will.

    Source: He et al. 2016 (arXiv:1603.05027); GroupNorm as in Kolesnikov et al. 2020 (BiT, arXiv:1912.11370), without its
        weight standardisation.
    """

    widths: Sequence[int] = (32, 64, 128)
    blocks: Sequence[int] = (1, 1, 1)
    image_size: int = 32
    stem_stride: int = 2
    channels: int = 3
    embed_dim: int = 256  # 0: the pooled state itself
    groups: int = 8
    dropout: float = 0.0
    pixel_mean: tuple[float, ...] = (0.5,)
    pixel_std: tuple[float, ...] = (0.5,)
    dtype: str = "float32"

    @property
    def output_dim(self) -> int:
        """Features of an embedding."""
        return self.embed_dim or self.widths[-1]

    @nn.compact
    def __call__(
        self, image: Num[Array, "B H W C"], mask=None, keys: Key[Array, " B"] | None = None, *, capture: tuple[str, ...] = (), hook=None
    ) -> dict[str, Float[Array, "..."]]:
        """Returns `embedding [B embed_dim]`, and if captured `tokens [B h*w widths[-1]]` and `dense [B h*w embed_dim]`, each
        position pooled by itself.

        Raises:
            ValueError: images of another size than the tower was made for, a hook, or a capture that it does not have.
        """
        check_size(image.shape, self.image_size, self.channels)
        if hook is not None or set(capture) - {"tokens", "dense"}:
            raise ValueError(
                "a resnet has no transformer layers to hook or capture; use the vit tower, or capture only 'tokens' or 'dense'."
            )
        x = scale_pixels(image, self.pixel_mean, self.pixel_std, self.dtype)
        x = self._conv(x, self.widths[0], 3, self.stem_stride, "stem")
        for stage, (width, count) in enumerate(zip(self.widths, self.blocks, strict=True)):
            for index in range(count):
                x = self._block(x, width, 2 if stage and not index else 1, f"stage_{stage}_block_{index}")
        x = self._norm(x, "norm")
        pooled = dropout(x.mean(axis=(1, 2)).astype(jnp.float32), self.dropout, keys, 0)
        init = nn.initializers.normal(self.widths[-1] ** -0.5)
        project = lambda pooled: pooled
        if self.embed_dim:
            project = dense(self.embed_dim, ("embed", "output"), init=init, use_bias=False, name="projection")
        tokens = x.reshape(x.shape[0], -1, x.shape[-1])
        result = {"embedding": project(pooled)} | ({"tokens": tokens} if "tokens" in capture else {})
        return result | ({"dense": project(tokens.astype(jnp.float32))} if "dense" in capture else {})

    def _block(self, x, width: int, stride: int, name: str):
        y = self._norm(x, f"{name}_norm_0")
        # The shortcut reads the normalised input where the shape changes, as in the pre-activation design.
        shortcut = x if x.shape[-1] == width and stride == 1 else self._conv(y, width, 1, stride, f"{name}_shortcut")
        y = self._conv(y, width, 3, stride, f"{name}_conv_0")
        y = self._conv(self._norm(y, f"{name}_norm_1"), width, 3, 1, f"{name}_conv_1")
        return shortcut + y

    def _norm(self, x, name: str):
        affine = dict(scale_init=axes(nn.initializers.ones, "channels_out"), bias_init=axes(nn.initializers.zeros, "channels_out"))
        return jax.nn.relu(
            nn.GroupNorm(num_groups=min(self.groups, x.shape[-1]), dtype=self.dtype, use_fast_variance=False, name=name, **affine)(x)
        )

    def _conv(self, x, width: int, size: int, stride: int, name: str):
        init = axes(nn.initializers.variance_scaling(2.0, "fan_out", "normal"), None, None, "channels_in", "channels_out")
        return Conv(width, size, stride, self.dtype, init, name=name)(x)


class Conv(nn.Module):
    """A convolution without bias, padded so that the output has ceil(input / stride) positions a side."""

    features: int
    size: int
    stride: int
    dtype: str
    kernel_init: Callable

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape).astype(self.dtype)
        strides = (self.stride, self.stride)
        if -(-x.shape[1] // self.stride) > 2:
            return jax.lax.conv_general_dilated(x, kernel, strides, "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        # Few positions: one product of patches and kernel. XLA's CPU convolution took 7 to 16 times as long here, mostly in its gradients.
        return patches(x, self.size, self.stride) @ kernel.reshape(-1, self.features)


def patches(x: Float[Array, "B H W C"], size: int, stride: int) -> Float[Array, "B h w p"]:
    """What a "SAME" convolution looks at from each position, flattened as (row, column, channel)."""
    out = [-(-side // stride) for side in x.shape[1:3]]
    around = [max((o - 1) * stride + size - side, 0) for o, side in zip(out, x.shape[1:3], strict=True)]
    padded = jnp.pad(x, ((0, 0), *((total // 2, total - total // 2) for total in around), (0, 0)))
    reach = [(o - 1) * stride + 1 for o in out]
    shifted = [padded[:, i : i + reach[0] : stride, j : j + reach[1] : stride] for i in range(size) for j in range(size)]
    return jnp.concatenate(shifted, axis=-1)
