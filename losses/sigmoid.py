"""Sigmoid contrastive loss: every pair of the global batch is a yes-or-no question of its own."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from losses import positives as pairs
from losses.infonce import check_options
from losses.similarity import cosines, einsum


def sigmoid(
    zq: Float[Array, "B d"],
    zp: Float[Array, "N d"],
    logit_scale: Float[Array, ""],
    logit_bias: Float[Array, ""],
    id: Int[Array, " B"] | None = None,
    alias: Int[Array, " B"] | None = None,
    zn: Float[Array, "B K d"] | None = None,
    weight: Float[Array, " B"] | None = None,
    *,
    negatives: str = "all",
    matmul_dtype: str = "float32",
) -> tuple[Float[Array, " B"], Float[Array, " B"], dict]:
    """Each query says of every passage in the global batch whether it belongs to it.

    Args:
        zq: query embeddings, unit length.
        zp: passage embeddings, unit length; row i < B belongs to query i, later rows to none.
        logit_scale: 1 / temperature, no unit.
        logit_bias: added to the scaled cosine; the paper starts it at -10.
        id: label of each pair; pairs of one label are positives of each other. None: all differ.
        alias: a second label of the same use; equal in either is enough.
        zn: hard negatives of each query, unit length; never positives.
        weight: of each pair in the mean over the batch; 0 marks padding, which no other row is asked about. None: all 1.
        negatives: "all": every query is asked about every hard negative; "own": about those mined for it.
        matmul_dtype: of the operands of similarity matmuls; sums are float32. float64 embeddings stay float64.

    Returns:
        Loss of each query in nats, summed (not averaged) over passages (0 for padding), the weight of each, and no metrics.

    Raises:
        ValueError: fewer passages than queries, or an option that is not offered.

    Relations: further positives only flip labels, nothing is renormalised. The loss of a pair with a NaN embedding is NaN.
    Source: Zhai et al. 2023, arXiv:2303.15343, eq. 1 (there averaged over queries).
    """
    check_options("mean", negatives)
    pairs.check_pairs(zq.shape[0], zp.shape[0])
    valid = pairs.present(weight, zq.shape[0])
    zq, zp, zn = (pairs.blank(z, weight) for z in (zq, zp, zn))
    logits = logit_scale * cosines(zq, zp, matmul_dtype) + logit_bias  # [B N]
    same = pairs.pair_mask(id, alias, *logits.shape)
    asked = jnp.pad(valid, (0, zp.shape[0] - zq.shape[0]), constant_values=True)[None, :]
    # softplus(-z) keeps its digits where log(sigmoid(z)) would round to log(1) or log(0).
    loss = jnp.where(asked, jax.nn.softplus(jnp.where(same, -logits, logits)), 0).sum(1)
    if zn is not None and negatives == "own":
        loss += jax.nn.softplus(logit_scale * einsum("qd,qkd->qk", zq, zn, matmul_dtype) + logit_bias).sum(1)
    elif zn is not None:
        hard = jax.nn.softplus(logit_scale * cosines(zq, zn.reshape(-1, zn.shape[2]), matmul_dtype) + logit_bias)
        loss += jnp.where(jnp.repeat(valid, zn.shape[1])[None, :], hard, 0).sum(1)
    return jnp.where(valid, loss, 0), jnp.ones_like(loss) if weight is None else weight, {}
