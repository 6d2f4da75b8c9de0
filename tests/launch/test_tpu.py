"""Cloud TPU: the commands, and the real launcher beside a stand-in gcloud whose workers run a stand-in trainer."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from core.config import ConfigError
from launch import children, clusters, process
from launch.tpu import commands, job, pod, ship

ROOT = pathlib.Path(__file__).resolve().parents[2]
STANDINS = pathlib.Path(__file__).parent / "standins"
FIELDS = dict(project="p", zone="us-west4-a", accelerator_type="v5litepod-8", runtime_version="v2-alpha-tpuv5-lite")
WORDS = ["python", "-m", "launch.train", "--config=configs/a.py:smoke", "--workdir=gs://b/runs/a"]


def cluster_of(tmp_path, **fields):
    path, whole = tmp_path / "cluster.py", dict(platform="tpu") | FIELDS | fields
    path.write_text(f"from ml_collections import ConfigDict\n\n\ndef get_config(arg=''):\n    return ConfigDict({whole!r})\n")
    return clusters.load(str(path), "tpu", job.DEFAULTS)


def test_every_field_becomes_its_flag(tmp_path):
    cluster = cluster_of(
        tmp_path, spot=True, internal_ips=True, network="n", subnetwork="s", service_account="a@b", tags=("t", "u"), labels=dict(k="v"),
        wait_seconds=60,
    )  # fmt: skip
    place = ["--project=p", "--zone=us-west4-a", "--quiet"]
    assert commands.create(cluster, "x") == [
        "gcloud", "compute", "tpus", "queued-resources", "create", "x", "--node-id=x", "--accelerator-type=v5litepod-8",
        "--runtime-version=v2-alpha-tpuv5-lite", "--valid-until-duration=60s", "--network=n", "--subnetwork=s", "--service-account=a@b",
        "--spot", "--internal-ips", "--tags=t,u", "--labels=k=v", *place,
    ]  # fmt: skip
    assert commands.delete(cluster, "x", wait=False)[3:] == ["queued-resources", "delete", "x", "--force", "--async", *place]
    assert commands.describe(cluster, "x")[3:] == ["queued-resources", "describe", "x", "--format=json(state)", *place]
    assert commands.copy(cluster, "x", "a.gz")[3:] == ["tpu-vm", "scp", "a.gz", "x:", "--worker=all", "--internal-ip", *place]
    assert commands.ssh(cluster, "x", "ls", "0")[3:] == ["tpu-vm", "ssh", "x", "--worker=0", "--command=ls", "--internal-ip", *place]


def test_evaluation_never_shares_an_accelerator(tmp_path):
    cluster = cluster_of(tmp_path, eval=dict(accelerator_type="v5litepod-1"), spot=True, variables=dict(A="b"))
    alone = job.plan_of(cluster, WORDS, "job")
    assert alone.works() == [alone.main] and alone.main.worker == "all"
    assert alone.main.variables == dict(TANDEM_COORDINATOR="auto", A="b")
    beside = job.plan_of(cluster, WORDS, "cpu").beside
    assert (
        beside.variables == dict(JAX_PLATFORMS="cpu", A="b", TANDEM_COORDINATOR="none")
        and beside.worker == "0"
        and "--follow" in beside.words
    )
    after = job.plan_of(cluster, WORDS, "after").after
    assert after.variables["TPU_VISIBLE_CHIPS"] == "0" and "--follow" not in after.words
    own, name, plan = job.follower(cluster, WORDS)
    assert own.accelerator_type == "v5litepod-1" and not own.spot and own.runtime_version == cluster.runtime_version
    assert name == job.name_of(cluster, WORDS) + "-evaluate" and plan.main.variables["TANDEM_COORDINATOR"] == "none"


def test_a_workdir_has_one_resource(tmp_path):
    cluster = cluster_of(tmp_path)
    name = job.name_of(cluster, WORDS)
    assert name == job.name_of(cluster, [*WORDS, "--config.seed=1"]) != job.name_of(cluster, [*WORDS[:-1], "--workdir=gs://c/runs/a"])
    assert name.startswith("tandem-a-") and len(name) < 40
    long = [*WORDS[:3], "--workdir", "gs://b/Some_Long.Name-of-a-run-that-goes-on/"]
    assert len(job.name_of(cluster, long)) < 50 and clusters.workdir_of(long).endswith("goes-on/")
    with pytest.raises(ConfigError, match="--workdir=runs/a would be a folder of each machine"):
        clusters.check_workdir([*WORDS[:3], "--workdir=runs/a"], cluster.shared_folders, job.SHARED)
    with pytest.raises(ConfigError, match="cluster.name is 'A b'"):
        job.name_of(cluster_of(tmp_path, name="A b"), WORDS)


def git(folder, *words):
    names = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.run(["git", "-C", str(folder), *names, *words], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    """A checkout with the real launcher, a stand-in trainer and nothing to install."""
    root = tmp_path / "checkout"
    for name in ("launch", "core", "configs"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(STANDINS / "train.py", root / "launch" / "train.py")
    shutil.copy(STANDINS / "train.py", root / "launch" / "evaluate.py")
    (root / "launch" / "environment.sh").write_text(f"make_environment() {{ echo installs $1; PYTHON={sys.executable}; }}\n")
    (root / ".gitignore").write_text("__pycache__/\n")
    git(tmp_path, "init", "--quiet", str(root))
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "-m", "a")
    return root


def test_only_a_commit_is_shipped_unless_asked(checkout, tmp_path):
    head = git(checkout, "rev-parse", "--short=12", "HEAD")
    assert ship.pack(checkout) == ship.Code(head, head)
    (checkout / "new.py").write_text("x = 1\n")
    (checkout / "core" / "config.py").write_text("x = 2\n")
    with pytest.raises(ConfigError, match=f"2 files differ from the commit {head}: .*core/config.py, new.py. Commit them, or .*--dirty"):
        ship.pack(checkout)
    before = git(checkout, "status", "--porcelain")
    code = ship.pack(checkout, dirty=True)
    assert code.commit == head + "+" and git(checkout, "status", "--porcelain") == before
    ship.write(checkout, code, tmp_path / "a.tar.gz")
    subprocess.run(["tar", "-xzf", "a.tar.gz", "-C", str(tmp_path), "new.py", "core/config.py"], cwd=tmp_path, check=True)
    assert (tmp_path / "new.py").read_text() == "x = 1\n" and (tmp_path / "core" / "config.py").read_text() == "x = 2\n"
    with pytest.raises(ConfigError, match="run from the root of the checkout"):
        ship.pack(tmp_path)


class World:
    """A stand-in cloud, a workdir that its workers share, and what happened."""

    def __init__(self, tmp_path, checkout, monkeypatch):
        self.tmp_path, self.root, self.state, self.workdir = tmp_path, checkout, tmp_path / "cloud", tmp_path / "run"
        for folder in (self.state / "resources", self.workdir):
            folder.mkdir(parents=True)
        monkeypatch.setenv("STANDIN", str(self.state))
        monkeypatch.setenv("PATH", f"{STANDINS}:{os.environ['PATH']}")
        self.fields = dict(shared_folders=(str(tmp_path),), poll_seconds=0.2, wait_seconds=10.0, setup="true")
        self.stop, self.lines = children.Stop(), []
        self.plan()

    def plan(self, **faults):
        (self.state / "plan.json").write_text(json.dumps(faults))

    def crash(self, worker, step, code):
        (self.workdir / f"crash_{worker}_{step}").write_text(str(code))

    def words(self, *more):
        return ["python", "-m", "launch.train", f"--workdir={self.workdir}", *more]

    def run(self, *more, evaluation="none", restarts=1, keep=False, dirty=False, **fields):
        cluster = cluster_of(self.tmp_path, **self.fields | fields)
        shipment = pod.Shipment(self.root, ship.pack(self.root, dirty=dirty))
        return job.run(cluster, self.words(*more), evaluation, self.stop, shipment, restarts, keep)

    def verbs(self):
        calls = [json.loads(line) for line in (self.state / "calls.jsonl").read_text().splitlines()]
        return [words[3] for words in calls if words[3] != "describe"]

    def steps(self):
        return sorted(path.name for path in self.workdir.glob("step_*"))

    def left(self):
        return [path.name for path in (self.state / "resources").iterdir()]


@pytest.fixture
def world(tmp_path, checkout, monkeypatch):
    return World(tmp_path, checkout, monkeypatch)


ALL = [f"step_{worker}_{step}" for worker in (0, 1) for step in range(5)]


@pytest.mark.many_processes
def test_a_run_trains_on_all_workers_and_gives_the_resource_back(world, capfd):
    assert world.run() == process.DONE
    assert world.verbs() == ["create", "scp", "ssh", "ssh", "ssh", "delete"] and world.left() == [] and world.steps() == ALL
    said = capfd.readouterr().err.splitlines()
    head = git(world.root, "rev-parse", "--short=12", "HEAD")
    for worker in (0, 1):
        for line in ("installs requirements-tpu.txt", "ready", f"goes on at step 0 of commit {head}, auto", "done", "ended with code 0"):
            assert said.count(f"[{worker}] {line}") == 1


@pytest.mark.many_processes
@pytest.mark.parametrize("code, result, tries", [(3, 3, 1), (139, 0, 2)])
def test_a_worker_that_dies_is_started_again_where_that_helps(world, code, result, tries, capfd):
    world.crash(1, 2, code)
    assert world.run() == result
    assert world.left() == [] and capfd.readouterr().err.count("[0] goes on at step") == tries
    assert (world.steps() == ALL) == (result == 0)


@pytest.mark.many_processes
def test_a_crash_that_comes_back_ends_with_its_code(world, caplog):
    for step in (1, 2):
        world.crash(1, step, 7)
    assert world.run() == 7 and world.left() == []
    assert "worker 1 ended first, with code 7" in caplog.text and "starting it again from the last checkpoint, 1 of 1" in caplog.text


@pytest.mark.many_processes
def test_a_resource_that_is_taken_away_is_replaced(world, caplog):
    world.plan(preempt=str(world.workdir / "step_1_1"))
    assert world.run("--config.train.steps=20", restarts=0) == process.DONE
    assert world.verbs() == ["create", "scp", "ssh", "ssh", "ssh", "delete"] * 2 and world.left() == []
    assert len(world.steps()) == 40 and "was taken away: it is SUSPENDED; taking another one" in caplog.text


@pytest.mark.many_processes
def test_losses_have_a_limit(world, caplog):
    world.plan(preempt=str(world.workdir / "step_1_1"))
    assert world.run("--config.train.steps=50", losses=0) == 5
    assert "that was loss 1, giving up" in caplog.text and world.left() == []


@pytest.mark.many_processes
def test_a_refused_quota_is_one_line(world):
    world.plan(refuse=["RESOURCE_EXHAUSTED: Quota limit 'TPUV5sLitepodPerProjectPerZone' has been exceeded. Limit: 0 in zone us-west4-a."])
    with pytest.raises(
        ConfigError, match="Cloud TPU refuses tandem-run-.*Quota limit 'TPUV5sLitepod.*Look at project, zone, accelerator_type"
    ):
        world.run()
    assert world.verbs() == ["create"]


@pytest.mark.many_processes
@pytest.mark.parametrize(
    "states, seconds, message",
    [
        (["WAITING_FOR_RESOURCES"], 0.3, "is still WAITING_FOR_RESOURCES after 0 seconds; set cluster.wait_seconds higher"),
        (["PROVISIONING", "FAILED"], 60, "is FAILED: There is no more capacity in the zone; look at zone"),
    ],
)
def test_a_resource_that_never_becomes_active_is_an_error_in_bounded_time(world, states, seconds, message):
    world.plan(states=states)
    with pytest.raises(ConfigError, match=message):
        world.run(wait_seconds=seconds)
    assert world.left() == [] and world.steps() == []


@pytest.mark.many_processes
def test_broken_connections_are_made_again(world, capfd):
    world.plan(ssh=[["setup", "1", 1, None], ["start", "0", 1, None], ["follow", "cut", 2, str(world.workdir / "step_1_2")]])
    assert world.run("--config.train.steps=20") == process.DONE
    assert world.verbs().count("create") == 1 and len(world.steps()) == 40 and capfd.readouterr().err.count("[0] goes on at step 0") >= 1


@pytest.mark.many_processes
def test_a_worker_that_never_answers_is_named(world):
    world.plan(ssh=[["setup", "1", 99, None]])
    with pytest.raises(ConfigError, match="workers 1 do not answer through ssh after 3 attempts.*port 22"):
        world.run()
    assert world.left() == []


@pytest.mark.many_processes
def test_a_worker_that_is_lost_takes_the_resource_with_it(world, caplog):
    """Its machine answers no more, and the other one then waits for it in vain, or loses it."""
    world.crash(0, 3, 5)
    world.plan(ssh=[["follow", "cut", 1, str(world.workdir / "step_1_1")], ["follow", "1", 3, str(world.workdir / "step_1_1")]])
    assert world.run("--config.train.steps=8", restarts=0) == process.DONE
    assert world.verbs().count("create") == 2 and "workers 1 do not answer; taking another one" in caplog.text and len(world.steps()) == 16


@pytest.mark.many_processes
def test_a_set_up_that_fails_is_said_once(world):
    with pytest.raises(ConfigError, match="the set-up ended with code 9; the lines above say more, and cluster.setup runs first"):
        world.run(setup="exit 9")
    assert world.left() == []


@pytest.mark.many_processes
@pytest.mark.parametrize("evaluation, resources", [("cpu", 1), ("after", 1), ("job", 2)])
def test_evaluation_runs_where_it_is_put(world, evaluation, resources, capfd):
    """The stand-in evaluation counts the trainer's files: on a resource of its own, or after training, it may find all of them."""
    assert world.run(evaluation=evaluation, eval=dict(accelerator_type="v5litepod-1")) == process.DONE
    said = capfd.readouterr().err
    assert world.verbs().count("create") == world.verbs().count("delete") == resources and world.left() == []
    assert said.count("ended with code 0") == 3 and ("[eval] [0] ended with code 0" in said) == (evaluation == "job")


