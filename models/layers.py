"""Small parts that towers share: initialisers with logical axes, activations, dropout, pixel scaling.

Logical axes (what `core.mesh` maps to mesh axes): `vocab`, `embed` (tower width), `mlp`, `heads`, `head_dim`, `output`
(the shared space), `position`, `channels_in`, `channels_out`.
"""

import functools
import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int, Key, Num

from core.mesh import BATCH, constrain

ACTIVATIONS = {
    "gelu": lambda x: x * 0.5 * (1 + jax.lax.erf(x * math.sqrt(0.5))),  # jax.nn.gelu takes erfc, slower on CPU and no closer in float32
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "tanh": jnp.tanh,
}


def axes(init, *names: str | None):
    """An initialiser whose array carries the logical axis of each dimension."""
    return nn.with_logical_partitioning(init, names)


def dense(features: int, names: tuple[str | None, str | None], *, init=None, use_bias: bool = True, dtype=None, name: str) -> nn.Dense:
    """A linear layer `[in, out]` whose kernel has logical axes `names`."""
    return nn.Dense(
        features,
        dot_general=lambda x, kernel, _, **options: by_rows(x, kernel),
        use_bias=use_bias,
        dtype=dtype,
        kernel_init=axes(init or nn.initializers.xavier_uniform(), *names),
        bias_init=axes(nn.initializers.zeros, names[1]),
        name=name,
    )


def by_rows(x: Float[Array, "... i"], kernel: Float[Array, "i *o"]) -> Float[Array, "..."]:
    """A linear layer's product, with all rows on one axis.

    With rows on two axes XLA transposes copies of all activations for a kernel's gradient on CPU: a quarter of a small CLIP's step.
    """
    y = jnp.tensordot(x.reshape(-1, x.shape[-1]), kernel, 1)
    return y.reshape(*x.shape[:-1], *kernel.shape[1:])


class LayerNorm(nn.Module):
    """(x - mean) / sqrt(variance + eps) * scale + bias over the last axis, in float32 or wider inside."""

    eps: float = 1e-6
    dtype: str = "float32"
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "... w"]) -> Float[Array, "... w"]:
        width = x.shape[-1:]
        scale = self.param("scale", axes(nn.initializers.ones, "embed"), width)
        bias = self.param("bias", axes(nn.initializers.zeros, "embed"), width) if self.use_bias else jnp.zeros(width, scale.dtype)
        rows = x.reshape(-1, *width).astype(jnp.promote_types(x.dtype, jnp.float32))
        return normalize(self.eps, rows, scale[None], bias[None]).reshape(x.shape).astype(self.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def normalize(eps: float, x: Float[Array, "n w"], scale: Float[Array, "1 w"], bias: Float[Array, "1 w"]) -> Float[Array, "n w"]:
    """LayerNorm of rows, with a gradient of few passes: the derived one took 8% of a small CLIP's step on CPU more."""
    return _normalize(eps, x, scale, bias)[0]


def _normalize(eps, x, scale, bias):
    mean = x.mean(1, keepdims=True)
    # The two-pass variance: E[x^2] - E[x]^2 loses digits when the mean is large.
    inverse = jax.lax.rsqrt(jnp.square(x - mean).mean(1, keepdims=True) + eps)
    return (x - mean) * (inverse * scale) + bias, (x, mean, inverse, scale)


def _normalize_gradient(eps, saved, by_y):
    x, mean, inverse, scale = saved
    unit = (x - mean) * inverse
    by_unit = by_y * scale
    by_x = inverse * (by_unit - by_unit.mean(1, keepdims=True) - unit * (by_unit * unit).mean(1, keepdims=True))
    return by_x, (by_y * unit).sum(0, keepdims=True), by_y.sum(0, keepdims=True)


normalize.defvjp(_normalize, _normalize_gradient)


def layer_norm(eps: float, dtype, name: str, use_bias: bool = True) -> LayerNorm:
    """A LayerNorm whose parameters have logical axes."""
    return LayerNorm(eps, dtype, use_bias, name=name)


def rms_norm(eps: float, dtype, name: str) -> nn.RMSNorm:
    """x / sqrt(mean(x^2) + eps) * scale over the last axis, in float32 inside."""
    return nn.RMSNorm(epsilon=eps, dtype=dtype, scale_init=axes(nn.initializers.ones, "embed"), name=name)


def dropout(x: Float[Array, "B ..."], rate: float, keys: Key[Array, " B"] | None, site: int | Array) -> Float[Array, "B ..."]:
    """Inverted dropout with one key per example, so that neither mesh nor gradient caching changes a mask.

    Args:
        x: activations.
        rate: probability of a zero.
        keys: one per row of the *global* batch; None (evaluation) returns `x` unchanged.
        site: distinguishes the places of one forward pass; may be traced.
    """
    if keys is None or rate == 0.0:
        return x
    draw = lambda key: jax.random.bernoulli(jax.random.fold_in(key, site), 1.0 - rate, x.shape[1:])
    return jnp.where(jax.vmap(draw)(keys), x / (1.0 - rate), jnp.zeros_like(x))


def scale_pixels(image: Num[Array, "B H W C"], mean: Sequence[float], std: Sequence[float], dtype) -> Float[Array, "B H W C"]:
    """(x / 255 - mean) / std for uint8 images; float images are taken as already scaled to 0-1.

    Images travel to the device as bytes, a quarter of the size; one mean and std serve all channels if only one is given.

    Raises:
        TypeError: other whole numbers, whose range nobody knows.
    """
    if image.dtype != jnp.uint8 and not jnp.issubdtype(image.dtype, jnp.floating):
        raise TypeError(f"images must be uint8 in 0-255 or float in 0-1, not {image.dtype}.")
    if image.dtype == jnp.uint8:
        image = image.astype(jnp.float32) / 255.0
    shape = (1, 1, 1, -1)
    scaled = (image - jnp.asarray(mean, jnp.float32).reshape(shape)) / jnp.asarray(std, jnp.float32).reshape(shape)
    return scaled.astype(dtype)


def check_size(shape: tuple[int, ...], image_size: int, channels: int) -> None:
    """Refuses images `[B H W C]` of another size than a tower was made for.

    Raises:
        ValueError: names the options to change.
    """
    wanted = (image_size, image_size, channels)
    if tuple(shape[1:]) != wanted:
        raise ValueError(
            f"images of {tuple(shape[1:])}, but the tower takes {wanted}; "
            "change its options.image_size or options.channels, or the source's size."
        )


def check_length(tokens: int, length: int) -> None:
    """Refuses texts that are longer than a tower was made for.

    Raises:
        ValueError: names the options to change.
    """
    if tokens > length:
        raise ValueError(
            f"texts of {tokens} tokens, but the tower takes {length}; "
            f"set config.data.transforms.text.options.length to {length} or raise the tower's options.length."
        )


def lookup(table: Float[Array, "v w"], ids: Int[Array, "B T"], added: Float[Array, "#B #T w"] | None = None) -> Float[Array, "B T w"]:
    """Rows of an embedding table, and what is added to them; an id outside the table gives NaN."""
    # A table split over its width would hand that split to the hidden states, and every device would compute all rows.
    rows = jnp.take(constrain(table, P()), ids, axis=0)
    return constrain(rows if added is None else rows + added, P(BATCH))


def unit(x: Float[Array, "... d"]) -> Float[Array, "... d"]:
    """Rows of length one, computed in float32 or wider; a zero row stays zero and has a finite gradient."""
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-12)
