"""Writes the report page of a workdir, or one that compares several runs, and prints their results.

python -m launch.report --workdir=runs/glyphs
python -m launch.report --workdir=runs/a,runs/b,suites/local_text --output=runs/a_and_b

A folder of several is a workdir, or what a suite of evaluations wrote for some models.
"""

import pathlib

from absl import flags

from launch import process

_WORKDIR = flags.DEFINE_list("workdir", None, "folder of a training run; or several of runs and of suites' results, with --output")
_OUTPUT = flags.DEFINE_string("output", None, "folder for the page that compares several runs")


def main(_) -> None:
    process.start()
    from evals import report, side_by_side

    with process.exit_codes():
        if len(_WORKDIR.value) == 1 and _OUTPUT.value is None:
            workdir = pathlib.Path(_WORKDIR.value[0])
            report.write(workdir)
            print(report.summary(workdir))
            return
        if _OUTPUT.value is None:
            raise ValueError(f"{len(_WORKDIR.value)} folders are compared on a page of their own; say where, --output=FOLDER.")
        side_by_side.write(_WORKDIR.value, _OUTPUT.value)
        print(side_by_side.summary(_OUTPUT.value))


if __name__ == "__main__":
    flags.mark_flags_as_required(["workdir"])
    process.run(main)
