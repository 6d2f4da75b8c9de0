"""The training loop: data in, steps, log, checkpoints; stops cleanly on a signal or a bad loss, and resumes exactly."""

import json
import logging
import math
import pathlib
import signal
import time
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from core import mesh as meshes
from core import paths
from core.checkpoint import Checkpoints, committed_steps, read_facts, restore
from core.config import ConfigError, check_keys
from core.logbook import Logbook
from core.workdir import write_json
from losses.entries import entries
from models import dual
from training import flops, optimizer
from training.data import HOST_ONLY, Data, example
from training.state import TrainState
from training.step import make_step, start

log = logging.getLogger(__name__)

SECTION_KEYS = {
    "train": ("steps", "epochs", "examples", "profile_steps"),
    "checkpoint": ("every_steps", "keep_last", "keep_every_steps", "best"),
    "mesh": ("data", "fsdp", "tensor", "rules"),
    "log": ("every_steps", "tensorboard"),
}


class BadLoss(FloatingPointError):
    """The loss or a parameter is not finite; the message names step, last good checkpoint and batch."""


class Outcome(NamedTuple):
    """How a run ended: finished updates, and whether a signal stopped it before its last step."""

    step: int
    stopped: bool


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

    mesh: jax.sharding.Mesh
    data: Data
    spec: dict[str, jax.ShapeDtypeStruct]  # of a global batch
    steps: int
    model: dual.DualEncoder
    step: Any  # (state, batch, measure) -> (state, metrics), pure
    init: Any  # () -> the first state, pure
    abstract: TrainState  # shapes and shardings


def prepare(config, data: Data, mesh: jax.sharding.Mesh) -> Run:
    """Builds and checks all parts from a config, and traces them; compiles nothing.

    Raises:
        ConfigError: any mistake in the config, naming its key.
    """
    for section, keys in SECTION_KEYS.items():
        check_keys(config[section], keys, f"config.{section}")
    meshes.check_batch(config.data.global_batch, mesh)
    meshes.check_rules(config.mesh.rules)
    steps = total_steps(config.train, config.data.global_batch, data.records_per_epoch)
    found = entries(config.losses)
    model = dual.build(config.model, data.vocab_size)
    spec = data.spec()
    freeze, ema_decay = tuple(config.optimizer.freeze), config.optimizer.ema_decay
    with jax.set_mesh(mesh):
        boxed = jax.eval_shape(lambda: model.init(jax.random.key(0), example(spec)))["params"]
        paths.check_patterns(freeze, list(paths.by_path(nn.unbox(boxed))), "config.optimizer.freeze")
        tx = optimizer.make(config.optimizer, steps)
        rate = optimizer.schedule(config.optimizer, steps)
        update = make_step(model, found, tx, rate, seed=config.seed, freeze=freeze, ema_decay=ema_decay)
        init = partial(start, model, tx, example(spec), seed=config.seed, freeze=freeze, with_ema=ema_decay is not None)
        abstract = _abstract(init, boxed, mesh, config.mesh.rules)
        # A loss without its arrays fails here, not after a compile.
        stop = jax.ShapeDtypeStruct((config.data.global_batch,), np.uint8)
        jax.eval_shape(update, abstract, spec | {"stop": stop}, jax.ShapeDtypeStruct((), bool))
    return Run(mesh, data, spec, steps, model, update, init, abstract)


def _abstract(init, boxed, mesh, rules) -> TrainState:
    """Shapes of the state with shardings: optimizer and averages lie as their parameters do, anything else is replicated."""
    shapes = jax.eval_shape(init)
    shardings = meshes.param_shardings(boxed, mesh, rules)
    flat_shardings = paths.by_path(shardings)
    flat_shapes = paths.by_path(shapes.params)

    def like_parameter(path, leaf):
        # Flat optimizer trees carry the parameter's path as the last dict key; a factored moment has another shape.
        names = [entry.key for entry in path if isinstance(entry, jax.tree_util.DictKey)]
        fits = names and names[-1] in flat_shapes and flat_shapes[names[-1]].shape == leaf.shape
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=flat_shardings[names[-1]] if fits else meshes.replicated(mesh))

    placed = lambda tree: jax.tree_util.tree_map_with_path(like_parameter, tree)
    params = jax.tree.map(lambda s, sharding: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding), shapes.params, shardings)
    return TrainState(placed(shapes.step), params, placed(shapes.opt_state), placed(shapes.ema))


