"""Runs of Tandem's commands on Cloud TPU: which resource, which works on it, and evaluation next to training."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from ml_collections import ConfigDict

from launch import children, clusters, process
from launch.tpu import commands, pod, ship

DEFAULTS = commands.DEFAULTS
ROOT = pathlib.Path(__file__).resolve().parents[2]
SHARED = "cluster.shared_folders"
EVALS = ("job", "cpu", "after", "none")


def name_of(cluster: ConfigDict, words: Sequence[str]) -> str:
    """The resource of a command."""
    return clusters.name_of(cluster.name, words)


def plan_of(cluster: ConfigDict, words: Sequence[str], evaluation: str) -> pod.Plan:
    """What the resource of a training command does."""
    follow = [*clusters.EVALUATE, f"--workdir={clusters.workdir_of(words)}"]
    main = commands.trained(cluster, words, {})
    if evaluation == "cpu":  # the accelerator is the trainer's
        return pod.Plan(main, beside=commands.evaluated(cluster, [*follow, "--follow", "--nice=19"], {"JAX_PLATFORMS": "cpu"}))
    if evaluation == "after":
        return pod.Plan(main, after=commands.evaluated(cluster, follow, commands.ONE_CHIP))
    return pod.Plan(main)


def follower(cluster: ConfigDict, words: Sequence[str]) -> tuple[ConfigDict, str, pod.Plan]:
    """Cluster, resource and plan of an evaluation that has a resource of its own."""
    words = [*clusters.EVALUATE, f"--workdir={clusters.workdir_of(words)}", "--follow"]
    return commands.small(cluster), name_of(cluster, words), pod.Plan(commands.evaluated(cluster, words, {}))


def rehearsal(cluster: ConfigDict, words: Sequence[str], evaluation: str, commit: str, *, keep: bool) -> str:
    """All commands of a run, as a shell would take them."""
    lines = [
        "# training",
        *commands.rehearsal(cluster, name_of(cluster, words), plan_of(cluster, words, evaluation).works(), commit, keep=keep),
    ]
    if evaluation == "job":
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
    beside = None
    if evaluation == "job":
        own, name, plan = follower(cluster, words)
        one = pod.Pod(own, name, children.Stop(), lambda line: pod.to_stderr(f"[eval] {line}"))
        beside = clusters.Child(partial(one.run, plan, shipment, restarts=restarts, keep=keep), one.stop, one.say)
    code = None
    try:
        plan = plan_of(cluster, words, evaluation)
        code = pod.Pod(cluster, name_of(cluster, words), stop).run(plan, shipment, restarts=restarts, keep=keep)
    finally:
        if beside:
            if code != process.DONE:
                beside.terminate()  # its workdir will not get its last line now
            elif beside.poll() is None:
                process.log.info("waiting for the evaluation of the last checkpoints")
            _wait(beside, stop)
    return code


def _wait(beside: clusters.Child, stop: children.Stop) -> None:
    while beside.poll() is None:
        if stop.forced:
            beside.kill()
        elif stop.wanted:
            beside.terminate()
        beside.wait(0.1)
    if beside.returncode not in (process.DONE, process.STOPPED):
        process.log.error("evaluation ended with code %d", beside.returncode)


def starter(cluster: ConfigDict, root: pathlib.Path = ROOT) -> Callable:
    """What starts the processes of a sweep on resources of their own: `(words, variables, output) -> child`.

    Evaluations take the small resource, or this machine where variables say that they stay on the CPU.
    """

    def start(words: Sequence[str], variables: Mapping[str, str], output) -> clusters.Child:
        clusters.check_workdir(words, cluster.shared_folders, SHARED)
        shipment = pod.Shipment(root, ship.pack(root))
        alone = tuple(words[:3]) == clusters.EVALUATE
        where, kind = (commands.small(cluster), commands.evaluated) if alone else (cluster, commands.trained)
        one = pod.Pod(where, name_of(cluster, words), children.Stop(), lambda line: print(line, file=output, flush=True))
        run = partial(one.run, pod.Plan(kind(cluster, words, variables)), shipment, restarts=0, keep=False)
        return clusters.Child(run, one.stop, one.say)

    return start
