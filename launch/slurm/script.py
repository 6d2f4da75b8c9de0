"""The text of a batch script: what a cluster file asks for, then the words to run, then `body.sh`, which every job has."""

import pathlib
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ml_collections import ConfigDict

from core.config import ConfigError

# Fields of a cluster file with `platform="slurm"`, beside it; a type stands for a field that the file must give.
DEFAULTS = dict(
    time=str,  # as SLURM writes it: 90 (minutes), 8:00:00, 2-00:00:00
    nodes=1,
    tasks_per_node=1,  # processes; those of one node have its GPUs in equal parts
    gpus_per_node=0,
    gpu_type="",  # as the cluster names it, h100 for example
    cpus_per_task=1,
    memory="",  # of a node: 64G; "": what the cluster gives
    partition="",
    account="",
    qos="",
    lines=(),  # further options of sbatch: "--constraint=fast"
    setup=(),  # commands before the program: ". venv/bin/activate", "module load cuda"
    variables={},  # of every process
    python="",  # "": the interpreter of the launcher
    folder="",  # of the checkout, on a disk that the nodes share; "": where the launcher runs
    logs="",  # on such a disk too: scripts, logs and exit codes go to a folder in it for each run; "": to W/slurm
    port=0,  # of the coordinator; 0: 20000 + the job's number modulo 10000, so that jobs may share a node
    requeue=True,  # after a stop (preemption, the end of its time) the job comes back, and goes on from its last checkpoint
    signal_seconds=120,  # before the end of its time, to save
    restarts=3,  # within a job, after a crash
    poll_seconds=5.0,  # between looks at the queue, where a sweep waits for its jobs
    eval=dict(
        time="", gpus=0, cpus=4, memory="", partition="", lines=(), wait_seconds=86400.0, look_seconds=60.0
    ),  # its own job; "": as above
)
BODY = pathlib.Path(__file__).with_name("body.sh")
_LEAST = dict(nodes=1, tasks_per_node=1, gpus_per_node=0, cpus_per_task=1, signal_seconds=1, restarts=0, poll_seconds=0.1) | {
    "eval.gpus": 0, "eval.cpus": 1, "eval.wait_seconds": 1.0, "eval.look_seconds": 0.1,
}  # fmt: skip
_TIME = r"\d+(:\d+){0,2}|\d+-\d+(:\d+){0,2}"


class Work(NamedTuple):
    """A command and where its job keeps what it says."""

    kind: str  # train or evaluate
    words: Sequence[str]  # beginning with python
    folder: pathlib.Path  # of the script and the exit code
    output: str  # a file for what it says; %j is the job's number
    name: str  # of the job
    restarts: int = 0
    variables: Mapping[str, str] = {}
    follows: str = ""  # a job without which this one has nothing to do
    tasks: Sequence["Work"] = ()  # of an array job: words, folder and output of each
    parallel: int = 1  # of them at once


class Room(NamedTuple):
    """What one job asks for."""

    time: str
    nodes: int
    tasks: int
    gpus: int
    cpus: int
    memory: str
    partition: str
    lines: Sequence[str]


def room(cluster: ConfigDict, kind: str) -> Room:
    """What a trainer, or an evaluation, gets. Two jobs never share a GPU: each names how many are its own."""
    if kind == "train":
        lines = cluster.lines
        return Room(
            cluster.time, cluster.nodes, cluster.tasks_per_node, cluster.gpus_per_node, cluster.cpus_per_task, cluster.memory,
            cluster.partition, lines,
        )  # fmt: skip
    own = cluster.eval
    return Room(own.time or cluster.time, 1, 1, own.gpus, own.cpus, own.memory, own.partition or cluster.partition, own.lines)


def check(cluster: ConfigDict) -> None:
    """Refuses what `sbatch` would refuse later, or worse would not.

    Raises:
        ConfigError: names the field.
    """
    own = {f"eval.{name}": value for name, value in cluster.eval.items()}
    _check_numbers(cluster, dict(cluster.items()) | own)
    for key, value in (("time", cluster.time), ("eval.time", cluster.eval.time or cluster.time)):
        if not re.fullmatch(_TIME, value):
            raise ConfigError(f"cluster.{key} is {value!r}; write minutes, or 8:00:00, or 2-00:00:00 (days-hours:minutes:seconds).")
    for key, lines in (("lines", cluster.lines), ("eval.lines", cluster.eval.lines)):
        for line in lines:
            if not isinstance(line, str) or not re.fullmatch(r"-\S[^\n]*", line):
                raise ConfigError(f'cluster.{key} holds {line!r}, which is no option of sbatch; write it as "--constraint=fast".')
    for line in cluster.setup:
        if not isinstance(line, str):
            raise ConfigError(f'cluster.setup holds {line!r}; write commands such as ". venv/bin/activate".')
    for name, value in cluster.variables.items():
        if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise ConfigError(f"cluster.variables holds {name}={value!r}; a variable has a name of letters and digits, and a str.")


