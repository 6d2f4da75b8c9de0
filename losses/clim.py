"""CLIM: parts of an image against captions of their own, a mosaic of captioned images standing for a picture with boxes."""

import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from losses import positives as pairs

INFONCE = {"name": "infonce", "inputs": {}, "options": {}}


def clim(
    zq: Float[Array, "B p d"],
    zp: Float[Array, "B *K d"],
    boxes: Float[Array, "B K 4"] | None = None,
    id: Int[Array, "B *L"] | None = None,
    alias: Int[Array, "B *L"] | None = None,
    weight: Float[Array, " B"] | None = None,
    *,
    loss: Callable | Mapping = INFONCE,
) -> tuple[Float[Array, " R"], Float[Array, " R"], dict]:
    """A loss between regions, pooled from the dense features of their image, and captions, which get no gradient.

    Args:
        zq: dense features of each image, as a tower captures them (`dense`): a square of positions, row by row; one vector before
            them, a class token, is left out.
        zp: caption embeddings of the regions of each image, unit length; or one of the whole image.
        boxes: of the regions (left, top, right, bottom), in shares of the image; one without area is padding. None: the whole image.
        id: label of each caption, in the shape of `zp`'s first axes; those of one label are positives of each other.
        alias: a second label of the same use.
        weight: of each image in the mean over all regions; 0 marks padding. None: all 1.
        loss: `{name, inputs, options}` of another entry of LOSSES; its arrays beside these are its own inputs. It sees every region of
            the global batch as a query of one caption.

    Returns:
        The loss of each region, R = B K of them, image by image, their weights, and its metrics.

    Raises:
        ValueError: positions that are no square, or captions, boxes and labels that do not fit each other.

    Relations: with no boxes the region is the mean of the unit features, brought to unit length.
    Source: Wu et al. 2024, arXiv:2312.11376; pooling by the area that a box shares with each position, which is RoI-align where edges of
        boxes meet those of positions.
    """
    zp = zp[:, None] if zp.ndim == 2 else zp
    boxes = jnp.broadcast_to(jnp.array([0, 0, 1, 1], zq.dtype), (*zq.shape[:1], 1, 4)) if boxes is None else boxes
    if zp.shape[:2] != boxes.shape[:2]:
        raise ValueError(
            f"captions {zp.shape[:2]} do not fit boxes {boxes.shape[:2]}; let config.losses.<label>.inputs.zp and .boxes name arrays of "
            "the same regions."
        )
    there = (boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1])
    counts = there.astype(zq.dtype) if weight is None else there * weight[:, None]
    found = regions(pairs.blank(zq, weight), boxes)
    flat = lambda array: array.reshape(-1, *array.shape[2:])
    labels = {name: label.reshape(-1) for name, label in (("id", id), ("alias", alias)) if label is not None}
    for name, label in labels.items():
        if label.size != counts.size:
            raise ValueError(
                f"{name} has {label.size} labels for {counts.size} regions; let config.losses.<label>.inputs.{name} name labels of the "
                "regions, or set it to None."
            )
    return loss(zq=flat(found), zp=flat(jax.lax.stop_gradient(zp)), weight=counts.reshape(-1), **labels)


def regions(dense: Float[Array, "B p d"], boxes: Float[Array, "B K 4"]) -> Float[Array, "B K d"]:
    """Unit vectors of boxes: the mean of unit features, each by the area that its position shares with the box; zeros without area.

    Raises:
        ValueError: positions that are no square, with or without one more before them.
    """
    count = dense.shape[1]
    side = math.isqrt(count)
    if count not in (side**2, side**2 + 1):
        raise ValueError(f"{count} positions are no square; let config.losses.<label>.inputs.zq name the dense features of a square image.")
    grid = _unit(dense[:, count - side**2 :]).reshape(-1, side, side, dense.shape[2])
    across, down = (_shared(boxes[..., first], boxes[..., first + 2], side) for first in (0, 1))
    return _unit(jnp.einsum("bky,bkx,byxd->bkd", down, across, grid))


def _shared(low: Float[Array, "B K"], high: Float[Array, "B K"], side: int) -> Float[Array, "B K s"]:
    """The length that [low, high] shares with each of `side` equal parts of [0, 1]."""
    edges = jnp.arange(side + 1, dtype=low.dtype)[None, None] / side
    return jnp.maximum(jnp.minimum(high[..., None], edges[..., 1:]) - jnp.maximum(low[..., None], edges[..., :-1]), 0)


def _unit(z: Float[Array, "... d"]) -> Float[Array, "... d"]:
    square = jnp.square(z).sum(-1, keepdims=True)
    return z / jnp.sqrt(jnp.where(square == 0, 1, square))  # zeros (padding) stay zeros, with a finite gradient
