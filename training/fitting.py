"""From a config and a folder to a trained run: every check, then the loop. What `launch.train` runs, and a cell of a notebook.

Leaves flags, exit codes and the set-up of processes to `launch/`, and `config.evals`, which no step reads, to `evals/`.
"""

import contextlib
import dataclasses
import logging
import pathlib
from collections.abc import Callable
from typing import Any

import jax

import interop
from core import environment, mesh, storage
from core import workdir as folder
from core.logbook import read_lines
from training import loop
from training import run as runs
from training.data import open_data

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A run that is done: its folder, its last step, and its logged steps as `metrics.jsonl` has them."""

    workdir: pathlib.Path
    step: int
    metrics: list[dict[str, Any]] = dataclasses.field(repr=False)


class Stopped(KeyboardInterrupt):
    """SIGINT (a cell that is interrupted) or SIGTERM ended training early; the last step is saved."""

    exit_code = folder.STOPPED


def fit(
    config, workdir, *, on_metrics: Callable[[dict[str, Any]], object] | None = None, allow_config_change: bool = False,
    began: float | None = None,
) -> Fitted:  # fmt: skip
    """Trains, or goes on where the folder stopped; one that is done is left as it is.

    Args:
        config: as a config file's `get_config` gives it.
        workdir: folder of the run.
        on_metrics: told of each logged step as a dict of `step` and numbers by name, to plot them live in place of the progress line;
            first of those that earlier starts have logged. If it fails, training goes on without it.
        allow_config_change: go on in a folder that another config made.
        began: when this process started, in seconds since the epoch, for the account of wall time; now by default.

    Raises:
        ConfigError: a mistake in the config, found before anything compiles; or the folder belongs to another config or process.
        BadLoss: a loss or parameter that is not finite; nothing was saved after the last good checkpoint.
        Stopped: a signal; all is saved, and the same call goes on.
    """
    workdir, first = storage.as_path(workdir), jax.process_index() == 0
    config = interop.resolve(config)  # config.json states every option of a tower that starts from another library's weights
    devices = mesh.make(config.mesh.data, config.mesh.fsdp, config.mesh.tensor)
    mesh.check_batch(config.data.global_batch, devices)
    with folder.locked(workdir) if first else contextlib.nullcontext():
        folder.check_config(workdir, config, allow_change=allow_config_change)
        run = runs.prepare(config, open_data(config, workdir), devices)
        if first:  # only now: a config that was refused leaves no claim on the folder
            folder.claim_config(workdir, config, allow_change=allow_config_change)
        if loop.is_done(run, workdir):
            log.info("%s is done: %d steps", workdir, run.steps)
        else:
            _train(run, config, workdir, on_metrics, began, first)
            on_metrics = None
        if first:  # a run may have been killed between its last checkpoint and this line
            folder.write_json(workdir / "done.json", {"step": run.steps, "exit_code": folder.DONE})
    metrics = read_lines(workdir / "metrics.jsonl")
    for row in metrics if on_metrics is not None else ():
        on_metrics(row)
    return Fitted(workdir, run.steps, metrics)


def _train(run: runs.Run, config, workdir: pathlib.Path, on_metrics, began: float | None, first: bool) -> None:
    if first:
        (workdir / "done.json").unlink(missing_ok=True)
        facts = environment.describe() | {"matmul_gflops": round(environment.matmul_gflops(), 1)}
        folder.write_json(workdir / "environment.json", facts)
        log.info("%s; a float32 matmul reaches %.0f GFLOP/s; %d steps", facts["devices"], facts["matmul_gflops"], run.steps)
    try:
        outcome = loop.train(run, config, workdir, began=began, on_metrics=on_metrics)
    except loop.BadLoss as error:
        if first:
            folder.write_json(workdir / "done.json", {"step": None, "exit_code": error.exit_code})
        raise
    if outcome.stopped:  # without done.json: whoever follows the run keeps waiting
        raise Stopped(f"{workdir} is stopped and saved after step {outcome.step} of {run.steps}; run the same again to go on.")
