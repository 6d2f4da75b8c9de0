"""Sums over all pairs of a batch, tile by tile: never a B x B array, forward or backward.

The backward pass is written by hand and computes every tile again. Leaves what a tile adds to `tiles`, the exchange between
devices to `exchange`, and what the sums mean to the losses.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from losses import exchange, pallas_tiles, tiles
from losses.positives import beyond, of_passages
from losses.similarity import einsum, operand_dtype
from losses.tiles import Plan, Saved, Scalars, Side

METHODS = ("dense", *exchange.METHODS)
GROUP = 8  # tiles of queries, at most, that the backward pass keeps transposed
KERNELS = ("xla", "pallas", "interpret")


def sides(
    zq: Float[Array, "B d"],
    zp: Float[Array, "N d"],
    ids: tuple[Int[Array, " B"], ...],
    valid: Bool[Array, " B"] | None,
    log_weight: Float[Array, " N"] | None = None,
    zq_teacher: Float[Array, "B t"] | None = None,
    zp_teacher: Float[Array, "N t"] | None = None,
) -> tuple[Side, Side]:
    """Queries and passages of a global batch, ready for `pair_sums`.

    Raises:
        ValueError: the batch does not split over the ambient mesh; names the nearest sizes that do.
    """
    queries, passages, shards = zq.shape[0], zp.shape[0], exchange.shards()
    if queries % shards:
        below = queries // shards * shards
        nearest = " or ".join(str(n) for n in (below, below + shards) if n)
        raise ValueError(f"{queries} queries do not split over {shards} shards; set config.data.global_batch to {nearest}.")
    columns, column_ids = of_passages(queries, passages, ids)
    if valid is not None:
        masked = jnp.where(beyond(valid, passages), 0.0, -jnp.inf).astype(_sum_dtype(zp))
        log_weight = masked if log_weight is None else masked + log_weight
    q = Side(zq, jnp.arange(queries), ids, None if valid is None else masked[:queries], zq_teacher)
    p = Side(zp, columns, column_ids, log_weight, zp_teacher)
    return q, tiles.pad_side(p, -(-passages // shards) * shards)


def hard_side(zn: Float[Array, "B K d"], valid: Bool[Array, " B"] | None) -> Side:
    """The hard negatives of all queries, as passages that belong to none."""
    z = zn.reshape(-1, zn.shape[2])
    masked = None if valid is None else jnp.where(jnp.repeat(valid, zn.shape[1]), 0.0, -jnp.inf).astype(_sum_dtype(zn))
    return Side(z, jnp.full(z.shape[0], -1), (), masked)


def _sum_dtype(z: Array) -> jnp.dtype:
    return jnp.promote_types(z.dtype, jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def pair_sums(plan: Plan, scalars: Scalars, q: Side, p: Side) -> tuple[tuple, tuple]:
    """Sums over passages for each query, and over queries for each passage.

    Args:
        plan: what to sum.
        scalars: scale and bias, differentiated.
        q: the queries of the global batch; only `z` is differentiated.
        p: the passages likewise.

    Returns:
        (log sum or loss, target) of each query, and of each passage where `plan.symmetric`, else (None, None).
    """
    return _forward(plan, scalars, q, p)[0]


def _forward(plan, scalars, q, p):
    rows, columns = exchange.forward(plan, functools.partial(forward_tiles, plan), scalars, q, p)
    back = tiles.results(plan, columns) if plan.symmetric else (None, None)
    return (tiles.results(plan, rows), back), (scalars, q, p, rows, columns)


def _backward(plan, residuals, cotangents):
    scalars, q, p, rows, columns = residuals
    row = tiles.saved(plan, rows, *cotangents[0])
    column = tiles.saved(plan, columns, *cotangents[1]) if plan.symmetric else None
    by_q, by_p, by_scale, by_bias = exchange.backward(plan, functools.partial(backward_tiles, plan), scalars, q, p, row, column)
    by_scalars = Scalars(by_scale.astype(scalars.scale.dtype), by_bias.astype(scalars.bias.dtype), None)
    # None: no gradient for masks, labels and teachers.
    return by_scalars, _only(q, by_q), _only(p, by_p)


def _only(side: Side, z: Array) -> Side:
    return Side(z.astype(side.z.dtype), None, None, None, None)


pair_sums.defvjp(_forward, _backward)


def forward_tiles(plan: Plan, axes: tuple[str, ...], scalars: Scalars, q: Side, p: Side) -> tuple[dict[str, Any], dict[str, Any]]:
    """The sums of one device's queries over some passages, and of those passages over the queries."""
    q, p, size_q, size_p, sizes = _padded(plan, q, p)
    dtype, (tile_sums, _) = _sum_dtype(q.z), _kernel(plan, q)
    rows, columns = (exchange.vary(axes, tiles.nothing(plan, side.z.shape[0], axis, dtype)) for side, axis in ((q, 1), (p, 0)))

    def column_block(j, carry):
        rows, columns = carry
        block = _part(plan, p, j, size_p)

        def tile(i, carry):
            rows, column = carry
            part = _part(plan, q, i, size_q)
            new_rows, new_column = tile_sums(plan, scalars, part, block)
            return _put(rows, tiles.merge(_take(rows, i, size_q), new_rows), i, size_q), tiles.merge(column, new_column)

        rows, column = lax.fori_loop(0, q.z.shape[0] // size_q, tile, (rows, _take(columns, j, size_p)))
        return rows, _put(columns, column, j, size_p)

    rows, columns = lax.fori_loop(0, p.z.shape[0] // size_p, column_block, (rows, columns))
    return _head(rows, sizes[0]), _head(columns, sizes[1])


def backward_tiles(
    plan: Plan, axes: tuple[str, ...], scalars: Scalars, q: Side, p: Side, row: Saved, column: Saved | None
) -> tuple[Array, Array, Array, Array]:
    """Cotangents of one device's queries, of some passages, of the scale and of the bias."""
    q, p, size_q, size_p, sizes = _padded(plan, q, p)
    row, column = (tiles.pad_rows(side, n) for side, n in ((row, q.z.shape[0]), (column, p.z.shape[0])))
    shapes, (_, tile_gradient) = (q.z.shape, p.z.shape, q.z.shape[:1], q.z.shape[:1]), _kernel(plan, q)
    tiles_q = q.z.shape[0] // size_q
    group = max(n for n in range(1, min(tiles_q, GROUP) + 1) if tiles_q % n == 0)
    start = exchange.vary(axes, tuple(jnp.zeros(shape, _sum_dtype(q.z)) for shape in shapes))

    def query_group(g, carry):
        # A matmul that transposes its queries takes an eighth longer on a CPU: here they are transposed once for all passages.
        z = _part(plan, q, g, group * size_q).z.reshape(group, size_q, -1)
        transposed = lax.optimization_barrier(z.swapaxes(1, 2))

        def column_block(j, carry):
            by_q, by_p, by_scale, by_bias = carry
            block, block_saved = _part(plan, p, j, size_p), _take(column, j, size_p)

            def tile(member, carry):
                by_q, by_block, by_scale, by_bias = carry
                i = g * group + member
                part = _part(plan, q, i, size_q)
                by_tile, by_row = tile_gradient(plan, scalars, part, block, _take(row, i, size_q), block_saved)
                by_part = einsum("qp,pd->qd", by_tile, block.z, plan.matmul_dtype)
                # The logits are scale times cosine: their cotangents times the cosines, summed, without a pass over the tile.
                by_scale = _add(by_scale, (part.z * by_part).sum(1), i, size_q)
                if plan.kind == "sigmoid":
                    by_bias = _add(by_bias, by_row, i, size_q)
                # The scale goes in here and not into the finished sums, which XLA would then copy.
                by_q = _add(by_q, scalars.scale * by_part, i, size_q)
                # [d, p] and not [p, d]: a matmul that transposes the tile took a seventh longer on CPU.
                by_block += einsum("dq,qp->dp", transposed[member], by_tile, plan.matmul_dtype)
                return by_q, by_block, by_scale, by_bias

            first = by_q, exchange.vary(axes, jnp.zeros(block.z.shape[::-1], by_p.dtype)), by_scale, by_bias
            by_q, by_block, by_scale, by_bias = lax.fori_loop(0, group, tile, first)
            return by_q, _add(by_p, scalars.scale * by_block.T, j, size_p), by_scale, by_bias

        return lax.fori_loop(0, p.z.shape[0] // size_p, column_block, carry)

    by_q, by_p, by_scale, by_bias = lax.fori_loop(0, tiles_q // group, query_group, start)
    return by_q[: sizes[0]], by_p[: sizes[1]], by_scale.sum(), by_bias.sum()


def _kernel(plan: Plan, q: Side) -> tuple[Callable, Callable]:
    """What makes the sums and the gradient of a tile: XLA, or the Pallas kernel where it is asked for and covers the plan."""
    if plan.kernel == "interpret" and exchange.shards() > 1:
        raise ValueError("kernel 'interpret' runs on one device; set config.losses.<label>.options.kernel to 'xla' or 'pallas'.")
    module = tiles if plan.kernel == "xla" or not pallas_tiles.covers(plan, q.z.dtype) else pallas_tiles
    return module.tile_sums, module.tile_gradient


def _padded(plan: Plan, q: Side, p: Side):
    """Sides as whole tiles: rows of zeros that are no candidates fill the last one."""
    if plan.block_size < 1:
        raise ValueError(f"block_size is {plan.block_size}; set config.losses.<label>.options.block_size to 1 or more.")
    padded, tile_sizes, sizes = [], [], (q.z.shape[0], p.z.shape[0])
    for side, size in zip((q, p), sizes, strict=True):
        blocks = max(-(-size // plan.block_size), 1)
        tile_size = max(-(-size // blocks), 1)  # even tiles: a ragged last one costs blocks - 1 rows at most
        padded.append(tiles.pad_side(side, blocks * tile_size))
        tile_sizes.append(tile_size)
    return *padded, *tile_sizes, sizes


def _part(plan, side, i, size):
    """Rows of a side, as matmuls take them. Those that are no candidates are 0: a tower may have made NaN of padding."""
    part = _take(side, i, size)
    z = part.z.astype(operand_dtype(part.z.dtype, plan.matmul_dtype))
    return part._replace(z=z if part.log_weight is None else jnp.where((part.log_weight > -jnp.inf)[:, None], z, 0))


def _take(tree, i, size):
    return jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, i * size, size), tree)


def _put(tree, new, i, size):
    return jax.tree.map(lambda x, y: lax.dynamic_update_slice_in_dim(x, y, i * size, 0), tree, new)


def _add(x, new, i, size):
    return _put(x, _take(x, i, size) + new, i, size)


def _head(tree, rows):
    return jax.tree.map(lambda x: x[:rows], tree)
