"""Tiles of logits by a Pallas kernel for NVIDIA GPUs (Triton): their sums, or their gradient, without the logits in memory.

A program of the grid makes a small piece of the tile by a matmul and hands it, in registers, to the same `sums` and `gradient` that
XLA runs, so what a loss means is written once. Leaves the loop over tiles, and the matmuls by the gradient, to `blockwise`.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Float

from losses import exchange, tiles
from losses.similarity import cosines, operand_dtype
from losses.tiles import Online, Plan, Saved, Scalars, Side


class Piece(NamedTuple):
    """What one program makes, and how. Sizes are powers of 2, 16 or more, as tensor cores want them.

    Fields:
        queries: of a piece.
        passages: of a piece.
        width: of embeddings that a step of the matmul takes.
        warps: that share the work of a program.
        stages: loads that are under way at once.
    """

    queries: int = 128
    passages: int = 128
    width: int = 64
    warps: int = 8
    stages: int = 3


PIECE = Piece()


def covers(plan: Plan, dtype: jnp.dtype) -> bool:
    """Whether the kernel computes what a plan asks for; `blockwise` lets XLA do the rest.

    Left to XLA are a teacher's targets, which need a second matmul, and float64 embeddings.
    """
    return plan.target != "teacher" and dtype != jnp.float64


def tile_sums(plan: Plan, scalars: Scalars, q: Side, p: Side, piece: Piece = PIECE) -> tuple[dict[str, Any], dict[str, Any]]:
    """The sums of a tile over its passages, and over its queries (empty unless `plan.symmetric`); as of `tiles.sums`."""
    queries, passages = q.z.shape[0], p.z.shape[0]
    q, p, piece = _whole(plan, q, p, piece)
    grid = q.z.shape[0] // piece.queries, p.z.shape[0] // piece.passages
    # One line for each piece along the axis that is summed; the lines merge below.
    rows, columns = (
        jax.tree.map(
            lambda x, n=n: jax.ShapeDtypeStruct((n, *x.shape), x.dtype), tiles.nothing(plan, side.z.shape[0], axis, jnp.dtype("float32"))
        )
        for side, axis, n in ((q, 1, grid[1]), (p, 0, grid[0]))
    )
    specs = (
        jax.tree.map(lambda _: pl.BlockSpec((None, piece.queries), lambda i, j: (j, i)), rows),
        jax.tree.map(lambda _: pl.BlockSpec((None, piece.passages), lambda i, j: (i, j)), columns),
    )
    rows, columns = _call(_sums_kernel, plan, piece, grid, (rows, columns), specs, scalars, q, p)
    return _merged(rows, queries), _merged(columns, passages)


def tile_gradient(
    plan: Plan, scalars: Scalars, q: Side, p: Side, row: Saved, column: Saved | None, piece: Piece = PIECE
) -> tuple[Float[Array, "r c"], Float[Array, " r"]]:
    """Cotangent of a tile's logits, in the dtype of matmuls, and its sum over the passages."""
    queries, passages = q.z.shape[0], p.z.shape[0]
    q, p, piece = _whole(plan, q, p, piece)
    grid = q.z.shape[0] // piece.queries, p.z.shape[0] // piece.passages
    row, column = (tiles.pad_rows(saved, side.z.shape[0]) for saved, side in ((row, q), (column, p)))
    shapes = (
        jax.ShapeDtypeStruct((q.z.shape[0], p.z.shape[0]), operand_dtype(q.z.dtype, plan.matmul_dtype)),
        jax.ShapeDtypeStruct((grid[1], q.z.shape[0]), jnp.float32),
    )
    specs = (
        pl.BlockSpec((piece.queries, piece.passages), lambda i, j: (i, j)),
        pl.BlockSpec((None, piece.queries), lambda i, j: (j, i)),
    )
    by_tile, by_row = _call(_gradient_kernel, plan, piece, grid, shapes, specs, scalars, q, p, row, column)
    return by_tile[:queries, :passages], by_row.sum(0)[:queries]


def _sums_kernel(plan, width, scalars, q, p, rows, columns):
    found, q, p = _piece(plan, width, scalars, q, p)
    _store(rows, tiles.sums(plan, found, p.log_weight, 1))
    if plan.symmetric:
        _store(columns, tiles.sums(plan, found, q.log_weight, 0))


