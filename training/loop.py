"""The training loop: data in, steps, log, checkpoints; stops cleanly on a signal or a bad loss, and resumes exactly."""

import dataclasses
import logging
import math
import pathlib
import signal
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from core import mesh as meshes
from core.checkpoint import Checkpoints, committed_steps, read_facts, restore
from core.config import ConfigError
from core.lines import Lines
from core.logbook import Logbook
from core.paths import by_path, from_paths
from core.processes import meet
from core.storage import spooled
from core.watchdog import Watchdog
from core.workdir import BAD_LOSS, write_json
from training import health
from training.clock import Clock, Profile
from training.data import HOST_ONLY
from training.goodput import Goodput
from training.programs import WAIT_SECONDS, Programs
from training.run import Run
from training.state import TrainState

GROWING = ("metrics.jsonl", "bad_records*.jsonl", "goodput.json", "wandb_id")  # what a start goes on with from the one before

log = logging.getLogger(__name__)


class BadLoss(FloatingPointError):
    """The loss or a parameter is not finite; the message names step, last good checkpoint and batch."""

    exit_code = BAD_LOSS


class Outcome(NamedTuple):
    """How a run ended: finished updates, and whether a signal stopped it before its last step."""

    step: int
    stopped: bool


class Signals:
    """Turns the first SIGINT or SIGTERM into a wish to stop; a second one ends the process at once. Python tells its main thread alone."""

    def __init__(self):
        self.wanted = False
        self._before = {}

    def __enter__(self):
        heard = threading.current_thread() is threading.main_thread()
        for number in (signal.SIGINT, signal.SIGTERM) if heard else ():
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
    measured: bool
    records: Mapping[str, np.ndarray]
    shapes: Mapping[str, tuple[int, ...]]


def train(
    run: Run, config, workdir: pathlib.Path, *, began: float | None = None, on_metrics: Callable[[dict], object] | None = None
) -> Outcome:
    """Runs or resumes training in `workdir` until the last step or a signal.

    The loss of a step is read after the next one is dispatched, so that the device never waits for the host; all processes
    read the same replicated numbers, so they agree on when to stop.

    Args:
        run: what to train.
        config: that made it.
        workdir: of the run.
        began: when this process started, in seconds since the epoch, for the account of wall time; now by default.
        on_metrics: of process 0, called with each logged step, first with those of earlier starts.

    Raises:
        BadLoss: a loss or parameter that is not finite; nothing was saved after the last good checkpoint.
    """
    alone = jax.process_count() == 1
    watchdog = Watchdog(config.train.stall_seconds, ends=not alone)
    with jax.set_mesh(run.mesh), Signals() as signals, watchdog, spooled(workdir, GROWING) as lines:
        meet("training begins", WAIT_SECONDS)
        checkpoints = Checkpoints(
            workdir / "checkpoints", keep_last=config.checkpoint.keep_last, keep_every_steps=config.checkpoint.keep_every_steps
        )
        began = time.time() if began is None else began
        current, position = resume(run, workdir)
        goodput = Goodput(lines, int(current.step), began=began, active=jax.process_index() == 0)
        book = Logbook(
            lines,
            total_steps=run.steps,
            first_step=int(current.step),
            active=jax.process_index() == 0,
            tensorboard=config.log.tensorboard,
            wandb=config.log.wandb,
            on_metrics=on_metrics,
        )
        # Each process notes the bad records of its rows in a file of its own.
        bad = Lines(lines / f"bad_records{'' if alone else f'.{jax.process_index()}'}.jsonl")
        batches = run.data.iterate(position, bad.add, run.mesh)
        profile = Profile(config.train.profile_steps, lines)
        agreed = alone
        try:
            outcome = _loop(run, config, workdir, current, batches, checkpoints, book, signals, watchdog, goodput, profile)
            with goodput.spent("checkpoint"):
                checkpoints.wait()
            agreed = True
            goodput.end(outcome.step, ended=True)
            return outcome
        except BadLoss:
            agreed = True  # every process reads the same loss
            raise
        finally:
            book.close()
            bad.flush()
            batches.close()
            if agreed:  # else the others may be gone, or wait elsewhere: closing would wait for them
                checkpoints.close()


def is_done(run: Run, workdir: pathlib.Path) -> bool:
    """Whether the last step is already committed."""
    return committed_steps(workdir / "checkpoints")[-1:] == [run.steps]


def resume(run: Run, workdir: pathlib.Path) -> tuple[TrainState, int]:
    """The state of the last committed checkpoint and its input position, or a new state and 0."""
    folder = workdir / "checkpoints"
    steps = committed_steps(folder)
    if not steps:
        return fresh(run), 0
    last = steps[-1]
    items = {name: restore(folder, last, name, like) if jax.tree.leaves(like) else like for name, like in run.abstract.items().items()}
    log.info("resuming %s from step %d", workdir, last)
    number = jax.device_put(jnp.asarray(last, jnp.int32), meshes.replicated(run.mesh))
    return TrainState.of(number, items), read_facts(folder, last, "data")["position"]


