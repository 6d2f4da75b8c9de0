"""Structure-CLIP: hinges on cosines, against the hardest other pair of the batch and against captions that a swap of words made false."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from losses import positives as pairs
from losses.similarity import cosines, einsum


def structure_clip(
    zq: Float[Array, "B d"],
    zp: Float[Array, "N d"],
    zn: Float[Array, "B K d"] | None = None,
    zn_weight: Float[Array, " B"] | None = None,
    knowledge: Float[Array, "N d"] | None = None,
    id: Int[Array, " B"] | None = None,
    alias: Int[Array, " B"] | None = None,
    weight: Float[Array, " B"] | None = None,
    step: Int[Array, ""] | None = None,
    *,
    in_batch: bool = True,
    margin: float = 0.2,
    swap_margin: float = 0.1,
    swap_weight: float = 5.0,
    knowledge_weight: float = 0.2,
    mean_steps: int = 100,
    matmul_dtype: str = "float32",
) -> tuple[Float[Array, " B"], Float[Array, " B"], dict]:
    """Each image prefers its caption to the nearest other one and, by a margin of its own, to what a swap of words makes of it.

    Args:
        zq: image embeddings, unit length.
        zp: caption embeddings, unit length; row i < B belongs to image i, later rows to none.
        zn: swapped captions of each image, unit length; of several, the mean counts.
        zn_weight: 0 where an image has no swapped caption, whatever stands in its row. None: all have.
        knowledge: of each caption, unit length: what another encoder makes of its facts. Added to captions in the term over the batch,
            without bringing the sum to length 1. None: nothing is added.
        id: label of each pair; pairs of one label do not compete.
        alias: a second label of the same use.
        weight: of each pair in the mean over the batch; 0 marks padding, which is also no candidate for anyone. None: all 1.
        step: finished updates, for `mean_steps`. None: they are over.
        in_batch: False leaves only the term over swapped captions, to stand beside another loss.
        margin: cosine by which the own caption should win over the batch.
        swap_margin: the same over swapped captions.
        swap_weight: of that term in the sum.
        knowledge_weight: of `knowledge` in a caption.
        mean_steps: updates in which a caption is compared with the mean over all images, its own among them, not with the nearest one.
        matmul_dtype: of the operands of similarity matmuls; sums are float32. float64 embeddings stay float64.

    Returns:
        Loss of each image, a difference of cosines (0 for padding), the weight of each, and `swap_accuracy`, the share of images whose
        cosine with the caption is above that with every swapped one.

    Raises:
        ValueError: fewer captions than images, or neither swapped captions nor the term over the batch.

    Source: Huang et al. 2024, arXiv:2305.06152; `mean_steps` as in the released code. The encoder of triples is not part of it.
    """
    pairs.check_pairs(zq.shape[0], zp.shape[0])
    if zn is None and not in_batch:
        raise ValueError("there is nothing to compare with; map config.losses.<label>.inputs.zn, or set .options.in_batch to True.")
    valid, queries = pairs.present(weight, zq.shape[0]), zq.shape[0]
    zq, zp, zn, knowledge = (pairs.blank(z, weight) for z in (zq, zp, zn, knowledge))
    loss, metrics = 0.0, {}
    if in_batch:
        merged = zp if knowledge is None else zp + knowledge_weight * knowledge
        apart = ~pairs.pair_mask(pairs.labels(id, alias), queries, zp.shape[0])
        loss = _over_batch(cosines(zq, merged, matmul_dtype), apart, valid, margin, None if step is None else step < mean_steps)
    if zn is not None:
        own = einsum("qd,qd->q", zq, zp[:queries], matmul_dtype)
        swapped = einsum("qd,qkd->qk", zq, zn, matmul_dtype)
        has = valid if zn_weight is None else valid & (zn_weight != 0)
        hinge = jax.nn.relu(swap_margin - own[:, None] + swapped).mean(1)
        loss += swap_weight * jnp.where(has, hinge, 0)
        metrics["swap_accuracy"] = (jnp.sum(has & (own > swapped.max(1)), dtype=own.dtype), has.sum(dtype=own.dtype))
    return jnp.where(valid, loss, 0), jnp.ones_like(loss) if weight is None else weight, metrics


def _over_batch(
    cosine: Float[Array, "B N"], apart: Bool[Array, "B N"], valid: Bool[Array, " B"], margin: float, early: Bool[Array, ""] | None
) -> Float[Array, " B"]:
    """Both hinges of each pair; a pair without any other costs nothing."""
    queries, captions = cosine.shape
    own, back = jnp.diagonal(cosine), cosine[:, :queries].T
    offered = apart & pairs.beyond(valid, captions)[None, :], apart[:, :queries].T & valid[None, :]
    rival, rival_back = _hardest(cosine, offered[0]), _hardest(back, offered[1])
    there, there_back = offered[0].any(1), offered[1].any(1)
    if early is not None:
        mean = jnp.where(valid[None, :], back, 0).sum(1) / jnp.maximum(valid.sum(), 1)
        rival_back, there_back = jnp.where(early, mean, rival_back), there_back | early
    hinge = lambda there, rival: jnp.where(there, jax.nn.relu(margin + rival - own), 0)
    return hinge(there, rival) + hinge(there_back, rival_back)


def _hardest(cosine: Float[Array, "R C"], offered: Bool[Array, "R C"]) -> Float[Array, " R"]:
    """The largest of the offered ones; of equal ones the first alone has a gradient, where a maximum would share it among them."""
    best = jnp.argmax(jnp.where(offered, jax.lax.stop_gradient(cosine), -jnp.inf), axis=1)
    return jnp.take_along_axis(cosine, best[:, None], axis=1)[:, 0]
