"""Geodesic multi-modal mixup: points between an image and its own caption on the sphere are negatives of all other pairs."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from losses import positives as pairs
from losses.similarity import einsum

NEAREST = 1 - 1e-6  # cosine beyond which the angle is taken as if it were this one: arccos has no gradient at 1


def m2_mix(
    zq: Float[Array, "B d"],
    zp: Float[Array, "N d"],
    id: Int[Array, " B"] | None = None,
    alias: Int[Array, " B"] | None = None,
    weight: Float[Array, " B"] | None = None,
    key: Key[Array, ""] | None = None,
    *,
    temperature: float = 0.07,
    matmul_dtype: str = "float32",
) -> tuple[Float[Array, " B"], Float[Array, " B"], dict]:
    """Both sides of a pair prefer each other to the mixtures of the other pairs; a term to stand beside a contrastive loss.

    Args:
        zq: query embeddings, unit length.
        zp: passage embeddings, unit length; row i < B belongs to query i, later rows are left out.
        id: label of each pair; mixtures of the same label are no negatives. None: all differ.
        alias: a second label of the same use.
        weight: of each pair in the mean over the batch; 0 marks padding, which is also no candidate for anyone. None: all 1.
        key: of the share of queries in the mixtures of this batch, one number from Beta(0.5, 0.5). None: a half, for evaluation.
        temperature: divides the cosines; not learned.
        matmul_dtype: of the operands of similarity matmuls; sums are float32. float64 embeddings stay float64.

    Returns:
        Sum of both sides' losses of each pair in nats (0 for padding), the weight of each, and the share.

    Raises:
        ValueError: fewer passages than queries, or a temperature that is not above 0.

    Relations: with a share of 0 the mixtures are the passages, and the query's side is `infonce` from queries to passages. Nothing is
    stopped: mixtures have gradients.
    Source: Oh, So et al. 2023, arXiv:2203.03897.
    """
    pairs.check_pairs(zq.shape[0], zp.shape[0])
    if temperature <= 0:
        raise ValueError(f"temperature is {temperature}; set config.losses.<label>.options.temperature above 0, to 0.07 for example.")
    share = jnp.asarray(0.5, zq.dtype) if key is None else arcsine(key, zq.dtype)
    value, rows = against(zq, zp[: zq.shape[0]], share, pairs.labels(id, alias), weight, 1 / temperature, matmul_dtype)
    return value, rows, {"share": (share, jnp.ones_like(share))}


def arcsine(key: Key[Array, ""], dtype) -> Float[Array, ""]:
    """One number from Beta(0.5, 0.5), whose inverse distribution function is sin^2(pi u / 2)."""
    return jnp.sin(jax.random.uniform(key, (), dtype) * (jnp.pi / 2)) ** 2


def geodesic(u: Float[Array, "B d"], v: Float[Array, "B d"], share: Float[Array, ""]) -> Float[Array, "B d"]:
    """The point on the great circle from v (share 0) to u (share 1); the linear mix at length 1 where the two are nearly one.

    Of two opposite points no circle is the shortest: what comes out is some unit vector, or zero.
    """
    angle = jnp.arccos(jnp.clip((u * v).sum(1, keepdims=True), -NEAREST, NEAREST))
    point = (jnp.sin(share * angle) * u + jnp.sin((1 - share) * angle) * v) / jnp.sin(angle)
    square = jnp.square(point).sum(1, keepdims=True)
    return point / jnp.sqrt(jnp.where(square == 0, 1, square))  # of length 1 already, but for an angle that was cut


def against(zq, zp, share, ids, weight, scale: float, matmul_dtype: str) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """Loss of each pair for a given share, and its weight."""
    queries = zq.shape[0]
    valid = pairs.present(weight, queries)
    zq, zp = pairs.blank(zq, weight), pairs.blank(zp, weight)
    mixed = geodesic(zq, zp, share)
    offered = ~pairs.pair_mask(ids, queries, queries) & valid[None, :]
    own = scale * einsum("qd,qd->q", zq, zp, matmul_dtype)
    total = 0.0
    for side in (zq, zp):
        logits = jnp.where(offered, scale * einsum("qd,pd->qp", side, mixed, matmul_dtype), -jnp.inf)
        total += jax.nn.logsumexp(jnp.concatenate([own[:, None], logits], axis=1), axis=1) - own
    return jnp.where(valid, total, 0), jnp.ones_like(total) if weight is None else weight