def _check_numbers(cluster: ConfigDict, fields: Mapping[str, object]) -> None:
    for key, least in _LEAST.items():
        if fields[key] < least:
            raise ConfigError(f"cluster.{key} is {fields[key]}; set it to {least} or more.")
    if cluster.gpus_per_node % cluster.tasks_per_node:
        raise ConfigError(
            f"cluster.tasks_per_node is {cluster.tasks_per_node}, which do not share {cluster.gpus_per_node} GPUs equally; set it to a "
            "divisor of cluster.gpus_per_node."
        )
    if cluster.port and not 1024 <= cluster.port <= 65535:
        raise ConfigError(f"cluster.port is {cluster.port}; set it to 1024 to 65535, or to 0 for one that follows from the job's number.")


def text(cluster: ConfigDict, work: Work) -> str:
    """The whole script."""
    asked = room(cluster, work.kind)
    settings = dict(
        follows=work.follows, look_seconds=cluster.eval.look_seconds, requeue=int(cluster.requeue), restarts=work.restarts, cpus=asked.cpus,
        gpus=asked.gpus, share=asked.gpus // asked.tasks,
    )  # fmt: skip
    return "\n".join(
        [
            "#!/bin/bash",
            *(f"#SBATCH {line}" for line in options(cluster, work, asked)),
            *(f"{name}={shlex.quote(str(value))}" for name, value in settings.items()),
            f"port={cluster.port or '$((20000 + SLURM_JOB_ID % 10000))'}",
            *place(work, cluster.python or sys.executable),
            *(f"export {name}={shlex.quote(value)}" for name, value in variables(cluster, work, asked).items()),
            'leave() { echo "$?" > "$folder/$job.code"; }',
            'rm -f "$folder/$job.code"',
            "trap leave EXIT",
            "set -e",
            *cluster.setup,
            "set +e",
            "",
            BODY.read_text(),
        ]
    )


def place(work: Work, python: str) -> list[str]:
    """What is a job's alone, or a task's: its number, folder and words. A task writes to its own file as soon as it knows which."""
    own = lambda one: [f"folder={shlex.quote(str(one.folder))}", f"words=({shlex.join([python, *one.words[1:]])})"]
    if not work.tasks:
        return ["job=$SLURM_JOB_ID", *own(work)]
    said = lambda one: f"exec >> {shlex.quote(one.output.replace('%%', '%'))} 2>&1"
    cases = [f"  {index}) {'; '.join([*own(one), said(one)])} ;;" for index, one in enumerate(work.tasks)]
    return ["job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID", "case $SLURM_ARRAY_TASK_ID in", *cases, "esac"]


def variables(cluster: ConfigDict, work: Work, asked: Room) -> dict[str, str]:
    """Beside those of whoever submits; `body.sh` refuses to go on without the GPUs that were asked for."""
    named = {"PYTHONUNBUFFERED": "1", "JAX_PLATFORMS": "cuda,cpu"} | dict(cluster.variables) | dict(work.variables)
    return named if asked.gpus else named | {"JAX_PLATFORMS": "cpu"}


def options(cluster: ConfigDict, work: Work, asked: Room) -> list[str]:
    """Of sbatch, as the script states them."""
    gpus = f"gpu:{cluster.gpu_type}:{asked.gpus}" if cluster.gpu_type else f"gpu:{asked.gpus}"
    found = {
        "job-name": work.name,
        "array": f"0-{len(work.tasks) - 1}%{work.parallel}" if work.tasks else "",
        "nodes": asked.nodes,
        "ntasks-per-node": asked.tasks,
        "cpus-per-task": asked.cpus,
        "gres": gpus if asked.gpus else "",
        "mem": asked.memory,
        "time": asked.time,
        "partition": asked.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "chdir": str(pathlib.Path(cluster.folder or ".").resolve()),
        "output": work.output,
        "open-mode": "append",
        "signal": f"B:TERM@{cluster.signal_seconds}",
    }
    wanted = [f"--{name}={_quoted(str(value))}" for name, value in found.items() if value != ""]
    return [*wanted, "--requeue" if cluster.requeue else "--no-requeue", *asked.lines]


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' if re.search(r"[\s'\"\\#]", value) else value
