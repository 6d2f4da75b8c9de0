"""Which processes are recognised as one of several, by the variables of each kind of cluster; no cluster, and no JAX started."""

import sys
import types

import pytest
from jax._src import clusters
from jax._src.clusters import cloud_tpu_cluster

from core.config import ConfigError
from launch import arrival, joining, process

KINDS = ("SLURM", "OMPI", "TPU", "MEGASCALE", "KUBERNETES", "JOB", "TANDEM", "JAX_COORDINATOR", "PMI", "JAX_PLATFORMS", "CUDA_VISIBLE")
SLURM = dict(
    SLURM_JOB_ID="70001", SLURM_STEP_NODELIST="gpu[07-08]", SLURM_NTASKS="4", SLURM_STEP_NUM_TASKS="4", SLURM_PROCID="3", SLURM_LOCALID="1",
    SLURM_NODEID="1", SLURM_STEP_TASKS_PER_NODE="2(x2)",
)  # fmt: skip
SLURM_PORT = 70001 % 4096 + 61440  # JAX's choice
MPI = dict(
    OMPI_MCA_orte_hnp_uri="1531576320.0;tcp://10.96.0.1,10.148.0.1:34911", OMPI_COMM_WORLD_SIZE="2", OMPI_COMM_WORLD_RANK="1",
    OMPI_COMM_WORLD_LOCAL_RANK="1", OMPI_COMM_WORLD_LOCAL_SIZE="2",
)  # fmt: skip
GKE_TPU = dict(TPU_WORKER_HOSTNAMES="127.0.0.1,127.0.0.2", TPU_WORKER_ID="1", TPU_SKIP_MDS_QUERY="1")
POD = dict(KUBERNETES_SERVICE_HOST="10.0.0.1", KUBERNETES_SERVICE_PORT="443")


@pytest.fixture
def find(monkeypatch):
    """The seat for some variables and none of this machine's own."""
    import os

    def found(**variables):
        for name in [name for name in os.environ if name.startswith(KINDS)]:
            monkeypatch.delenv(name)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return joining.find(os.environ)

    return found


def test_one_host_is_alone(find):
    assert find() is None and find(TANDEM_COORDINATOR="none", **SLURM) is None


def test_explicit_variables(find):
    told = dict(TANDEM_COORDINATOR="[fd00::1]:8476", TANDEM_PROCESSES="2", TANDEM_PROCESS="1")
    assert find(**told) == find(**told, **SLURM) == joining.Seat("[fd00::1]:8476", 2, 1)


@pytest.mark.parametrize(
    "variables, message",
    [
        (dict(TANDEM_COORDINATOR="h:1"), "TANDEM_PROCESSES is not set"),
        (dict(TANDEM_COORDINATOR="h:1", TANDEM_PROCESSES="2", TANDEM_PROCESS="x"), "TANDEM_PROCESS is x"),
        (dict(TANDEM_COORDINATOR="h:1", TANDEM_PROCESSES="2", TANDEM_PROCESS="2"), "processes count from 0"),
        (dict(TANDEM_COORDINATOR="h", TANDEM_PROCESSES="2", TANDEM_PROCESS="1"), "it must be host:port"),
        (dict(TANDEM_COORDINATOR="auto"), "JAX recognises no cluster here; set TANDEM_COORDINATOR=host:port"),
        (dict(OMPI_COMM_WORLD_SIZE="2", OMPI_COMM_WORLD_RANK="0"), "recognises Open MPI up to 4"),
        (POD | dict(JOB_COMPLETION_INDEX="0", TANDEM_COORDINATOR="auto"), "recognises no cluster"),
    ],
)
def test_what_is_half_told_is_an_error(variables, message, find):
    with pytest.raises(ConfigError, match=message):
        find(**variables)


def test_the_error_is_one_line_and_3(find, monkeypatch, caplog):
    monkeypatch.setattr(process, "log_to_stderr", lambda *_: None)
    with pytest.raises(ConfigError):
        find(TANDEM_COORDINATOR="host")
    with pytest.raises(SystemExit) as ended:
        process._join()
    assert ended.value.code == 3 and len(caplog.records) == 1


def test_slurm_joins_the_tasks_of_a_step(find):
    assert find(**SLURM) == joining.Seat(f"gpu07:{SLURM_PORT}", 4, 3)
    assert find(**SLURM, JAX_COORDINATOR_PORT="7777").coordinator == "gpu07:7777"
    assert find(**SLURM, JAX_COORDINATOR_ADDRESS="10.0.0.9:1234").coordinator == "10.0.0.9:1234"


