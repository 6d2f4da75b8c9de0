"""From a config to everything a run is made of, checked and traced but not compiled."""

import contextlib
import dataclasses
import math
import re
from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

import interop
from core import mesh as meshes
from core import paths
from core.config import ConfigError, check_section, plain
from core.paths import matches
from losses.entries import entries, phases
from models import adapters, dual, heads
from training import cached_gradients, carries, mixing, momentum, optimizer
from training.data import Data, example
from training.forward import Forward
from training.state import TrainState
from training.step import heads_of, make_step, start

SECTIONS = ("seed", "data", "model", "losses", "optimizer", "train", "checkpoint", "mesh", "evals", "log")
SECTION_KEYS = {
    "train": ("steps", "epochs", "examples", "microbatches", "accumulate_steps", "profile_steps", "stall_seconds", "carries"),
    "checkpoint": ("every_steps", "keep_last", "keep_every_steps", "best"),
    "mesh": ("data", "fsdp", "tensor", "rules", "tower_rules"),
    "log": ("every_steps", "tensorboard", "wandb"),
}


def total_steps(train, global_batch: int, records: int) -> int:
    """Steps that `config.train.steps | epochs | examples` asks for.

    Raises:
        ConfigError: none or several of the three are set.
    """
    given = {name: train[name] for name in ("steps", "epochs", "examples") if train[name] is not None}
    if len(given) != 1:
        raise ConfigError(
            f"config.train sets {sorted(given) or 'no length'}; set exactly one of steps, epochs and examples, the others to None."
        )
    ((name, value),) = given.items()
    examples = {"steps": value * global_batch, "epochs": value * records, "examples": value}[name]
    return max(1, math.ceil(examples / global_batch))


class Run(NamedTuple):
    """Everything a run is made of, before anything compiles."""

    mesh: jax.sharding.Mesh | jax.sharding.AbstractMesh
    data: Data
    spec: dict[str, jax.ShapeDtypeStruct]  # of a global batch
    steps: int
    model: dual.DualEncoder
    adapters: adapters.Adapters
    forward: Forward
    step: Any  # (state, batch, measure, active=) -> (state, metrics), pure
    phases: dict[int, tuple[str, ...]]  # labels of the active losses by the step from which they are
    init: Any  # () -> the first state, pure
    initial: Any  # () -> parameters by path that other checkpoints bring, read from their files
    boxed: Any  # abstract parameters with their logical axes
    abstract: TrainState  # shapes and shardings

    def active(self, step: int) -> tuple[str, ...]:
        """Labels of the losses of the update after `step` finished ones."""
        return self.phases[max(first for first in self.phases if first <= step)]


def prepare(config, data: Data, mesh: jax.sharding.Mesh | jax.sharding.AbstractMesh) -> Run:
    """Builds and checks all parts from a config, and traces them; compiles nothing, so a mesh without devices will do for a plan.

    Raises:
        ConfigError: any mistake in the config, naming its key.
    """
    _check(config, mesh)
    steps = total_steps(config.train, config.data.global_batch, data.records_per_epoch)
    found = entries(config.losses)
    in_turn = phases(found, steps)
    model = dual.build(config.model, data.vocab_size)
    spec = data.spec()
    shared = dict(freeze=adapters.frozen(config), kept=carries.make(config.train.carries))
    average = config.optimizer.ema_decay
    with _ambient(mesh):
        with _as_config_error("the model"):
            boxed = jax.eval_shape(lambda: model.init(jax.random.key(0), example(spec)))["params"]
        adapted = adapters.make(config.model, boxed)
        boxed |= adapted.boxed()
        split = dict(microbatches=config.train.microbatches or 1, shards=meshes.shards(mesh))
        cached_gradients.check_groups(spec, *split.values())
        together = config.data.global_batch // split["shards"] // split["microbatches"]
        beside = dict(momentum=momentum.make(config.model), mixing=mixing.make(config.model, model.towers, together))
        above = heads.make(config.model)
        readers = [entry.arrays for entry in found] + [part.inputs for part in (*above, *shared["kept"])]
        wanted = frozenset(name for reader in readers for name in reader.values())
        still = _still(config, paths.by_path(boxed))
        forward = Forward(model, adapted, seed=config.seed, steps=steps, wanted=wanted, still=still, **beside, **split)
        with _as_config_error("the model"):  # a tower may not have what somebody reads
            shapes = _array_shapes(forward, boxed, spec)
        forward = dataclasses.replace(forward, heads=above)
        if forward.heads:
            with _as_config_error("a head"):
                made = partial(heads_of, forward, jax.random.key(0), shapes)
                boxed |= {"heads": jax.eval_shape(made, nn.unbox(boxed))}
                shapes = _array_shapes(forward, boxed, spec)
        names = list(paths.by_path(boxed))
        paths.check_patterns(config.optimizer.freeze, names, "config.optimizer.freeze")
        tx = optimizer.make(config.optimizer, steps, names, shared["freeze"])
        rate = optimizer.schedule(config.optimizer, steps)
        update = make_step(forward, found, tx, rate, ema_decay=average, **shared)
        init = partial(start, forward, tx, example(spec), shapes, with_ema=average is not None, **shared)
        abstract = abstract_state(init, boxed, mesh, config.mesh, shared["kept"])
        # A loss without its arrays, or an option it refuses, fails here, not after a compile.
        stop = jax.ShapeDtypeStruct((config.data.global_batch,), np.uint8)
        with _as_config_error("a step"):
            for active in dict.fromkeys(in_turn.values()):
                measure = jax.ShapeDtypeStruct((), bool)
                jax.eval_shape(partial(update, active=active), abstract, spec | {"stop": stop}, measure)
    initial = partial(interop.initial, config, data.tokenizer) if any("init" in tower for tower in config.model.towers.values()) else dict
    return Run(mesh, data, spec, steps, model, adapted, forward, update, in_turn, init, initial, boxed, abstract)


