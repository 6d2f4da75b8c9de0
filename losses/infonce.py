"""Softmax contrastive loss over the global batch: each query picks its passage, and the reverse."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from losses import blockwise
from losses import positives as pairs
from losses.similarity import cosines, einsum
from losses.tiles import OWN, Plan, Scalars, Side

POSITIVES = ("mean", "sum", "exclude", "teacher")
NEGATIVES = ("all", "own")


def infonce(
    zq: Float[Array, "B d"],
    zp: Float[Array, "N d"],
    logit_scale: Float[Array, ""],
    id: Int[Array, " B"] | None = None,
    alias: Int[Array, " B"] | None = None,
    zn: Float[Array, "B K d"] | None = None,
    weight: Float[Array, " B"] | None = None,
    zp_weight: Float[Array, " N"] | None = None,
    zq_teacher: Float[Array, "B t"] | None = None,
    zp_teacher: Float[Array, "N t"] | None = None,
    *,
    symmetric: bool = True,
    positives: str = "mean",
    negatives: str = "all",
    teacher_scale: float = 50.0,
    method: str = "dense",
    block_size: int = 1024,
    matmul_dtype: str = "float32",
    kernel: str = "xla",
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
        zp_weight: how often each passage counts among a query's candidates, above 0 (1 / sampling rate, or a duplicate's
            share); multiplies its exponential. Not differentiated. None: all 1.
        zq_teacher: a teacher's embeddings of the queries, unit length; for positives="teacher". Not differentiated.
        zp_teacher: a teacher's embeddings of the passages, likewise.
        symmetric: also let each passage i < B pick its query, and average the two.
        positives: what several positives of one query mean. With unique labels the first three are the same loss.
            "mean": minus the mean log probability of the positives, each of which stays in the denominator (cross-entropy
            against a uniform target; SupCon's L_out).
            "sum": minus the log of the positives' summed probability (MIL-NCE).
            "exclude": the own passage is the only target and the other positives leave the denominator.
            "teacher": cross-entropy against the teacher's softmax over the same passages (none for hard negatives); labels unused.
        negatives: "all": hard negatives are candidates for every query; "own": for the query they were mined for.
        teacher_scale: multiplies the teacher's cosines.
        method: "dense" makes the logits of the whole batch, B N numbers; "ring" and "gather" make one tile at a time, forward and
            backward, and pass passages round the devices that split the batch, or gather them on each. The results are equal. On two
            CPU cores tiles take about as long as a textbook matrix from 4,096 pairs to 16,384, in 15 MB instead of 0.2 to 3.2 GB
            (benchmarks/results/loss_memory_infonce.json).
        block_size: queries and passages of a tile, at most.
        matmul_dtype: of the operands of similarity matmuls; sums are float32. float64 embeddings stay float64.
        kernel: what computes a tile. "xla": the compiler, on any device. "pallas": a kernel for NVIDIA GPUs that keeps the logits
            out of memory; XLA still computes what it does not cover: positives="teacher", negatives="own", float64 embeddings.
            "interpret": that kernel by an interpreter, on one device of any kind, for tests; slow. The results are equal.

    Returns:
        Loss of each query in nats (0 for padding), the weight of each, and no metrics.

    Raises:
        ValueError: fewer passages than queries, an option that is not offered, a teacher missing or unused, or a tiled batch that
            does not split over the mesh.

    Relations: a batch of one without negatives costs 0; the loss of a pair with an inf or NaN embedding is not finite.
    Source: van den Oord et al. 2018, arXiv:1807.03748, eq. 4; symmetric as in arXiv:2103.00020, fig. 3; positives as in
        arXiv:2004.11362, eq. 2 ("mean"), and arXiv:1912.06430, eq. 1 ("sum").
    """
    pairs.check_option("positives", positives, POSITIVES)
    pairs.check_option("negatives", negatives, NEGATIVES)
    pairs.check_option("method", method, blockwise.METHODS)
    pairs.check_option("kernel", kernel, blockwise.KERNELS)
    pairs.check_pairs(zq.shape[0], zp.shape[0])
    _check_teacher(positives, zq_teacher, zp_teacher)
    valid = pairs.present(weight, zq.shape[0])
    log_weight = None if zp_weight is None else jax.lax.stop_gradient(jnp.log(zp_weight))
    ids = () if positives == "teacher" else pairs.labels(id, alias)
    teachers = tuple(None if t is None else jax.lax.stop_gradient(t) for t in (zq_teacher, zp_teacher))
    teacher = (*teachers, jnp.asarray(teacher_scale, logit_scale.dtype))
    plan = Plan("softmax", positives, symmetric, method, block_size, matmul_dtype, kernel)
    if method == "dense":
        zq, zp = pairs.blank(zq, weight), pairs.blank(zp, weight)  # tiles do this one by one, without a copy
    rows = _dense_rows if method == "dense" else _tiled_rows
    loss = rows(plan, negatives, zq, zp, pairs.blank(zn, weight), logit_scale, ids, None if weight is None else valid, log_weight, teacher)
    return jnp.where(valid, loss, 0), jnp.ones_like(loss) if weight is None else weight, {}


