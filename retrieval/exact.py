"""Exact search in bounded memory: the best candidates of each query, and how many candidates stand before a score.

Candidates pass through the devices a block at a time, each block split over the mesh, so that memory does not grow with their number;
they may lie on disk (`retrieval.shards.read` leaves them there). Scores are dot products taken in float64 and rounded to float32:
a float32 product differs in its last bits from one block size to the next, and so would ties and the answer (a float64 one may, too,
but moves its float32 rounding once in 1e8 scores). One process.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from core import mesh as meshes

QUERY_ROWS = 256  # queries at once
BLOCK_ROWS = 4096  # candidates at once on each device: 12 MiB of scores before they are rounded and after
CHUNK = 128  # candidates of which only the best is looked at first
WIDTH = 64  # columns are filled up with zeros to a multiple, so that few shapes compile


class Found(NamedTuple):
    """The best candidates of each query [Q k], best first: their scores, float32, and their rows."""

    scores: np.ndarray
    rows: np.ndarray


class Counts(NamedTuple):
    """How many candidates [Q L], those of a query's own left out, score above a level, at it, and at it with an earlier place."""

    greater: np.ndarray
    tied: np.ndarray
    tied_before: np.ndarray


def search(
    queries, candidates, k: int = 10, *, unit: bool = False, mesh: Mesh | None = None,
    query_rows: int = QUERY_ROWS, block_rows: int = BLOCK_ROWS,
) -> Found:  # fmt: skip
    """The k candidates with the highest scores; among equal scores those that come first.

    Args:
        queries: rows [Q d].
        candidates: rows [M d], or a sequence of such arrays, as `shards.read` gives them.
        k: how many for each query, at most M.
        unit: divide the rows by their lengths first, so that scores are cosines.
        mesh: by default all devices.
        query_rows: queries at once.
        block_rows: candidates at once on each device.

    Raises:
        ValueError: shapes that do not fit, fewer than k candidates, or a row that is not finite (with `unit`: or of length 0).
    """
    work = _Work(queries, candidates, unit, mesh, query_rows, block_rows)
    if not 1 <= k <= work.total:
        raise ValueError(f"k is {k}, but there are {work.total} candidates; choose 1 to {work.total}.")
    step = functools.partial(_best, unit=unit, mesh=work.mesh)
    empty = lambda size: Found(np.full((size, k), -np.inf, np.float32), np.full((size, k), -1, np.int32))
    groups = list(work.groups(np.arange(len(work.queries))))
    parts = zip(*work.run(step, [(empty(len(rows)), (rows,)) for _, rows in groups]), strict=True)
    found = Found(*(np.concatenate([array[: len(own)] for (own, _), array in zip(groups, part, strict=True)]) for part in parts))
    if not np.isfinite(found.scores).all():
        query, place = np.argwhere(~np.isfinite(found.scores))[0]
        row = found.rows[query, place]
        raise ValueError(f"query {query} and candidate {row} have no finite score; all values must be finite, and no row only zeros.")
    return found


def count(
    queries, candidates, own: np.ndarray, level: np.ndarray, *, place: np.ndarray | None = None, tie: np.ndarray | None = None,
    unit: bool = False, mesh: Mesh | None = None, query_rows: int = QUERY_ROWS, block_rows: int = BLOCK_ROWS,
) -> Counts:  # fmt: skip
    """Counts the candidates that stand before some scores of each query; exact, and without sorting anything.

    Args:
        queries: rows [Q d].
        candidates: rows [M d], or a sequence of such arrays.
        own: candidates of each query that are not counted [Q R]; -1 fills the ends of rows.
        level: the scores to count at [Q L], float32; NaN fills the ends of rows and counts nothing.
        place: where a candidate with that score would stand among equal ones [Q L]; nothing counts as tied before without it.
        tie: where each candidate stands among equal ones [M].
        unit: divide the rows by their lengths first, so that scores are cosines.
        mesh: by default all devices.
        query_rows: queries at once.
        block_rows: candidates at once on each device.

    Raises:
        ValueError: shapes that do not fit.
    """
    work = _Work(queries, candidates, unit, mesh, query_rows, block_rows)
    own, level = np.asarray(own, np.int64), np.asarray(level, np.float32)
    place = np.zeros(level.shape, np.int32) if place is None else np.asarray(place, np.int32)
    tie = np.zeros(work.total, np.int32) if tie is None else np.asarray(tie, np.int32)
    owned, wanted = (own >= 0).sum(axis=1), (~np.isnan(level)).sum(axis=1)
    made, groups = [], list(work.groups(np.argsort(owned, kind="stable")))  # queries with as many of their own share a program
    for rows, vectors in groups:
        levels, owns = (_power_of_two(counts[rows].max(initial=1)) for counts in (wanted, owned))
        given = [
            (level, np.nan, levels),
            (place, 0, levels),
            (np.where(own < 0, np.iinfo(np.int32).max, own), np.iinfo(np.int32).max, owns),
        ]
        sides = tuple(_fitted(array[rows], len(vectors), width, fill) for array, fill, width in given)
        zeros = np.zeros((len(vectors), levels), np.int32)
        made.append((Counts(zeros, zeros, zeros), (vectors, *sides[:2], sides[2].astype(np.int32))))
    out = Counts(*(np.zeros(level.shape, np.int64) for _ in Counts._fields))
    for (rows, _), found in zip(groups, work.run(functools.partial(_count, unit=unit, mesh=work.mesh), made, tie), strict=True):
        for target, part in zip(out, found, strict=True):
            width = min(part.shape[1], level.shape[1])
            target[rows, :width] = part[: len(rows), :width]
    return out


