"""Sigmoid contrastive loss: every pair of the global batch is a yes-or-no question of its own."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from losses import blockwise
from losses import positives as pairs
from losses.similarity import cosines, einsum
from losses.tiles import Plan, Scalars

NEGATIVES = ("all", "own")


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
    method: str = "dense",
    block_size: int = 1024,
    matmul_dtype: str = "float32",
    kernel: str = "xla",
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
        method: "dense", "ring" or "gather", as for `infonce`.
        block_size: queries and passages of a tile, at most.
        matmul_dtype: of the operands of similarity matmuls; sums are float32. float64 embeddings stay float64.
        kernel: "xla", "pallas" or "interpret", as for `infonce`.

    Returns:
        Loss of each query in nats, summed (not averaged) over passages (0 for padding), the weight of each, and no metrics.

    Raises:
        ValueError: fewer passages than queries, an option that is not offered, or a tiled batch that does not split over the mesh.

    Relations: further positives only flip labels, nothing is renormalised. The loss of a pair with a NaN embedding is NaN.
    Source: Zhai et al. 2023, arXiv:2303.15343, eq. 1 (there averaged over queries).
    """
    pairs.check_option("negatives", negatives, NEGATIVES)
    pairs.check_option("method", method, blockwise.METHODS)
    pairs.check_option("kernel", kernel, blockwise.KERNELS)
    pairs.check_pairs(zq.shape[0], zp.shape[0])
    valid = pairs.present(weight, zq.shape[0])
    plan = Plan("sigmoid", None, False, method, block_size, matmul_dtype, kernel)
    scalars, ids = Scalars(logit_scale, logit_bias, jnp.zeros_like(logit_scale)), pairs.labels(id, alias)
    zn = pairs.blank(zn, weight)
    if method == "dense":
        zq, zp = pairs.blank(zq, weight), pairs.blank(zp, weight)  # tiles do this one by one, without a copy
    rows = _dense_rows if method == "dense" else _tiled_rows
    loss = rows(plan, scalars, zq, zp, zn if negatives == "all" else None, ids, None if weight is None else valid)
    if zn is not None and negatives == "own":
        loss += jax.nn.softplus(logit_scale * einsum("qd,qkd->qk", pairs.blank(zq, weight), zn, matmul_dtype) + logit_bias).sum(1)
    return jnp.where(valid, loss, 0), jnp.ones_like(loss) if weight is None else weight, {}


def _dense_rows(plan, scalars, zq, zp, zn, ids, valid):
    def asked(passages, same, candidates):
        logits = scalars.scale * cosines(zq, passages, plan.matmul_dtype) + scalars.bias  # [B N]
        # softplus(-z) keeps its digits where log(sigmoid(z)) would round to log(1) or log(0).
        return jnp.where(candidates[None, :], jax.nn.softplus(jnp.where(same, -logits, logits)), 0).sum(1)

    queries, passages = zq.shape[0], zp.shape[0]
    valid = jnp.ones(queries, bool) if valid is None else valid
    loss = asked(zp, pairs.pair_mask(ids, queries, passages), pairs.beyond(valid, passages))
    if zn is None:
        return loss
    return loss + asked(zn.reshape(-1, zn.shape[2]), False, jnp.repeat(valid, zn.shape[1]))


def _tiled_rows(plan, scalars, zq, zp, zn, ids, valid):
    q, p = blockwise.sides(zq, zp, ids, valid)
    loss = blockwise.pair_sums(plan, scalars, q, p)[0][0]
    if zn is None:
        return loss
    return loss + blockwise.pair_sums(plan, scalars, q._replace(ids=()), blockwise.hard_side(zn, valid))[0][0]
