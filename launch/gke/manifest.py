"""The JobSet of a run on Kubernetes (jobset.x-k8s.io/v1alpha2), as plain dicts; nothing here talks to a cluster."""

import shlex
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from ml_collections import ConfigDict

from core.config import ConfigError, choose
from launch import joining, process

# Fields of a cluster file with `platform="gke"`, beside it; a type stands for a field that the file must give.
DEFAULTS = dict(
    image=str,  # with a checkout at /tandem and what it needs, as launch/gke/Dockerfile makes it
    device=str,  # tpu or gpu
    accelerator=str,  # of the node pool: tpu-v5-lite-podslice, nvidia-h100-80gb, ...
    topology="",  # of a TPU slice: 4x4, 2x2x4, ...
    per_node=4,  # chips or GPUs
    nodes=1,  # with GPUs; those of a TPU slice follow from its topology
    slices=1,  # of TPU, that train together
    spot=False,
    node_pool="",  # by its name, where the accelerator alone does not tell
    context="",  # of kubectl; "" is the one in use
    namespace="default",
    service_account="",  # of Kubernetes; it may write to the workdir's bucket
    queue="",  # of Kueue
    name="tandem",  # what the names of all JobSets begin with
    labels={},
    variables={},  # of every process, JAX_COMPILATION_CACHE_DIR="gs://..." for example
    volumes={},  # claims by name and where they are mounted; a workdir lies there, or at gs://
    restarts=20,  # of everything, from the last checkpoint, after a crash or a preemption
    grace_seconds=300,  # to save in, after SIGTERM
    keep_seconds=86400,  # that a finished JobSet can still be looked at
    wait_seconds=14400.0,  # until all processes run
    poll_seconds=10.0,  # between looks
    eval=dict(cpu="4", memory="16Gi", node_pool=""),  # of --eval=job, on nodes without an accelerator
)

TRAIN, EVAL = "train", "eval"
ANNOTATION = "tandem/command"
_PORT = 8476
_GOOGLE = "cloud.google.com/"


def nodes(cluster: ConfigDict) -> int:
    """Processes of a slice, or of the whole with GPUs: one a node.

    Raises:
        ConfigError: fields that contradict each other.
    """
    choose({"tpu": None, "gpu": None}, cluster.device, "cluster.device")
    for name in ("per_node", "nodes", "slices"):
        if cluster[name] < 1:
            raise ConfigError(f"cluster.{name} is {cluster[name]}; set it to 1 or more.")
    if cluster.device == "gpu":
        if cluster.topology or cluster.slices != 1:
            raise ConfigError("cluster.topology and cluster.slices are for TPUs; with cluster.device='gpu' set cluster.nodes.")
        return cluster.nodes
    sides = cluster.topology.split("x")
    if len(sides) not in (2, 3) or not all(side.isdecimal() and int(side) for side in sides):
        raise ConfigError(f"cluster.topology is {cluster.topology!r}; a TPU slice needs one such as '4x4' or '2x2x4'.")
    chips = prod(map(int, sides))
    if chips % cluster.per_node or cluster.nodes != 1:
        raise ConfigError(
            f"cluster.topology={cluster.topology} has {chips} chips, which are cluster.per_node={cluster.per_node} a node; "
            "the one must divide by the other, and cluster.nodes stays 1."
        )
    return chips // cluster.per_node


def jobset(
    cluster: ConfigDict, name: str, words: Sequence[str], variables: Mapping[str, str], evaluation: Sequence[str] | None, restarts: int
):
    """The JobSet of a command.

    Args:
        cluster: checked fields of the cluster file.
        name: of the JobSet.
        words: of the command that all processes run, from `python` on.
        variables: of those, beside the cluster's.
        evaluation: words of a command that runs beside them on a node without an accelerator; None for none.
        restarts: of everything.

    Returns:
        A tree of dicts, lists and values, for YAML or JSON.
    """
    command = {ANNOTATION: shlex.join([*(f"{key}={value}" for key, value in sorted(variables.items())), *words])}
    queue = {"kueue.x-k8s.io/queue-name": cluster.queue} if cluster.queue else {}
    jobs = [_train(cluster, name, words, variables)] + ([_evaluate(cluster, evaluation)] if evaluation else [])
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {"name": name, "namespace": cluster.namespace, "labels": dict(cluster.labels) | queue, "annotations": command},
        "spec": {
            "failurePolicy": {
                "maxRestarts": restarts,
                # What podFailurePolicy below found is a mistake or a loss that is not finite: the same would come again.
                "rules": [
                    {"name": "final", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"], "targetReplicatedJobs": [TRAIN]}
                ],
            },
            "ttlSecondsAfterFinished": cluster.keep_seconds,
            "replicatedJobs": jobs,
        },
    }