def _check_teacher(positives, *teachers) -> None:
    given = [t is not None for t in teachers]
    if positives == "teacher" and not all(given):
        raise ValueError("positives is 'teacher'; set config.losses.<label>.inputs.zq_teacher and .zp_teacher to its embeddings.")
    if positives != "teacher" and any(given):
        raise ValueError(f"positives is {positives!r}, so a teacher is not used; set config.losses.<label>.options.positives to 'teacher'.")


def _dense_rows(plan, negatives, zq, zp, zn, scale, ids, valid, log_weight, teacher):
    queries, passages = zq.shape[0], zp.shape[0]
    valid = jnp.ones(queries, bool) if valid is None else valid
    logits = scale * cosines(zq, zp, plan.matmul_dtype)  # [B N]
    same = pairs.pair_mask(ids, queries, passages)
    zq_teacher, zp_teacher, teacher_scale = teacher
    target = same if zq_teacher is None else teacher_scale * cosines(zq_teacher, zp_teacher, "float32")
    hard, hard_candidates = _hard(zq, zn, valid, scale, negatives, plan.matmul_dtype)
    loss = _cross_entropy(
        jnp.concatenate([logits if log_weight is None else logits + log_weight[None, :], hard], axis=1),
        jnp.pad(target, ((0, 0), (0, hard.shape[1])), constant_values=False if zq_teacher is None else -jnp.inf),
        jnp.concatenate([pairs.beyond(valid, passages), hard_candidates]),
        plan.target,
    )
    if not plan.symmetric:
        return loss
    return (loss + _cross_entropy(logits[:, :queries].T, target[:, :queries].T, valid, plan.target)) / 2


def _hard(zq, zn, valid, scale, negatives, matmul_dtype) -> tuple[Float[Array, "B M"], Bool[Array, " M"]]:
    """Logits of the hard negatives as further columns, and which of them are candidates."""
    if zn is None:
        return jnp.zeros((zq.shape[0], 0), zq.dtype), jnp.ones(0, bool)
    if negatives == "own":
        return scale * einsum("qd,qkd->qk", zq, zn, matmul_dtype), jnp.ones(zn.shape[1], bool)
    logits = scale * cosines(zq, zn.reshape(-1, zn.shape[2]), matmul_dtype)
    return logits, jnp.repeat(valid, zn.shape[1])


def _cross_entropy(
    logits: Float[Array, "R C"], target: Bool[Array, "R C"] | Float[Array, "R C"], candidates: Bool[Array, " C"], positives: str
) -> Float[Array, " R"]:
    own = jnp.eye(*logits.shape, dtype=bool)
    keep = candidates[None, :] | own  # a padded row keeps its own column, so that no row is empty and no gradient NaN
    if positives == "teacher":
        share = jax.nn.softmax(jnp.where(keep, target, -jnp.inf), axis=1)
        return jax.nn.logsumexp(jnp.where(keep, logits, -jnp.inf), axis=1) - (share * jnp.where(keep, logits, 0)).sum(1)
    if positives == "exclude":
        keep, target = keep & (own | ~target), own
    target &= keep
    denominator = jax.nn.logsumexp(jnp.where(keep, logits, -jnp.inf), axis=1)
    if positives == "sum":
        return denominator - jax.nn.logsumexp(jnp.where(target, logits, -jnp.inf), axis=1)
    return denominator - jnp.where(target, logits, 0).sum(1) / target.sum(1)


def _tiled_rows(plan, negatives, zq, zp, zn, scale, ids, valid, log_weight, teacher):
    queries = zq.shape[0]
    if not ids and plan.target != "teacher":
        plan = plan._replace(target="own")  # no tile needs to look for other positives
    q, p = blockwise.sides(zq, zp, ids, valid, log_weight, *teacher[:2])
    scalars = Scalars(scale, jnp.zeros_like(scale), teacher[2])
    (total, target), (back, back_target) = blockwise.pair_sums(plan, scalars, q, p)
    if zn is not None:
        total = jnp.logaddexp(total, _tiled_hard(plan, negatives, scalars, q, zn, valid))
    if plan.target in OWN:
        back_target = target
        target = target if log_weight is None else target + log_weight[:queries]
    loss = total - target
    if not plan.symmetric:
        return loss
    return (loss + back[:queries] - back_target[:queries]) / 2


def _tiled_hard(plan, negatives, scalars, q: Side, zn, valid) -> Float[Array, " B"]:
    """Log of the sum over each query's hard negatives."""
    if negatives == "own":
        zq = q.z if valid is None else jnp.where(valid[:, None], q.z, 0)
        return jax.nn.logsumexp(scalars.scale * einsum("qd,qkd->qk", zq, zn, plan.matmul_dtype), axis=1)
    plan = plan._replace(target=None, symmetric=False)
    return blockwise.pair_sums(plan, scalars, q._replace(ids=(), teacher=None), blockwise.hard_side(zn, valid))[0][0]
