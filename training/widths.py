"""One width for the texts of a global batch, though every process reads only its own rows."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from core import mesh as meshes
from core.processes import meet

WAIT_SECONDS = 3600.0  # for the first batch of the slowest process
FILLS = {"_mask": False, "_pool_mask": False, "_target": -1, "_own": -1}  # arrays beside a view whose last axis is tokens


class Ahead(NamedTuple):
    """A batch of this process, and the widths that all agree on, on their way."""

    batch: dict[str, np.ndarray]
    widths: jax.Array


class SameWidths:
    """The batches of a process, with texts as wide as the process with the longest text needs.

    Wide is what the widest of the buckets chosen by each process is, which is the bucket of the whole batch: any number of processes
    sees the shapes that one would. Every batch is read one ahead and its widths are sent at once, so they travel while the devices
    compute the step before; every process has to ask for as many batches as the others, as it does for steps.

    Args:
        batches: a `batching.Batches`.
        pads: what fills up the ids of each view with buckets.
        mesh: of the run.
    """

    def __init__(self, batches: Any, pads: Mapping[str, int], mesh: Mesh):
        self.position = batches.position
        self._batches, self._pads, self._mesh, self._next = batches, pads, mesh, None
        self._largest = jax.jit(lambda rows: jnp.max(rows, axis=0), out_shardings=meshes.replicated(mesh))

    def __iter__(self) -> "SameWidths":
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        if self._next is None:
            self._next = self._read(first=True)
        batch, widths = self._next
        self._next = self._read()
        self.position += 1
        return widen(batch, self._pads, dict(zip(self._pads, np.asarray(widths).tolist(), strict=True)))

    def metrics(self) -> dict[str, float]:
        """As `Batches.metrics`."""
        return self._batches.metrics()

    def close(self) -> None:
        """As `Batches.close`."""
        self._batches.close()

    def _read(self, first: bool = False) -> Ahead:
        batch = next(self._batches)
        if first:
            meet("first batch read", WAIT_SECONDS)
        own = np.array([batch[view].shape[-1] for view in self._pads], np.int32)
        # A row each, so that they lie on the mesh as any batch does.
        rows = np.tile(own, (len(batch["record"]), 1))
        return Ahead(batch, self._largest(meshes.place_batch({"widths": rows}, self._mesh)["widths"]))


def widen(batch: Mapping[str, np.ndarray], pads: Mapping[str, int], widths: Mapping[str, int]) -> dict[str, np.ndarray]:
    """The batch with the token axes of some views filled up to `widths`: ids by the view's pad, masks by False, tokens that are
    asked for by -1."""
    made = dict(batch)
    for view, pad in pads.items():
        for suffix, fill in ({"": pad} | FILLS).items():
            if view + suffix in batch:
                array = batch[view + suffix]
                more = [(0, 0)] * (array.ndim - 1) + [(0, widths[view] - array.shape[-1])]
                made[view + suffix] = np.pad(array, more, constant_values=fill)
    return made
