"""Where a run's time goes, as metrics; and a trace of some steps."""

import logging
import pathlib
import time
from collections.abc import Mapping

import jax

from core.config import ConfigError
from training import flops
from training.run import Run

log = logging.getLogger(__name__)


class Clock:
    """Where the time of logged intervals goes: steps, waiting for input, saving."""

    def __init__(self, run: Run, global_batch: int, first_step: int):
        self._run, self._flops_of, self._flops = run, {}, 0
        self._batch, self._devices = global_batch, run.mesh.devices.ravel()
        self._step, self._start, self._wait, self._save = first_step, time.perf_counter(), 0.0, 0.0

    def waiting(self):
        """Context: time spent here is waiting for input."""
        return _Timer(self, "_wait")

    def saving(self):
        """Context: time spent here is saving, or waiting for the save before."""
        return _Timer(self, "_save")

    def finished(self, batch: Mapping[str, tuple[int, ...]]) -> None:
        """One more step is done, on arrays of these shapes: texts in buckets come in several widths."""
        shapes = tuple((name, batch[name]) for name in self._run.spec)
        if shapes not in self._flops_of:
            self._flops_of[shapes] = forward_flops(self._run, dict(shapes))
        self._flops += self._flops_of[shapes]

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
            "perf/matmul_gflops_per_second": 3 * self._flops / seconds / 1e9,
        }
        share = flops.mfu(self._flops, seconds, self._devices)
        self._step, self._start, self._wait, self._save, self._flops = step, time.perf_counter(), 0.0, 0.0, 0
        return metrics | ({} if share is None else {"perf/mfu": share})


class _Timer:
    def __init__(self, clock: Clock, field: str):
        self._clock, self._field = clock, field

    def __enter__(self):
        self._start = time.perf_counter()

    def __exit__(self, *_):
        setattr(self._clock, self._field, getattr(self._clock, self._field) + time.perf_counter() - self._start)


def forward_flops(run: Run, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Matmul FLOPs of the towers on a global batch of these shapes, forward only."""
    batch = {name: jax.ShapeDtypeStruct(shape, run.spec[name].dtype) for name, shape in shapes.items()}
    return flops.matmul_flops(lambda params, batch: run.model.apply({"params": params}, batch), run.abstract.params, batch)


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
            log.info("the trace of steps %d to %d is in the folder %s of the workdir", *self._steps, self._folder.name)