class _Work:
    """The shapes of a job, and the loop that brings every block of candidates to every group of queries."""

    def __init__(self, queries, candidates, unit: bool, mesh: Mesh | None, query_rows: int, block_rows: int):
        self.queries, self.mesh, self.unit = np.asarray(queries), mesh or meshes.make(), unit
        self.parts = [candidates] if hasattr(candidates, "shape") else list(candidates)
        self.total = sum(len(part) for part in self.parts)
        shapes = {part.shape[1:] for part in self.parts} | {self.queries.shape[1:]}
        if len(shapes) != 1 or self.queries.ndim != 2 or not self.total or not len(self.queries):
            raise ValueError(
                f"queries of shape {self.queries.shape} and {self.total} candidates of shapes "
                f"{[part.shape for part in self.parts][:4]}; give rows [N d] of one width, at least one of each."
            )
        self.width = -(-self.queries.shape[1] // WIDTH) * WIDTH
        devices = meshes.shards(self.mesh)
        self.query_rows = _even(len(self.queries), query_rows, min(32, query_rows))
        self.block_rows = _even(self.total, devices * block_rows, devices * min(CHUNK, block_rows))

    def groups(self, order: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Numbers of the queries that go together, and their rows in float64, filled up."""
        for start in range(0, len(order), self.query_rows):
            rows = order[start : start + self.query_rows]
            wide = self.queries[rows].astype(np.float64)
            with np.errstate(invalid="ignore"):  # what is not finite shows in its scores
                wide /= np.linalg.norm(wide, axis=1, keepdims=True) if self.unit else 1.0
            yield rows, _fitted(wide, self.query_rows, self.width, 0.0)

    def run(self, step: Callable, groups: Sequence[tuple], tie: np.ndarray | None = None) -> list:
        """What each group has found after the last block; `step(found, *arrays, block, tie, first row, rows in all) -> found`."""
        tie = np.zeros(self.total, np.int32) if tie is None else tie
        with jax.enable_x64(True), jax.set_mesh(self.mesh):
            whole, split = meshes.replicated(self.mesh), meshes.batch_sharding(self.mesh)
            found, arrays = ([jax.device_put(group[i], whole) for group in groups] for i in (0, 1))
            for start, block in self._blocks():
                beside = _fitted(tie[start : start + len(block), None], self.block_rows, 1, 0)[:, 0]
                placed = jax.device_put((_fitted(block, self.block_rows, self.width, 0), beside), split)
                before = found
                found = [step(one, *given, *placed, np.int32(start), np.int32(start + len(block)))
                         for one, given in zip(found, arrays, strict=True)]  # fmt: skip
                jax.block_until_ready(before)  # or all blocks would wait in memory for their turn
            return jax.device_get(found)

    def _blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        start = 0
        for part in self.parts:
            for first in range(0, len(part), self.block_rows):
                block = np.asarray(part[first : first + self.block_rows])
                yield start, block
                start += len(block)


@functools.partial(jax.jit, static_argnames=("unit", "mesh"))
def _best(found: Found, queries, block, tie, first, stop, *, unit: bool, mesh: Mesh) -> Found:
    """The best of what was found before and of one block; what comes earlier wins among equals."""
    k = found.scores.shape[1]

    def local(queries, block):
        scores, at = _scores(queries, block, first, stop, unit)
        scores = jnp.where(jnp.isnan(scores), jnp.inf, scores)  # a NaN may be sorted last, and would hide
        best, rows = _top(scores, min(k, len(block)))
        return best, at[0] + rows.astype(jnp.int32)

    axes = P(None, meshes.BATCH)
    best, rows = jax.shard_map(local, mesh=mesh, in_specs=(P(), P(meshes.BATCH)), out_specs=(axes, axes))(queries, block)
    scores, at = lax.top_k(jnp.concatenate([found.scores, best], axis=1), k)
    rows = jnp.take_along_axis(jnp.concatenate([found.rows, rows], axis=1), at, axis=1)
    return lax.with_sharding_constraint(Found(scores, rows), meshes.replicated(mesh))


@functools.partial(jax.jit, static_argnames=("unit", "mesh"))
def _count(found: Counts, queries, level, place, own, block, tie, first, stop, *, unit: bool, mesh: Mesh) -> Counts:
    """What was counted before and what one block adds."""

    def local(queries, level, place, own, block, tie):
        scores, at = _scores(queries, block, first, stop, unit)
        inside = jnp.where(own < at[0], len(block), own - at[0])  # beyond the block: dropped
        scores = scores.at[jnp.arange(len(queries))[:, None], inside].set(-jnp.inf, mode="drop")
        found = lax.map(lambda at: _before(scores, tie, *at), (level.T, place.T))
        return lax.psum(jax.tree.map(jnp.transpose, found), meshes.BATCH)

    specs = (*[P()] * 4, *[P(meshes.BATCH)] * 2)
    new = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=P())(queries, level, place, own, block, tie)
    return jax.tree.map(jnp.add, found, new)


def _scores(queries, block, first, stop, unit: bool):
    """Scores of this device's part of a block [q m], -inf where rows only fill up, and the numbers of its rows [m]."""
    wide = block.astype(jnp.float64)
    if unit:
        wide /= jnp.linalg.norm(wide, axis=1, keepdims=True)
    at = first + lax.axis_index(meshes.BATCH).astype(jnp.int32) * len(block) + jnp.arange(len(block), dtype=jnp.int32)
    scores = jnp.einsum("qd,md->qm", queries, wide).astype(jnp.float32)
    return jnp.where(at[None, :] < stop, scores, -jnp.inf), at


def _before(scores, tie, level, place) -> Counts:
    """Counts of each row of scores [q m] at one level each [q], in one pass: three sums would write [q m] numbers each before they add."""
    greater, tied = scores > level[:, None], scores == level[:, None]
    kept = [part.astype(jnp.int32) for part in (greater, tied, tied & (tie[None, :] < place[:, None]))]
    return Counts(*lax.reduce(kept, [jnp.int32(0)] * 3, lambda a, b: jax.tree.map(lax.add, a, b), (1,)))


def _top(scores, k: int):
    """`lax.top_k` of rows [q m], which sorts; looked for only in the k chunks with the best candidates, which hold all k.

    A chunk that stands before another holds a candidate that stands before all of the other's, so no k-th best lies in a chunk after
    the k-th; among equals this needs the chunks in the order of their rows.
    """
    size, width = scores.shape
    if width % CHUNK or width // CHUNK <= k:
        return lax.top_k(scores, k)
    chunks = scores.reshape(size, -1, CHUNK)
    chosen = jnp.sort(lax.top_k(chunks.max(axis=2), k)[1], axis=1)
    best, at = lax.top_k(jnp.take_along_axis(chunks, chosen[:, :, None], axis=1).reshape(size, -1), k)
    return best, jnp.take_along_axis(chosen, at // CHUNK, axis=1) * CHUNK + at % CHUNK


def _fitted(array: np.ndarray, rows: int, columns: int, fill) -> np.ndarray:
    """The array cut and filled up to [rows columns]."""
    if array.shape == (rows, columns):
        return array
    out = np.full((rows, columns), fill, array.dtype)
    out[: len(array), : array.shape[1]] = array[:rows, :columns]
    return out


def _power_of_two(number: int) -> int:
    return 1 << (max(int(number), 1) - 1).bit_length()


def _even(total: int, most: int, multiple: int) -> int:
    """Rows of each block when `total` rows are split into as few equal blocks as `most` allows; rounded up to a multiple."""
    blocks = max(1, -(-total // max(most, 1)))
    return -(-max(-(-total // blocks), 1) // multiple) * multiple
