"""What a loss keeps from step to step, such as a queue of embeddings: made of zeros, moved once per step after the gradient.

`config.train.carries.<label> = {name, inputs, options}`; `inputs` names arrays of a step, as those of a loss do. Each array of a carry
is an array of the next steps, `<label>_<its name>`. A carry is a class: options are its fields, `init(shapes)` makes its arrays from the
shapes of the inputs, `update(carry, arrays)` returns the next ones, and `batch_axis` says which axis of all of them holds rows of the
global batch and so lies split over the devices that split the batch; None keeps them whole on each. Nothing that goes in or comes out
has a gradient.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

from core.config import ConfigError, bind, check_section, choose, picked
from core.mesh import BATCH
from models.dual import row_axis


@dataclasses.dataclass(frozen=True)
class Queue:
    """The rows of the last `batches` global batches as [batches B ...], oldest first, each batch in its order: first in, first out.

    `weight` [batches B] is 1 where a batch has come and 0 where none has yet. A device keeps what its own rows were, so a batch enters
    without being sent; the order is that of the global batch on every mesh.
    """

    batches: int = 16
    batch_axis = 1

    def init(self, shapes: Mapping[str, Any]) -> dict[str, Array]:
        """Places without rows."""
        rows = next(iter(shapes.values())).shape[0]
        empty = {name: jnp.zeros((self.batches, *s.shape), s.dtype) for name, s in shapes.items()}
        return empty | {"weight": jnp.zeros((self.batches, rows), jnp.float32)}

    def update(self, carry: Mapping[str, Array], arrays: Mapping[str, Array]) -> dict[str, Array]:
        """One more batch in, the oldest out."""
        new = dict(arrays) | {"weight": jnp.ones(carry["weight"].shape[1], jnp.float32)}
        return {name: jnp.concatenate([old[1:], new[name][None]]) for name, old in carry.items()}


CARRIES = {"queue": Queue}


class Carry(NamedTuple):
    """A carry of the config."""

    label: str
    kind: Any
    inputs: Mapping[str, str]  # its name for an array to the step's

    def pick(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """The inputs among a step's arrays.

        Raises:
            ConfigError: one is missing; lists what there is.
        """
        return picked(self.inputs, arrays, f"config.train.carries.{self.label}.inputs")


def make(section) -> tuple[Carry, ...]:
    """The carries of `config.train.carries`.

    Raises:
        ConfigError: unknown kind, key or option, no inputs, states of all layers among them, or a queue of no batch.
    """
    found = []
    for label, entry in section.items():
        key = f"config.train.carries.{label}"
        check_section(entry, ("name", "inputs", "options"), key)
        kind = bind(choose(CARRIES, entry.name, f"{key}.name"), entry.options, f"{key}.options")()
        if not entry.inputs:
            raise ConfigError(f"{key}.inputs is empty; name what it keeps, dict(z='z_passage', id='id') for example.")
        if isinstance(kind, Queue) and kind.batches < 1:
            raise ConfigError(f"{key}.options.batches is {kind.batches}; set it to 1 or more.")
        for name, array in entry.inputs.items():
            if row_axis(array):
                raise ConfigError(
                    f"{key}.inputs.{name} is {array!r}, states of all layers, whose first axis has no rows of the batch; "
                    f"keep what has, 'z_{array.rsplit('_', 1)[-1]}' for example."
                )
        found.append(Carry(label, kind, dict(entry.inputs)))
    return tuple(found)


def init(found: Sequence[Carry], shapes: Mapping[str, Any]) -> dict[str, dict[str, Array]]:
    """All carries before the first step, from the shapes of a step's arrays."""
    return {carry.label: carry.kind.init(carry.pick(shapes)) for carry in found}


def named(state: Mapping[str, Mapping[str, Array]]) -> dict[str, Array]:
    """All carries as arrays of a step."""
    return {f"{label}_{name}": array for label, carry in state.items() for name, array in carry.items()}


def update(found: Sequence[Carry], state: Mapping[str, Mapping[str, Array]], arrays: Mapping[str, Array]) -> dict[str, dict[str, Array]]:
    """All carries after a step with these arrays."""
    stopped = jax.lax.stop_gradient
    return {carry.label: carry.kind.update(state[carry.label], stopped(carry.pick(arrays))) for carry in found}


def place(found: Sequence[Carry], shapes: Mapping[str, Mapping[str, Any]], mesh) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
    """Shapes of all carries with their shardings."""

    def one(axis: int | None, s) -> jax.ShapeDtypeStruct:
        spec = P() if axis is None else P(*[None] * axis, BATCH)
        return jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=NamedSharding(mesh, spec))

    return {carry.label: {name: one(carry.kind.batch_axis, s) for name, s in shapes[carry.label].items()} for carry in found}
