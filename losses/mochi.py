"""MoCHi: InfoNCE with a queue, whose hardest negatives are mixed with each other, and with the query, into harder ones."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int, Key

from core.mesh import constrain
from losses import positives as pairs
from losses.similarity import cosines, einsum

NEGATIVES = ("all", "own")
TINY = 1e-12  # of a mix's squared length, where two opposite vectors meet half-way


def mochi(
    zq: Float[Array, "B d"],
    zp: Float[Array, "N d"],
    logit_scale: Float[Array, ""],
    id: Int[Array, " B"] | None = None,
    alias: Int[Array, " B"] | None = None,
    zn: Float[Array, "B K d"] | None = None,
    queue_z: Float[Array, "S R d"] | None = None,
    queue_weight: Float[Array, "S R"] | None = None,
    queue_id: Int[Array, "S R"] | None = None,
    queue_alias: Int[Array, "S R"] | None = None,
    weight: Float[Array, " B"] | None = None,
    key: Key[Array, ""] | None = None,
    *,
    hardest: int = 1024,
    mixed: int = 1024,
    with_query: int = 128,
    in_batch: bool = True,
    negatives: str = "all",
    matmul_dtype: str = "float32",
) -> tuple[Float[Array, " B"], Float[Array, " B"], dict]:
    """Each query picks its own passage out of its negatives and of mixtures of the hardest of them.

    Args:
        zq: query embeddings, unit length.
        zp: passage embeddings, unit length; row i < B belongs to query i, later rows to none.
        logit_scale: 1 / temperature, no unit.
        id: label of each pair; what has the same label is no negative. None: all differ.
        alias: a second label of the same use.
        zn: hard negatives of each query, unit length.
        queue_z: passages of S earlier batches, unit length. Not differentiated.
        queue_weight: 0 where the queue holds nothing yet. None: it is full.
        queue_id: labels of the queue's rows; None: they differ from all of the batch.
        queue_alias: their second labels.
        weight: of each pair in the mean over the batch; 0 marks padding, which is also no candidate for anyone. None: all 1.
        key: of the draws. None makes no mixtures: the plain loss, for evaluation.
        hardest: negatives of the highest cosine from which a query's mixtures are made.
        mixed: mixtures of two of them.
        with_query: mixtures of one of them with the query, of which the query is the lesser part.
        in_batch: False: passages of the batch are no negatives; those of the queue alone, as in MoCo.
        negatives: "all": hard negatives are candidates for every query; "own": for the query they were mined for.
        matmul_dtype: of the operands of similarity matmuls; sums are float32. float64 embeddings stay float64.

    Returns:
        Loss of each query in nats (0 for padding), the weight of each, and no metrics.

    Raises:
        ValueError: fewer passages than queries, no negatives at all, fewer mixtures than none, or an option that is not offered.

    Relations: without mixtures and queue it is `infonce` with symmetric=False and positives="exclude". Mixtures have no gradient, but the
    query has one through its cosine with them.
    Source: Kalantidis et al. 2020, arXiv:2010.01028. The default numbers of mixtures are from memory: no public code settled them.
    """
    _check(zq, zp, zn, queue_z, hardest, mixed, with_query, in_batch, negatives)
    valid = pairs.present(weight, zq.shape[0])
    zq, zp, zn = (pairs.blank(z, weight) for z in (zq, zp, zn))
    ids = pairs.labels(id, alias)
    found = [(zp, ~pairs.pair_mask(ids, *_shape(zq, zp)) & pairs.beyond(valid, zp.shape[0])[None, :])] if in_batch else []
    if zn is not None:
        found.append((zn.reshape(-1, zn.shape[2]), _hard(valid, zn.shape[1], negatives)))
    if queue_z is not None:
        found.append(_queued(queue_z, queue_weight, ((id, queue_id), (alias, queue_alias)), zq.shape[0]))
    table, offered = jnp.concatenate([z for z, _ in found]), jnp.concatenate([mask for _, mask in found], axis=1)
    own = einsum("qd,qd->q", zq, zp[: zq.shape[0]], matmul_dtype)[:, None]
    met = [(own, jnp.ones_like(own, bool)), (cosines(zq, table, matmul_dtype), offered)]
    if key is not None:
        met += _mixtures(zq, jax.lax.stop_gradient(table), offered, draw(key, zq, mixed, with_query), hardest, matmul_dtype)
    logits = [jnp.where(mask, logit_scale * cosine, -jnp.inf) for cosine, mask in met]
    loss = jax.nn.logsumexp(jnp.concatenate(logits, axis=1), axis=1) - logit_scale * own[:, 0]
    return jnp.where(valid, loss, 0), jnp.ones_like(loss) if weight is None else weight, {}


class Draws(NamedTuple):
    """Uniform numbers of each query, from 0 to 1: which two negatives and how much of the first; which one, and how much of the query."""

    first: Float[Array, "B m"]
    second: Float[Array, "B m"]
    share: Float[Array, "B m"]
    one: Float[Array, "B w"]
    of_query: Float[Array, "B w"]


def draw(key: Key[Array, ""], zq: Float[Array, "B d"], mixed: int, with_query: int) -> Draws:
    """The draws of a step; row i of a batch draws the same whatever follows it, and on any mesh."""
    sizes, dtype = (mixed, mixed, mixed, with_query, with_query), jnp.promote_types(zq.dtype, jnp.float32)
    return Draws(*(jax.random.uniform(k, (zq.shape[0], n), dtype) for k, n in zip(jax.random.split(key, 5), sizes, strict=True)))


def pick(draws: Draws, count: Int[Array, "B 1"]) -> tuple[Int[Array, "B m"], Int[Array, "B m"], Int[Array, "B w"]]:
    """Places among the `count` hardest: two that differ, and one."""
    place = lambda uniform, among: jnp.minimum((uniform * among).astype(count.dtype), jnp.maximum(among - 1, 0))
    first = place(draws.first, count)
    second = (first + 1 + place(draws.second, count - 1)) % jnp.maximum(count, 1)
    return first, second, place(draws.one, count)


def _mixtures(zq, table, offered: Bool[Array, "B C"], draws: Draws, hardest: int, matmul_dtype: str):
    """Cosines of queries with mixtures, and which of them there are; from the cosines of their parts: no mixture is ever formed.

    n(a x + b y) . q = (a x.q + b y.q) / |a x + b y|, with the length (from x.y) held fixed, has the value and the query's gradient of
    a mixture that is a constant.
    """
    stop = jax.lax.stop_gradient
    cosine = cosines(zq, table, matmul_dtype)
    nearest, index = jax.lax.top_k(jnp.where(offered, stop(cosine), -jnp.inf), min(hardest, table.shape[0]))
    count = jnp.isfinite(nearest).sum(1, keepdims=True)
    first, second, one = pick(draws, count)
    at = lambda array, places: jnp.take_along_axis(array, places, axis=1)
    rows = [at(index, places) for places in (first, second, one)]
    a, c = draws.share, draws.of_query / 2
    length = lambda part, cosine: jnp.sqrt(jnp.maximum(part**2 + (1 - part) ** 2 + 2 * part * (1 - part) * cosine, TINY))
    x, y, z = (at(cosine, row) for row in rows)
    two = (a * x + (1 - a) * y) / length(a, _between(table, rows[0], rows[1]))
    self = einsum("qd,qd->q", zq, stop(zq), matmul_dtype)[:, None]  # 1, with the query's own gradient
    harder = (c * self + (1 - c) * z) / length(c, stop(z))
    return [(cosine, jnp.broadcast_to(count > least, cosine.shape)) for cosine, least in ((two, 1), (harder, 0))]


def _between(table: Float[Array, "C d"], one: Int[Array, "B m"], other: Int[Array, "B m"]) -> Float[Array, "B m"]:
    """Cosines of rows of the table with each other, some mixtures at a time: rows of all of them would be [B m d]."""
    if not one.shape[1]:
        return jnp.zeros(one.shape, table.dtype)
    product = lambda rows: (table[rows[0]] * table[rows[1]]).sum(-1)
    return jax.lax.map(product, (one.T, other.T), batch_size=min(64, one.shape[1])).T


def _shape(zq, zp) -> tuple[int, int]:
    return zq.shape[0], zp.shape[0]


def _hard(valid: Bool[Array, " B"], each: int, negatives: str) -> Bool[Array, "B M"]:
    """Which hard negatives a query meets."""
    queries = valid.shape[0]
    owner = jnp.repeat(jnp.arange(queries), each)
    there = jnp.repeat(valid, each)[None, :] if negatives == "all" else owner[None, :] == jnp.arange(queries)[:, None]
    return jnp.broadcast_to(there, (queries, queries * each))


def _queued(z, weight, labels, queries: int) -> tuple[Float[Array, "M d"], Bool[Array, "B M"]]:
    """The queue as one list, and which of it a query meets."""
    # Between steps each device holds its rows of every batch; here all see all of them.
    flat = lambda array: constrain(array, P()).reshape(-1, *array.shape[2:])
    there = jnp.ones((queries, z.shape[0] * z.shape[1]), bool) if weight is None else (flat(weight) != 0)[None, :]
    for own, queued in labels:
        if own is not None and queued is not None:
            there = there & (own[:, None] != flat(queued)[None, :])
    return jax.lax.stop_gradient(flat(z)), jnp.broadcast_to(there, (queries, z.shape[0] * z.shape[1]))


def _check(zq, zp, zn, queue_z, hardest: int, mixed: int, with_query: int, in_batch: bool, negatives: str) -> None:
    pairs.check_option("negatives", negatives, NEGATIVES)
    pairs.check_pairs(*_shape(zq, zp))
    if not in_batch and zn is None and queue_z is None:
        raise ValueError("a query has no negatives; set config.losses.<label>.options.in_batch to True, or map .inputs.queue_z.")
    if min(mixed, with_query) < 0 or hardest < 2:
        raise ValueError(
            f"hardest is {hardest}, mixed {mixed}, with_query {with_query}; set config.losses.<label>.options.hardest to 2 or more, "
            "and the other two to 0 or more."
        )
