"""Where numbers go: JSON lines, other back-ends, and one live progress line. Written by process 0 only."""

import contextlib
import json
import logging
import math
import pathlib
import secrets
import sys
import time
from collections.abc import Callable, Mapping

import tqdm

from core.config import ConfigError
from core.events import Events
from core.lines import Lines
from core.storage import as_path

log = logging.getLogger(__name__)


def read_lines(path: pathlib.Path) -> list[dict]:
    """Logged steps in order; where a step repeats (after a resume) the last counts; a torn last line is left out."""
    rows = {}
    path = as_path(path)
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue  # the writer was killed inside this line
            rows[row["step"]] = row
    return [rows[step] for step in sorted(rows)]


def _finite(metrics: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


class Logbook:
    """One JSON object per logged step in `metrics.jsonl`, the same numbers for whoever else is to have them, and a progress line.

    No outage ends a run: lines that cannot be written wait for the next one, and another back-end that fails is left out from then on.
    An inactive logbook (any process but the first) takes the same calls and writes nothing.
    """

    def __init__(
        self, workdir: pathlib.Path, *, total_steps: int, first_step: int = 0, active: bool = True, tensorboard: bool = True,
        wandb: str | None = None, on_metrics: Callable[[dict], object] | None = None,
    ):  # fmt: skip
        """Opens everything.

        Args:
            workdir: of the run.
            total_steps: for the progress line.
            first_step: finished updates of the state that the run goes on from.
            active: whether to write at all.
            tensorboard: also write events.
            wandb: also log to this project at Weights & Biases.
            on_metrics: also call this with each logged step, first with those that lead to `first_step`; there is no progress line then.

        Raises:
            ConfigError: `wandb` is set, but the package is not installed.
        """
        self.active = active
        if not active:
            return
        workdir.mkdir(parents=True, exist_ok=True)
        self._lines, self._backends = Lines(workdir / "metrics.jsonl"), {}
        if tensorboard:
            self._open("TensorBoard", lambda: Events(workdir / "tensorboard" / "train", first_step=first_step + 1))
        if wandb is not None:
            self._open("Weights & Biases", lambda: WeightsAndBiases(workdir, wandb))
        if on_metrics is not None:
            self._open("on_metrics", lambda: Told(workdir / "metrics.jsonl", on_metrics, first_step))
        self._bar = tqdm.tqdm(
            total=total_steps, initial=first_step, unit="step", mininterval=1.0 if sys.stderr.isatty() else 15.0, dynamic_ncols=True,
            disable=on_metrics is not None,
            bar_format="{desc}{percentage:3.0f}%|{bar:20}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}]{postfix}",
        )  # fmt: skip

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Logs one step. A value that is not finite is written as null: JSON has no NaN."""
        if not self.active:
            return
        self._lines.add({"step": step, "time": round(time.time(), 3), **_finite(metrics)})
        for name in list(self._backends):
            with self._survived(name):
                self._backends[name].write(step, metrics)
        self._bar.set_postfix_str(f"loss {metrics['train/loss']:.3f}, {metrics['perf/examples_per_second']:,.0f} examples/s", refresh=False)

    def progress(self, step: int) -> None:
        """Moves the progress line to `step` finished steps."""
        if self.active:
            self._bar.update(step - self._bar.n)

    def close(self) -> None:
        """Flushes everything."""
        if self.active:
            self._bar.close()
            self._lines.flush()
            for name in list(self._backends):
                with self._survived(name):
                    self._backends[name].close()

    def _open(self, name: str, make) -> None:
        with self._survived(name):
            self._backends[name] = make()

    @contextlib.contextmanager
    def _survived(self, name: str):
        try:
            yield
        except ConfigError:
            raise
        except Exception as error:  # training does not end because a plot cannot be drawn
            log.warning("%s stops here: %s", name, error)
            self._backends.pop(name, None)


class Told:
    """A function that is called with each step, a plot in a notebook for example."""

    def __init__(self, path: pathlib.Path, tell: Callable[[dict], object], first_step: int):
        self._tell = tell
        for row in read_lines(path):
            if row["step"] <= first_step:
                tell(row)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        self._tell({"step": step, **_finite(metrics)})

    def close(self) -> None:
        pass


class WeightsAndBiases:
    """A run at Weights & Biases, gone on with where the workdir is; `WANDB_MODE=offline` keeps it in the workdir."""

    def __init__(self, workdir: pathlib.Path, project: str):
        try:
            import wandb
        except ImportError as error:
            raise ConfigError("config.log.wandb needs a package that is not here: pip install wandb, or set it to None.") from error
        path = workdir / "wandb_id"
        if not path.exists():
            path.write_text(secrets.token_hex(4))
        name, run = workdir.resolve().name, path.read_text().strip()
        self._run = wandb.init(project=project, name=name, id=run, resume="allow", dir=str(workdir))

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        self._run.finish()
