"""What one tile of logits (some queries by some passages) adds to a loss and to its gradient.

A direction is an axis: 1 sums over passages for each query, 0 over queries for each passage. Sums of several tiles merge in any
order. Leaves the loop over tiles to `blockwise`, and the exchange between devices to `exchange`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from losses.positives import is_positive
from losses.similarity import cosines, operand_dtype

OWN = ("own", "exclude")  # targets whose only positive is the pair itself


class Plan(NamedTuple):
    """What to sum; fixed while compiling.

    Fields:
        kind: "softmax" or "sigmoid".
        target: what to sum beside the denominator: "own" logit, "mean" or "sum" of positives, or "teacher"; None: nothing.
            "exclude" is "own" and takes the other positives out of the denominator.
        symmetric: sum over queries for each passage too.
        method: "ring" or "gather", how passages reach the queries of other devices.
        block_size: queries and passages of a tile, at most.
        matmul_dtype: of the operands of matmuls.
        kernel: "xla", "pallas" or "interpret", what computes a tile.
    """

    kind: str
    target: str | None
    symmetric: bool
    method: str
    block_size: int
    matmul_dtype: str
    kernel: str = "xla"


class Scalars(NamedTuple):
    """Numbers that apply to all logits."""

    scale: Float[Array, ""]
    bias: Float[Array, ""]
    teacher_scale: Float[Array, ""]


class Side(NamedTuple):
    """The queries, or the passages, of a tile, a device or a batch.

    Fields:
        z: embeddings.
        index: of the row in the global batch; negative: belongs to no query.
        ids: labels by which pairs are positives of each other.
        log_weight: added to logits where the row is a candidate, -inf: it is none; None: all 0. Not differentiated.
        teacher: embeddings of the teacher. Not differentiated.
    """

    z: Float[Array, "n d"]
    index: Int[Array, " n"]
    ids: tuple[Int[Array, " n"], ...] = ()
    log_weight: Float[Array, " n"] | None = None
    teacher: Float[Array, "n t"] | None = None


class Tile(NamedTuple):
    """Logits of some queries by some passages, which are of one pair, which of positives, and what a teacher says."""

    logits: Float[Array, "r c"]
    own: Bool[Array, "r c"] | None
    same: Bool[Array, "r c"] | None
    teacher: Float[Array, "r c"] | None


class Online(NamedTuple):
    """A sum of exponentials, as the greatest exponent and the sum relative to it, and a sum of values weighted by them."""

    top: Float[Array, " n"]
    sum: Float[Array, " n"]
    total: Float[Array, " n"] | None = None


class Saved(NamedTuple):
    """What the backward pass knows about each row of one direction: log sums, and cotangents of its two results."""

    log_sum: Float[Array, " n"]
    log_target: Float[Array, " n"] | None
    by_sum: Float[Array, " n"]
    by_target: Float[Array, " n"] | None


def tile_sums(plan: Plan, scalars: Scalars, q: Side, p: Side) -> tuple[dict[str, Any], dict[str, Any]]:
    """The sums of a tile over its passages, and over its queries (empty unless `plan.symmetric`)."""
    tile = _tile(plan, scalars, q, p)
    columns = sums(plan, tile, q.log_weight, 0) if plan.symmetric else {}
    if plan.target not in OWN:
        return sums(plan, tile, p.log_weight, 1), columns
    # Few tiles hold a query and its passage: the others are spared a pass over all their logits.
    meet = (q.index.min() <= p.index.max()) & (p.index.min() <= q.index.max())
    own = lax.cond(meet, own_logits, lambda tile: jnp.zeros_like(tile.logits[:, 0]), tile)
    return sums(plan._replace(target=None), tile, p.log_weight, 1) | {"target": own}, columns


def tile_gradient(
    plan: Plan, scalars: Scalars, q: Side, p: Side, row: Saved, column: Saved | None
) -> tuple[Float[Array, "r c"], Float[Array, " r"]]:
    """Cotangent of a tile's logits, and its sum over the passages."""
    tile = _tile(plan, scalars, q, p)
    by_tile = gradient(plan, tile, p.log_weight, 1, row)
    if plan.symmetric:
        by_tile += gradient(plan, tile, q.log_weight, 0, column)
    return by_tile, by_tile.sum(1)


