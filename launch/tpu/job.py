"""Runs of Tandem's commands on Cloud TPU: which resource, which works on it, and evaluation next to training."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from ml_collections import ConfigDict

from launch import beside, children, clusters, process
from launch.tpu import commands, pod, ship

DEFAULTS = commands.DEFAULTS
ROOT = pathlib.Path(__file__).resolve().parents[2]
SHARED = "cluster.shared_folders"
EVALS = (beside.JOB, beside.CPU, beside.AFTER, beside.NONE)


def name_of(cluster: ConfigDict, words: Sequence[str]) -> str:
    """The resource of a command."""
    return clusters.name_of(cluster.name, words)


def plan_of(cluster: ConfigDict, words: Sequence[str], evaluation: str) -> pod.Plan:
    """What the resource of a training command does."""
    main = commands.trained(cluster, words, {})
    if evaluation not in (beside.CPU, beside.AFTER):
        return pod.Plan(main)
    evaluate = evaluating(words, evaluation)
    if evaluation == beside.CPU:  # the accelerator is the trainer's
        return pod.Plan(main, beside=commands.evaluated(cluster, evaluate, {"JAX_PLATFORMS": "cpu"}))
    return pod.Plan(main, after=commands.evaluated(cluster, evaluate, commands.ONE_CHIP))


def evaluating(words: Sequence[str], evaluation: str) -> list[str]:
    """The command that evaluates what a training command writes."""
    return ["python", "-m", *beside.words(beside.Place(evaluation), clusters.workdir_of(words))]


def follower(cluster: ConfigDict, words: Sequence[str]) -> tuple[ConfigDict, str, pod.Plan]:
    """Cluster, resource and plan of an evaluation that has a resource of its own."""
    words = evaluating(words, beside.JOB)
    return commands.small(cluster), name_of(cluster, words), pod.Plan(commands.evaluated(cluster, words, {}))


def rehearsal(cluster: ConfigDict, words: Sequence[str], evaluation: str, commit: str, *, keep: bool) -> str:
    """All commands of a run, as a shell would take them."""
    lines = [
        "# training",
        *commands.rehearsal(cluster, name_of(cluster, words), plan_of(cluster, words, evaluation).works(), commit, keep=keep),
    ]
    if evaluation == beside.JOB:
        own, name, plan = follower(cluster, words)
        lines += ["# evaluation, at the same time", *commands.rehearsal(own, name, plan.works(), commit, keep=keep)]
    return "\n".join(lines)


def run(
    cluster: ConfigDict, words: Sequence[str], evaluation: str, stop: children.Stop, shipment: pod.Shipment, restarts: int, keep: bool
) -> int:
    """Trains, with evaluation where `evaluation` says; the trainer's exit code.

    Args:
        cluster: checked fields of the cluster file.
        words: of the command, from `python` on.
        evaluation: one of `EVALS`.
        stop: the user's wish.
        shipment: the code.
        restarts: how often a command that crashed starts again.
        keep: leave the resources.
    """
    other = None
    if evaluation == beside.JOB:
        own, name, plan = follower(cluster, words)
        one = pod.Pod(own, name, children.Stop(), lambda line: pod.to_stderr(f"[eval] {line}"))
        other = clusters.Child(partial(one.run, plan, shipment, restarts=restarts, keep=keep), one.stop, one.say)
    code = None
    try:
        plan = plan_of(cluster, words, evaluation)
        code = pod.Pod(cluster, name_of(cluster, words), stop).run(plan, shipment, restarts=restarts, keep=keep)
    finally:
        if other:
            if code != process.DONE:
                other.terminate()  # its workdir will not get its last line now
            elif other.poll() is None:
                process.log.info("waiting for the evaluation of the last checkpoints")
            _wait(other, stop)
    if other and code == process.DONE and other.returncode not in (process.DONE, process.STOPPED):
        process.log.error("training is done, but evaluation ended with code %d; launch.evaluate goes on with it", other.returncode)
    return code


def _wait(other: clusters.Child, stop: children.Stop) -> None:
    while other.poll() is None:
        if stop.forced:
            other.kill()
        elif stop.wanted:
            other.terminate()
        other.wait(0.1)


def starter(cluster: ConfigDict, root: pathlib.Path = ROOT) -> Callable:
    """What starts the processes of a sweep, each on a resource of its own: `(words, variables, output) -> child`."""

    def start(words: Sequence[str], variables: Mapping[str, str], output) -> clusters.Child:
        clusters.check_workdir(words, cluster.shared_folders, SHARED)
        shipment = pod.Shipment(root, ship.pack(root))
        alone = tuple(words[:3]) == clusters.EVALUATE
        where, kind = (commands.small(cluster), commands.evaluated) if alone else (cluster, commands.trained)
        one = pod.Pod(where, name_of(cluster, words), children.Stop(), lambda line: print(line, file=output, flush=True))
        run = partial(one.run, pod.Plan(kind(cluster, words, variables)), shipment, restarts=0, keep=False)
        return clusters.Child(run, one.stop, one.say)

    return start
