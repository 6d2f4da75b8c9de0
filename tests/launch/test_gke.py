"""Kubernetes: what JobSets say, and the launcher beside a stand-in kubectl. tests/parity/test_jobset.py holds them to the schemas."""

import json
import os
import pathlib
import subprocess
import sys
import threading
import time

import pytest
import yaml

from core.config import ConfigError
from launch import children, clusters, process
from launch.gke import job, manifest

ROOT = pathlib.Path(__file__).resolve().parents[2]
STANDINS = pathlib.Path(__file__).parent / "standins"
TPU = dict(image="i", device="tpu", accelerator="tpu-v5-lite-podslice", topology="4x4")
GPU = dict(image="i", device="gpu", accelerator="nvidia-h100-80gb", per_node=8, nodes=2)
WORDS = ["python", "-m", "launch.train", "--config=configs/digits.py", "--workdir=gs://b/runs/a"]
EVALUATE = ["python", "-m", "launch.evaluate", "--workdir=gs://b/runs/a"]


def cluster_of(tmp_path, fields=None, **more):
    path, whole = tmp_path / "cluster.py", dict(platform="gke") | (TPU if fields is None else fields) | more
    path.write_text(f"from ml_collections import ConfigDict\n\n\ndef get_config(arg=''):\n    return ConfigDict({whole!r})\n")
    return clusters.load(str(path), "gke", job.DEFAULTS)


def made(tmp_path, fields=None, words=WORDS, evaluation="none", variables=None, **more):
    found = yaml.safe_load(yaml.safe_dump(job.made(cluster_of(tmp_path, fields, **more), words, variables or {}, evaluation, 7)))
    jobs = {one["name"]: one for one in found["spec"]["replicatedJobs"]}
    pods = {name: one["template"]["spec"]["template"]["spec"] for name, one in jobs.items()}
    return found, jobs, pods


def environment(pod):
    return {one["name"]: one.get("value") for one in pod["containers"][0]["env"]}


@pytest.mark.parametrize("topology, per_node, hosts", [("4x4", 4, 4), ("2x4", 8, 1), ("2x2x4", 4, 4), ("16x16", 4, 64), ("1x1", 1, 1)])
def test_a_slice_has_a_process_for_each_of_its_nodes(tmp_path, topology, per_node, hosts):
    _, jobs, pods = made(tmp_path, topology=topology, per_node=per_node)
    spec = jobs["train"]["template"]["spec"]
    assert spec["parallelism"] == spec["completions"] == hosts and spec["completionMode"] == "Indexed"
    assert pods["train"]["containers"][0]["resources"]["limits"] == {"google.com/tpu": per_node}
    assert pods["train"]["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": topology,
    }
    assert environment(pods["train"]).get("TANDEM_COORDINATOR") == ("auto" if hosts > 1 else None)


def test_slices_are_replicas_on_node_pools_of_their_own(tmp_path):
    _, jobs, pods = made(tmp_path, topology="2x4", per_node=8, slices=3, spot=True)
    assert jobs["train"]["replicas"] == 3 and environment(pods["train"])["TANDEM_COORDINATOR"] == "auto"
    assert jobs["train"]["template"]["metadata"]["annotations"] == {
        "alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"
    }
    assert pods["train"]["nodeSelector"]["cloud.google.com/gke-spot"] == "true"