class Signals:
    """Turns the first SIGINT or SIGTERM into a wish to stop; a second one ends the process at once."""

    def __init__(self):
        self.wanted = False
        self._before = {}

    def __enter__(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number, _frame):
        self.wanted = True
        log.warning("%s: finishing this step, then saving; once more ends at once", signal.Signals(number).name)
        signal.signal(number, self._before[number])


class Pending(NamedTuple):
    """A dispatched step whose metrics nobody has read yet."""

    step: int
    metrics: Mapping[str, jax.Array]
    records: Mapping[str, np.ndarray]


def train(run: Run, config, workdir: pathlib.Path) -> Outcome:
    """Runs or resumes training in `workdir` until the last step or a signal.

    The loss of a step is read after the next one is dispatched, so that the device never waits for the host; all processes
    read the same replicated numbers, so they agree on when to stop.

    Raises:
        BadLoss: a loss or parameter that is not finite; nothing was saved after the last good checkpoint.
    """
    with jax.set_mesh(run.mesh), Signals() as signals:
        checkpoints = Checkpoints(
            workdir / "checkpoints", keep_last=config.checkpoint.keep_last, keep_every_steps=config.checkpoint.keep_every_steps
        )
        current, position = resume(run, workdir)
        book = Logbook(
            workdir,
            total_steps=run.steps,
            first_step=int(current.step),
            active=jax.process_index() == 0,
            tensorboard=config.log.tensorboard,
        )
        batches = run.data.iterate(position, partial(_note_bad, workdir))
        try:
            outcome = _loop(run, config, workdir, current, batches, checkpoints, book, signals)
            checkpoints.wait()
            return outcome
        finally:
            book.close()
            batches.close()
            checkpoints.close()


def is_done(run: Run, workdir: pathlib.Path) -> bool:
    """Whether the last step is already committed."""
    return committed_steps(workdir / "checkpoints")[-1:] == [run.steps]


def resume(run: Run, workdir: pathlib.Path) -> tuple[TrainState, int]:
    """The state of the last committed checkpoint and its input position, or a new state and 0."""
    folder = workdir / "checkpoints"
    steps = committed_steps(folder)
    if not steps:
        shardings = jax.tree.map(lambda s: s.sharding, run.abstract)
        return jax.jit(run.init, out_shardings=shardings)(), 0
    last = steps[-1]
    items = {name: restore(folder, last, name, like) if jax.tree.leaves(like) else like for name, like in run.abstract.items().items()}
    log.info("resuming %s from step %d", workdir, last)
    number = jax.device_put(jnp.asarray(last, jnp.int32), meshes.replicated(run.mesh))
    return TrainState(number, items["params"], items["opt"], items["ema"]), read_facts(folder, last, "data")["position"]


def _loop(run: Run, config, workdir, current, batches, checkpoints: Checkpoints, book: Logbook, signals: Signals) -> Outcome:
    every, save_every, global_batch = config.log.every_steps, config.checkpoint.every_steps, config.data.global_batch
    shardings = jax.tree.map(lambda s: s.sharding, run.abstract)
    update = jax.jit(run.step, donate_argnums=0, out_shardings=(shardings, meshes.replicated(run.mesh)))
    all_finite = jax.jit(lambda tree: jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)])))
    done, pending, stop = int(current.step), None, False
    clock = Clock(run, global_batch, done)
    profile = Profile(config.train.profile_steps, workdir)

    def settle(pending: Pending) -> bool:
        """Reads a dispatched step: logs it, refuses a bad loss, and tells whether some process wants to stop."""
        loss = float(pending.metrics["train/loss"])
        if pending.step % every == 0 or pending.step == run.steps or not math.isfinite(loss):
            values = {name: float(value) for name, value in pending.metrics.items() if name != "stop"}
            book.write(pending.step, values | clock.lap(pending.step))
        book.progress(pending.step)
        if not math.isfinite(loss):
            raise _bad(f"the loss of step {pending.step} is {loss}", workdir, pending)
        return bool(pending.metrics["stop"])

    while done < run.steps and not stop:
        profile.before(done + 1)
        with clock.waiting():
            batch = next(batches)
        records = {name: batch[name] for name in ("source", "record")}
        rows = len(batch["record"])
        batch = {name: array for name, array in batch.items() if name not in HOST_ONLY}
        arrays = meshes.place_batch(batch | {"stop": np.full(rows, signals.wanted, np.uint8)}, run.mesh)
        current, metrics = update(current, arrays, np.bool_((done + 1) % every == 0 or done + 1 == run.steps))
        done += 1
        if pending is not None:
            stop = settle(pending)
        pending = Pending(done, metrics, records)
        if done % save_every == 0 or done == run.steps or stop:
            stop = settle(pending) or stop
            if not bool(all_finite(current.params)):
                raise _bad(f"a parameter is not finite after step {done}", workdir, pending)
            with clock.saving():
                checkpoints.save(
                    done, current.items(), position=batches.position, meta={"examples": done * global_batch, "seed": config.seed}
                )
            pending = None
        profile.after(done)
    return Outcome(done, stopped=done < run.steps)


