"""The towers in microbatches, the loss over the whole batch: the plain gradient with the activations of one microbatch.

Nothing here knows a gradient: a scan whose body is rematerialised makes autodiff do what the method does by hand, keep the
embeddings of all rows and run each microbatch's towers again on the way back.

Source: Gao et al. 2021 (GradCache, arXiv:2101.06983); Pham et al. 2021 (BASIC, arXiv:2111.10050).
"""

import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

from core.config import ConfigError
from core.mesh import BATCH
from models.dual import DualEncoder, row_axis


def check(microbatches: int | None, global_batch: int, shards: int) -> int:
    """How many microbatches a step takes; None means one.

    Raises:
        ConfigError: a device's rows do not split into them; names the nearest number that fits.
    """
    count = 1 if microbatches is None else microbatches
    rows = global_batch // shards
    if count < 1 or rows % count:
        fits = max(c for c in range(1, min(max(count, 1), rows) + 1) if rows % c == 0)
        raise ConfigError(f"{rows} rows of a device do not split into {count} microbatches; set config.train.microbatches to {fits}.")
    return count


def check_groups(spec: Mapping[str, jax.ShapeDtypeStruct], count: int, shards: int) -> None:
    """Refuses texts that share rows with texts of another device or microbatch.

    Raises:
        ConfigError: a device's part of a microbatch that does not split into groups.
    """
    for name, places in spec.items():
        if name.endswith("_places"):
            *texts, group, _ = places.shape
            if math.prod(texts) // (count * shards) % group:
                raise ConfigError(
                    f"{math.prod(texts) // (count * shards)} texts of a device at once do not split into groups of {group}; set "
                    f"config.data.transforms.{name.removesuffix('_places')}.options.group to a number that divides them."
                )


def apply(
    model: DualEncoder, params, batch: Mapping[str, Array], keys: Mapping[str, Array], count: int, shards: int,
    hooks: Callable[[Mapping[str, Array]], Mapping] = lambda keys: {}, capture: Mapping[str, tuple[str, ...]] | None = None,
) -> dict[str, Array]:  # fmt: skip
    """What `model.apply` returns for the batch, with the activations of one microbatch at a time.

    Microbatch j holds the j-th part of every device's rows, so that each one keeps all devices busy; rows come back in their
    order. Dropout keys go with their rows, and no tower sees across rows, so the result does not depend on `count`; nor does it where
    hooks look across rows that stay together, as those of `training/mixing.py` do.

    Args:
        model: the dual encoder.
        params: its parameters.
        batch: views with a leading batch axis, split over `shards` devices.
        keys: dropout keys by view, one per row.
        count: microbatches.
        shards: parts that the batch axis is split into on the mesh.
        hooks: from the keys of some rows to a layer hook per view.
        capture: extra outputs per view.
    """
    if count == 1:
        return model.apply({"params": params}, batch, keys, capture, hooks(keys))
    views = {name: a for name, a in batch.items() if model.reads(name)}

    def split(a: Array) -> Array:  # [B ...] -> [count, B / count, ...]
        parts = a.reshape(shards, count, -1, *a.shape[1:]).swapaxes(0, 1)
        return jax.lax.with_sharding_constraint(parts.reshape(count, -1, *a.shape[1:]), P(None, BATCH))

    def join(name: str, a: Array) -> Array:  # back, whichever axis behind the first has the rows
        rows, before = 1 + row_axis(name), row_axis(name)
        a = jnp.moveaxis(a, 0, before)
        whole = a.reshape(*a.shape[:rows], shards, -1, *a.shape[rows + 1 :]).swapaxes(before, rows)
        return jax.lax.with_sharding_constraint(whole.reshape(*a.shape[:before], -1, *a.shape[rows + 1 :]), P(*[None] * before, BATCH))

    @jax.checkpoint
    def encode(params, part):
        arrays = model.apply({"params": params}, *part, capture, hooks(part[1]))
        return {name: a for name, a in arrays.items() if a.ndim}

    _, parts = jax.lax.scan(lambda _, part: (None, encode(params, part)), None, jax.tree.map(split, (views, dict(keys))))
    return model.apply({"params": params}, {}) | {name: join(name, a) for name, a in parts.items()}
