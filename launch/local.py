"""Trains in processes on this machine with the evaluation beside them, and starts them again from the last checkpoint after a crash.

    python -m launch.local --config=configs/glyphs.py --workdir=runs/two [--processes=2] [--eval=cpu] [--config.train.steps=100]

Each process runs `launch.train` with the same words; what it says comes with its index before it. Ctrl-C or SIGTERM is passed on
once: all save and leave with 75. Codes are those of `launch.train`; where restarts do not help, 5 for a process that was killed, else
the code of the one that crashed. An evaluation that crashed leaves training alone, and its code is the launcher's where training is done.
"""

import os
import sys

from absl import flags
from ml_collections import config_flags

from launch import accelerators, beside, children, process, supervisor

_PROCESSES = flags.DEFINE_integer("processes", 1, "how many processes train", 1)
_EVAL = flags.DEFINE_string("eval", "cpu", "where checkpoints are evaluated: cpu or devices:IDS beside training, after it, or none")
_RESTARTS = flags.DEFINE_integer("restarts", 3, "how often all are started again after a crash", 0)
_PORT = flags.DEFINE_integer("port", 0, "of the coordinator; 0 takes one that is free", 0, 65535)
_CONFIG = config_flags.DEFINE_config_file("config", None, "path of a config, with its argument after a colon", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run")
_CHANGE = flags.DEFINE_bool("allow_config_change", False, "go on in a workdir that another config made")

OWN = ("processes", "eval", "restarts", "port")  # flags that the trainer does not know
KINDS = (beside.CPU, beside.DEVICES, beside.AFTER, beside.NONE)
CURE = "A second job is what launch.slurm, launch.tpu and launch.gke can start."


def main(_) -> None:
    from core.storage import as_path
    from core.workdir import locked

    process.log_to_stderr("[launcher] ")
    with process.exit_codes():
        place = beside.parse(_EVAL.value, KINDS, CURE)
        gpus, variables = beside.split(place, accelerators.gpus())
        keeper, readers = None, []
        if place.kind != beside.NONE and _CONFIG.value.evals:
            keeper = beside.Keeper(lambda: _evaluate(place, variables, readers), _RESTARTS.value)
        command = [sys.executable, "-m", "launch.train", *children.without(sys.argv[1:], OWN)]
        with locked(as_path(_WORKDIR.value), "supervised", name="launcher.lock"):
            code = supervisor.supervise(
                command, _PROCESSES.value, restarts=_RESTARTS.value, port=_PORT.value,
                variables=accelerators.shares(_PROCESSES.value, "--processes", gpus, accelerators.tpu_chips()),
                evaluation=keeper, follows=place.kind != beside.AFTER,
            )  # fmt: skip
        for reader in readers:
            reader.join(5)
    sys.exit(code)


def _evaluate(place: beside.Place, variables, readers):
    command = [sys.executable, "-m", *beside.words(place, _WORKDIR.value)]
    child = children.start(command, os.environ | {process.COORDINATOR: process.ALONE, "PYTHONUNBUFFERED": "1"} | variables)
    readers.append(supervisor.heard(child, "[eval] "))
    return child


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    process.run(main)