def _note_bad(workdir: pathlib.Path, entry: dict) -> None:
    """One line for a record that was passed over; each process notes those of its rows in a file of its own."""
    suffix = "" if jax.process_count() == 1 else f".{jax.process_index()}"
    with open(workdir / f"bad_records{suffix}.jsonl", "a") as file:
        file.write(json.dumps(entry) + "\n")


def _bad(what: str, workdir: pathlib.Path, pending: Pending) -> BadLoss:
    good = committed_steps(workdir / "checkpoints")
    ids = {name: array.tolist() for name, array in pending.records.items()}
    if jax.process_index() == 0:
        write_json(workdir / "bad_batch.json", {"step": pending.step, **ids})
    first = ", ".join(str(i) for i in next(iter(ids.values()), [])[:8])
    return BadLoss(
        f"{what}; last good checkpoint: {f'step {good[-1]}' if good else 'none'}; the batch's ids ({first}, ...) are in {workdir / 'bad_batch.json'}. "
        "Lower config.optimizer.learning_rate or set config.optimizer.clip_norm, then run the same command to go on from there."
    )


class Clock:
    """Where the time of logged intervals goes: steps, waiting for input, saving."""

    def __init__(self, run: Run, global_batch: int, first_step: int):
        self._forward_flops = forward_flops(run)
        self._batch, self._devices = global_batch, run.mesh.devices.ravel()
        self._step, self._start, self._wait, self._save = first_step, time.perf_counter(), 0.0, 0.0

    def waiting(self):
        """Context: time spent here is waiting for input."""
        return _Timer(self, "_wait")

    def saving(self):
        """Context: time spent here is saving, or waiting for the save before."""
        return _Timer(self, "_save")

    def lap(self, step: int) -> dict[str, float]:
        """Metrics of the interval since the last lap."""
        seconds, steps = max(time.perf_counter() - self._start, 1e-9), max(step - self._step, 1)
        rate = steps * self._batch / seconds
        metrics = {
            "perf/examples_per_second": rate,
            "perf/examples_per_second_per_device": rate / len(self._devices),
            "perf/step_seconds": seconds / steps,
            "perf/input_wait_share": self._wait / seconds,
            "perf/save_share": self._save / seconds,
            "perf/matmul_gflops_per_second": 3 * self._forward_flops * steps / seconds / 1e9,
        }
        share = flops.mfu(self._forward_flops, seconds / steps, self._devices)
        self._step, self._start, self._wait, self._save = step, time.perf_counter(), 0.0, 0.0
        return metrics | ({} if share is None else {"perf/mfu": share})


class _Timer:
    def __init__(self, clock: Clock, field: str):
        self._clock, self._field = clock, field

    def __enter__(self):
        self._start = time.perf_counter()

    def __exit__(self, *_):
        setattr(self._clock, self._field, getattr(self._clock, self._field) + time.perf_counter() - self._start)


def forward_flops(run: Run) -> int:
    """Matmul FLOPs of the towers on one global batch, forward only."""
    return flops.matmul_flops(lambda params, batch: run.model.apply({"params": params}, batch), run.abstract.params, run.spec)


class Profile:
    """Writes a trace of the steps in `config.train.profile_steps = (first, last)` to `W/profile`; None writes none."""

    def __init__(self, steps, workdir: pathlib.Path):
        if steps is not None and (len(steps) != 2 or steps[0] > steps[1]):
            raise ConfigError(f"config.train.profile_steps is {tuple(steps)}; set it to (first, last), or None.")
        self._steps, self._folder = steps, workdir / "profile"

    def before(self, step: int) -> None:
        if self._steps is not None and step == self._steps[0]:
            jax.profiler.start_trace(str(self._folder))

    def after(self, step: int) -> None:
        if self._steps is not None and step == self._steps[1]:
            jax.profiler.stop_trace()
            log.info("trace of steps %d to %d is in %s", *self._steps, self._folder)
