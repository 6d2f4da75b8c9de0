"""Matryoshka representation learning: one loss at many widths of the same vectors, so that their first values are vectors too."""

from collections.abc import Callable, Mapping, Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from losses import positives as pairs

INFONCE = {"name": "infonce", "inputs": {}, "options": {}}


def matryoshka(
    zq: Float[Array, "B d"],
    zp: Float[Array, "N d"],
    zn: Float[Array, "B K d"] | None = None,
    weight: Float[Array, " B"] | None = None,
    *,
    loss: Callable | Mapping = INFONCE,
    dims: Sequence[int] = (),
    weights: Sequence[float] = (),
) -> tuple[Float[Array, " B"], Float[Array, " B"], dict]:
    """Sums a loss over prefixes of the embeddings, each brought back to unit length.

    Args:
        zq: query embeddings, unit length.
        zp: passage embeddings, unit length; row i < B belongs to query i, later rows to none.
        zn: hard negatives of each query, unit length; handed to losses that take them.
        weight: of each pair in the mean over the batch; 0 marks padding. None: all 1.
        loss: `{name, inputs, options}` of another entry of LOSSES; its arrays beside these four are its own inputs.
        dims: widths, from 1 to d, which must be among them: what is left out is not trained. Towers run once for all of them.
        weights: of each width in the sum; () gives each 1, as the paper does.

    Returns:
        Sum over widths of each query's loss in nats, the weight of each, and the mean loss at each width.

    Raises:
        ValueError: no widths, one twice or beyond d, d not among them, or another number of weights.

    Relations: with dims=(d,) it is the inner loss. Value k of a vector is in the loss of every width above k.
    Source: Kusupati et al. 2022, arXiv:2205.13147, eq. 1.
    """
    check_dims(dims, zq.shape[1])
    if weights and len(weights) != len(dims):
        raise ValueError(f"{len(weights)} weights for {len(dims)} dims; set config.losses.<label>.options.weights to one each, or ().")
    zq, zp, zn = (pairs.blank(z, weight) for z in (zq, zp, zn))  # padding may hold NaN, which division would spread
    given = {name: array for name, array in (("zn", zn), ("weight", weight)) if array is not None}
    total, metrics = 0.0, {}
    for dim, factor in zip(dims, weights or (1.0,) * len(dims), strict=True):
        value, counts = at_width(loss, dim, zq=zq, zp=zp, **given)
        total += factor * value
        metrics[f"dim{dim}"] = ((value * counts).sum(), counts.sum())
    return total, counts, metrics


def at_width(loss: Callable, dim: int | Int[Array, ""], **arrays: Float[Array, "..."]) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """Value and weight of each row by a loss on prefixes of the embeddings among its arrays."""
    cut = {name: array if name == "weight" else prefix(array, dim) for name, array in arrays.items()}
    value, counts, _ = loss(**cut)
    return value, counts


def prefix(z: Float[Array, "... d"], dim: int | Int[Array, ""]) -> Float[Array, "... m"]:
    """The first `dim` values of each vector at unit length; all of them as they are. A traced `dim` leaves zeros for what it cuts off."""
    if isinstance(dim, int):
        return z if dim == z.shape[-1] else at_unit_length(z[..., :dim])
    kept = jnp.arange(z.shape[-1]) < dim
    return jnp.where(dim == z.shape[-1], z, at_unit_length(jnp.where(kept, z, 0)))


def at_unit_length(z: Float[Array, "... d"]) -> Float[Array, "... d"]:
    """Each vector divided by its length; one of zeros (padding) stays one, with a finite gradient."""
    square = jnp.square(z).sum(-1, keepdims=True)
    return z / jnp.sqrt(jnp.where(square == 0, 1, square))


def check_dims(dims: Sequence[int], width: int) -> None:
    """Refuses widths that embeddings do not have, and a list without the full one.

    Raises:
        ValueError: names the key to change.
    """
    wrong = [dim for dim in dims if not 1 <= dim <= width]
    if wrong or len(set(dims)) < len(dims) or width not in dims:
        raise ValueError(
            f"dims are {tuple(dims)} for embeddings of {width} values; set config.losses.<label>.options.dims to distinct widths from 1 "
            f"to {width}, with {width} among them."
        )
