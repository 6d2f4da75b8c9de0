"""Writes the report page of a workdir and prints its results.

python -m launch.report --workdir=runs/glyphs
"""

import pathlib

from absl import flags

from launch import process

_WORKDIR = flags.DEFINE_string("workdir", None, "folder of a training run")


def main(_) -> None:
    process.start()
    from evals import report

    with process.exit_codes():
        workdir = pathlib.Path(_WORKDIR.value)
        report.write(workdir)
        print(report.summary(workdir))


if __name__ == "__main__":
    flags.mark_flags_as_required(["workdir"])
    process.run(main)
