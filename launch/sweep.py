"""Runs a config many times with other values, and says on a page which were best.

    python -m launch.sweep --config=configs/glyphs.py --sweep=configs/sweeps/glyphs_lr_loss.py --workdir=runs/sweep [--parallel=2]
        [--backend=slurm --cluster=configs/clusters/slurm.py]

Overrides such as `--config.train.steps=100` hold for every trial. Trials are normal workdirs in `trials/`; the state lies in
`sweep.db`, so the same command goes on after a kill, each trial from its last checkpoint. The page is `sweep.html`.
Codes: 0 done, 3 mistake, 75 stopped on a signal after saving.
"""

import sys

from absl import flags
from ml_collections import config_flags

from core import storage
from launch import children, overrides, process
from launch.sweeps import backends, schedule, space, trial

_CONFIG = config_flags.DEFINE_config_file("config", None, "path of a config, with its argument after a colon", lock_config=True)
_SWEEP = flags.DEFINE_string("sweep", None, "path of a sweep file, with its argument after a colon")
_WORKDIR = flags.DEFINE_string("workdir", None, "folder of the sweep, on this machine")
_BACKEND = flags.DEFINE_string("backend", "local", "where trials run: local, slurm, tpu or gke")
_CLUSTER = flags.DEFINE_string("cluster", None, "path of a cluster file, for a backend that is not this machine")
_TRIALS = flags.DEFINE_string("trials", None, "folder of the trials' workdirs, gs:// for machines that share no disk; W/trials by default")
_PARALLEL = flags.DEFINE_integer("parallel", 1, "trials at once", 1)
_RESTARTS = flags.DEFINE_integer("restarts", 2, "how often a trial that crashed goes on from its last checkpoint", 0)
_DRY = flags.DEFINE_bool("dry_run", False, "print the commands, and start nothing")

OWN = ("sweep", "workdir", "backend", "cluster", "trials", "parallel", "restarts", "dry_run", "nodry_run")


def main(_) -> None:
    process.log_to_stderr()
    with process.exit_codes():
        backend = backends.find(_BACKEND.value, _CLUSTER.value)
        config = flags.FLAGS["config"].config_filename
        fixed = [word for word in children.without(sys.argv[1:], (*OWN, "config")) if word.startswith("-")]
        sweep = overrides.load(_SWEEP.value, "--sweep")
        space.check(sweep, config, fixed)
        name, pruner = space.pruner_of(sweep)
        folder = storage.on_this_machine(_WORKDIR.value, "--workdir")
        trials = storage.as_path(_TRIALS.value) if _TRIALS.value else folder / "trials"
        if _CLUSTER.value:  # whose jobs may start elsewhere
            folder, trials = folder.resolve(), storage.resolved(trials)
        plan = trial.Plan(sweep, config, fixed, folder, trials, name != "none", _RESTARTS.value, backend)
        search = space.search_of(sweep)
        listed = None if search.listed is None else search.listed(sweep)
        if _DRY.value:
            print(schedule.rehearsal(plan, search, listed, _PARALLEL.value))
            return
        code = schedule.run(plan, search, listed, pruner, _PARALLEL.value)
    sys.exit(code)


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "sweep", "workdir"])
    process.run(main)
