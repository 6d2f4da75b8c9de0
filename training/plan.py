"""What a step will take of each device: bytes by kind, FLOPs, bytes sent. From shapes alone; nothing is compiled or run.

The formulas stand in docs/scaling.md with the same symbols, and tests hold them to the compiler at small sizes.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.extend
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType

from core import mesh as meshes
from core.config import options_of
from core.paths import by_path, matches, tower_of
from losses.blockwise import GROUP
from losses.entries import Entry, entries
from models import adapters
from models.dual import DualEncoder
from training import flops
from training import run as runs
from training.data import example
from training.forward import example_keys

# Published memory per device, bytes. TPUs: cloud.google.com/tpu/docs, the pages of v5e, v5p and v6e; GPUs: NVIDIA's data sheets (SXM).
MEMORY = {"v5e": 16e9, "v5p": 95e9, "v6e": 32e9, "a100": 80e9, "h100": 80e9, "h200": 141e9}
FLOAT = 4  # bytes of the float32 in which embeddings, logits and their sums are kept


class Plan(NamedTuple):
    """Of one step. `memory` and `sent` are bytes of one device; FLOPs are of matmuls, over all devices."""

    parameters: dict[str, int]  # by tower, and the rest
    memory: dict[str, int]
    tower_flops: int  # forward x 3, as MFU counts them
    loss_flops: int
    sent: dict[str, int]

    @property
    def bytes(self) -> int:
        """Of one device, in all."""
        return sum(self.memory.values())


def mesh_of(data: int, fsdp: int = 1, tensor: int = 1) -> AbstractMesh:
    """A mesh without devices: any size, good for shardings and shapes."""
    return AbstractMesh((data, fsdp, tensor), meshes.AXES, axis_types=(AxisType.Auto,) * 3)


def shard_bytes(tree) -> int:
    """Bytes of one device's share of abstract arrays; those without a sharding are whole."""
    return sum(math.prod(_share(leaf)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _share(leaf) -> tuple[int, ...]:
    return leaf.sharding.shard_shape(leaf.shape) if leaf.sharding is not None else leaf.shape


def place(boxed, mesh, rules, tower_rules=MappingProxyType({})) -> dict[str, jax.ShapeDtypeStruct]:
    """Abstract parameters by path, as they lie on a mesh."""
    shapes, shardings = by_path(nn.unbox(boxed)), by_path(meshes.param_shardings(boxed, mesh, rules, tower_rules))
    return {path: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=shardings[path]) for path, s in shapes.items()}


def boxed_params(model: DualEncoder, spec: Mapping[str, jax.ShapeDtypeStruct]):
    """Abstract parameters with their logical axes."""
    return jax.eval_shape(lambda: model.init(jax.random.key(0), example(spec)))["params"]


class Activations(NamedTuple):
    """What the forward pass keeps for the backward pass: `by_row` bytes for each row, `fixed` bytes whatever the batch."""

    by_row: int
    fixed: int


def activations(model: DualEncoder, params, spec: Mapping[str, Any]) -> Activations:
    """Counts what autodiff keeps of the towers beyond their inputs, from the traced program of two batches.

    About what XLA allots: it merges some of this, and the backward pass needs some room. A rematerialised tower adds one block's inside.
    """
    whole = _kept(model, params, spec)
    towers = {label: tower for label, tower in model.towers.items() if getattr(tower, "remat", False)}
    inside = [(_kept(_without_remat(model, label), params, spec).by_row - whole.by_row) // tower.layers for label, tower in towers.items()]
    return whole._replace(by_row=whole.by_row + max(inside, default=0))


def _without_remat(model: DualEncoder, label: str) -> DualEncoder:
    towers = dict(model.towers) | {label: model.towers[label].clone(remat=False, parent=None)}
    return model.clone(towers=towers, parent=None)


def _kept(model: DualEncoder, params, spec) -> Activations:
    def count(rows: int) -> int:
        batch = {name: jax.ShapeDtypeStruct((rows, *s.shape[1:]), s.dtype) for name, s in spec.items()}

        def residuals(params, batch):
            keys = example_keys(0, jnp.zeros((), jnp.int32), model.views, rows)
            return jax.tree.leaves(jax.vjp(lambda p: model.apply({"params": p}, batch, keys), params)[1])

        traced = jax.make_jaxpr(residuals)(params, batch).jaxpr
        made = {v for equation in traced.eqns for v in equation.outvars}
        kept = {v for v in traced.outvars if not isinstance(v, jax.extend.core.Literal) and v in made}
        return sum(v.aval.size * v.aval.dtype.itemsize for v in kept)

    two, three = count(2), count(3)  # a batch of one would lose axes
    return Activations(three - two, two - 2 * (three - two))


def loss_memory(method: str, rows: int, batch: int, d: int, block_size: int, shards: int) -> dict[str, int]:
    """Bytes of embeddings with their cotangents, and of logits, on one device.

    dense: every device gathers the passages, and holds its rows of the logits and of two arrays like them. gather: the same
    without the logits. ring: two visitors with their gradients. Tiles: logits, their exponentials and a cotangent of one block, and
    the queries of a group of blocks transposed.
    """
    own, everyone = rows * d * FLOAT, batch * d * FLOAT
    exchanged = 0 if shards == 1 else {"dense": 2 * everyone, "gather": 2 * everyone, "ring": 4 * own}[method]
    tile = lambda n: -(-n // -(-n // block_size))
    if method == "dense":
        return {"embeddings": 4 * own + exchanged, "logits": 3 * rows * batch * FLOAT}
    transposed = min(GROUP * tile(rows), rows) * d * FLOAT
    logits = tile(rows) * tile(batch if method == "gather" else rows)
    return {"embeddings": 4 * own + exchanged + transposed, "logits": 3 * logits * FLOAT}


def loss_sent(method: str, batch: int, d: int, shards: int) -> int:
    """Bytes of embeddings and their gradients that one device sends; vectors with a number per row are left out.

    gather: passages out, gradients back. dense: the compiler brings gradients back by an all-reduce, twice as much.
    ring: passages make n - 1 hops forward and backward, their gradients n + 1: the first of zeros, the last home.
    """
    rows, everyone = batch // shards * d * FLOAT, batch * d * FLOAT
    if shards == 1:
        return 0
    if method == "ring":
        return (3 * shards - 1) * rows
    return {"gather": 2, "dense": 3}[method] * (everyone - rows)


def loss_flops(method: str, batch: int, d: int) -> int:
    """Of one pair of views: dense has one product forward and two backward; tiles compute their logits again."""
    return {"dense": 6, "gather": 8, "ring": 8}[method] * batch * batch * d


def gradients_sent(params: Mapping[str, jax.ShapeDtypeStruct], mesh) -> int:
    """Bytes of gradients that one device sends: reduced once over the batch axes, each device of `fsdp` keeping its share."""
    data, fsdp = mesh.shape["data"], mesh.shape["fsdp"]
    total = 0
    for leaf in params.values():
        own = math.prod(_share(leaf)) * leaf.dtype.itemsize
        if _splits(leaf, "fsdp"):
            total += own * (fsdp - 1) + 2 * own * (data - 1) // data  # reduce-scatter, then all-reduce of the share
        else:
            total += 2 * own * (data * fsdp - 1) // (data * fsdp)
    return total


def parameters_sent(params: Mapping[str, jax.ShapeDtypeStruct], mesh, passes: int = 2) -> int:
    """Bytes of parameters that one device sends under `fsdp`: its share to all others, forward and again backward."""
    others = mesh.shape["fsdp"] - 1
    return passes * others * sum(math.prod(_share(p)) * p.dtype.itemsize for p in params.values() if _splits(p, "fsdp"))


def _splits(leaf, axis: str) -> bool:
    return axis in jax.tree.leaves(tuple(leaf.sharding.spec))


def tensor_sent(model: DualEncoder, spec, rows: int, tensor: int) -> int:
    """Bytes of hidden states that one device sends under `tensor`: two all-reduces a block, forward and backward."""
    total = 0
    for view, label in model.views.items() if tensor > 1 else ():
        tower = model.towers[label]
        if hasattr(tower, "heads") and tower.heads % tensor == 0:
            shape = spec[view].shape
            tokens = tower.patches(shape) if hasattr(tower, "patches") else math.prod(shape[1:])
            total += 4 * tower.layers * rows * tokens * tower.width * jnp.dtype(tower.dtype).itemsize
    return 2 * total * (tensor - 1) // tensor


def make(
    model: DualEncoder, found: list[Entry], spec: Mapping[str, jax.ShapeDtypeStruct], mesh, rules, tower_rules=MappingProxyType({}),
    *, freeze=(), through=(), optimizer_bytes: int | None = None, ema: bool = False, microbatches: int = 1, known=None,
    kept: Mapping[str, int] = MappingProxyType({}),
) -> Plan:  # fmt: skip
    """The plan of a step.

    Args:
        model: the dual encoder.
        found: bound losses; each costs its own exchange.
        spec: shapes of a global batch.
        mesh: of any size, without devices.
        rules: as in `config.mesh.rules`.
        tower_rules: as in `config.mesh.tower_rules`.
        freeze: path patterns of parameters without gradient.
        through: paths of frozen matrices whose gradient is needed all the same: a gradient reaches an adapter through its matrix.
        optimizer_bytes: of one device; None: two moments of each trainable parameter.
        ema: whether an average is kept.
        microbatches: parts in which the towers see the batch.
        known: what `survey` found of this model, to plan several meshes or batches with one trace.
        kept: bytes of one device by kind that the state holds beside all this.
    """
    boxed, backward, flops_by_row = known or survey(model, spec)
    params = place(boxed, mesh, rules, tower_rules)
    trainable = {path: leaf for path, leaf in params.items() if not matches(path, freeze)}
    reduced = {path: leaf for path, leaf in params.items() if path in through or (path in trainable and not path.startswith("adapters/"))}
    batch, shards = next(iter(spec.values())).shape[0], meshes.shards(mesh)
    rows, d, learned = batch // shards, next(iter(model.towers.values())).output_dim, shard_bytes(trainable)
    memory = {
        "parameters": shard_bytes(params),
        "gradients": shard_bytes(reduced),
        "optimizer": 2 * learned if optimizer_bytes is None else optimizer_bytes,
        "averages": learned if ema else 0,
        "batch": shard_bytes(dict(spec)) // shards,
        "activations": backward.by_row * rows // microbatches + backward.fixed,
        **kept,
    }
    sent = {
        "gradients": gradients_sent(reduced, mesh),
        "parameters": parameters_sent(params, mesh),
        "embeddings": 0,
        "hidden states": tensor_sent(model, spec, rows, mesh.shape["tensor"]),
    }
    of_losses = 0
    for entry in found:
        # A loss without the choice is dense.
        options = {"method": "dense", "block_size": 1024} | options_of(entry.call.func) | entry.call.keywords
        method = options["method"]
        for kind, size in loss_memory(method, rows, batch, d, options["block_size"], shards).items():
            memory[kind] = max(memory.get(kind, 0), size)  # one loss after the other
        sent["embeddings"] += loss_sent(method, batch, d, shards)
        of_losses += loss_flops(method, batch, d)
    return Plan(count(params), memory, 3 * flops_by_row * batch, of_losses, sent)


def of_run(run: runs.Run, config) -> Plan:
    """The plan of a run, prepared on its mesh with devices or without; where losses take turns, of the phase that needs most memory."""
    spec = run.spec | {"stop": jax.ShapeDtypeStruct((config.data.global_batch,), jnp.uint8)}
    state = {"momentum towers": run.abstract.momentum, "carries": run.abstract.carry}
    found, known = entries(config.losses), (run.boxed, *survey(run.model, spec)[1:])
    of_phase = lambda labels: make(
        run.model, [entry for entry in found if entry.label in labels], spec, run.mesh, config.mesh.rules, config.mesh.tower_rules,
        freeze=adapters.frozen(config),
        through=run.adapters.targets, optimizer_bytes=shard_bytes(run.abstract.opt_state), ema=config.optimizer.ema_decay is not None,
        microbatches=config.train.microbatches or 1, known=known,
        kept={kind: shard_bytes(tree) for kind, tree in state.items() if jax.tree.leaves(tree)},
    )  # fmt: skip
    return max((of_phase(labels) for labels in dict.fromkeys(run.phases.values())), key=lambda plan: plan.bytes)


def survey(model: DualEncoder, spec) -> tuple[Any, Activations, int]:
    """Abstract parameters, what the forward pass keeps, and its matmul FLOPs for one row: all that needs a trace."""
    boxed = boxed_params(model, spec)
    params = nn.unbox(boxed)
    views = {name: s for name, s in spec.items() if model.reads(name)}
    one = {name: jax.ShapeDtypeStruct((1, *s.shape[1:]), s.dtype) for name, s in views.items()}
    forward = flops.matmul_flops(lambda p, batch: model.apply({"params": p}, batch), params, one)
    return boxed, activations(model, params, views), forward


def count(params: Mapping[str, Any]) -> dict[str, int]:
    """Parameters of each tower with its adapters, of heads, and of the rest."""
    found: dict[str, int] = {}
    for path, leaf in params.items():
        name = tower_of(path) or ("heads" if path.startswith("heads/") else "scale and bias")
        found[name] = found.get(name, 0) + math.prod(leaf.shape)
    return found


def refusal(plan: Plan, memory: float, device: str) -> str | None:
    """Why the plan cannot fit a device of so many bytes, or None."""
    if plan.bytes <= memory:
        return None
    kind = max(plan.memory, key=plan.memory.get)
    cures = {
        "activations": "raise config.train.microbatches, or set remat in the towers' options",
        "logits": "set config.losses.<label>.options.method to 'ring'",
        "embeddings": "set config.losses.<label>.options.method to 'ring'",
        "batch": "lower config.data.global_batch, or take more devices",
    }
    cure = cures.get(kind, "raise config.mesh.fsdp or config.mesh.tensor")
    return (
        f"a step needs {plan.bytes / 1e9:.1f} GB of each device, but {device} has {memory / 1e9:.0f} GB; "
        f"{kind} take most, {plan.memory[kind] / 1e9:.1f} GB: {cure}."
    )
