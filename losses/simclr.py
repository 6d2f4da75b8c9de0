"""SimCLR's contrast of two views over all 2B embeddings of a batch, plain or with each negative weighted by how near it is."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from losses import positives as pairs
from losses.similarity import cosines


def simclr(
    zq: Float[Array, "B d"],
    zp: Float[Array, "N d"],
    logit_scale: Float[Array, ""] | None = None,
    id: Int[Array, " B"] | None = None,
    alias: Int[Array, " B"] | None = None,
    weight: Float[Array, " B"] | None = None,
    *,
    weighted: bool = False,
    temperature: float | None = None,
    matmul_dtype: str = "float32",
) -> tuple[Float[Array, " B"], Float[Array, " B"], dict]:
    """Each embedding of either view picks its partner out of all embeddings of both views but itself.

    Args:
        zq: embeddings of one view, unit length.
        zp: embeddings of the other, unit length; row i < B belongs to row i of `zq`, later rows to none.
        logit_scale: 1 / temperature, no unit; needed where the option `temperature` is None.
        id: label of each pair; pairs of one label do not compete. None: all differ.
        alias: a second label of the same use.
        weight: of each pair in the mean over the batch; 0 marks padding, which is also no candidate for anyone. None: all 1.
        weighted: a negative counts in proportion to its own exponential, with a mean of 1 over those of an anchor. The weights have a
            gradient, as in the released code.
        temperature: divides cosines in place of `logit_scale`, for a loss beside one that learns the scale.
        matmul_dtype: of the operands of similarity matmuls; sums are float32. float64 embeddings stay float64.

    Returns:
        Mean of the two anchors' losses of each pair in nats (0 for padding), the weight of each, and no metrics.

    Raises:
        ValueError: fewer passages than queries, or neither scale nor temperature.

    Relations: weighted is never below plain, and equal where all negatives of an anchor are equally near.
    Source: Chen et al. 2020, arXiv:2002.05709, eq. 1 (NT-Xent); weighted: Zhou et al. 2024 (DNABERT-S), arXiv:2402.08777.
    """
    pairs.check_pairs(zq.shape[0], zp.shape[0])
    valid = pairs.present(weight, zq.shape[0])
    zq, zp = pairs.blank(zq, weight), pairs.blank(zp, weight)
    if logit_scale is None and not temperature:
        raise ValueError("there is no logit_scale; set config.losses.<label>.options.temperature, to 0.1 for example.")
    scale = jnp.asarray(1 / temperature, zq.dtype) if temperature else logit_scale
    ids, queries = pairs.labels(id, alias), zq.shape[0]
    losses = []
    for anchor, own, other in ((zq, zq, zp), (zp[:queries], zp, zq)):
        logits = jnp.concatenate([scale * cosines(anchor, side, matmul_dtype) for side in (own, other)], axis=1)
        offered = [~pairs.pair_mask(ids, queries, len(side)) & pairs.beyond(valid, len(side))[None, :] for side in (own, other)]
        partner = jnp.diagonal(logits[:, len(own) :])
        negatives = log_negatives(logits, jnp.concatenate(offered, axis=1), weighted)
        losses.append(jnp.logaddexp(partner, negatives) - partner)
    return jnp.where(valid, sum(losses) / 2, 0), jnp.ones_like(losses[0]) if weight is None else weight, {}


def log_negatives(logits: Float[Array, "B C"], offered: Bool[Array, "B C"], weighted: bool) -> Float[Array, " B"]:
    """log sum_k w_k exp(s_k) over the offered candidates, w_k = exp(s_k) / mean_k exp(s_k), or 1; a very low number where there are none.

    With s up to 1/0.05, exp(2 s) is beyond float32 by far: all of it stays in logarithms, lse(2 s) - lse(s) + log K.
    """
    count = offered.sum(1)
    least = jnp.finfo(logits.dtype).min / 8
    s = jnp.where(offered, logits, -jnp.inf)
    s = jnp.where((count > 0)[:, None], s, 0)  # a row without any would be lse of nothing, whose gradient is no number
    found = jax.nn.logsumexp(s, axis=1)
    if weighted:
        found = jax.nn.logsumexp(2 * s, axis=1) - found + jnp.log(jnp.maximum(count, 1).astype(s.dtype))
    return jnp.where(count > 0, found, least)