def alone(cluster: ConfigDict, name: str, words: Sequence[str], variables: Mapping[str, str]):
    """The JobSet of one process on a node without an accelerator."""
    made = jobset(cluster, name, words, variables, words, 0)
    made["spec"]["replicatedJobs"] = [_evaluate(cluster, words, strict=True)]
    made["spec"]["failurePolicy"] = {"maxRestarts": 0}
    return made


def _train(cluster: ConfigDict, name: str, words, variables) -> dict[str, Any]:
    count = nodes(cluster)
    environment = dict(cluster.variables) | dict(variables)
    resource, selector = "nvidia.com/gpu", {"gke-accelerator": cluster.accelerator}
    if cluster.device == "tpu":
        resource, selector = "google.com/tpu", {"gke-tpu-accelerator": cluster.accelerator, "gke-tpu-topology": cluster.topology}
        if count * cluster.slices > 1:
            environment[joining.COORDINATOR] = joining.AUTO  # GKE tells the workers of a slice, and the slices, of each other
    elif count > 1:
        environment |= {joining.COORDINATOR: f"{name}-{TRAIN}-0-0.{name}:{_PORT}", "TANDEM_PROCESSES": str(count)}
    container = _container(cluster, TRAIN, list(words), environment, {resource: cluster.per_node})
    if cluster.device == "gpu" and count > 1:
        index = {"fieldRef": {"fieldPath": "metadata.annotations['batch.kubernetes.io/job-completion-index']"}}
        container["env"].append({"name": "TANDEM_PROCESS", "valueFrom": index})
    job = _job(cluster, container, selector, cluster.node_pool, cluster.spot, count)
    job["backoffLimit"] = 0  # one that fails takes the others with it: all start again together
    final = {"containerName": TRAIN, "operator": "In", "values": [process.CONFIG_ERROR, process.BAD_LOSS]}
    job["podFailurePolicy"] = {"rules": [{"action": "FailJob", "onExitCodes": final}]}
    template: dict[str, Any] = {"spec": job}
    if cluster.device == "tpu":  # a slice is a node pool of its own
        template["metadata"] = {"annotations": {"alpha.jobset.sigs.k8s.io/exclusive-topology": _GOOGLE + "gke-nodepool"}}
    return {"name": TRAIN, "replicas": cluster.slices, "template": template}


def _evaluate(cluster: ConfigDict, words: Sequence[str], *, strict: bool = False) -> dict[str, Any]:
    # Beside training its failure is a line in its log: the job ends well, or it would take the trainers with it.
    line = shlex.join(words)
    words = list(words) if strict else ["bash", "-c", f'{line} || echo "evaluation ended with code $?; training goes on"']
    size = {"cpu": cluster.eval.cpu, "memory": cluster.eval.memory}
    job = _job(
        cluster,
        _container(cluster, EVAL, words, dict(cluster.variables) | {"JAX_PLATFORMS": "cpu", joining.COORDINATOR: joining.ALONE}, size),
        {},
        cluster.eval.node_pool,
        False,
        1,
    )
    job["backoffLimit"] = 0 if strict else 10  # nodes that went
    return {"name": EVAL, "replicas": 1, "template": {"spec": job}}


def _container(cluster: ConfigDict, name: str, words: list[str], variables: Mapping[str, str], size: Mapping[str, Any]) -> dict[str, Any]:
    environment = {"PYTHONUNBUFFERED": "1"} | dict(variables)
    mounts = [{"name": claim, "mountPath": path} for claim, path in sorted(cluster.volumes.items())]
    return {
        "name": name,
        "image": cluster.image,
        "workingDir": "/tandem",
        "command": words,
        "env": [{"name": key, "value": value} for key, value in environment.items()],
        "resources": {"requests": dict(size), "limits": dict(size)},
        "volumeMounts": [*mounts, {"name": "shared-memory", "mountPath": "/dev/shm"}],
    }


def _job(cluster: ConfigDict, container, selector: Mapping[str, str], node_pool: str, spot: bool, count: int) -> dict[str, Any]:
    selector = dict(selector) | ({"gke-nodepool": node_pool} if node_pool else {}) | ({"gke-spot": "true"} if spot else {})
    # Node pools of spot machines may keep others away with this taint.
    spots = {"tolerations": [{"key": _GOOGLE + "gke-spot", "operator": "Equal", "value": "true", "effect": "NoSchedule"}]} if spot else {}
    account = {"serviceAccountName": cluster.service_account} if cluster.service_account else {}
    claims = [{"name": claim, "persistentVolumeClaim": {"claimName": claim}} for claim in sorted(cluster.volumes)]
    pod = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": cluster.grace_seconds,
        "nodeSelector": {_GOOGLE + key: value for key, value in selector.items()},
        **spots,
        **account,
        "containers": [container],
        "volumes": [*claims, {"name": "shared-memory", "emptyDir": {"medium": "Memory"}}],
    }
    return {"completionMode": "Indexed", "parallelism": count, "completions": count, "template": {"spec": pod}}
