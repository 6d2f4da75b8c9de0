"""Trains a config into a workdir, or goes on where the workdir stopped.

    python -m launch.train --config=configs/glyphs.py --workdir=runs/glyphs [--config.train.steps=100]

Codes: 0 done, 3 mistake in the config, 4 loss not finite, 5 another process of the run was lost,
75 stopped on a signal after saving (run the same command to go on).
"""

import sys

from absl import flags
from ml_collections import config_flags

from launch import peers, process

_CONFIG = config_flags.DEFINE_config_file("config", None, "path of a config, with its argument after a colon", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run")
_CHANGE = flags.DEFINE_bool("allow_config_change", False, "go on in a workdir that another config made")


def main(_) -> None:
    aborts = process.start(several=True)
    with peers.leaving(aborts), process.exit_codes():
        train(_CONFIG.value, _WORKDIR.value, allow_change=_CHANGE.value)
        sys.exit(process.DONE)  # several processes leave together by it


def train(config, workdir: str, *, allow_change: bool) -> None:
    """Checks everything, then trains."""
    from evals import job
    from training import fit

    job.check(config)  # before hours are spent on a model that could not be evaluated
    fit(config, workdir, allow_config_change=allow_change, began=process.began())


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    process.run(main)