def _tile(plan: Plan, scalars: Scalars, q: Side, p: Side) -> Tile:
    if operand_dtype(q.z.dtype, plan.matmul_dtype).itemsize < 4:
        return of_cosines(plan, scalars, cosines(q.z, p.z, plan.matmul_dtype), q, p)
    # The scale costs a CPU a pass over the tile, and less over its queries; 16 bits would round those a second time.
    found = cosines(scalars.scale * q.z, p.z, plan.matmul_dtype)
    return of_cosines(plan, scalars._replace(scale=jnp.ones_like(scalars.scale)), found, q, p)


def of_cosines(plan: Plan, scalars: Scalars, found: Float[Array, "r c"], q: Side, p: Side) -> Tile:
    """The tile of some queries and passages, whose cosines are found."""
    logits = scalars.scale * found
    if plan.kind == "sigmoid":
        logits += scalars.bias
    own = same = teacher = None
    if plan.target in OWN:
        own = q.index[:, None] == p.index[None, :]
    if plan.kind == "sigmoid" or plan.target in ("mean", "sum", "exclude"):
        same = is_positive(q.index, p.index, tuple(zip(q.ids, p.ids, strict=True)))
    if plan.target == "exclude":
        logits = jnp.where(same & ~own, -jnp.inf, logits)
    if plan.target == "teacher":
        teacher = scalars.teacher_scale * cosines(q.teacher, p.teacher, "float32")
    return Tile(logits, own, same, teacher)


def sums(plan: Plan, tile: Tile, log_weight: Array | None, axis: int) -> dict[str, Any]:
    """The sums of a tile along an axis, over candidates of `log_weight`. The own logit, the same both ways, is axis 1's alone."""
    if plan.kind == "sigmoid":
        asked = jax.nn.softplus(jnp.where(tile.same, -tile.logits, tile.logits))
        return {"all": _where_candidate(asked, log_weight, axis).sum(axis)}
    logits = _weighted(tile.logits, log_weight, axis)
    found = {"all": _online(logits, axis)}
    if plan.target in OWN and axis == 1:
        found["target"] = own_logits(tile)
    elif plan.target == "mean":
        same = _where_candidate(tile.same, log_weight, axis)
        found["target"] = (jnp.where(same, logits, 0).sum(axis), same.sum(axis, dtype=logits.dtype))
    elif plan.target == "sum":
        found["target"] = _online(jnp.where(tile.same, logits, -jnp.inf), axis)
    elif plan.target == "teacher":
        found["target"] = _online(_where_candidate(tile.teacher, log_weight, axis, -jnp.inf), axis, logits)
    return found


def own_logits(tile: Tile) -> Float[Array, " r"]:
    """Of each query by its own passage; 0 where the tile lacks it."""
    return jnp.where(tile.own, tile.logits, 0).sum(1)


def nothing(plan: Plan, rows: int, axis: int, dtype: jnp.dtype) -> dict[str, Any]:
    """The sums of no tile along an axis; empty for passages unless `plan.symmetric`."""
    zero, none = jnp.zeros(rows, dtype), jnp.full(rows, -jnp.inf, dtype)
    if axis == 0 and not plan.symmetric:
        return {}
    if plan.kind == "sigmoid":
        return {"all": zero}
    targets = {"mean": (zero, zero), "sum": Online(none, zero), "teacher": Online(none, zero, zero)}
    if axis == 1:
        targets |= dict.fromkeys(OWN, zero)
    return {"all": Online(none, zero)} | ({"target": targets[plan.target]} if plan.target in targets else {})


