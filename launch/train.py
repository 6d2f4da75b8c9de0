"""Trains a config into a workdir, or goes on where the workdir stopped.

    python -m launch.train --config=configs/glyphs.py --workdir=runs/glyphs [--config.train.steps=100]

Codes: 0 done, 3 mistake in the config, 4 loss not finite, 5 another process of the run was lost,
75 stopped on a signal after saving (run the same command to go on).
"""

import pathlib
import sys

from absl import flags
from ml_collections import config_flags

from launch import peers, process

_CONFIG = config_flags.DEFINE_config_file("config", None, "path of a config, with its argument after a colon", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run")
_CHANGE = flags.DEFINE_bool("allow_config_change", False, "go on in a workdir that another config made")


def main(_) -> None:
    import jax

    aborts = process.start()
    with peers.leaving(aborts), process.exit_codes():
        sys.exit(train(_CONFIG.value, pathlib.Path(_WORKDIR.value), allow_change=_CHANGE.value, first=jax.process_index() == 0))


def train(config, workdir: pathlib.Path, *, allow_change: bool, first: bool) -> int:
    """Checks everything, then trains; returns the exit code."""
    import contextlib

    import interop
    from core import environment, mesh
    from core import workdir as folder
    from evals import job
    from training import loop
    from training import run as runs
    from training.data import open_data

    job.check(config)
    config = interop.resolve(config)  # config.json states every option of a tower that starts from another library's weights
    devices = mesh.make(config.mesh.data, config.mesh.fsdp, config.mesh.tensor)
    mesh.check_batch(config.data.global_batch, devices)
    with folder.locked(workdir) if first else contextlib.nullcontext():
        folder.check_config(workdir, config, allow_change=allow_change)
        run = runs.prepare(config, open_data(config, workdir), devices)
        if first:  # only now: a config that was refused leaves no claim on the folder
            folder.claim_config(workdir, config, allow_change=allow_change)
        if loop.is_done(run, workdir):
            process.log.info("%s is done: %d steps", workdir, run.steps)
            if first:  # a run may have been killed between its last checkpoint and this line
                folder.write_json(workdir / "done.json", {"step": run.steps, "exit_code": process.DONE})
            return process.DONE
        if first:
            (workdir / "done.json").unlink(missing_ok=True)
            facts = environment.describe() | {"matmul_gflops": round(environment.matmul_gflops(), 1)}
            folder.write_json(workdir / "environment.json", facts)
            process.log.info("%s; a float32 matmul reaches %.0f GFLOP/s; %d steps", facts["devices"], facts["matmul_gflops"], run.steps)
        code, step = process.DONE, None
        try:
            outcome = loop.train(run, config, workdir, began=process.began())
            code, step = process.STOPPED if outcome.stopped else process.DONE, outcome.step
        except loop.BadLoss as error:
            process.log.error("%s", error)
            code = process.BAD_LOSS
        if first and code != process.STOPPED:  # a stopped run goes on: whoever follows it keeps waiting
            folder.write_json(workdir / "done.json", {"step": step, "exit_code": code})
        return code


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    process.run(main)