def test_a_shell_of_one_task_is_alone(find):
    """`salloc -n4`, then `srun -n1 --pty bash`; and a batch script, which is no step."""
    one = SLURM | dict(SLURM_STEP_NUM_TASKS="1", SLURM_PROCID="0", SLURM_LOCALID="0")
    assert find(**one) is None
    assert find(**one, TANDEM_COORDINATOR="auto") is None
    assert find(**{name: value for name, value in SLURM.items() if "STEP" not in name}) is None


@pytest.mark.parametrize(
    "variables, gpus, own",
    [
        (SLURM, [], None),
        (SLURM, ["0", "1"], (1,)),
        (SLURM, ["4", "5", "6", "7"], (2, 3)),  # positions among those that the process sees
        (SLURM, ["0"], None),  # bound by SLURM: each sees one, which is 0 for all
        (SLURM | dict(SLURM_GPUS_PER_TASK="2"), ["0", "1"], None),
        (SLURM | dict(SLURM_STEP_TASKS_PER_NODE="4,1"), ["0", "1"], None),  # one task on this node has all
        (MPI, ["0", "1"], (1,)),
    ],
)
def test_tasks_of_a_machine_split_its_gpus(variables, gpus, own):
    assert joining.own_gpus(variables, 1, gpus) == own


def test_open_mpi_joins_its_ranks(find):
    assert find(**MPI) == joining.Seat(f"10.96.0.1:{1531576320 // 4096 % 4096 + 61440}", 2, 1)
    assert find(**MPI | dict(OMPI_COMM_WORLD_SIZE="1", OMPI_COMM_WORLD_RANK="0")) is None


@pytest.fixture
def on_tpu(monkeypatch):
    told = {"agent-worker-number": "1", "worker-network-endpoints": "127.0.0.1,127.0.0.2", "tpu-env": "ZONE: 'z'"}
    monkeypatch.setattr(cloud_tpu_cluster, "running_in_cloud_tpu_vm", True)
    monkeypatch.setattr(cloud_tpu_cluster, "get_metadata", lambda key: (told[key], 200))
    return told


def test_tpu_workers_of_gke_join(find, on_tpu):
    assert find(**GKE_TPU) == joining.Seat("127.0.0.1:8482", 2, 1)
    assert find(**GKE_TPU, JAX_PLATFORMS="cpu") is None
    slices = dict(MEGASCALE_COORDINATOR_ADDRESS="127.0.0.3", MEGASCALE_NUM_SLICES="2", MEGASCALE_SLICE_ID="1")
    assert find(**GKE_TPU, **slices) == joining.Seat("127.0.0.3:8482", 4, 3)
    assert find(**GKE_TPU | dict(TPU_WORKER_HOSTNAMES="127.0.0.1", TPU_WORKER_ID="0")) is None


@pytest.mark.parametrize("hosts, seat", [("127.0.0.1,127.0.0.2", joining.Seat("127.0.0.1:8482", 2, 1)), ("127.0.0.1", None)])
def test_workers_of_a_tpu_pod_join_by_its_metadata(hosts, seat, find, on_tpu):
    on_tpu["worker-network-endpoints"] = hosts
    assert find() == seat


def test_a_pod_that_cannot_ask_about_others_says_so(find, caplog):
    assert find(**POD, JOB_COMPLETION_INDEX="0") is None and "pip install it, or set TANDEM_COORDINATOR" in caplog.text


def test_an_indexed_job_joins_and_other_pods_are_alone(find, monkeypatch, recwarn):
    """What JAX asks of Kubernetes is answered here; that it would not be asked for a notebook's pod is the point of the last line."""
    kubernetes = types.ModuleType("kubernetes")
    kubernetes.config = types.SimpleNamespace(load_incluster_config=lambda: None)
    kubernetes.client = types.SimpleNamespace(
        CoreV1Api=lambda: None, BatchV1Api=lambda: None, exceptions=types.SimpleNamespace(ApiException=KeyError)
    )
    monkeypatch.setitem(sys.modules, "kubernetes", kubernetes)
    monkeypatch.setattr(clusters.K8sCluster, "get_coordinator_address", lambda timeout_secs, override_coordinator_port: "run-0.run:55527")
    monkeypatch.setattr(clusters.K8sCluster, "get_process_count", lambda: 2)
    assert find(**POD, JOB_COMPLETION_INDEX="1") == joining.Seat("run-0.run:55527", 2, 1)

    def refused(**_):
        raise RuntimeError("Kubernetes API Error: 403 - Forbidden")

    monkeypatch.setattr(clusters.K8sCluster, "get_coordinator_address", refused)
    with pytest.raises(arrival.Absent, match="403 - Forbidden; set TANDEM_COORDINATOR"):
        find(**POD, JOB_COMPLETION_INDEX="1")
    monkeypatch.delitem(sys.modules, "kubernetes")
    assert find(**POD) is None and not recwarn.list
