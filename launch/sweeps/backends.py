"""Where the processes of a sweep run: on this machine, or as jobs of a cluster.

A backend starts a process and returns what can be watched, as `subprocess.Popen` can: `poll terminate kill wait returncode`. Of a job:

- `words` begin with `python`, which the backend replaces by the one of its machines; `variables` come on top of what a job has anyway.
- `output` is a file of this machine that takes what the job says, or at least what became of it.
- A job outlives a sweep that is killed. The same words while it waits or runs join it, and start no second one in its workdir.
- A backend may take beforehand what will be started, in `ahead`: `start` with the same words then joins what runs already or has ended.
- `terminate` passes SIGTERM on, so that a trainer saves and leaves with 75; `returncode` is the trainer's own wherever it can be known.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from core.config import ConfigError, choose
from launch import accelerators, children, process

Start = Callable[[Sequence[str], Mapping[str, str], Any], Any]  # (words, variables, output) -> child


class Backend(NamedTuple):
    """A way to start processes."""

    start: Start
    slots: Callable[[int], list[Mapping[str, str]]]  # trials at once -> variables of each
    beside: Mapping[str, str]  # variables of an evaluation beside training
    ahead: Any = None  # takes trainings before they start: `announce(folder, [(words, log)], parallel)`, `withdraw([words] or None)`


def local() -> Backend:
    """Processes of this machine. The accelerators are the trainers'; an evaluation beside one takes the CPU."""
    deal = lambda parallel: accelerators.shares(parallel, "--parallel", accelerators.gpus(), accelerators.tpu_chips())
    return Backend(_start_here, deal, {"JAX_PLATFORMS": "cpu"})


def _start_here(words: Sequence[str], variables: Mapping[str, str], output):
    # A trial is one process, also where the sweep runs inside a task of a cluster.
    return children.start([sys.executable, *words[1:]], os.environ | {process.COORDINATOR: process.ALONE} | variables, output)


def slurm(cluster: str) -> Backend:
    """Jobs of SLURM, on machines that share the sweep's folder."""
    from launch import clusters
    from launch.slurm import job

    jobs = job.Jobs(clusters.load(cluster, "slurm", job.DEFAULTS))
    return _jobs(jobs.start)._replace(ahead=jobs)


def tpu(cluster: str) -> Backend:
    """Queued resources of Cloud TPU."""
    from launch import clusters
    from launch.tpu import job

    return _jobs(job.starter(clusters.load(cluster, "tpu", job.DEFAULTS)))


def gke(cluster: str) -> Backend:
    """JobSets of a Kubernetes cluster."""
    from launch import clusters
    from launch.gke import job

    return _jobs(job.starter(clusters.load(cluster, "gke", job.DEFAULTS)))


def _jobs(start: Start) -> Backend:
    # Each job has accelerators of its own, an evaluation beside training too.
    return Backend(start, lambda parallel: [{}] * parallel, {})


CLUSTERS = {"slurm": slurm, "tpu": tpu, "gke": gke}


def find(name: str, cluster: str | None) -> Backend:
    """The backend of `--backend` and `--cluster`.

    Raises:
        ConfigError: no such backend, no cluster file for one that needs it, or one for the machine itself.
    """
    opened = choose({"local": None} | CLUSTERS, name, "--backend")
    if (opened is None) != (cluster is None):
        raise ConfigError(
            f"--backend={name} needs to know the cluster; give --cluster=configs/clusters/NAME.py." if opened
            else f"--backend={name} runs on this machine, but --cluster={cluster} names a cluster; leave one of them out."
        )  # fmt: skip
    return opened(cluster) if opened else local()