def _gradient_kernel(plan, width, scalars, q, p, row, column, by_tile, by_row):
    found, q, p = _piece(plan, width, scalars, q, p)
    by_piece = tiles.gradient(plan, found, p.log_weight, 1, _load(row))
    if plan.symmetric:
        by_piece += tiles.gradient(plan, found, q.log_weight, 0, _load(column))
    by_tile[...] = by_piece.astype(by_tile.dtype)
    by_row[...] = by_piece.sum(1)


def _piece(plan, width, scalars, q, p):
    """The logits of a program's piece, and its sides without embeddings."""

    def step(k, found):
        here = pl.ds(k * width, width)
        return found + cosines(q.z[:, here], p.z[:, here], plan.matmul_dtype)

    found = jnp.zeros((q.z.shape[0], p.z.shape[0]), jnp.float32)
    found = jax.lax.fori_loop(0, q.z.shape[1] // width, step, found)
    scalars, q, p = _load(scalars), _load(q._replace(z=None)), _load(p._replace(z=None))
    return tiles.of_cosines(plan, Scalars(*(x[0] for x in scalars)), found, q, p), q, p


def _call(kernel, plan, piece, grid, shapes, specs, scalars, q, p, *saved):
    """Runs a kernel on a grid of (queries, passages) pieces."""
    arrays = (Scalars(*(jnp.asarray(x, jnp.float32)[None] for x in scalars)), q, p, *saved)
    of_query, of_passage = (lambda i, j: (i,)), (lambda i, j: (j,))
    in_specs = [jax.tree.map(lambda _: pl.BlockSpec((1,), lambda i, j: (0,)), arrays[0])]
    for k, side in enumerate(arrays[1:]):
        size, where = ((piece.queries, of_query), (piece.passages, of_passage))[k % 2]
        in_specs.append(jax.tree.map(functools.partial(_spec, size, where), side))
    varies = jax.typeof(q.z).manual_axis_type  # empty but inside `shard_map`, where scalars join what differs between devices
    arrays = jax.tree.map(lambda x: exchange.vary(tuple(varies.varying - jax.typeof(x).manual_axis_type.varying), x), arrays)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, manual_axis_type=varies), shapes)
    return pl.pallas_call(
        functools.partial(kernel, plan, piece.width),
        shapes,
        grid=grid,
        in_specs=in_specs,
        out_specs=specs,
        compiler_params=triton.CompilerParams(num_warps=piece.warps, num_stages=piece.stages),
        interpret=plan.kernel == "interpret",
    )(*arrays)


def _spec(size, where, x):
    """Rows of a side that a program sees: all of their width, if they have one."""
    return pl.BlockSpec((size, *x.shape[1:]), lambda i, j: (*where(i, j), *[0] * (x.ndim - 1)))


def _whole(plan: Plan, q: Side, p: Side, piece: Piece) -> tuple[Side, Side, Piece]:
    """Sides of whole pieces: rows that are no candidates and columns of zeros fill the last ones. Small sides get small pieces."""
    width = min(piece.width, _power(q.z.shape[1]))
    piece = piece._replace(
        queries=min(piece.queries, _power(q.z.shape[0])), passages=min(piece.passages, _power(p.z.shape[0])), width=width
    )
    sides = []
    for side, size in ((q, piece.queries), (p, piece.passages)):
        side = tiles.pad_side(side._replace(teacher=None), -(-side.z.shape[0] // size) * size)
        z = side.z.astype(operand_dtype(side.z.dtype, plan.matmul_dtype))
        sides.append(side._replace(z=jnp.pad(z, ((0, 0), (0, -z.shape[1] % width)))))
    return *sides, piece


def _power(n: int) -> int:
    """The power of 2 that holds n, 16 or more."""
    return max(16, 1 << (n - 1).bit_length())


def _load(tree):
    return jax.tree.map(lambda ref: ref[...], tree)


def _store(refs, values):
    def put(ref, value):
        ref[...] = value

    jax.tree.map(put, refs, values)


def _merged(lines: dict[str, Any], rows: int) -> dict[str, Any]:
    """One sum of the lines of all pieces, without padded rows."""
    return jax.tree.map(lambda x: jax.tree.map(lambda y: y[:rows], tiles.merge_lines(x)), lines, is_leaf=lambda x: isinstance(x, Online))
