"""Trains in several processes on this machine, and starts all of them again from the last checkpoint when one crashes.

    python -m launch.local --processes=2 --config=configs/glyphs.py --workdir=runs/two [--config.train.steps=100] [--restarts=3]

Each process runs `launch.train` with the same words; what it says comes with its index before it. Ctrl-C or SIGTERM is passed on
once: all save and leave with 75. Codes are those of `launch.train`; where restarts do not help, 5 for a process that was killed, else
the code of the one that crashed.
"""

import pathlib
import sys

from absl import flags
from ml_collections import config_flags

from launch import children, process, supervisor

_PROCESSES = flags.DEFINE_integer("processes", None, "how many processes", 1)
_RESTARTS = flags.DEFINE_integer("restarts", 3, "how often all are started again after a crash", 0)
_PORT = flags.DEFINE_integer("port", 0, "of the coordinator; 0 takes one that is free", 0, 65535)
_CONFIG = config_flags.DEFINE_config_file("config", None, "path of a config, with its argument after a colon", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run")
_CHANGE = flags.DEFINE_bool("allow_config_change", False, "go on in a workdir that another config made")

OWN = ("processes", "restarts", "port")  # flags that the trainer does not know


def main(_) -> None:
    from core.workdir import locked

    process.log_to_stderr("[launcher] ")
    with process.exit_codes(), locked(pathlib.Path(_WORKDIR.value), "supervised", name="launcher.lock"):
        command = [sys.executable, "-m", "launch.train", *children.without(sys.argv[1:], OWN)]
        code = supervisor.supervise(command, _PROCESSES.value, restarts=_RESTARTS.value, port=_PORT.value)
    sys.exit(code)


if __name__ == "__main__":
    flags.mark_flags_as_required(["processes", "config", "workdir"])
    process.run(main)
