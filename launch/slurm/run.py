"""A run as one or two jobs: training, and its evaluation beside or after it."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from ml_collections import ConfigDict

from core import storage
from core.config import ConfigError
from launch import beside
from launch.slurm import job, queue, script

# What the evaluation waits for: training's start, or its last end.
EVALS = {beside.JOB: "after", beside.AFTER: "afterany", beside.NONE: None}


class Plan(NamedTuple):
    """What is to be submitted."""

    cluster: ConfigDict
    words: Sequence[str]  # of the trainer
    workdir: str
    evaluation: str  # of EVALS


def folder(plan: Plan) -> pathlib.Path:
    """Where scripts, logs and codes lie.

    Raises:
        ConfigError: the workdir is on an object store, to which SLURM writes no logs.
    """
    if plan.cluster.logs:
        return pathlib.Path(plan.cluster.logs).resolve() / job.name_of(plan.workdir)
    if storage.is_remote(plan.workdir):
        raise ConfigError(f"--workdir={plan.workdir} takes no logs of SLURM; set cluster.logs to a folder on a disk that the nodes share.")
    return pathlib.Path(plan.workdir).resolve() / "slurm"


def training(plan: Plan) -> script.Work:
    return _work(plan, "train", plan.words)


def evaluation(plan: Plan, trainer: str) -> script.Work:
    """The evaluation of what a job trains; one that follows ends if training ends without closing its run."""
    words = ["python", "-m", "launch.evaluate", f"--workdir={plan.workdir}"]
    if plan.evaluation == beside.AFTER:
        return _work(plan, "evaluate", words)
    words += ["--follow", f"--timeout_seconds={plan.cluster.eval.wait_seconds}"]
    return _work(plan, "evaluate", words)._replace(follows=trainer)


def _work(plan: Plan, kind: str, words: Sequence[str]) -> script.Work:
    name, logs = f"{job.name_of(pathlib.Path(plan.workdir).name)}-{kind}", folder(plan)
    return script.Work(kind, words, logs, f"{job.escaped(logs)}/{kind}-%j.log", name, plan.cluster.restarts)


def rehearsal(plan: Plan) -> str:
    """The scripts, and how they would be submitted."""
    parts = [f"# {folder(plan)}/train.sbatch", script.text(plan.cluster, training(plan))]
    if EVALS[plan.evaluation]:
        parts += [f"# {folder(plan)}/evaluate.sbatch, with --dependency={EVALS[plan.evaluation]}:TRAINING"]
        parts += [script.text(plan.cluster, evaluation(plan, "TRAINING"))]
    return "\n".join(parts)


def submit(plan: Plan) -> str:
    """Submits the jobs; a line for each.

    Raises:
        ConfigError: SLURM refuses, or an earlier job of this folder has not ended.
    """
    trained = training(plan)
    with job.joining(trained) as earlier:
        _refuse(earlier, plan.workdir)
        trainer = job.submit(plan.cluster, trained)
        lines = [_line(trainer, "trains", trained)]
        if relation := EVALS[plan.evaluation]:
            evaluated = evaluation(plan, trainer)
            with job.joining(evaluated) as before:
                if before is not None and queue.Queue(0.0).holds(before["job"]):  # it follows what has ended
                    queue.cancel(before["job"])
                number = job.submit(plan.cluster, evaluated, [f"--dependency={relation}:{trainer}"])
            lines.append(_line(number, "evaluates", evaluated))
    return "\n".join(lines)


def _refuse(earlier: dict | None, workdir: str) -> None:
    if earlier is not None and queue.Queue(0.0).holds(earlier["job"]):
        number = earlier["job"]
        raise ConfigError(f"{workdir} is being trained by job {number}; choose another --workdir, or end it: scancel {number}")


def _line(number: str, does: str, work: script.Work) -> str:
    return f"{number} {does} {work.output.replace('%j', number).replace('%%', '%')}"
