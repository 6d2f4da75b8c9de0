"""The words of each `gcloud` command that a run on Cloud TPU needs; nothing here starts anything."""

import shlex
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ml_collections import ConfigDict

from launch import joining

# Fields of a cluster file with `platform="tpu"`, beside it; a type stands for a field that the file must give.
DEFAULTS = dict(
    project=str,
    zone=str,
    accelerator_type=str,  # v5litepod-16, v4-32, ...
    runtime_version=str,  # v2-alpha-tpuv5-lite, tpu-ubuntu2204-base, ...
    spot=False,  # may be taken away at any time; the run then goes on with a new resource
    reserved=False,
    network="",
    subnetwork="",
    internal_ips=False,  # workers have no address outside of the network; then launch from a machine inside
    service_account="",
    tags=(),
    labels={},
    name="tandem",  # what the names of all resources begin with
    variables={},  # of every process on the workers, JAX_COMPILATION_CACHE_DIR="gs://..." for example
    setup="command -v uv > /dev/null || python3 -m pip install --quiet --user uv",  # on each worker, before the packages
    shared_folders=(),  # mounted on the workers under the same path; a workdir lies there, or at gs://
    wait_seconds=14400.0,  # for a resource to become active
    poll_seconds=20.0,  # between looks at its state
    connect_attempts=3,  # in a row, each of which gcloud tries for a minute
    losses=50,  # resources that may be taken away or break before the run gives up
    eval=dict(accelerator_type="", runtime_version="", spot=False),  # a resource of its own for --eval=job; "": as for training
)

# One chip of a worker that holds several, so that one process alone can open it.
ONE_CHIP = dict(TPU_VISIBLE_CHIPS="0", TPU_CHIPS_PER_PROCESS_BOUNDS="1,1,1", TPU_PROCESS_BOUNDS="1,1,1")
ARCHIVE = "tandem-{code}.tar.gz"
DRY = "CODE"  # stands for its name where nothing is shipped


class Work(NamedTuple):
    """A command on the workers of a resource."""

    label: str  # its folder there
    words: Sequence[str]  # beginning with python
    variables: Mapping[str, str] = {}
    worker: str = "all"


def trained(cluster: ConfigDict, words: Sequence[str], variables: Mapping[str, str]) -> Work:
    """A command that all workers run together."""
    return Work("train", words, {joining.COORDINATOR: joining.AUTO} | dict(cluster.variables) | dict(variables))


def evaluated(cluster: ConfigDict, words: Sequence[str], variables: Mapping[str, str]) -> Work:
    """A command that worker 0 runs alone."""
    return Work("eval", words, {joining.COORDINATOR: joining.ALONE} | dict(cluster.variables) | dict(variables), "0")


def small(cluster: ConfigDict) -> ConfigDict:
    """The cluster with the resource that evaluation takes for itself."""
    own = {name: value for name, value in cluster.eval.items() if value != ""}
    return ConfigDict(cluster.to_dict() | own).lock()


def create(cluster: ConfigDict, name: str) -> list[str]:
    """Asks for a resource; it becomes active later."""
    words = [
        "--node-id=" + name,
        *_flags(cluster, "accelerator_type", "runtime_version"),
        f"--valid-until-duration={cluster.wait_seconds:.0f}s",
    ]
    words += _flags(cluster, "network", "subnetwork", "service_account")
    words += [f"--{flag.replace('_', '-')}" for flag in ("spot", "reserved", "internal_ips") if cluster[flag]]
    if cluster.tags:
        words.append("--tags=" + ",".join(cluster.tags))
    if cluster.labels:
        words.append("--labels=" + ",".join(f"{key}={value}" for key, value in sorted(cluster.labels.items())))
    return _gcloud(cluster, "queued-resources", "create", name, *words)


def describe(cluster: ConfigDict, name: str) -> list[str]:
    """Tells a resource's state, as JSON."""
    return _gcloud(cluster, "queued-resources", "describe", name, "--format=json(state)")


def delete(cluster: ConfigDict, name: str, *, wait: bool = True) -> list[str]:
    """Gives a resource back, with what runs on it."""
    return _gcloud(cluster, "queued-resources", "delete", name, "--force", *([] if wait else ["--async"]))


def copy(cluster: ConfigDict, name: str, path: str) -> list[str]:
    """Puts a file into the home folder of every worker."""
    return _gcloud(cluster, "tpu-vm", "scp", path, f"{name}:", "--worker=all", *_inside(cluster))


def ssh(cluster: ConfigDict, name: str, command: str, worker: str = "all") -> list[str]:
    """Runs a shell command on workers."""
    return _gcloud(cluster, "tpu-vm", "ssh", name, f"--worker={worker}", f"--command={command}", *_inside(cluster))


def setup(cluster: ConfigDict, code: str) -> str:
    """The shell command that unpacks the code and installs what it needs; done again it changes nothing."""
    folder, archive = f"tandem/{code}", ARCHIVE.format(code=code)
    unpack = f"rm -rf {folder}.part && mkdir -p {folder}.part && tar -xzf {archive} -C {folder}.part && mv {folder}.part {folder}"
    return f"if ! test -d {folder}; then {unpack}; fi && {_worker(code, 'setup', cluster.setup)}"


def start(code: str, commit: str, work: Work) -> str:
    """The shell command that starts a work on a worker, unless it runs there already."""
    variables = {"PYTHONUNBUFFERED": "1", "TANDEM_COMMIT": commit} | dict(work.variables)
    return _worker(code, "start", work.label, *(f"{name}={value}" for name, value in variables.items()), *work.words)


def follow(code: str, label: str, *, lines: str = "+1") -> str:
    """The shell command that shows what a work says, until it ends, and then its exit code; from line 1 on, or the last `lines`."""
    return _worker(code, "follow", label, lines)


def stop(code: str, label: str) -> str:
    """The shell command that lets a work save and leave."""
    return _worker(code, "stop", label)


def listen(label: str) -> str:
    """The shell command that shows what a work says from now on, whichever code it has."""
    return f"bash $(ls -t tandem/*/launch/tpu/worker.sh | head -n 1) follow {label} 10"


def status() -> str:
    """The shell command that says what a worker does, whichever code it has."""
    return "for one in tandem/jobs/*/; do echo $one $(cat $one/code 2> /dev/null || echo runs): $(tail -n 1 $one/log); done"


def rehearsal(cluster: ConfigDict, name: str, works: Sequence[Work], commit: str, *, keep: bool) -> list[str]:
    """All commands of a run in which nothing goes wrong."""
    lines = [create(cluster, name), describe(cluster, name), copy(cluster, name, ARCHIVE.format(code=DRY))]
    lines.append(ssh(cluster, name, setup(cluster, DRY)))
    for work in works:
        lines += [ssh(cluster, name, command, work.worker) for command in (start(DRY, commit, work), follow(DRY, work.label))]
    return [shlex.join(words) for words in lines + ([] if keep else [delete(cluster, name)])]


def _gcloud(cluster: ConfigDict, group: str, *words: str) -> list[str]:
    return ["gcloud", "compute", "tpus", group, *words, f"--project={cluster.project}", f"--zone={cluster.zone}", "--quiet"]


def _flags(cluster: ConfigDict, *names: str) -> list[str]:
    return [f"--{name.replace('_', '-')}={cluster[name]}" for name in names if cluster[name]]


def _inside(cluster: ConfigDict) -> list[str]:
    return ["--internal-ip"] if cluster.internal_ips else []


def _worker(code: str, *words: str) -> str:
    return shlex.join(["bash", f"tandem/{code}/launch/tpu/worker.sh", *words])
