"""Trains as a job of SLURM, and evaluates in a second one: writes batch scripts, submits them and prints their numbers.

    python -m launch.slurm --cluster=configs/clusters/slurm.py --config=configs/glyphs.py --workdir=runs/glyphs [--eval=after] [--dry_run]

The workdir and the checkout lie on a disk that the nodes share. Scripts, logs and exit codes are in `W/slurm/`. Run it again after an
end: the run goes on from its last checkpoint. Codes: 0 submitted, 3 mistake.
"""

import sys

from absl import flags
from ml_collections import config_flags

from launch import children, clusters, process
from launch.slurm import job, run, script

_CLUSTER = flags.DEFINE_string("cluster", None, "path of a cluster file, with its argument after a colon")
_CONFIG = config_flags.DEFINE_config_file("config", None, "path of a config, with its argument after a colon", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run, on a disk that the nodes share")
_CHANGE = flags.DEFINE_bool("allow_config_change", False, "go on in a workdir that another config made")
_EVAL = flags.DEFINE_enum("eval", "job", list(run.EVALS), "evaluation: a job beside training, a job after it, or none")
_DRY = flags.DEFINE_bool("dry_run", False, "print the scripts, and submit nothing")

OWN = ("cluster", "eval", "dry_run", "nodry_run")


def main(_) -> None:
    process.log_to_stderr()
    with process.exit_codes():
        cluster = clusters.load(_CLUSTER.value, "slurm", job.DEFAULTS)
        script.check(cluster)
        words = ["python", "-m", "launch.train", *children.without(sys.argv[1:], OWN)]
        plan = run.Plan(cluster, words, _WORKDIR.value, _EVAL.value)
        print(run.rehearsal(plan) if _DRY.value else run.submit(plan))


if __name__ == "__main__":
    flags.mark_flags_as_required(["cluster", "config", "workdir"])
    process.run(main)
