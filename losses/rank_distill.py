"""A teacher's scores of a query's own passage and hard negatives, followed in their gaps or as a distribution."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from losses import positives as pairs
from losses.similarity import einsum

KINDS = ("kl", "margin")


def rank_distill(
    zq: Float[Array, "B d"],
    zp: Float[Array, "N d"],
    teacher: Float[Array, "B C"],
    logit_scale: Float[Array, ""],
    zn: Float[Array, "B K d"] | None = None,
    weight: Float[Array, " B"] | None = None,
    *,
    kind: str = "kl",
    temperature: float = 1.0,
    matmul_dtype: str = "float32",
) -> tuple[Float[Array, " B"], Float[Array, " B"], dict]:
    """Each query ranks its own passage and its hard negatives as a teacher does.

    Args:
        zq: query embeddings, unit length.
        zp: passage embeddings, unit length; row i < B belongs to query i, later rows are left out.
        teacher: its scores of the own passage and then of each hard negative, 1 + K of them. Not differentiated.
        logit_scale: 1 / temperature of the student, no unit.
        zn: hard negatives of each query, unit length; needed.
        weight: of each query in the mean over the batch; 0 marks padding. None: all 1.
        kind: "kl": divergence of the student's softmax over the 1 + K from the teacher's. "margin": mean over the negatives of the squared
            difference between the student's and the teacher's gap from own passage to negative (MarginMSE).
        temperature: divides the teacher's scores.
        matmul_dtype: of the operands of similarity matmuls; sums are float32. float64 embeddings stay float64.

    Returns:
        Loss of each query (0 for padding), in nats for "kl", the weight of each, and no metrics.

    Raises:
        ValueError: fewer passages than queries, no hard negatives, scores of another number, or an option that is not offered.

    Relations: both are 0 where the student's logits are the teacher's scores, and neither sees a number added to all scores of a query.
    Source: "margin": Hofstätter et al. 2020, arXiv:2010.02666; "kl": as in sentence-transformers (DistillKLDivLoss, with
        logit_scale = 1 / temperature and without its factor temperature^2).
    """
    pairs.check_pairs(zq.shape[0], zp.shape[0])
    pairs.check_option("kind", kind, KINDS)
    if zn is None:
        raise ValueError(
            "there are no hard negatives to rank; set config.losses.<label>.inputs.zn to their array, 'z_negatives' for example."
        )
    if teacher.shape[1] != 1 + zn.shape[1] or temperature <= 0:
        raise ValueError(
            f"{teacher.shape[1]} scores of a teacher for a passage and {zn.shape[1]} negatives at temperature {temperature}; let "
            f"config.losses.<label>.inputs.teacher name {1 + zn.shape[1]}, the own passage's first, and set options.temperature above 0."
        )
    valid = pairs.present(weight, zq.shape[0])
    zq, zp, zn = (pairs.blank(z, weight) for z in (zq, zp[: zq.shape[0]], zn))
    candidates = jnp.concatenate([zp[:, None], zn], axis=1)  # [B, 1 + K, d]
    logits = logit_scale * einsum("qd,qcd->qc", zq, candidates, matmul_dtype)
    goal = jax.lax.stop_gradient(pairs.blank(teacher, weight)).astype(logits.dtype) / temperature
    if kind == "margin":
        gaps = (logits[:, :1] - logits[:, 1:]) - (goal[:, :1] - goal[:, 1:])
        loss = jnp.square(gaps).mean(1)
    else:
        log_goal = jax.nn.log_softmax(goal, axis=1)
        loss = (jnp.exp(log_goal) * (log_goal - jax.nn.log_softmax(logits, axis=1))).sum(1)
    return jnp.where(valid, loss, 0), jnp.ones_like(loss) if weight is None else weight, {}
