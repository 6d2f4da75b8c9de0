"""Contrastive health of a training batch: what tells a learning run from a collapsed or drifting one."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

MEASURED = (
    "train/positive_logit", "train/negative_logit", "train/recall@1_in_batch", "train/effective_rank_query", "train/effective_rank_passage",
)  # fmt: skip
ROWS = 1024  # queries looked at: keeps the cost of a measurement flat in the batch


def effective_rank(z: Float[Array, "B d"]) -> Float[Array, ""]:
    """exp of the entropy of the singular values, not centred. Source: Roy & Vetterli 2007 (EUSIPCO).

    Singular values come from the d x d Gram matrix: `d` is small where `B` is not.
    """
    z = z.astype(jnp.float32)
    squared = jnp.linalg.eigvalsh(z.T @ z)
    # Below this an eigenvalue is rounding of the largest, and its root would count as a direction.
    floor = z.shape[1] * jnp.finfo(z.dtype).eps * jnp.max(squared)
    s = jnp.sqrt(jnp.where(squared > floor, squared, 0.0))
    p = s / jnp.maximum(jnp.sum(s), 1e-12)
    return jnp.exp(-jnp.sum(jnp.where(p > 0, p * jnp.log(jnp.maximum(p, 1e-30)), 0.0)))


def pairs(zq: Float[Array, "B d"], zp: Float[Array, "N d"], logit_scale: Array, logit_bias: Array, same: Array) -> dict[str, Array]:
    """Means of positive and negative logits, in-batch recall@1, and both effective ranks, over the first `ROWS` queries.

    Args:
        same: bool `[rows N]`, which passages count as positives of a query.
    """
    logits = logit_scale * jnp.einsum("qd,pd->qp", zq[: same.shape[0]], zp, preferred_element_type=jnp.float32) + logit_bias
    own = jnp.max(jnp.where(same, logits, -jnp.inf), axis=1)
    best = jnp.max(jnp.where(same, -jnp.inf, logits), axis=1)
    return {
        "train/positive_logit": jnp.mean(jnp.diagonal(logits)),
        "train/negative_logit": jnp.sum(jnp.where(same, 0.0, logits)) / jnp.maximum(jnp.sum(~same), 1),
        "train/recall@1_in_batch": jnp.mean(own > best),
        "train/effective_rank_query": effective_rank(zq),
        "train/effective_rank_passage": effective_rank(zp),
    }


def measure(arrays: dict[str, Array], pair: tuple[str | None, str | None], labels: Sequence[Array], wanted: Array) -> dict[str, Array]:
    """The metrics of `pairs` where `wanted`, else zeros that nobody logs; `logit_scale` and `logit_bias` always.

    Args:
        arrays: of the step.
        pair: names of the queries and passages among them.
        labels: int `[B]` each; rows that are equal in one are positives of each other, as in the loss.
        wanted: bool, may be traced.
    """
    always = {f"train/{name}": arrays[name] for name in ("logit_scale", "logit_bias") if name in arrays}
    if not set(pair) <= set(arrays) or any(arrays[name].ndim != 2 for name in pair):  # regions are no pairs of rows
        return always
    zq, zp = (jax.lax.stop_gradient(arrays[name]) for name in pair)
    rows = min(zq.shape[0], ROWS)
    same = jnp.arange(rows)[:, None] == jnp.arange(zp.shape[0])[None, :]
    if zp.shape[0] == zq.shape[0]:
        for label in labels:
            same |= label[:rows, None] == label[None, :]
    operands = (zq, zp, arrays["logit_scale"], arrays.get("logit_bias", jnp.zeros(())), same)
    shapes = jax.eval_shape(pairs, *operands)
    skip = lambda *_: jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    return always | jax.lax.cond(wanted, pairs, skip, *operands)
