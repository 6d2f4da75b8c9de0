"""Softmax contrastive loss over the global batch: each query picks its passage, and the reverse."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from losses import positives as pairs
from losses.similarity import cosines, einsum

POSITIVES = ("mean", "sum", "exclude")
NEGATIVES = ("all", "own")


def infonce(
    zq: Float[Array, "B d"],
    zp: Float[Array, "N d"],
    logit_scale: Float[Array, ""],
    id: Int[Array, " B"] | None = None,
    alias: Int[Array, " B"] | None = None,
    zn: Float[Array, "B K d"] | None = None,
    weight: Float[Array, " B"] | None = None,
    *,
    symmetric: bool = True,
    positives: str = "mean",
    negatives: str = "all",
    matmul_dtype: str = "float32",
) -> tuple[Float[Array, " B"], Float[Array, " B"], dict]:
    """Each query picks its own passage out of every passage in the global batch.

    Args:
        zq: query embeddings, unit length.
        zp: passage embeddings, unit length; row i < B belongs to query i, later rows to none.
        logit_scale: 1 / temperature, no unit.
        id: label of each pair; pairs of one label are positives of each other. None: all differ.
        alias: a second label of the same use; equal in either is enough.
        zn: hard negatives of each query, unit length; candidates of queries only, never positives.
        weight: of each pair in the mean over the batch; 0 marks padding, which is also no candidate for anyone. None: all 1.
        symmetric: also let each passage i < B pick its query, and average the two.
        positives: what several positives of one query mean. With unique labels all three are the same loss.
            "mean": minus the mean log probability of the positives, each of which stays in the denominator (cross-entropy
            against a uniform target; SupCon's L_out).
            "sum": minus the log of the positives' summed probability (MIL-NCE).
            "exclude": the own passage is the only target and the other positives leave the denominator.
        negatives: "all": hard negatives are candidates for every query; "own": for the query they were mined for.
        matmul_dtype: of the operands of similarity matmuls; sums are float32. float64 embeddings stay float64.

    Returns:
        Loss of each query in nats (0 for padding), the weight of each, and no metrics.

    Raises:
        ValueError: fewer passages than queries, or an option that is not offered.

    Relations: a batch of one without negatives costs 0; the loss of a pair with an inf or NaN embedding is not finite.
    Source: van den Oord et al. 2018, arXiv:1807.03748, eq. 4; symmetric as in arXiv:2103.00020, fig. 3; positives as in
        arXiv:2004.11362, eq. 2 ("mean"), and arXiv:1912.06430, eq. 1 ("sum").
    """
    check_options(positives, negatives)
    pairs.check_pairs(zq.shape[0], zp.shape[0])
    queries, valid = zq.shape[0], pairs.present(weight, zq.shape[0])
    zq, zp, zn = (pairs.blank(z, weight) for z in (zq, zp, zn))
    logits = logit_scale * cosines(zq, zp, matmul_dtype)  # [B N]
    same = pairs.pair_mask(id, alias, *logits.shape)
    candidates = jnp.pad(valid, (0, zp.shape[0] - queries), constant_values=True)
    hard, hard_candidates = _hard(zq, zn, valid, logit_scale, negatives, matmul_dtype)
    loss = _cross_entropy(
        jnp.concatenate([logits, hard], axis=1),
        jnp.pad(same, ((0, 0), (0, hard.shape[1]))),
        jnp.concatenate([candidates, hard_candidates]),
        positives,
    )
    if symmetric:
        back = _cross_entropy(logits[:, :queries].T, same[:, :queries].T, valid, positives)
        loss = (loss + back) / 2
    return jnp.where(valid, loss, 0), jnp.ones_like(loss) if weight is None else weight, {}


def check_options(positives: str, negatives: str) -> None:
    """Refuses an option that is not offered.

    Raises:
        ValueError: lists those that are.
    """
    for name, found, offered in (("positives", positives, POSITIVES), ("negatives", negatives, NEGATIVES)):
        if found not in offered:
            raise ValueError(f"{name} is {found!r}; set config.losses.entries.<label>.options.{name} to one of: {', '.join(offered)}.")


def _hard(zq, zn, valid, logit_scale, negatives, matmul_dtype) -> tuple[Float[Array, "B M"], Bool[Array, " M"]]:
    """Logits of the hard negatives as further columns, and which of them are candidates."""
    if zn is None:
        return jnp.zeros((zq.shape[0], 0), zq.dtype), jnp.ones(0, bool)
    if negatives == "own":
        return logit_scale * einsum("qd,qkd->qk", zq, zn, matmul_dtype), jnp.ones(zn.shape[1], bool)
    logits = logit_scale * cosines(zq, zn.reshape(-1, zn.shape[2]), matmul_dtype)
    return logits, jnp.repeat(valid, zn.shape[1])


def _cross_entropy(
    logits: Float[Array, "R C"], same: Bool[Array, "R C"], candidates: Bool[Array, " C"], positives: str
) -> Float[Array, " R"]:
    own = jnp.eye(*logits.shape, dtype=bool)
    keep = candidates[None, :] | own  # a padded row keeps its own column, so that no row is empty and no gradient NaN
    if positives == "exclude":
        keep, same = keep & (own | ~same), own
    same &= keep
    denominator = jax.nn.logsumexp(jnp.where(keep, logits, -jnp.inf), axis=1)
    if positives == "sum":
        return denominator - jax.nn.logsumexp(jnp.where(same, logits, -jnp.inf), axis=1)
    return denominator - jnp.where(same, logits, 0).sum(1) / same.sum(1)