@pytest.mark.many_processes
def test_a_launcher_that_is_killed_is_followed_by_another(world, capfd):
    """The run goes on without it; a second launcher of the same command listens to it, and another command is refused."""
    command = [
        sys.executable,
        "-m",
        "launch.tpu",
        f"--cluster={world.tmp_path / 'cluster.py'}",
        "--config=configs/digits.py",
        "--eval=none",
    ]
    command += [f"--workdir={world.workdir}", "--config.train.steps=60"]
    cluster_of(world.tmp_path, **world.fields)
    first = subprocess.Popen(command, cwd=world.root, stderr=subprocess.DEVNULL, start_new_session=True)
    wait_for(world.workdir / "step_1_3")
    first.kill()
    first.wait()
    other = subprocess.run([*command[:-1], "--config.train.steps=61"], cwd=world.root, capture_output=True, text=True)
    assert other.returncode == 3 and "this worker runs another command: " in other.stderr and world.left() != []
    second = subprocess.run(command, cwd=world.root, capture_output=True, text=True)
    assert second.returncode == 0, second.stderr
    assert second.stderr.count("goes on at step") == 2 and len(world.steps()) == 120 and world.left() == []


@pytest.mark.many_processes
def test_a_kept_resource_can_be_looked_at_and_given_back(world):
    assert world.run(keep=True) == process.DONE
    (name,) = world.left()
    said = {}
    for action in ("status", "logs", "delete"):
        words = [f"--cluster={world.tmp_path / 'cluster.py'}", f"--workdir={world.workdir}", f"--action={action}"]
        done = subprocess.run([sys.executable, "-m", "launch.tpu", *words], cwd=world.root, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        said[action] = done.stdout + done.stderr
    assert f"{name} (train): ACTIVE" in said["status"] and f"{name}-evaluate (eval): ABSENT" in said["status"]
    assert said["status"].count("tandem/jobs/train/ 0: done") == 2
    assert "[0] done" in said["logs"] and "[1] ended with code 0" in said["logs"] and "is given back" in said["delete"]
    assert world.left() == []


@pytest.mark.many_processes
def test_a_wish_to_stop_saves_and_gives_back(world):
    command = [
        sys.executable,
        "-m",
        "launch.tpu",
        f"--cluster={world.tmp_path / 'cluster.py'}",
        "--config=configs/digits.py",
        "--eval=none",
    ]
    command += [f"--workdir={world.workdir}", "--config.train.steps=1000"]
    cluster_of(world.tmp_path, **world.fields)
    launcher = subprocess.Popen(command, cwd=world.root, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_for(world.workdir / "step_1_3")
    second = subprocess.run(command, cwd=world.root, capture_output=True, text=True)
    assert second.returncode == 3 and f"is being launched by process {launcher.pid}" in second.stderr
    launcher.send_signal(signal.SIGINT)
    said = launcher.communicate(timeout=30)[1]
    assert launcher.returncode == 75 and "[0] saved" in said and "[1] saved" in said and world.left() == []


@pytest.mark.many_processes
def test_a_second_wish_ends_at_once(world):
    threading.Thread(
        target=lambda: (wait_for(world.workdir / "step_1_3"), setattr(world.stop, "wanted", True), setattr(world.stop, "forced", True))
    ).start()
    assert world.run("--config.train.steps=1000") == 5 and world.left() == []
    assert any("--async" in line for line in (world.state / "calls.jsonl").read_text().splitlines())


@pytest.mark.many_processes
def test_a_sweep_starts_and_ends_runs(world):
    cluster = cluster_of(world.tmp_path, **world.fields, eval=dict(accelerator_type="v5litepod-1"))
    start = job.starter(cluster, world.root)
    with open(world.tmp_path / "trial.log", "w") as output:
        child = start(world.words(), {"A": "b"}, output)
        assert child.poll() is None and child.wait() == child.returncode == 0 and world.steps() == ALL
        child = start(world.words("--config.train.steps=1000"), {}, output)
        wait_for(world.workdir / "step_1_9")
        child.terminate()
        assert child.wait() == 75
        evaluator = start(["python", "-m", "launch.evaluate", f"--workdir={world.workdir}"], {}, output)
        assert evaluator.wait() == 0
        child = start(world.words("--config.train.steps=1000"), {}, output)
        time.sleep(0.5)
        child.kill()
        assert child.wait() == 5
    assert world.left() == [] and "[1] done" in (world.tmp_path / "trial.log").read_text()
    assert "--accelerator-type=v5litepod-1" in (world.state / "calls.jsonl").read_text()


@pytest.mark.many_processes
def test_a_real_run_that_is_taken_away_ends_like_one_that_is_not(world, tmp_path):
    """The real trainer and evaluation on one worker, on the CPU, in a checkout that is not committed yet."""
    import jax

    from tests.launch import test_commands, test_processes

    for folder in (path.parent for path in ROOT.glob("*/__init__.py")):
        shutil.copytree(folder, world.root / folder.name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("train.py", "evaluate.py"):
        shutil.copy(ROOT / "launch" / name, world.root / "launch" / name)
    words = [
        *test_commands.TOY,
        "--config.train.steps=300",
        "--config.checkpoint.every_steps=20",
        "--config.checkpoint.keep_every_steps=20",
    ]
    words += ["--config.evals.test.every_steps=300", "--config.log.tensorboard=false"]
    world.plan(workers=1, preempt=str(world.workdir / "checkpoints" / "20" / "commit_success.txt"))
    own = dict(variables=dict(JAX_PLATFORMS="cpu", TANDEM_COORDINATOR="none"), poll_seconds=0.2)
    assert world.run(*words, evaluation="after", dirty=True, **own) == process.DONE
    assert world.verbs().count("create") == 2 and world.left() == []
    code, _, said = test_commands.run("train", *words, f"--workdir={tmp_path / 'whole'}")
    assert code == 0, said
    for ours, wanted in zip(
        *(jax.tree.leaves(test_processes.params(path, 300)) for path in (world.workdir, tmp_path / "whole")), strict=True
    ):
        np.testing.assert_array_equal(ours, wanted)
    results = [json.loads(path.read_text())["step"] for path in world.workdir.glob("evals/*/test.json")]
    assert max(results) == 300
    assert (
        json.loads((world.workdir / "environment.json").read_text())["commit"] == git(world.root, "rev-parse", "--short=12", "HEAD") + "+"
    )


def wait_for(path, seconds=30):
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} does not come"
        time.sleep(0.02)
