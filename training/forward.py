"""From parameters and a batch to the named arrays that losses read: towers with a gradient, and what stands beside them without one."""

import dataclasses
from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array

from core.paths import by_path, from_paths
from models.adapters import Adapters
from models.dual import DualEncoder, captures, of_views
from models.heads import Head
from training import cached_gradients
from training.mixing import Mixing
from training.momentum import Momentum


def example_keys(seed: int, step: Array, views, rows: int) -> dict[str, Array]:
    """One key per view and row of the global batch, from (seed, step, view, row): no device index, so no mesh changes a mask."""
    key = jax.random.fold_in(jax.random.key(seed), step)
    row = jax.vmap(jax.random.fold_in, (None, 0))
    return {view: row(jax.random.fold_in(key, index), jnp.arange(rows)) for index, view in enumerate(sorted(views))}


def loss_key(seed: int, step: Array) -> Array:
    """The key of all that losses draw in a step, beyond the indices of views."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), step), 2**32 - 1)


@dataclasses.dataclass(frozen=True)
class Forward:
    """How the arrays of a step come about.

    Attributes:
        model: the dual encoder.
        adapters: those of its matrices; the model sees them merged.
        momentum: averages of its towers that read views too.
        mixing: second readings of views, with mixed hidden states.
        heads: trainable parts of objectives, on what the towers make.
        wanted: names of arrays that losses, heads and carries read: towers return their inner states where some are among them.
        seed: of dropout and of what losses draw.
        steps: of the whole run.
        still: towers whose layers are frozen: they read without dropout, as they will when they are used.
        microbatches: parts in which the towers see the batch; loss and gradient are those of the whole batch.
        shards: parts that the mesh splits the batch into.
    """

    model: DualEncoder
    adapters: Adapters
    momentum: tuple[Momentum, ...] = ()
    mixing: tuple[Mixing, ...] = ()
    heads: tuple[Head, ...] = ()
    wanted: frozenset[str] = frozenset()
    seed: int = 0
    steps: int = 1
    still: frozenset[str] = frozenset()
    microbatches: int = 1
    shards: int = 1

    def towers(self, flat: Mapping[str, Array], batch: Mapping[str, Array], step: Array) -> dict[str, Array]:
        """What the towers make of the views, mixed ones too, with their scale and bias; and what heads make of that.

        Args:
            flat: all parameters by path.
            batch: views and columns of the global batch.
            step: finished updates.
        """
        keys = example_keys(self.seed, step, self.model.views, next(iter(batch.values())).shape[0])
        params = self.adapters.merge(from_paths(flat))
        arrays = self._read(params, batch, {view: key for view, key in keys.items() if self.model.views[view] not in self.still})
        for mixing in self.mixing:
            hooks, mine = partial(mixing.hooks, step_key=loss_key(self.seed, step)), {view: keys[view] for view in mixing.views}
            mixed = self._read(params, of_views(batch, mixing.views), mine, mixing.label, hooks)
            arrays |= {f"{name}_{mixing.label}": array for name, array in mixed.items() if array.ndim} | mixing.named(mine)
        seen = dict(batch) | arrays | self._of_step(step)
        for head in self.heads:
            arrays |= head.apply(params["heads"][head.label], seen, by_path(params))
        return arrays

    def _read(self, params, batch: Mapping[str, Array], keys: Mapping[str, Array], label: str = "", *hooks) -> dict[str, Array]:
        """What the towers make of these views, with the inner states that somebody names."""
        capture = captures(self.wanted, self.model.views, label)
        return cached_gradients.apply(self.model, params, batch, keys, self.microbatches, self.shards, *hooks, capture=capture)

    def _of_step(self, step: Array) -> dict[str, Array]:
        return {"key": loss_key(self.seed, step), "step": step, "progress": step / self.steps}

    def beside(
        self, flat: Mapping[str, Array], averages: Mapping[str, Mapping[str, Array]], batch: Mapping[str, Array], step: Array
    ) -> dict[str, Array]:
        """What gets no gradient: columns of the batch, momentum towers, `key`, `step`, and `progress` from 0 to 1.

        Args:
            flat: all parameters by path.
            averages: of the momentum towers, by label and path.
            batch: views and columns of the global batch.
            step: finished updates.
        """
        arrays = {name: array for name, array in batch.items() if name not in self.model.views}
        for momentum in self.momentum:
            params = self.adapters.merge(from_paths(dict(flat) | averages[momentum.label]))
            read = self._read(params, of_views(batch, momentum.views), {}, momentum.label)
            arrays |= {f"{name}_{momentum.label}": array for name, array in read.items() if array.ndim}
        return arrays | self._of_step(step)
