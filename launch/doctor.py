"""Looks at a machine, a config and a workdir before a run does, and says on one page what is wrong and what to do.

    python -m launch.doctor [--config=configs/glyphs.py] [--workdir=runs/glyphs] [--json]

Start it as the run would be started: with `TANDEM_COORDINATOR` in several processes, the collective is across all of them. Nothing of a run
is touched: the first step is taken in a folder that is deleted. Codes: 0 a run would work, 3 a line says WRONG.
"""

import json
import logging
import sys

from absl import flags
from ml_collections import config_flags

from launch import checkup, peers, process

_CONFIG = config_flags.DEFINE_config_file("config", None, "path of a config, with its argument after a colon", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run, there or not yet")
_JSON = flags.DEFINE_bool("json", False, "print one JSON object")
_STEP = flags.DEFINE_bool("step", True, "with --config: build its data, compile a step and take two")


def main(_) -> None:
    import jax

    with peers.leaving(process.start(several=True)):
        logging.getLogger().setLevel(logging.ERROR)  # the page is the output
        first = jax.process_index() == 0  # one process looks at the disk
        lines = list(checkup.examine(_CONFIG.value, _WORKDIR.value if first else None, take_step=_STEP.value))
        if first:
            print(json.dumps([line._asdict() for line in lines]) if _JSON.value else checkup.page(lines, colour=sys.stdout.isatty()))
        sys.exit(process.CONFIG_ERROR if any(line.state == checkup.WRONG for line in lines) else process.DONE)


if __name__ == "__main__":
    process.run(main)