def fresh(run: Run) -> TrainState:
    """The first state: drawn from the seed, but for parameters that come from other checkpoints; averages start equal.

    Raises:
        ConfigError: another checkpoint brings a parameter that the model lacks, or of another shape.
    """
    state = jax.jit(run.init, out_shardings=jax.tree.map(lambda s: s.sharding, run.abstract))()
    params, like = by_path(state.params), by_path(run.abstract.params)
    for path, array in run.initial().items():
        if path not in like or like[path].shape != array.shape:
            found = like[path].shape if path in like else "absent"
            raise ConfigError(f"config.model.towers.*.init brings {path} of {array.shape}, which in this model is {found}.")
        params[path] = jax.make_array_from_callback(array.shape, like[path].sharding, array.astype(like[path].dtype).__getitem__)
    copies = lambda averages: {path: jnp.copy(params[path]) for path in averages}  # the next step donates both
    momentum = {label: copies(averages) for label, averages in state.momentum.items()}
    return dataclasses.replace(state, params=from_paths(params), ema=copies(state.ema), momentum=momentum)


def _loop(
    run: Run, config, workdir, current, batches, checkpoints: Checkpoints, book: Logbook, signals: Signals, watchdog: Watchdog,
    goodput: Goodput, profile: Profile,
) -> Outcome:  # fmt: skip
    every, save_every, global_batch = config.log.every_steps, config.checkpoint.every_steps, config.data.global_batch
    update = Programs(run, compiling=partial(goodput.spent, "compile"))
    all_finite = jax.jit(lambda tree: jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)])))
    done, pending, stop = int(current.step), None, False
    clock = Clock(run, global_batch, done)

    def settle(pending: Pending) -> bool:
        """Reads a dispatched step: logs it, refuses a bad loss, and tells whether some process wants to stop."""
        loss = float(pending.metrics["train/loss"])
        watchdog.beat()
        clock.finished(pending.shapes)
        if pending.step % every == 0 or pending.step == run.steps or not math.isfinite(loss):
            unmeasured = () if pending.measured else health.MEASURED  # a bad loss between two logged steps
            values = {name: float(value) for name, value in pending.metrics.items() if name not in ("stop", *unmeasured)}
            book.write(pending.step, values | clock.lap(pending.step) | {"perf/goodput": goodput.share()} | batches.metrics())
        book.progress(pending.step)
        if not math.isfinite(loss):
            raise _bad(f"the loss of step {pending.step} is {loss}", workdir, pending)
        return bool(pending.metrics["stop"])

    while done < run.steps and not stop:
        profile.before(done + 1)
        with clock.waiting(), goodput.spent("input_wait"):
            batch = next(batches)
        records = {name: batch[name] for name in ("source", "record")}
        rows = len(batch["record"])
        batch = {name: array for name, array in batch.items() if name not in HOST_ONLY}
        arrays = meshes.place_batch(batch | {"stop": np.full(rows, signals.wanted, np.uint8)}, run.mesh)
        measured = (done + 1) % every == 0 or done + 1 == run.steps
        current, metrics = update(current, arrays, np.bool_(measured), run.active(done))
        done += 1
        if pending is not None:
            stop = settle(pending)
        pending = Pending(done, metrics, measured, records, {name: array.shape for name, array in arrays.items()})
        if done % save_every == 0 or done == run.steps or stop:
            stop = settle(pending) or stop
            if not bool(all_finite(current.params)):
                raise _bad(f"a parameter is not finite after step {done}", workdir, pending)
            goodput.save(done)
            with clock.saving(), goodput.spent("checkpoint"):
                checkpoints.save(
                    done, current.items(), position=batches.position, meta={"examples": done * global_batch, "seed": config.seed}
                )
            pending = None
        profile.after(done)
    return Outcome(done, stopped=done < run.steps)


def _bad(what: str, workdir: pathlib.Path, pending: Pending) -> BadLoss:
    good = committed_steps(workdir / "checkpoints")
    ids = {name: array.tolist() for name, array in pending.records.items()}
    if jax.process_index() == 0:
        write_json(workdir / "bad_batch.json", {"step": pending.step, **ids})
    first = ", ".join(str(record) for record in ids["record"][:8])
    return BadLoss(
        f"{what}; last good checkpoint: {f'step {good[-1]}' if good else 'none'}; "
        f"the ids of the batch's records ({first}, ...) are in {workdir / 'bad_batch.json'}. "
        "Lower config.optimizer.learning_rate or set config.optimizer.clip_norm, and go on from there with --allow_config_change."
    )
