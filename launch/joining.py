"""Whether this process is one of several, and which: from TANDEM_COORDINATOR, or from a cluster that JAX recognises.

A cluster is joined by itself where it started several processes: two tasks of one `srun`, ranks of `mpirun`, workers of a TPU pod or of
an indexed Job. One process is alone wherever it runs: in an interactive shell of a cluster, in a batch script, in a notebook's pod.
"""

import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from core.config import ConfigError
from launch import accelerators, arrival

COORDINATOR = "TANDEM_COORDINATOR"  # host:port, with TANDEM_PROCESSES and TANDEM_PROCESS beside it; `auto`, or `none`
AUTO, ALONE = "auto", "none"
_CURE = (
    f"set {COORDINATOR}=host:port, TANDEM_PROCESSES and TANDEM_PROCESS for each, or {COORDINATOR}={ALONE} where each is a run of its own."
)

log = logging.getLogger("tandem")


class Seat(NamedTuple):
    """One process among several."""

    coordinator: str  # host:port of process 0
    count: int
    index: int
    devices: tuple[int, ...] | None = None  # of the GPUs that it sees; None: all


def find(environment: Mapping[str, str]) -> Seat | None:
    """The place of this process; None if it is alone.

    Raises:
        ConfigError: half of what is needed, or TANDEM_COORDINATOR=auto where no cluster is recognised.
        arrival.Absent: the cluster does not know its coordinator.
    """
    coordinator = environment.get(COORDINATOR, "")
    if coordinator == ALONE:
        return None
    if coordinator in ("", AUTO):
        seat = recognised(environment)
        if seat is None and coordinator == AUTO:
            raise ConfigError(f"{COORDINATOR}={AUTO}, but JAX recognises no cluster here; {_CURE}")
        return seat if seat is not None and seat.count > 1 else None
    count, index = _number(environment, "TANDEM_PROCESSES", least=1), _number(environment, "TANDEM_PROCESS", least=0)
    if not coordinator.rpartition(":")[2].isdecimal() or index >= count:
        raise ConfigError(
            f"{COORDINATOR}={coordinator} with TANDEM_PROCESS={index} of TANDEM_PROCESSES={count}: "
            "it must be host:port, and processes count from 0."
        )
    return Seat(coordinator, count, index)


def _number(environment: Mapping[str, str], name: str, least: int) -> int:
    text = environment.get(name, "")
    if not text.isdecimal() or int(text) < least:
        raise ConfigError(f"{COORDINATOR} is set, but {name} is {text or 'not set'}; set it to a whole number from {least} on.")
    return int(text)


def recognised(environment: Mapping[str, str]) -> Seat | None:
    """The place that a cluster known to JAX gives this process, which may be the only one; None outside of any.

    Raises:
        ConfigError: several processes of a kind whose coordinator JAX cannot find.
        arrival.Absent: the coordinator's address cannot be had.
    """
    from jax._src.clusters import ClusterEnv  # what jax.distributed.initialize asks; it has no public way to ask without joining

    for cluster in ClusterEnv._cluster_types:
        if cluster.opt_in_only_method or not _present(cluster, environment):
            continue
        try:
            count = int(environment.get("SLURM_STEP_NUM_TASKS", 0)) if cluster.name == "slurm" else 0
            count = count or cluster.get_process_count()
            if count == 1:
                return Seat("", 1, 0)
            address = environment.get("JAX_COORDINATOR_ADDRESS") or cluster.get_coordinator_address(
                timeout_secs=int(arrival.ARRIVAL_SECONDS), override_coordinator_port=environment.get("JAX_COORDINATOR_PORT")
            )
            return Seat(address, count, cluster.get_process_id(), own_gpus(environment, cluster.get_local_process_id()))
        except (RuntimeError, OSError) as error:
            raise arrival.Absent(f"{cluster.__name__} of JAX: {error}; {_CURE}") from error
    if int(environment.get("OMPI_COMM_WORLD_SIZE", "1")) > 1:
        raise ConfigError(f"JAX recognises Open MPI up to 4, and this is another; {_CURE}")
    if "JOB_COMPLETION_INDEX" in environment and "KUBERNETES_SERVICE_HOST" in environment:
        log.warning("a pod of an indexed Job, alone: JAX asks about the others by the package kubernetes; pip install it, or %s", _CURE)
    return None


def _present(cluster, environment: Mapping[str, str]) -> bool:
    """Whether this process runs in such a cluster; looks only where it may."""
    if cluster.__name__ == "K8sCluster" and "JOB_COMPLETION_INDEX" not in environment:
        return False  # any other pod, of a notebook for example, is alone; JAX would warn, or ask a server that refuses
    if "Tpu" in cluster.__name__ and "tpu" not in environment.get("JAX_PLATFORMS", "tpu"):
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return cluster.is_env_present()


def own_gpus(environment: Mapping[str, str], local: int | None, gpus: Sequence[str] | None = None) -> tuple[int, ...] | None:
    """Which of the GPUs that this process sees are its own, where the processes of a machine see the same ones.

    Args:
        environment: of SLURM or Open MPI.
        local: index of this process on its machine.
        gpus: names of those that it sees; by default it looks.
    """
    gpus, tasks = accelerators.gpus() if gpus is None else gpus, _tasks_here(environment)
    bound = any(name in environment for name in ("SLURM_GPUS_PER_TASK", "SLURM_GPU_BIND"))  # SLURM shows each task its own
    if local is None or bound or tasks < 2 or len(gpus) < tasks:
        return None
    share = len(gpus) // tasks
    return tuple(range(local * share, (local + 1) * share))


def _tasks_here(environment: Mapping[str, str]) -> int:
    """Processes of the run on this machine; SLURM writes `2(x3),1` for three machines with two and one with one."""
    if "OMPI_COMM_WORLD_LOCAL_SIZE" in environment:
        return int(environment["OMPI_COMM_WORLD_LOCAL_SIZE"])
    counts = []
    for part in environment.get("SLURM_STEP_TASKS_PER_NODE", "1").split(","):
        count, _, times = part.rstrip(")").partition("(x")
        counts += [int(count)] * int(times or 1)
    return counts[min(int(environment.get("SLURM_NODEID", 0)), len(counts) - 1)]