def merge(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """The sums of two sets of tiles together."""
    return jax.tree.map(_merge, a, b, is_leaf=lambda x: isinstance(x, Online))


def merge_lines(lines: Any) -> Any:
    """One sum, with the sums of several sets of tiles along its first axis, merged."""
    if not isinstance(lines, Online):
        return jax.tree.map(lambda x: x.sum(0), lines)
    top = lines.top.max(0)
    scaled = jnp.exp(lines.top - _finite(top)[None])
    return Online(top, (lines.sum * scaled).sum(0), None if lines.total is None else (lines.total * scaled).sum(0))


def pad_side(side: Side, rows: int) -> Side:
    """A side with rows added that are no candidates."""
    missing = rows - side.z.shape[0]
    if not missing:
        return side
    weight = jnp.zeros(side.z.shape[0], jnp.promote_types(side.z.dtype, jnp.float32)) if side.log_weight is None else side.log_weight
    index, weight = (jnp.pad(x, (0, missing), constant_values=v) for x, v in ((side.index, -1), (weight, -jnp.inf)))
    return pad_rows(side._replace(log_weight=None), rows)._replace(index=index, log_weight=weight)


def pad_rows(tree: Any, rows: int) -> Any:
    """Arrays with rows of zeros added."""
    return jax.tree.map(lambda x: jnp.pad(x, ((0, rows - x.shape[0]), *[(0, 0)] * (x.ndim - 1))), tree)


def results(plan: Plan, found: dict[str, Any]) -> tuple[Array, Array | None]:
    """The log of the sum of exponentials (sigmoid: the loss) and the target's logit, if any, of each row."""
    if plan.kind == "sigmoid":
        return found["all"], None
    target = found.get("target")
    if plan.target == "mean":
        target = target[0] / jnp.maximum(target[1], 1)
    elif plan.target == "sum":
        target = _log(target)
    elif plan.target == "teacher":
        target = target.total / jnp.where(target.sum == 0, 1, target.sum)
    return _log(found["all"]), target


def saved(plan: Plan, found: dict[str, Any], by_sum: Array, by_target: Array | None) -> Saved:
    """The sums of a whole row and the cotangents of `results`, as `gradient` needs them."""
    if plan.kind == "sigmoid":
        return Saved(jnp.zeros_like(by_sum), None, by_sum, None)
    log_sum, log_target = _log(found["all"]), None
    if plan.target == "mean":
        by_target = by_target / jnp.maximum(found["target"][1], 1)
    elif plan.target in ("sum", "teacher"):
        log_target = _finite(_log(found["target"]))
    return Saved(_finite(log_sum), log_target, by_sum, by_target)


def gradient(plan: Plan, tile: Tile, log_weight: Array | None, axis: int, row: Saved) -> Float[Array, "r c"]:
    """Cotangent of a tile's logits through one direction."""
    row = jax.tree.map(lambda x: jnp.expand_dims(x, axis), row)
    if plan.kind == "sigmoid":
        return _where_candidate(row.by_sum * (jax.nn.sigmoid(tile.logits) - tile.same), log_weight, axis)
    logits = _weighted(tile.logits, log_weight, axis)
    found = row.by_sum * jnp.exp(logits - row.log_sum)
    if plan.target in OWN and axis == 1:
        return found + jnp.where(tile.own, row.by_target, 0)
    if plan.target == "mean":
        return found + jnp.where(_where_candidate(tile.same, log_weight, axis), row.by_target, 0)
    if plan.target == "sum":
        return found + row.by_target * jnp.exp(jnp.where(tile.same, logits, -jnp.inf) - row.log_target)
    if plan.target == "teacher":
        return found + row.by_target * jnp.exp(_where_candidate(tile.teacher, log_weight, axis, -jnp.inf) - row.log_target)
    return found


def _online(exponents: Array, axis: int, values: Array | None = None) -> Online:
    top = exponents.max(axis)
    powers = jnp.exp(exponents - jnp.expand_dims(_finite(top), axis))
    total = None if values is None else jnp.where(powers == 0, 0, powers * values).sum(axis)  # a value may be -inf there
    return Online(top, powers.sum(axis), total)


def _merge(a, b):
    if not isinstance(a, Online):
        return a + b
    top = jnp.maximum(a.top, b.top)
    by_a, by_b = (jnp.exp(x.top - _finite(top)) for x in (a, b))
    total = None if a.total is None else a.total * by_a + b.total * by_b
    return Online(top, a.sum * by_a + b.sum * by_b, total)


def _log(found: Online) -> Array:
    return found.top + jnp.log(found.sum)


def _finite(top: Array) -> Array:
    """0 for rows without any candidate, so that -inf - -inf never makes a NaN; NaN and inf stay."""
    return jnp.where(top == -jnp.inf, 0, top)


def _weighted(logits: Array, log_weight: Array | None, axis: int) -> Array:
    return logits if log_weight is None else logits + jnp.expand_dims(log_weight, 1 - axis)


def _where_candidate(x: Array, log_weight: Array | None, axis: int, otherwise=0) -> Array:
    return x if log_weight is None else jnp.where(jnp.expand_dims(log_weight > -jnp.inf, 1 - axis), x, jnp.asarray(otherwise, x.dtype))