def _still(config, names: Iterable[str]) -> frozenset[str]:
    """Labels of towers that `config.optimizer.freeze` leaves as they are up to what pools and projects their states."""
    under = {label: [name for name in names if re.match(rf"towers_{label}/(?!pool/|projection/)", name)] for label in config.model.towers}
    frozen = {label for label, found in under.items() if found and all(matches(name, config.optimizer.freeze) for name in found)}
    return frozenset(frozen - set(config.model.adapters if "adapters" in config.model else ()))


def _check(config, mesh) -> None:
    """Refuses what can be seen without building anything."""
    check_section(config, SECTIONS, "config")
    for section, keys in SECTION_KEYS.items():
        check_section(config[section], keys, f"config.{section}")
    meshes.check_batch(config.data.global_batch, mesh)
    meshes.check_rules(config.mesh.rules)
    meshes.check_tower_rules(config.mesh.tower_rules, config.model.towers)
    _check_kernels(config.losses, mesh)
    if config.train.accumulate_steps is not None:
        raise ConfigError(
            "config.train.accumulate_steps would average losses over parts of a batch, which have fewer negatives; "
            "set config.train.microbatches instead: the same memory, and the gradient of the whole batch."
        )
    if config.train.stall_seconds is not None and config.train.stall_seconds <= 0:
        raise ConfigError(f"config.train.stall_seconds is {config.train.stall_seconds}; set it to seconds above 0 (900.0), or to None.")
    cached_gradients.check(config.train.microbatches, config.data.global_batch, meshes.shards(mesh))


def _check_kernels(losses, mesh) -> None:
    """Refuses the kernel for GPUs elsewhere, where it would fail in the compiler; a plan's mesh has no devices yet."""
    kind = mesh.devices.flat[0].platform if isinstance(mesh, jax.sharding.Mesh) else "gpu"
    for path, value in paths.by_path(plain(losses)).items():
        if path.endswith("options/kernel") and value == "pallas" and kind != "gpu":
            raise ConfigError(
                f"config.losses.{path.replace('/', '.')} is 'pallas', a kernel for GPUs, but the devices are of kind {kind!r}; "
                "set it to 'xla', which every device runs, or on one device to 'interpret', which is slow."
            )


def _ambient(mesh):
    """The mesh of a trace, which needs no devices."""
    return jax.set_mesh(mesh) if isinstance(mesh, jax.sharding.Mesh) else jax.sharding.use_abstract_mesh(mesh)


@contextlib.contextmanager
def _as_config_error(what: str):
    """Towers and losses refuse values with ValueError; here nothing has run yet, so the config is what is wrong."""
    try:
        yield
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{what} cannot be built from this config: {error}") from error


def _array_shapes(forward: Forward, boxed, spec) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of the named arrays of a step, as far as no carry is among them, and of the batch."""

    def arrays(flat, batch, step):
        averages = {momentum.label: momentum.begin(flat) for momentum in forward.momentum}
        return dict(batch) | forward.towers(flat, batch, step) | forward.beside(flat, averages, batch, step)

    return jax.eval_shape(arrays, paths.by_path(nn.unbox(boxed)), dict(spec), jax.ShapeDtypeStruct((), np.int32))


def abstract_state(init, boxed, mesh, section, kept) -> TrainState:
    """Shapes of the state with shardings: optimizer and averages lie as their parameters do, carries as they say, the rest is replicated.

    Args:
        init: makes the first state.
        boxed: abstract parameters with their logical axes.
        mesh: with devices or without.
        section: `config.mesh`, for its rules.
        kept: carries.
    """
    shapes = jax.eval_shape(init)
    shardings = meshes.param_shardings(boxed, mesh, section.rules, section.tower_rules)
    flat_shardings = paths.by_path(shardings)
    flat_shapes = paths.by_path(shapes.params)

    def like_parameter(path, leaf):
        # Flat optimizer trees carry the parameter's path as the last dict key; a factored moment has another shape.
        names = [entry.key for entry in path if isinstance(entry, jax.tree_util.DictKey)]
        fits = names and names[-1] in flat_shapes and flat_shapes[names[-1]].shape == leaf.shape
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=flat_shardings[names[-1]] if fits else meshes.replicated(mesh))

    placed = lambda tree: jax.tree_util.tree_map_with_path(like_parameter, tree)
    params = jax.tree.map(lambda s, sharding: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding), shapes.params, shardings)
    rest = {name: placed(getattr(shapes, name)) for name in ("step", "opt_state", "ema", "momentum")}
    return TrainState(params=params, carry=carries.place(kept, shapes.carry, mesh), **rest)
