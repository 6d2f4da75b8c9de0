"""A student's score of each pair follows a teacher's, and the label of the pair: distillation from a cross-encoder."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from losses import positives as pairs


def score_distill(
    score: Float[Array, "B k"],
    teacher: Float[Array, "B *t"] | None = None,
    label: Num[Array, " B"] | None = None,
    weight: Float[Array, " B"] | None = None,
    *,
    share: float = 0.5,
    temperature: float = 1.0,
) -> tuple[Float[Array, " B"], Float[Array, " B"], dict]:
    """Squared distance to the teacher's scores, and the cross-entropy of the label under the student's, added by share.

    Args:
        score: the student's scores of each pair, logits; one for two classes (is it a match?), else one for each class.
        teacher: its scores of the same pairs, logits likewise; for two classes one or both of them. Not differentiated. Needed unless
            `share` is 0.
        label: class of each pair, 0 to k - 1, or 0 and 1 where there is one score. Needed unless `share` is 1.
        weight: of each pair in the mean over the batch; 0 marks padding. None: all 1.
        share: of the teacher in the sum; the labels have the rest.
        temperature: divides the teacher's scores: unbounded logits of pairs that it is sure of would be most of the loss.

    Returns:
        Loss of each pair (0 for padding), the weight of each, and the mean of either part: `distance` (squared) and `label` (nats).

    Raises:
        ValueError: a share beyond 0 to 1, a temperature that is not above 0, scores that do not fit, or a missing teacher or label.

    Relations: with one score, adding a number to both of the teacher's logits changes nothing.
    Source: Barkan et al. 2020 (DSE), arXiv:1908.05161.
    """
    score = score.astype(jnp.promote_types(score.dtype, jnp.float32))
    valid = pairs.present(weight, score.shape[0])
    rows = jnp.ones_like(score[:, 0]) if weight is None else weight
    _check(share, temperature, teacher, label)
    score = pairs.blank(score, weight)
    parts = {}
    if share > 0:
        goal = jax.lax.stop_gradient(_teacher(pairs.blank(teacher, weight), score.shape)) / temperature
        parts["distance"] = (share, jnp.square(score - goal.astype(score.dtype)).sum(1))
    if share < 1:
        parts["label"] = (1 - share, _cross_entropy(score, pairs.blank(label, weight)))
    value = jnp.where(valid, sum(factor * part for factor, part in parts.values()), 0)
    metrics = {name: ((jnp.where(valid, part, 0) * rows).sum(), rows.sum()) for name, (_, part) in parts.items()}
    return value, rows, metrics


def _teacher(teacher: Float[Array, "B *t"], shape: tuple[int, int]) -> Float[Array, "B k"]:
    """As many scores as the student has: of two logits their difference, where the student has one."""
    teacher = teacher.reshape(teacher.shape[0], -1)
    if shape[1] == 1 and teacher.shape[1] == 2:
        teacher = teacher[:, 1:] - teacher[:, :1]
    if teacher.shape != shape:
        raise ValueError(
            f"a teacher with {teacher.shape[1]} scores and a student with {shape[1]}; set config.model.heads.<label>.options.scores to "
            f"{teacher.shape[1]}."
        )
    return teacher


def _cross_entropy(score: Float[Array, "B k"], label: Num[Array, " B"]) -> Float[Array, " B"]:
    if score.shape[1] == 1:
        return jax.nn.softplus(score[:, 0]) - label.astype(score.dtype) * score[:, 0]
    target = jax.nn.one_hot(label.astype(jnp.int32), score.shape[1], dtype=score.dtype)
    return jax.nn.logsumexp(score, axis=1) - (target * score).sum(1)


def _check(share: float, temperature: float, teacher, label) -> None:
    if not 0 <= share <= 1 or temperature <= 0:
        raise ValueError(
            f"share is {share} and temperature {temperature}; set config.losses.<label>.options.share from 0 to 1, temperature above 0."
        )
    for name, array, needed, cure in (("teacher", teacher, share > 0, 0.0), ("label", label, share < 1, 1.0)):
        if needed and array is None:
            raise ValueError(
                f"share is {share}, but there is no {name}; map config.losses.<label>.inputs.{name} to its array, or set options.share to "
                f"{cure}."
            )
