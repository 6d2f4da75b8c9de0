"""The device mesh, and how parameters and batches lie on it.

Axes: `data` and `fsdp` split the batch; `fsdp` and `tensor` split parameters, by rules from logical axis names.
The mesh is the one ambient value of a run: `with jax.set_mesh(mesh)`.
"""

import logging
import math
from types import MappingProxyType

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from core.config import ConfigError, check_keys
from core.paths import tower_of

AXES = ("data", "fsdp", "tensor")
BATCH = ("data", "fsdp")

log = logging.getLogger(__name__)


def make(data: int = -1, fsdp: int = 1, tensor: int = 1, devices=None) -> Mesh:
    """A mesh of Auto axes over all devices; one axis may be -1 and takes what the others leave.

    Raises:
        ConfigError: the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = [data, fsdp, tensor]
    known = math.prod(s for s in sizes if s != -1)
    if sizes.count(-1) == 1 and known and len(devices) % known == 0:
        sizes[sizes.index(-1)] = len(devices) // known
    if math.prod(sizes) != len(devices) or min(sizes) < 1:
        raise ConfigError(
            f"a mesh of data={data}, fsdp={fsdp}, tensor={tensor} does not fit {len(devices)} devices; "
            f"set config.mesh.data to -1 and let fsdp x tensor divide {len(devices)}."
        )
    return jax.make_mesh(tuple(sizes), AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def shards(mesh: Mesh) -> int:
    """In how many equal parts a batch is split."""
    return math.prod(mesh.shape[axis] for axis in BATCH)


def check_batch(global_batch: int, mesh: Mesh, key: str = "config.data.global_batch") -> None:
    """Refuses a batch that does not split evenly.

    Raises:
        ConfigError: gives the two nearest sizes that do.
    """
    parts = math.lcm(shards(mesh), jax.process_count())
    if global_batch % parts or global_batch < parts:
        below = global_batch // parts * parts
        fits = f"{below} or {below + parts}" if below else f"{parts}"
        raise ConfigError(f"{global_batch} queries do not split over {parts} data shards; set {key} to {fits}.")


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over `data x fsdp`, everything else whole."""
    return NamedSharding(mesh, P(BATCH))


def constrain(x: jax.Array, spec: P) -> jax.Array:
    """Fixes how an array lies on the ambient mesh; without one, or where its rows do not divide (a traced example), leaves it alone."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or (spec and x.shape[0] % math.prod(mesh.shape[axis] for axis in spec[0])):
        return x
    return jax.lax.with_sharding_constraint(x, spec)


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, P())


def param_shardings(boxed, mesh: Mesh, rules, tower_rules=MappingProxyType({})):
    """Shardings of a tree of abstract parameters that carry logical axes.

    Args:
        boxed: abstract variables as a model's abstract init returns them.
        mesh: the mesh.
        rules: pairs (logical axis, mesh axis or None); the first that matches counts.
        tower_rules: by label of a tower, the rules that hold for its parameters and its adapters instead of `rules`.

    Returns:
        A tree like the unboxed one. A dimension that its mesh axis does not divide stays whole, with a log line.
    """
    table = lambda pairs: dict(reversed([tuple(pair) for pair in pairs]))
    shared, by_tower = table(rules), {label: table(pairs) for label, pairs in tower_rules.items()}

    def one(path, leaf):
        table = by_tower.get(tower_of("/".join(str(entry.key) for entry in path)), shared)
        names = leaf.names if isinstance(leaf, nn.Partitioned) else ()
        shape = leaf.value.shape if isinstance(leaf, nn.Partitioned) else leaf.shape
        spec, used = [], set()
        for size, name in zip(shape, names, strict=False):
            axis = table.get(name)
            if axis in used or axis is None or mesh.shape[axis] == 1:
                axis = None
            elif size % mesh.shape[axis]:
                log.info(
                    "%s: %d of axis %s does not divide over %s=%d; kept whole",
                    jax.tree_util.keystr(path),
                    size,
                    name,
                    axis,
                    mesh.shape[axis],
                )
                axis = None
            used.add(axis)
            spec.append(axis)
        return NamedSharding(mesh, P(*spec))

    return jax.tree_util.tree_map_with_path(one, boxed, is_leaf=lambda x: isinstance(x, nn.Partitioned))


def check_rules(rules, key: str = "config.mesh.rules") -> None:
    """Refuses sharding rules that name another mesh axis.

    Raises:
        ConfigError: names the rule.
    """
    for rule in rules:
        if isinstance(rule, str) or len(rule) != 2 or rule[1] not in (None, "fsdp", "tensor"):
            raise ConfigError(f"{key} holds {rule!r}; a rule is (logical axis, 'fsdp', 'tensor' or None).")


def check_tower_rules(tower_rules, towers) -> None:
    """Refuses rules of a tower that the model lacks, or that `check_rules` refuses.

    Raises:
        ConfigError: names the label or the rule.
    """
    check_keys(tower_rules, towers, "config.mesh.tower_rules")
    for label, rules in tower_rules.items():
        check_rules(rules, f"config.mesh.tower_rules.{label}")


def place_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """This process's rows as its part of global arrays."""
    sharding = batch_sharding(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()}
