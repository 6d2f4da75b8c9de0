"""Evaluates the checkpoints of a workdir, once each; beside training with --follow, or any time after. Or any models on a suite of tasks.

    python -m launch.evaluate --workdir=runs/glyphs [--follow] [--step=500] [--evals=unseen,script]
    python -m launch.evaluate --suite=configs/suites/local_text.py --model=minilm=downloads/all-MiniLM-L6-v2 --workdir=runs/code
    python -m launch.evaluate --compare=suites/a/stsb_en.json,suites/b/stsb_en.json

A model is a folder or file of another library. Results of a suite go to --output, where those of earlier models join the table.
"""

from absl import flags

from launch import overrides, process

_WORKDIR = flags.DEFINE_string("workdir", None, "folder of a training run")
_FOLLOW = flags.DEFINE_bool("follow", False, "wait for each new checkpoint until training is done")
_STEP = flags.DEFINE_integer("step", None, "only this checkpoint; with --suite the last by default")
_EVALS = flags.DEFINE_list("evals", [], "only these labels of config.evals, or of the suite's tasks")
_SUITE = flags.DEFINE_string("suite", None, "path.py:arg of a suite, for example configs/suites/local_text.py:path=data")
_MODEL = flags.DEFINE_list("model", [], "with --suite: folders or files of other libraries' models, each may be NAME=FOLDER")
_FORMAT = flags.DEFINE_string("format", None, "of --model: sentence_transformers, hf, open_clip, big_vision; by default what it looks like")
_OUTPUT = flags.DEFINE_string("output", None, "with --suite: folder of the results; by default suites/<name of the suite>")
_PRECISION = flags.DEFINE_enum("compute_dtype", "float32", ["float32", "bfloat16"], "with --suite: of the operands of matrix products")
_COMPARE = flags.DEFINE_list("compare", [], "two result files: say in which settings and scores they differ, and evaluate nothing")
_NICE = flags.DEFINE_integer("nice", 0, "lower the priority, where training shares the cores (19 is the lowest)")
_TIMEOUT = flags.DEFINE_float("timeout_seconds", 3600.0, "how long --follow waits for the next checkpoint")


def main(_) -> None:
    process.start(nice=_NICE.value)
    with process.exit_codes():
        if _COMPARE.value:
            compare()
        elif _SUITE.value:
            suite()
        else:
            checkpoints()


def checkpoints() -> None:
    """The evaluations of a run's own config."""
    from core.config import ConfigError
    from core.storage import as_path
    from evals import job

    if _WORKDIR.value is None or _MODEL.value:
        raise ConfigError("give --workdir, the folder of a training run; or --suite with --model or --workdir.")
    written = job.run(as_path(_WORKDIR.value), follow=_FOLLOW.value, step=_STEP.value, only=_EVALS.value, timeout_seconds=_TIMEOUT.value)
    process.log.info("%d results written", len(written))


def suite() -> None:
    """The models given, then the standing references, then the table of all that the folder holds."""
    import retrieval
    from core.storage import on_this_machine, resolved
    from evals import board, encoders, mteb_suite
    from evals import suite as suites

    config = overrides.load(_SUITE.value)
    suites.check(config)
    output = on_this_machine(_OUTPUT.value or f"suites/{config.name}", "--output")
    if "mteb" in config:
        tasks = mteb_suite.tasks(config.mteb)
        config = mteb_suite.described(config, tasks)
        evaluate = lambda name, encoder: mteb_suite.run(name, encoder, tasks, output, batch=config.mteb.batch)
    else:
        evaluate = lambda name, encoder: suites.run(config, name, encoders.of_model(encoder), output, _EVALS.value)
    for name, path in suites.named(_MODEL.value).items():
        evaluate(name, retrieval.load(path, dtype=_PRECISION.value, format=_FORMAT.value))
    if _WORKDIR.value:
        encoder = retrieval.load(_WORKDIR.value, _STEP.value, dtype=_PRECISION.value)
        evaluate(f"{resolved(_WORKDIR.value).name}@{encoder.step}", encoder)
    suites.references(config, output, _EVALS.value)
    print(board.write(config, output))


def compare() -> None:
    """What two result files say differently."""
    from core.config import ConfigError
    from evals import compare as comparing

    if len(_COMPARE.value) != 2:
        raise ConfigError(f"--compare takes two result files with a comma between them, not {len(_COMPARE.value)}.")
    print(comparing.of_files(*_COMPARE.value))


if __name__ == "__main__":
    process.run(main)
