"""MI-Mix: an embedding made of two inputs, mixed inside the tower, picks both of their passages in the proportion of the mixture."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from losses import positives as pairs
from losses.simclr import log_negatives
from losses.similarity import cosines


def mi_mix(
    zq: Float[Array, "B d"],
    zp: Float[Array, "N d"],
    logit_scale: Float[Array, ""],
    share: Float[Array, " B"] | None = None,
    partner: Int[Array, " B"] | None = None,
    id: Int[Array, " B"] | None = None,
    alias: Int[Array, " B"] | None = None,
    weight: Float[Array, " B"] | None = None,
    *,
    weighted: bool = True,
    matmul_dtype: str = "float32",
) -> tuple[Float[Array, " B"], Float[Array, " B"], dict]:
    """Row i, of which `share` is query i and the rest query `partner`, prefers their two passages to all others, near ones above all.

    Args:
        zq: embeddings of mixed queries, unit length (`config.model.mixing`).
        zp: passage embeddings, not mixed, unit length; row i < B belongs to query i, later rows to none.
        logit_scale: 1 / temperature, no unit.
        share: of query i in row i, from 0.5 to 1. None: 1, nothing is mixed, for evaluation.
        partner: the other query of row i. None: itself.
        id: label of each pair; passages of the row's own label do not compete, the partner's always does. None: all differ.
        alias: a second label of the same use.
        weight: of each pair in the mean over the batch; 0 marks padding, which is also no candidate for anyone. None: all 1.
        weighted: a negative counts in proportion to its own exponential, as in `simclr`.
        matmul_dtype: of the operands of similarity matmuls; sums are float32. float64 embeddings stay float64.

    Returns:
        Loss of each row in nats (0 for padding and for rows mixed with it), the weight of each, likewise, and the mean share.

    Raises:
        ValueError: fewer passages than queries.

    Relations: with a share of 1 it is one direction of a weighted loss whose negatives are the other view's. The partner's passage stands
    among the negatives, as published.
    Source: Zhou et al. 2024 (DNABERT-S), arXiv:2402.08777.
    """
    queries = zq.shape[0]
    pairs.check_pairs(queries, zp.shape[0])
    valid = pairs.present(weight, queries)
    zq, zp = pairs.blank(zq, weight), pairs.blank(zp, weight)
    logits = logit_scale * cosines(zq, zp, matmul_dtype)
    candidate = pairs.beyond(valid, zp.shape[0])[None, :]
    offered = ~pairs.pair_mask(pairs.labels(id, alias), queries, zp.shape[0]) & candidate
    own = other = jnp.diagonal(logits)
    rows = jnp.ones_like(own) if weight is None else weight.astype(own.dtype)
    if partner is not None:
        # A target that is no candidate would make a loss without a floor: a partner of the same label, or one that is padding.
        offered |= (jnp.arange(zp.shape[0])[None, :] == partner[:, None]) & ~jnp.eye(queries, zp.shape[0], dtype=bool) & candidate
        other = jnp.take_along_axis(logits, partner[:, None], axis=1)[:, 0]
        valid &= valid[partner]
        rows = jnp.where(valid, rows, 0)
    part = jnp.ones_like(own) if share is None else share.astype(own.dtype)
    loss = jnp.logaddexp(own, log_negatives(logits, offered, weighted)) - part * own - (1 - part) * other
    return jnp.where(valid, loss, 0), rows, {"share": ((part * rows).sum(), rows.sum())}
