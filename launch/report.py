"""Writes the report page of a workdir, or one that sets several runs and models side by side, and prints their results.

python -m launch.report --workdir=runs/glyphs
python -m launch.report --workdir=runs/a,runs/b,results/local_text --output=runs/a_and_b

Each folder is a workdir, or what a suite of evaluations wrote for its models.
"""

from absl import flags

from launch import process

_WORKDIR = flags.DEFINE_list("workdir", None, "folder of a training run or of a suite's results; several set side by side, with --output")
_OUTPUT = flags.DEFINE_string("output", None, "folder for the page about several; by default that of a single suite")


def main(_) -> None:
    process.start()
    from core.config import ConfigError
    from core.storage import as_path, on_this_machine
    from evals import report, run_files, side_by_side

    with process.exit_codes():
        folders, output = [as_path(folder) for folder in _WORKDIR.value], _OUTPUT.value
        output = None if output is None else on_this_machine(output, "--output")
        if len(folders) == 1 and output is None and not run_files.models_of(folders[0]):
            report.write(folders[0])
            print(report.summary(folders[0]))
            return
        if len(folders) > 1 and output is None:
            raise ConfigError(f"{len(folders)} folders need a page of their own; say where with --output=FOLDER.")
        side_by_side.write(folders, output or folders[0])
        print(side_by_side.summary(output or folders[0]))


if __name__ == "__main__":
    flags.mark_flags_as_required(["workdir"])
    process.run(main)
