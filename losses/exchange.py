"""How passages meet the queries of other devices: passed round a ring, or gathered by all.

Each function opens one `shard_map` over the axes that split the batch; differentiation stays outside. Without such axes the
tiles are computed where they are.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from losses import tiles
from losses.tiles import Online, Plan, Saved, Scalars, Side

BATCH_AXES = ("data", "fsdp")
METHODS = ("ring", "gather")


def shards() -> int:
    """Into how many parts the ambient mesh splits a batch."""
    mesh = jax.sharding.get_abstract_mesh()
    return math.prod(mesh.shape[a] for a in _axes())


def _axes() -> tuple[str, ...]:
    return tuple(a for a in BATCH_AXES if a in jax.sharding.get_abstract_mesh().axis_names)


def forward(plan: Plan, pairs: Callable, scalars: Scalars, q: Side, p: Side):
    """Sums of all queries over all passages, and of all passages over all queries (none unless `plan.symmetric`).

    Args:
        plan: `method` chooses the exchange.
        pairs: (mesh axes, scalars, queries, passages) -> sums of both, for what one device has.
        scalars: the same on all devices.
        q: the queries of the global batch.
        p: the passages of the global batch.
    """
    if shards() == 1:
        return pairs((), scalars, q, p)
    body = {"ring": _ring_forward, "gather": _gather_forward}[plan.method]
    split, whole = PartitionSpec(_axes()), PartitionSpec()
    exchanged = functools.partial(body, plan, pairs, _axes())
    return jax.shard_map(exchanged, in_specs=(whole, split, split), out_specs=(split, split))(scalars, q, p)


def backward(plan: Plan, pairs: Callable, scalars: Scalars, q: Side, p: Side, row: Saved, column: Saved | None):
    """Cotangents of queries, passages, scale and bias.

    Args:
        plan: `method` chooses the exchange.
        pairs: (mesh axes, scalars, queries, passages, saved of both) -> cotangents, for what one device has.
        scalars: the same on all devices.
        q: the queries of the global batch.
        p: the passages of the global batch.
        row: what the forward pass and the cotangents say of each query.
        column: the same of each passage; None unless `plan.symmetric`.
    """
    if shards() == 1:
        return pairs((), scalars, q, p, row, column)
    body = {"ring": _ring_backward, "gather": _gather_backward}[plan.method]
    split, whole = PartitionSpec(_axes()), PartitionSpec()
    exchanged = functools.partial(body, plan, pairs, _axes())
    return jax.shard_map(exchanged, in_specs=(whole, *[split] * 4), out_specs=(split, split, whole, whole))(scalars, q, p, row, column)


def vary(axes: tuple[str, ...], tree):
    """Constants marked as different on each device: what a loop inside `shard_map` over `axes` starts from."""
    return jax.tree.map(lambda x: lax.pcast(x, axes, to="varying"), tree) if axes else tree


def _pass_on(axes, tree):
    count = lax.axis_size(axes)
    return jax.tree.map(lambda x: lax.ppermute(x, axes, [(i, (i + 1) % count) for i in range(count)]), tree)


def _ring_forward(plan, pairs, axes, scalars, q, p):
    dtype = jnp.promote_types(q.z.dtype, jnp.float32)
    rows, columns = (vary(axes, tiles.nothing(plan, side.z.shape[0], axis, dtype)) for side, axis in ((q, 1), (p, 0)))

    def hop(visitor, rows, columns):
        # Neither transfer waits for the tiles of this hop, so all three may overlap.
        arrived = _pass_on(axes, columns)
        new_rows, new_columns = pairs(axes, scalars, q, visitor)
        return tiles.merge(rows, new_rows), tiles.merge(arrived, new_columns)

    rows, columns = _ring(axes, hop, p, (rows, columns))
    return rows, _pass_on(axes, columns)  # a last hop brings each passage's sums home


def _ring_backward(plan, pairs, axes, scalars, q, p, row, column):
    dtype = jnp.promote_types(q.z.dtype, jnp.float32)
    start = vary(axes, tuple(jnp.zeros(shape, dtype) for shape in (q.z.shape, p.z.shape, (), ())))

    def hop(visitor, by_q, by_p, by_scale, by_bias):
        arrived = _pass_on(axes, by_p)
        new_q, new_p, new_scale, new_bias = pairs(axes, scalars, q, visitor[0], row, visitor[1])
        return by_q + new_q, arrived + new_p, by_scale + new_scale, by_bias + new_bias

    by_q, by_p, by_scale, by_bias = _ring(axes, hop, (p, column), start)
    return by_q, _pass_on(axes, by_p), lax.psum(by_scale, axes), lax.psum(by_bias, axes)


def _ring(axes, hop, visitor, found):
    """`hop(visitor, *found)` on each device with the visitors of all devices, which are passed on once less than they visit."""

    def step(_, carry):
        visitor, found = carry
        coming = _pass_on(axes, visitor)
        return coming, hop(visitor, *found)

    visitor, found = lax.fori_loop(1, lax.axis_size(axes), step, (visitor, found))
    return hop(visitor, *found)


def _gather_forward(plan, pairs, axes, scalars, q, p):
    rows, columns = pairs(axes, scalars, q, _gather(axes, p))
    return rows, jax.tree.map(functools.partial(_scatter, axes), columns, is_leaf=lambda x: isinstance(x, Online))


def _gather_backward(plan, pairs, axes, scalars, q, p, row, column):
    by_q, by_p, by_scale, by_bias = pairs(axes, scalars, q, _gather(axes, p), row, _gather(axes, column))
    return by_q, _scatter(axes, by_p), lax.psum(by_scale, axes), lax.psum(by_bias, axes)


def _gather(axes, tree):
    return jax.tree.map(lambda x: lax.all_gather(x, axes, tiled=True), tree)


def _scatter(axes, found):
    """Sums of all devices for all passages, each passage's to its own device."""
    if not isinstance(found, Online):
        return lax.psum_scatter(found, axes, tiled=True)
    top = lax.pmax(found.top, axes)
    scaled = jnp.exp(found.top - jnp.where(top == -jnp.inf, 0, top))
    total = None if found.total is None else lax.psum_scatter(found.total * scaled, axes, tiled=True)
    size = top.shape[0] // lax.axis_size(axes)
    own = lax.dynamic_slice_in_dim(top, lax.axis_index(axes) * size, size)
    return Online(own, lax.psum_scatter(found.sum * scaled, axes, tiled=True), total)
