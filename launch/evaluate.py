"""Evaluates the checkpoints of a workdir, once each; beside training with --follow, or any time after.

python -m launch.evaluate --workdir=runs/glyphs [--follow] [--step=500] [--evals=unseen,script]
"""

import pathlib

from absl import flags

from launch import process

_WORKDIR = flags.DEFINE_string("workdir", None, "folder of a training run")
_FOLLOW = flags.DEFINE_bool("follow", False, "wait for each new checkpoint until training is done")
_STEP = flags.DEFINE_integer("step", None, "only this checkpoint")
_EVALS = flags.DEFINE_list("evals", [], "only these labels of config.evals")
_NICE = flags.DEFINE_integer("nice", 0, "lower the priority, where training shares the cores (19 is the lowest)")
_TIMEOUT = flags.DEFINE_float("timeout_seconds", 3600.0, "how long --follow waits for the next checkpoint")


def main(_) -> None:
    process.start(nice=_NICE.value)
    from evals import job

    with process.exit_codes():
        written = job.run(
            pathlib.Path(_WORKDIR.value), follow=_FOLLOW.value, step=_STEP.value, only=_EVALS.value, timeout_seconds=_TIMEOUT.value
        )
    process.log.info("%d results written", len(written))


if __name__ == "__main__":
    flags.mark_flags_as_required(["workdir"])
    process.run(main)