def test_processes_with_gpus_know_the_first_one(tmp_path):
    found, jobs, pods = made(tmp_path, GPU, node_pool="p", variables=dict(A="b"))
    name = found["metadata"]["name"]
    assert pods["train"]["nodeSelector"] == {"cloud.google.com/gke-accelerator": "nvidia-h100-80gb", "cloud.google.com/gke-nodepool": "p"}
    assert (
        pods["train"]["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": 8}
        and jobs["train"]["template"]["spec"]["completions"] == 2
    )
    told = environment(pods["train"])
    assert told["TANDEM_COORDINATOR"] == f"{name}-train-0-0.{name}:8476" and told["TANDEM_PROCESSES"] == "2" and told["A"] == "b"
    index = next(one for one in pods["train"]["containers"][0]["env"] if one["name"] == "TANDEM_PROCESS")
    assert index["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    assert "TANDEM_COORDINATOR" not in environment(made(tmp_path, GPU, nodes=1)[2]["train"])


def test_codes_decide_what_starts_again(tmp_path):
    """3 and 4 end the JobSet; every other code makes its job fail for another reason, upon which the JobSet starts again."""
    found, jobs, _ = made(tmp_path)
    policy, spec = found["spec"]["failurePolicy"], jobs["train"]["template"]["spec"]
    assert spec["backoffLimit"] == 0 and policy["maxRestarts"] == 7
    (rule,) = spec["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob" and rule["onExitCodes"] == dict(containerName="train", operator="In", values=[3, 4])
    (rule,) = policy["rules"]
    assert (
        rule["action"] == "FailJobSet" and rule["onJobFailureReasons"] == ["PodFailurePolicy"] and rule["targetReplicatedJobs"] == ["train"]
    )


def test_evaluation_takes_no_accelerator_and_never_ends_training(tmp_path):
    _, jobs, pods = made(tmp_path, evaluation="job", eval=dict(cpu="8", node_pool="cpus"))
    container = pods["eval"]["containers"][0]
    assert environment(pods["eval"])["JAX_PLATFORMS"] == "cpu" and container["resources"]["limits"] == {"cpu": "8", "memory": "16Gi"}
    assert (
        pods["eval"]["nodeSelector"] == {"cloud.google.com/gke-nodepool": "cpus"}
        and environment(pods["eval"])["TANDEM_COORDINATOR"] == "none"
    )
    line = container["command"][2]
    assert line.startswith("python -m launch.evaluate --workdir=gs://b/runs/a --follow --timeout_seconds=inf ||")
    done = subprocess.run(["bash", "-c", line.replace("python", "false", 1)], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == "evaluation ended with code 1; training goes on\n"
    _, jobs, pods = made(tmp_path, words=EVALUATE)
    assert (
        list(jobs) == ["eval"]
        and pods["eval"]["containers"][0]["command"] == EVALUATE
        and jobs["eval"]["template"]["spec"]["backoffLimit"] == 0
    )


def test_fields_reach_their_places(tmp_path):
    found, _, pods = made(
        tmp_path, service_account="s", queue="q", labels=dict(team="x"), volumes=dict(data="/data"), variables={}, namespace="n",
        words=[*WORDS[:-1], "--workdir=/data/runs/a"],
    )  # fmt: skip
    assert found["metadata"]["labels"] == {"team": "x", "kueue.x-k8s.io/queue-name": "q"} and found["metadata"]["namespace"] == "n"
    assert pods["train"]["serviceAccountName"] == "s"
    assert dict(name="data", persistentVolumeClaim=dict(claimName="data")) in pods["train"]["volumes"]
    assert dict(name="data", mountPath="/data") in pods["train"]["containers"][0]["volumeMounts"]


@pytest.mark.parametrize(
    "fields, message",
    [
        (TPU | dict(topology=""), "cluster.topology is ''; a TPU slice needs one such as"),
        (TPU | dict(topology="4x0"), "cluster.topology is '4x0'"),
        (TPU | dict(per_node=3), "cluster.topology=4x4 has 16 chips, which are cluster.per_node=3 a node"),
        (TPU | dict(slices=0), "cluster.slices is 0; set it to 1 or more"),
        (GPU | dict(topology="4x4"), "are for TPUs; with cluster.device='gpu' set cluster.nodes"),
        (TPU | dict(device="tpus"), "cluster.device is 'tpus', which is not among: gpu, tpu"),
        (TPU | dict(name="A b"), "cluster.name is 'A b'"),
        (dict(device="tpu", accelerator="a"), "cluster.image is not set"),
        (TPU | dict(volume={}), "cluster.volume is not a key; .* Did you mean 'volumes'"),
    ],
)
def test_a_mistake_names_its_field(tmp_path, fields, message):
    with pytest.raises(ConfigError, match=message):
        made(tmp_path, fields)


def test_a_folder_of_one_node_is_no_workdir(tmp_path):
    with pytest.raises(ConfigError, match=r"--workdir=runs/a would be .*below cluster.volumes \(/data\)"):
        made(tmp_path, words=[*WORDS[:-1], "--workdir=runs/a"], volumes=dict(d="/data"))


RUNS = dict(replicatedJobsStatus=[dict(name="train", ready=1, active=1)])
PENDING = dict(replicatedJobsStatus=[dict(name="train", ready=0, active=1)])


def ended(how, **more):
    return dict(conditions=[dict(type=how, status="True")], **more)


def pod(name, code, attempt=0, at="2026-01-01T00:00:00Z"):
    terminated = dict(terminated=dict(exitCode=code, finishedAt=at))
    labels = {"jobset.sigs.k8s.io/restart-attempt": str(attempt)}
    return dict(metadata=dict(name=name, labels=labels), status=dict(phase="Failed", containerStatuses=[dict(state=terminated)]))


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Runs a command beside a stand-in cluster: `world(plan) -> (code, what was said, calls)`."""
    state = tmp_path / "cloud"
    state.mkdir()
    monkeypatch.setenv("STANDIN", str(state))
    monkeypatch.setenv("PATH", f"{STANDINS}:{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}")
    stop, said = children.Stop(), []

    def run(words=WORDS, evaluation="none", fields=None, **plan):
        (state / "plan.json").write_text(json.dumps(plan))
        cluster = cluster_of(tmp_path, poll_seconds=0.05, **fields or {})
        return job.Run(cluster, job.made(cluster, words, {}, evaluation, 7), stop, said.append).run()

    run.stop, run.said, run.applied = stop, said, state / "applied.yaml"
    run.calls = lambda: [json.loads(line) for line in (state / "calls.jsonl").read_text().splitlines()]
    return run


def verbs(world):
    return [next(word for word in words if not word.startswith("--")) for words in world.calls()]


@pytest.mark.many_processes
def test_a_run_is_applied_and_listened_to(world, tmp_path):
    assert (
        world(states=[PENDING, RUNS, ended("Completed")], logs=["[pod/a-train-0-0] step 1"], fields=dict(context="c", namespace="n")) == 0
    )
    assert world.said == ["[pod/a-train-0-0] step 1"] and "delete" not in verbs(world)
    assert all("--context=c" in words and "--namespace=n" in words for words in world.calls())
    assert yaml.safe_load(world.applied.read_text()) == made(tmp_path, namespace="n", context="c")[0]


@pytest.mark.many_processes
@pytest.mark.parametrize("codes, code", [([3, 5], 3), ([5, 4], 4), ([1, 5], 1), ([137, 5], 5)])
def test_the_code_is_of_the_process_that_decided_in_the_last_restart(world, codes, code):
    pods = [pod("old", 9)] + [pod(f"p{i}", one, attempt=1, at=f"2026-01-01T00:00:0{i}Z") for i, one in enumerate(codes)]
    assert world(states=[RUNS, ended("Failed")], pods=pods) == code


@pytest.mark.many_processes
def test_restarts_are_said(world, caplog):
    world(states=[RUNS, RUNS | dict(restarts=1), ended("Completed", restarts=1)])
    assert "restart 1 of 7, from the last checkpoint" in caplog.text


@pytest.mark.many_processes
def test_a_refused_jobset_is_one_line(world):
    with pytest.raises(ConfigError, match="the cluster refuses JobSet tandem-a-.*: error: no matches for kind .*is JobSet installed"):
        world(states=[], refuse='no matches for kind "JobSet"')


@pytest.mark.many_processes
def test_processes_that_never_start_are_named(world):
    wait = dict(metadata=dict(name="a-train-0-3"), status=dict(phase="Pending", conditions=[dict(status="False", message="0/9 nodes")]))
    with pytest.raises(ConfigError, match=r"within 0 seconds: a-train-0-3 wait \(0/9 nodes\); look at accelerator, topology and node_pool"):
        world(states=[PENDING], pods=[wait], fields=dict(wait_seconds=0.2))
    assert not world.applied.exists()


@pytest.mark.many_processes
def test_a_network_that_is_down_for_a_while_is_waited_for(world):
    assert world(states=[RUNS, ended("Completed")], broken=2) == 0
    with pytest.raises(ConfigError, match="kubectl does not tell about JobSet .*i/o timeout. Look at cluster.context"):
        world(states=[RUNS], broken=99, fields=dict(context="d"))


@pytest.mark.many_processes
def test_an_earlier_launcher_s_run_is_joined_and_another_command_refused(world, tmp_path, caplog):
    caplog.set_level("INFO")
    world.applied.write_text(yaml.safe_dump(made(tmp_path)[0]))
    assert world(states=[RUNS, ended("Completed")]) == 0
    assert "apply" not in verbs(world) and "goes on" in caplog.text
    with pytest.raises(ConfigError, match="runs another command: python -m launch.train .*--action=delete"):
        world([*WORDS, "--config.seed=1"], states=[RUNS])
    assert world.applied.exists()
    assert world([*WORDS, "--config.seed=1"], states=[ended("Failed"), RUNS, ended("Completed")]) == 0
    assert verbs(world).count("delete") == verbs(world).count("apply") == 1


@pytest.mark.many_processes
@pytest.mark.parametrize("forced, code", [(False, 75), (True, 5)])
def test_a_wish_to_stop_deletes_with_time_to_save(world, forced, code):
    def wish():
        time.sleep(0.5)
        world.stop.forced = forced
        world.stop.wanted = True

    threading.Thread(target=wish).start()
    assert world(states=[RUNS], fields=dict(grace_seconds=40)) == code
    (words,) = [words for words in world.calls() if "delete" in words]
    assert ("--wait=false" if forced else "--timeout=100s") in words and not world.applied.exists()


@pytest.mark.many_processes
def test_a_sweep_starts_and_ends_runs(world, tmp_path):
    with pytest.raises(ConfigError):
        world(states=[], refuse="once")
    start = job.starter(cluster_of(tmp_path, poll_seconds=0.05))
    with open(tmp_path / "trial.log", "w") as output:
        (tmp_path / "cloud" / "plan.json").write_text(json.dumps(dict(states=[RUNS, ended("Completed")], logs=["step 1"])))
        child = start(WORDS, {"A": "b"}, output)
        assert child.poll() is None and child.wait() == child.returncode == process.DONE
        (tmp_path / "cloud" / "plan.json").write_text(json.dumps(dict(states=[ended("Completed"), RUNS])))
        child = start(WORDS, {"A": "b"}, output)
        time.sleep(0.3)
        child.terminate()
        assert child.wait() == 75
        (tmp_path / "cloud" / "plan.json").write_text(json.dumps(dict(states=[], refuse="why")))
        child = start(EVALUATE, {}, output)
        assert child.wait() == 3
    log = (tmp_path / "trial.log").read_text()
    assert "step 1" in log and "the cluster refuses JobSet" in log


def test_the_command_prints_what_it_would_apply(tmp_path):
    cluster_of(tmp_path)
    words = [
        f"--cluster={tmp_path / 'cluster.py'}",
        "--config=configs/digits.py:smoke",
        "--workdir=gs://b/runs/a",
        "--config.train.steps=3",
    ]
    done = subprocess.run([sys.executable, "-m", "launch.gke", *words, "--dry_run"], cwd=ROOT, capture_output=True, text=True)
    command = ["python", "-m", "launch.train", *words[1:]]
    assert yaml.safe_load(done.stdout) == job.made(cluster_of(tmp_path), command, {}, "job", manifest.DEFAULTS["restarts"]), done.stderr
    wrong = subprocess.run([sys.executable, "-m", "launch.gke", words[0], "--dry_run"], cwd=ROOT, capture_output=True, text=True)
    assert wrong.returncode == 3 and "give --config and --workdir" in wrong.stderr
