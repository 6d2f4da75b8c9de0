"""Jobs of SLURM: what a script asks for, what it does with each code, and a real controller with two nodes that stops and requeues jobs."""

import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from core.config import ConfigError
from core.logbook import read_lines
from core.workdir import read_json
from launch import clusters, process
from launch.slurm import job, queue, run, script
from tests.launch import test_processes, test_sweep
from tests.launch.test_commands import ROOT, TOY, start
from tests.launch.test_commands import run as command

SMALLEST = dict(platform="slurm", time="8:00:00")
# What a stand-in does: notes how it was called, and answers with $ANSWER_name and the code $CODE_name.
STAND_IN = """#!/bin/bash
name=$(basename "$0")
echo "$name $*" >> "$CALLS"
answer=ANSWER_$name code=CODE_$name
if [ -n "${!answer:-}" ]; then echo -e "${!answer}"; fi
exit "${!code:-0}"
"""
SRUN = """#!/bin/bash
while [ "$1" != bash ]; do shift; done
SLURM_NTASKS=${NTASKS:-1} SLURM_PROCID=0 SLURM_LOCALID=0 exec "$@"
"""
# In place of python: start number n of a kind and task ends with code n of $CODES_kind_task, else of $CODES_kind. 75 waits for the signal
# and takes a second to save, as a trainer does; a second signal would be its end, with 9.
PROGRAM = """#!/bin/bash
kind=${2#launch.} index=${SLURM_PROCID:-0}
mark="$STARTS/$kind.$index" own="CODES_${kind}_$index" all="CODES_$kind"
echo "$*" >> "$mark"
codes=(${!own:-${!all}})
code=${codes[$(wc -l < "$mark") - 1]}
if [ "$code" = 75 ]; then
  told=0
  trap 'told=$((told + 1))' TERM
  echo > "$mark.waits"
  for ((i = 0; i < 600 && told == 0; i++)); do sleep 0.1; done
  for ((i = 0; i < 10; i++)); do sleep 0.1; done
  rm "$mark.waits"
  if [ "$told" != 1 ]; then exit 9; fi
fi
exit "$code"
"""
STEPS = 200
LONGER = [f"--config.{key}={STEPS}" for key in ("train.steps", "checkpoint.every_steps", "evals.test.every_steps")]
CLUSTER = pathlib.Path(__file__).with_name("slurm_cluster.sh")
BOUND = 120  # seconds: against hanging, not a measurement

many = pytest.mark.many_processes


def program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def cluster_file(path, **fields):
    path.write_text(f"from ml_collections import ConfigDict\n\n\ndef get_config(arg=''):\n    return ConfigDict({SMALLEST | fields!r})\n")
    return str(path)


def cluster_of(tmp_path, **fields):
    return clusters.load(cluster_file(tmp_path / "cluster.py", **fields), "slurm", job.DEFAULTS)


def work(tmp_path, words=("python", "-m", "launch.train"), kind="train", **fields):
    return script.Work(kind, words, tmp_path / "slurm", f"{tmp_path}/slurm/log", "toy", **fields)


def asked(text):
    """What a script asks of sbatch, as SLURM splits it: name to value, None for a switch."""
    words = [word for line in re.findall(r"^#SBATCH (.*)$", text, re.M) for word in shlex.split(line)]
    return {word.partition("=")[0]: word.partition("=")[2] if "=" in word else None for word in words}


def bash(text, **variables):
    return subprocess.run(["bash", "-c", text], env=os.environ | variables, capture_output=True, text=True)


COMMON = {"--job-name": "toy", "--open-mode": "append"}
BARE = {
    "--nodes": "1", "--ntasks-per-node": "1", "--cpus-per-task": "1", "--time": "8:00:00", "--requeue": None, "--chdir": str(ROOT),
    "--signal": "B:TERM@120",
}  # fmt: skip
OURS = {"--chdir": "/shared/our code", "--signal": "B:TERM@300", "--account": "me", "--qos": "high", "--no-requeue": None}
WHOLE = dict(
    time="2-00:00:00", nodes=4, tasks_per_node=8, gpus_per_node=8, gpu_type="h100", cpus_per_task=12, memory="900G", partition="big",
    account="me", qos="high", lines=("--constraint=fast", "--mail-type=END"), requeue=False, signal_seconds=300, folder="/shared/our code",
    eval=dict(time="60", gpus=1, partition="small", lines=("--mail-type=NONE",)),
)  # fmt: skip


@pytest.mark.parametrize(
    "fields, kind, wanted",
    [
        ({}, "train", BARE),
        ({}, "evaluate", BARE | {"--cpus-per-task": "4"}),
        (
            WHOLE,
            "train",
            OURS | {
                "--nodes": "4", "--ntasks-per-node": "8", "--cpus-per-task": "12", "--gres": "gpu:h100:8", "--mem": "900G",
                "--time": "2-00:00:00", "--partition": "big", "--constraint": "fast", "--mail-type": "END",
            },
        ),
        (
            WHOLE,
            "evaluate",
            OURS | {
                "--nodes": "1", "--ntasks-per-node": "1", "--cpus-per-task": "4", "--gres": "gpu:h100:1", "--time": "60",
                "--partition": "small", "--mail-type": "NONE",
            },
        ),
    ],
)  # fmt: skip
def test_a_script_asks_for_what_the_cluster_file_says(fields, kind, wanted, tmp_path):
    text = script.text(cluster_of(tmp_path, **fields), work(tmp_path, kind=kind))
    found = asked(text)
    assert found.pop("--output") == f"{tmp_path}/slurm/log" and found == COMMON | wanted
    assert bash(f"bash -n <<'END_OF_SCRIPT'\n{text}\nEND_OF_SCRIPT").stderr == ""


def test_the_words_and_variables_of_a_script_are_those_given(tmp_path):
    words = ["python", "-m", "launch.train", "--workdir=runs/it's $HOME", '--config.a=("b", 2)', "*"]
    made = cluster_of(tmp_path, variables=dict(A="x y $B `c`"), setup=("export SET_UP=yes",), gpus_per_node=1)
    text = script.text(made, work(tmp_path, words, variables=dict(C="'")))
    settings = text[: text.index(script.BODY.read_text())]
    done = bash(f'{settings}\nprintf "%s\\n" "${{words[@]}}" "$A" "$C" "$SET_UP" "$JAX_PLATFORMS" "$port"', SLURM_JOB_ID="70123")
    assert done.stdout.splitlines() == [sys.executable, *words[1:], "x y $B `c`", "'", "yes", "cuda,cpu", "20123"], done.stderr
    evaluating = script.text(made, work(tmp_path, kind="evaluate"))
    assert "export JAX_PLATFORMS=cpu" in evaluating and "JAX_PLATFORMS=cuda" not in evaluating  # the GPU is the trainer's
    assert "words=(/opt/python -m" in script.text(cluster_of(tmp_path, python="/opt/python"), work(tmp_path))


def test_the_cluster_file_of_the_repository():
    made = clusters.load("configs/clusters/slurm.py:nodes=2,time=60", "slurm", job.DEFAULTS)
    script.check(made)
    assert (made.nodes, made.tasks_per_node, made.gpus_per_node, made.time, made.eval.gpus) == (2, 1, 8, "60", 1)


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(time=None), "cluster.time is None"),
        (dict(time="tomorrow"), "cluster.time is 'tomorrow'; write minutes, or 8:00:00"),
        (dict(eval=dict(time="1 h")), "cluster.eval.time is '1 h'"),
        (dict(nodes=0), "cluster.nodes is 0; set it to 1 or more"),
        (dict(nodess=1), "cluster.nodess is not a key; .* Did you mean 'nodes'"),
        (dict(gpus_per_node=4, tasks_per_node=3), "3, which do not share 4 GPUs equally"),
        (dict(gpus_per_node="4"), "cluster.gpus_per_node is '4', a str; it must be a int"),
        (dict(port=80), "cluster.port is 80; set it to 1024 to 65535"),
        (dict(lines=("constraint=fast",)), "cluster.lines holds 'constraint=fast', which is no option of sbatch"),
        (dict(eval=dict(lines=("--a\n--b",))), "cluster.eval.lines holds"),
        (dict(setup=(1,)), "cluster.setup holds 1"),
        (dict(variables=dict(A=1)), "cluster.variables holds A=1; a variable has a name of letters and digits, and a str"),
        (dict(eval=dict(cpus=0)), "cluster.eval.cpus is 0; set it to 1 or more"),
        (dict(platform="gke"), "cluster.platform is 'gke'"),
    ],
)
def test_a_mistake_in_the_cluster_file_names_its_field(fields, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        script.check(cluster_of(tmp_path, **fields))


@pytest.fixture
def stand_ins(tmp_path, monkeypatch):
    """SLURM's commands as stand-ins first on PATH; returns the lines of how they were called."""
    for name in ("squeue", "scancel", "scontrol", "sbatch"):
        program(tmp_path / "bin" / name, STAND_IN)
    program(tmp_path / "bin" / "srun", SRUN)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    return lambda: (tmp_path / "calls").read_text().splitlines() if (tmp_path / "calls").exists() else []


@pytest.mark.parametrize(
    "codes, fields, environment, code, starts, requeued",
    [
        ("0", {}, {}, 0, 1, False),
        ("3", {}, {}, 3, 1, False),
        ("4", {}, {}, 4, 1, False),
        ("1 5 0", {}, {}, 0, 3, False),
        ("5 5 5 5", {}, {}, 5, 3, False),  # restarts=2
        ("143", {}, {}, 75, 1, True),  # stopped before it could save
        ("143", dict(requeue=False), {}, 75, 1, False),
        ("143", {}, dict(ANSWER_squeue="COMPLETING"), 75, 1, False),  # cancelled
        ("143", {}, dict(CODE_scontrol="1"), 75, 1, True),  # asked for, but refused
        ("0", dict(setup=("false", "true")), {}, 1, 0, False),
    ],
)
def test_what_a_job_does_with_each_code(codes, fields, environment, code, starts, requeued, tmp_path, stand_ins):
    made = cluster_of(tmp_path, python=program(tmp_path / "python", PROGRAM), restarts=2, **fields)
    text = script.text(made, work(tmp_path, restarts=2))
    (tmp_path / "slurm").mkdir()
    done = bash(text, SLURM_JOB_ID="7", CODES_train=codes, STARTS=str(tmp_path), **dict(ANSWER_squeue="RUNNING") | environment)
    assert done.returncode == code, done.stderr
    ran = (tmp_path / "train.0").read_text().splitlines() if starts else []
    assert len(ran) == starts and set(ran) <= {"-m launch.train"}
    assert ("scontrol requeue 7" in stand_ins()) == requeued
    comes_back = requeued and "CODE_scontrol" not in environment
    left = tmp_path / "slurm" / "7.code"
    assert not left.exists() if comes_back else left.read_text() == f"{code}\n"


def task(arguments, body, **environment):
    """Runs what each task runs."""
    text = re.search(r"^task='\n(.*?)\n'$", script.BODY.read_text(), re.M | re.S)[1]
    done = subprocess.run(["bash", "-c", text, "task", *arguments, "bash", "-c", body], env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout.strip()


@pytest.mark.parametrize("code, told", [(0, 0), (1, 1), (3, 203), (4, 202), (5, 5), (75, 201), (143, 201)])
def test_the_codes_that_decide_are_the_highest_of_a_step(code, told):
    assert task(["1", "0", "0"], f"exit {code}", SLURM_NTASKS="1") == (told, "")


@pytest.mark.parametrize(
    "gpus, share, visible, local, wanted",
    [
        (4, 2, "0,1,2,3", 0, "0,1"),
        (4, 2, "4,5,6,7", 1, "6,7"),
        (4, 1, "0,1,2,3", 3, "3"),
        (4, 4, "0,1,2,3", 0, "0,1,2,3"),
        (2, 1, "5", 1, "5"),
    ],
)  # the last: the cluster itself gave each task its own
def test_tasks_of_a_node_share_its_gpus(gpus, share, visible, local, wanted):
    place = dict(SLURM_NTASKS="8", SLURM_PROCID="5", SLURM_LOCALID=str(local), SLURM_LAUNCH_NODE_IPADDR="10.0.0.7")
    said = 'echo "$CUDA_VISIBLE_DEVICES $TANDEM_COORDINATOR $TANDEM_PROCESSES $TANDEM_PROCESS"'
    found = task(["20001", str(gpus), str(share)], said, CUDA_VISIBLE_DEVICES=visible, **place)
    assert found == (0, f"{wanted} 10.0.0.7:20001 8 5")
    host = task(["1", "0", "0"], "echo $TANDEM_COORDINATOR", **place | dict(SLURM_LAUNCH_NODE_IPADDR="fe80::1"))
    assert host == (0, "[fe80::1]:1")


def test_a_task_that_sees_no_gpu_does_not_train_on_the_cpu(tmp_path):
    text = re.search(r"^task='\n(.*?)\n'$", script.BODY.read_text(), re.M | re.S)[1].replace("/dev/", f"{tmp_path}/")
    words = ["bash", "-c", text, "task", "1", "4", "4", "echo", "went on"]
    look = lambda: subprocess.run(words, env=os.environ | dict(SLURM_NTASKS="1", JAX_PLATFORMS="cuda,cpu"), capture_output=True, text=True)
    done = look()
    assert done.returncode == 203 and "none of the 4 GPUs" in done.stderr and not done.stdout
    (tmp_path / "nvidia0").touch()
    assert look().stdout == "went on\n"


def test_a_sweeps_jobs_are_watched_with_one_look(tmp_path, stand_ins, monkeypatch):
    monkeypatch.setattr(job, "LAG_SECONDS", 0.0)
    monkeypatch.setenv("SLURM_JOB_ID", "1")  # the sweep may itself be a job
    start, words = job.Jobs(cluster_of(tmp_path)).start, ["python", "-m", "launch.train", "--a"]
    jobs = []
    for number in (7, 8, 9):
        folder = tmp_path / f"100% {number}"
        folder.mkdir()
        monkeypatch.setenv("ANSWER_sbatch", str(number))
        with open(folder / "trial.log", "a") as output:
            jobs.append(start(words, {"A": "b"}, output))
    text = (folder / "slurm" / "train.sbatch").read_text()
    assert asked(text)["--output"] == f"{tmp_path}/100%% 9/trial.log" and "export A=b" in text
    monkeypatch.setenv("ANSWER_squeue", "7\\n8\\n9")
    assert [one.poll() for one in jobs * 3] == [None] * 9
    assert [call.split()[0] for call in stand_ins()] == ["sbatch"] * 3 + ["squeue"]
    with open(folder / "trial.log", "a") as output:
        again = start(words, {}, output)  # a sweep that was killed comes back
        with pytest.raises(ConfigError, match="job 9 uses .* for something else; end it: scancel 9"):
            start([*words, "--b"], {}, output)
    assert again.number == "9" and stand_ins()[4:] == []
    jobs[1].terminate()
    assert stand_ins()[4:] == [
        "scontrol update JobId=8 Requeue=0", "scancel --state=PENDING 8", "scancel --state=RUNNING --batch --signal=TERM 8"
    ]  # fmt: skip
    # All end: with a code, before they began, and by somebody's hand.
    (tmp_path / "100% 7" / "slurm" / "7.code").write_text("4\n")
    monkeypatch.setenv("ANSWER_squeue", "")
    for one in jobs:
        one._queue._at = -float("inf")
    assert [one.poll() for one in jobs] == [4, process.STOPPED, job.LOST]
    before = len(stand_ins())
    jobs[0].kill()
    jobs[0].terminate()
    assert jobs[0].wait() == 4 and len(stand_ins()) == before  # what has ended is left alone


def commands(tmp_path, *names):
    """Words and logs of trainings, as a sweep announces them."""
    return [(["python", "-m", "launch.train", f"--workdir={tmp_path / name}"], tmp_path / name / "trial.log") for name in names]


def array_of(made, tmp_path, works, **variables):
    """The script of an array job, and what each of its tasks does with the variables that SLURM gives them."""
    whole = work(tmp_path, (), tasks=works, parallel=2)
    text = script.text(made, whole)
    place = lambda index: dict(SLURM_JOB_ID=str(8 + index), SLURM_ARRAY_JOB_ID="7", SLURM_ARRAY_TASK_ID=str(index))
    return text, [bash(text, **place(index), **variables) for index in range(len(works))]


def test_a_task_of_an_array_is_a_job_with_words_a_log_and_a_code_of_its_own(tmp_path, stand_ins):
    made = cluster_of(tmp_path, python=program(tmp_path / "python", PROGRAM))
    works = [job.work_of(words, log) for words, log in commands(tmp_path, "50% a", "it's b", "c")]
    for one in works:
        one.folder.mkdir(parents=True)
    codes = dict(STARTS=str(tmp_path), CODES_train="0 143 3")  # the second is stopped, and may come back
    text, ended = array_of(made, tmp_path, works, ANSWER_squeue="RUNNING", **codes)
    assert asked(text)["--array"] == "0-2%2" and [one.returncode for one in ended] == [0, 75, 3]
    assert (tmp_path / "train.0").read_text().splitlines() == [" ".join(one.words[1:]) for one in works]
    calls = stand_ins()
    assert [call for call in calls if "requeue" in call] == ["scontrol requeue 7_1"]
    assert {call for call in calls if call.startswith("squeue")} == {"squeue --noheader --jobs=7_1 --format=%T"}
    left = [{path.name: path.read_text() for path in one.folder.glob("*.code")} for one in works]
    assert left == [{"7_0.code": "0\n"}, {}, {"7_2.code": "3\n"}]
    assert [one.stdout + one.stderr for one in ended] == [""] * 3 and "RUNNING" not in (tmp_path / "c" / "trial.log").read_text()


def test_what_a_sweep_announces_is_one_array_job_that_its_starts_join(tmp_path, stand_ins, monkeypatch):
    known = commands(tmp_path, "a", "b", "c", "d")
    jobs = job.Jobs(cluster_of(tmp_path))

    def start(jobs, index):
        with open(known[index][1], "a") as output:
            return jobs.start(known[index][0], {}, output)

    monkeypatch.setenv("ANSWER_sbatch", "7")
    jobs.announce(tmp_path / "sweep", known, 2)
    assert stand_ins() == [f"sbatch --parsable {tmp_path}/sweep/slurm/train.sbatch"]
    assert asked((tmp_path / "sweep" / "slurm" / "train.sbatch").read_text())["--array"] == "0-3%2"
    monkeypatch.setenv("ANSWER_squeue", "7_1\n7_2\n7_3")  # the first has ended before anybody waited for it
    (tmp_path / "a" / "slurm" / "7_0.code").write_text("0\n")
    first, second = start(jobs, 0), start(jobs, 1)
    assert (first.number, first.poll(), second.number, second.poll()) == ("7_0", process.DONE, "7_1", None)
    jobs.withdraw([known[0][0], known[3][0]])
    told = ["scontrol update JobId=7_3 Requeue=0", "scancel --state=PENDING 7_3", "scancel --state=RUNNING --batch --signal=TERM 7_3"]
    assert stand_ins()[2:] == told and stand_ins()[1].startswith("squeue --noheader --array")
    # The sweep is killed and comes back: what is done or still there is joined, the rest is a new array.
    monkeypatch.setenv("ANSWER_squeue", "7_1")
    monkeypatch.setenv("ANSWER_sbatch", "8")
    again = job.Jobs(cluster_of(tmp_path))
    again.announce(tmp_path / "sweep", known, 2)
    text = (tmp_path / "sweep" / "slurm" / "train.sbatch").read_text()
    assert asked(text)["--array"] == "0-1%2" and f"--workdir={tmp_path / 'c'})" in text and f"--workdir={tmp_path / 'a'})" not in text
    assert [start(again, index).number for index in range(4)] == ["7_0", "7_1", "8_0", "8_1"]
    again.withdraw()  # nothing is left that nobody waits for
    assert [call.split()[0] for call in stand_ins()[5:]] == ["squeue", "sbatch"]
    # What has ended is started again as a job of its own.
    again._queue._jobs, again._queue._at = frozenset(), float("inf")
    monkeypatch.setenv("ANSWER_sbatch", "9")
    assert start(again, 2).number == "9"


def test_an_array_that_the_cluster_refuses_becomes_single_jobs(tmp_path, stand_ins, monkeypatch, caplog):
    jobs, known = job.Jobs(cluster_of(tmp_path)), commands(tmp_path, "a", "b")
    monkeypatch.setenv("CODE_sbatch", "1")
    jobs.announce(tmp_path / "sweep", known, 2)
    assert "each of the 2 trainings becomes a job of its own" in caplog.text
    monkeypatch.setenv("CODE_sbatch", "0")
    monkeypatch.setenv("ANSWER_sbatch", "7")
    with open(known[0][1], "a") as output:
        assert jobs.start(known[0][0], {}, output).number == "7"


def test_a_controller_that_does_not_answer_ends_no_job(tmp_path, stand_ins, monkeypatch):
    watched = queue.Queue(0.0)
    watched.add("7")
    monkeypatch.setenv("CODE_squeue", "1")
    assert job.Job("7", tmp_path, watched).poll() is None


def plan(tmp_path, evaluation="job", **fields):
    words = ["python", "-m", "launch.train", "--config=c.py", f"--workdir={tmp_path / 'run'}"]
    return run.Plan(cluster_of(tmp_path, **fields), words, str(tmp_path / "run"), evaluation)


@pytest.mark.parametrize("evaluation, relation", [("job", "after"), ("after", "afterany"), ("none", None)])
def test_evaluation_is_a_job_of_its_own(evaluation, relation, tmp_path, stand_ins, monkeypatch):
    monkeypatch.setenv("ANSWER_sbatch", "7;here")  # as federated clusters answer
    lines = run.submit(plan(tmp_path, evaluation)).splitlines()
    logs = tmp_path / "run" / "slurm"
    assert lines == [f"7 trains {logs}/train-7.log", f"7 evaluates {logs}/evaluate-7.log"][: 1 + bool(relation)]
    wanted = [f"sbatch --parsable {logs}/train.sbatch", f"sbatch --parsable --dependency={relation}:7 {logs}/evaluate.sbatch"]
    assert stand_ins() == wanted[: 1 + bool(relation)]
    if relation:
        text = (logs / "evaluate.sbatch").read_text()
        assert ("--follow --timeout_seconds=86400.0" in text) == ("follows=7" in text) == (evaluation == "job")
        assert "export JAX_PLATFORMS=cpu" in text
    rehearsed = run.rehearsal(plan(tmp_path, evaluation))
    assert rehearsed.count("#!/bin/bash") == 1 + bool(relation) and len(stand_ins()) == 1 + bool(relation)


def test_a_workdir_has_one_job_at_a_time(tmp_path, stand_ins, monkeypatch):
    monkeypatch.setenv("ANSWER_sbatch", "7")
    run.submit(plan(tmp_path))
    monkeypatch.setenv("ANSWER_squeue", "7")
    with pytest.raises(ConfigError, match="is being trained by job 7; choose another --workdir, or end it: scancel 7"):
        run.submit(plan(tmp_path))
    monkeypatch.setenv("ANSWER_squeue", "8")
    run.submit(plan(tmp_path))
    monkeypatch.setenv("CODE_sbatch", "1")
    with pytest.raises(ConfigError, match="sbatch refused"):
        run.submit(plan(tmp_path))


def test_what_slurm_cannot_do_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="sbatch is not on this machine"):
        run.submit(plan(tmp_path))
    remote = plan(tmp_path)._replace(workdir="gs://bucket/run")
    with pytest.raises(ConfigError, match="takes no logs of SLURM; set cluster.logs"):
        run.rehearsal(remote)
    assert f"{tmp_path}/logs/gs_bucket_run/train-%j.log" in run.rehearsal(
        plan(tmp_path, logs=f"{tmp_path}/logs")._replace(workdir="gs://bucket/run")
    )


def test_the_command_prints_scripts_and_refuses_mistakes(tmp_path):
    words = [f"--workdir={tmp_path / 'run'}", f"--cluster={cluster_file(tmp_path / 'cluster.py')}"]
    code, out, err = command("slurm", *TOY, *words, "--dry_run")
    assert code == 0, err
    assert f"-m launch.train {shlex.join(TOY)} --workdir={tmp_path / 'run'})" in out and not (tmp_path / "run").exists()
    for wrong, message in (
        ("--cluster=nowhere.py", "--cluster=nowhere.py does not exist"),
        ("--config.seeed=1", "slurm: config.seeed is not a key"),
    ):
        code, out, err = command("slurm", *TOY, *words, wrong)
        assert code == process.CONFIG_ERROR and len(err.strip().splitlines()) == 1 and message in err


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """A controller and two nodes of eight processors each, all on this machine."""
    missing = [name for name in ("slurmctld", "slurmd", "munged") if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]
    if missing:
        pytest.skip(f"needs SLURM and munge, but there is no {', '.join(missing)}; ./tests/slurm.sh installs them")
    folder = tmp_path_factory.mktemp("slurm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        try:
            with open(folder / "start.log", "w") as said:  # not a pipe, which the daemons would hold open
                started = subprocess.run([CLUSTER, "start", folder], stdin=subprocess.DEVNULL, stdout=said, stderr=said, timeout=BOUND)
            assert started.returncode == 0, (folder / "start.log").read_text()
            yield folder
        finally:
            subprocess.run([CLUSTER, "stop", folder], check=True, timeout=BOUND)


def until(holds, what):
    deadline = time.monotonic() + BOUND
    while not holds():
        assert time.monotonic() < deadline, f"{what}; the queue: {subprocess.run('squeue', capture_output=True, text=True).stdout}"
        time.sleep(0.2)


def submitted(folder, *words, evaluation="none", **fields):
    """Submits a training, and what evaluates it; their jobs."""
    folder.mkdir(exist_ok=True)
    words = ["python", "-m", "launch.train", *words, f"--workdir={folder}"]
    made = cluster_of(folder, **fields)
    run.submit(run.Plan(made, words, str(folder), evaluation))
    numbers = [read_json(path)["job"] for path in (folder / "slurm" / "train.json", folder / "slurm" / "evaluate.json") if path.exists()]
    watched = queue.Queue(0.2)
    for number in numbers:
        watched.add(number)
    return [job.Job(number, folder / "slurm", watched) for number in numbers]


def code_of(one):
    until(lambda: one.poll() is not None, f"job {one.number} has not ended")
    return one.returncode


def said(folder, one):
    return (folder / "slurm" / f"train-{one.number}.log").read_text()


def tell(*words):
    subprocess.run(words, check=True)


@many
def test_a_real_controller_stops_requeues_and_ends_jobs(slurm, tmp_path):
    """All at once, with a stand-in for the trainer: only what becomes of the jobs matters."""

    def submit(name, train, evaluate="0", **options):
        folder = tmp_path / name
        variables = dict(STARTS=str(folder), CODES_train=train, CODES_evaluate=evaluate) | options.pop("variables", {})
        made = submitted(folder, variables=variables, python=program(folder / "python", PROGRAM), time="10", **options)
        return folder, *made

    starts = lambda folder, kind="train", task=0: len((folder / f"{kind}.{task}").read_text().splitlines())
    waits = lambda folder, kind="train", task=0: (folder / f"{kind}.{task}.waits").exists()
    preempted, trained, evaluated = submit(
        "preempted", "75 1 0", evaluation="after", nodes=2, gpus_per_node=1, variables=dict(JAX_PLATFORMS="")
    )
    ending, ended_early = submit("ending", "75 0")
    cancelled, gone = submit("cancelled", "75 0")
    asked_to, asked_job = submit("asked", "75 0", tasks_per_node=2)
    mistaken, refused = submit("mistaken", "5", nodes=2, variables=dict(CODES_train_1="3"))
    followed, failed, follower = submit("followed", "3", "75", evaluation="job", eval=dict(look_seconds=1.0))
    waiting, before, never = submit("waiting", "75", evaluation="after")
    for folder in (preempted, ending, cancelled, asked_to, waiting):
        until(lambda folder=folder: waits(folder), f"{folder.name} does not run")
    until(lambda: waits(preempted, task=1) and waits(asked_to, task=1), "a second task does not run")
    tell("scancel", "--signal=TERM", trained.number)
    tell("scancel", "--batch", "--signal=TERM", ended_early.number)  # as SLURM does before the time is up
    tell("scancel", gone.number)
    asked_job.terminate()
    never.terminate()  # before it began
    assert code_of(gone) == code_of(asked_job) == process.STOPPED and code_of(never) == process.STOPPED
    assert code_of(refused) == code_of(failed) == process.CONFIG_ERROR
    before.kill()
    assert before.wait() != 0
    assert code_of(follower) == process.STOPPED and starts(followed, "evaluate") == 1  # what it followed will not come
    assert code_of(ended_early) == process.DONE and starts(ending) == 2
    assert code_of(trained) == process.DONE and starts(preempted) == starts(preempted, task=1) == 3
    assert code_of(evaluated) == process.DONE and starts(preempted, "evaluate") == 1
    ended, began = (path.stat().st_mtime for path in (preempted / "slurm" / f"{trained.number}.code", preempted / "evaluate.0"))
    assert ended <= began  # it waited for the last end of training, and not for the first
    for folder in (cancelled, asked_to, mistaken, followed):
        assert starts(folder) == 1, folder
    assert not (waiting / "evaluate.0").exists()


@many
def test_the_tasks_of_an_array_are_stopped_requeued_and_ended_one_by_one(slurm, tmp_path):
    """The last task has the array's own number: what is meant for it must not reach the others."""
    program(tmp_path / "trainer", PROGRAM)
    own = f'#!/bin/bash\nexport STARTS="${{3#--workdir=}}"\nCODES_train=$(cat "$STARTS/codes") exec {tmp_path}/trainer "$@"\n'
    made = cluster_of(tmp_path, python=program(tmp_path / "python", own), time="10", poll_seconds=0.2)
    codes = {"a": "75 0", "b": "75", "c": "75", "d": "75 0", "e": "75", "f": "0"}
    for name, text in codes.items():
        program(tmp_path / name / "codes", text)
    known = commands(tmp_path, *codes)
    starts = lambda name: len((tmp_path / name / "train.0").read_text().splitlines()) if (tmp_path / name / "train.0").exists() else 0
    waits = lambda *names: all((tmp_path / name / "train.0.waits").exists() for name in names)

    def start(jobs, name):
        words, log = known[list(codes).index(name)]
        with open(log, "a") as output:
            return jobs.start(words, {}, output)

    jobs = job.Jobs(made)
    jobs.announce(tmp_path / "sweep", known[:4], 4)
    until(lambda: waits(*"abcd"), "the tasks do not run")
    tasks = {name: start(jobs, name) for name in "abd"}
    array = tasks["a"].number.removesuffix("_0")
    assert {name: one.number for name, one in tasks.items()} == {"a": f"{array}_0", "b": f"{array}_1", "d": f"{array}_3"}
    tell("scancel", "--batch", "--signal=TERM", f"{array}_3")  # as SLURM does before the time is up
    assert code_of(tasks["d"]) == process.DONE and starts("d") == 2 and waits(*"abc")
    tasks["b"].terminate()
    assert code_of(tasks["b"]) == process.STOPPED and starts("b") == 1
    jobs.withdraw()  # the third, for which nobody waits
    until(lambda: not queue.Queue(0.0).holds(f"{array}_2"), "a task that was withdrawn runs")
    assert (tmp_path / "c" / "slurm" / f"{array}_2.code").read_text() == "75\n" and starts("c") == 1 and waits("a")
    # A sweep that comes back joins what runs, and what is done; of the new array one task waits for the other's place.
    again = job.Jobs(made)
    again.announce(tmp_path / "sweep", known[:1] + known[3:], 1)
    joined = {name: start(again, name) for name in "ade"}
    other = joined["e"].number.removesuffix("_0")
    assert {name: one.number for name, one in joined.items()} == {"a": f"{array}_0", "d": f"{array}_3", "e": f"{other}_0"}
    assert other != array and joined["d"].poll() == process.DONE
    until(lambda: waits("e"), "the new array does not run")
    again.withdraw()
    until(lambda: not queue.Queue(0.0).holds(f"{other}_1"), "a task that waited is still there")
    tell("scancel", "--signal=TERM", joined["a"].number)
    joined["e"].kill()
    assert joined["e"].wait() != process.DONE and starts("f") == 0
    assert code_of(joined["a"]) == process.DONE and starts("a") == 2


@many
def test_a_job_that_a_more_urgent_one_pushes_aside_saves_and_comes_back(slurm, tmp_path):
    variables = dict(STARTS=str(tmp_path), CODES_train="75 0", CODES_evaluate="75 75")
    python = program(tmp_path / "python", PROGRAM)
    one, follower = submitted(
        tmp_path / "run", python=python, variables=variables, time="10", nodes=2, cpus_per_task=7, evaluation="job",
        eval=dict(cpus=1, look_seconds=1.0),
    )  # fmt: skip
    until(lambda: len(list(tmp_path.glob("*.waits"))) == 3, "the tasks do not run")
    urgent = ["sbatch", "--partition=urgent", "--nodes=2", "--cpus-per-task=7", "--output=/dev/null", "--wrap=sleep 1", "--wait"]
    subprocess.run(urgent, check=True, timeout=BOUND)
    assert code_of(one) == process.DONE and len((tmp_path / "train.1").read_text().splitlines()) == 2
    assert follower.poll() is None  # it has not been told: what it follows has ended well
    follower.kill()
    assert follower.wait() != process.DONE


@many
def test_a_preempted_job_comes_back_and_ends_as_if_nothing_had_been(slurm, tmp_path):
    whole = start("train", *TOY, *LONGER, f"--workdir={tmp_path / 'whole'}")
    (one,) = submitted(tmp_path / "run", *TOY, *LONGER, python=sys.executable)
    metrics = tmp_path / "run" / "metrics.jsonl"
    until(lambda: metrics.exists() and len(read_lines(metrics)) > 10, "the run does not step")
    tell("scancel", "--signal=TERM", one.number)
    assert code_of(one) == process.DONE
    text = said(tmp_path / "run", one)
    stopped = int(re.search(r"from step (\d+)", text)[1])
    assert 10 <= stopped < STEPS, text
    assert [row["step"] for row in read_lines(metrics)] == list(range(1, STEPS + 1))
    _, err = whole.communicate(timeout=BOUND)
    assert whole.returncode == process.DONE, err
    for ours, wanted in zip(*(jax.tree.leaves(test_processes.params(tmp_path / name, STEPS)) for name in ("run", "whole")), strict=True):
        np.testing.assert_array_equal(ours, wanted)


@many
def test_two_tasks_on_two_nodes_train_what_one_process_does(slurm, tmp_path):
    code, _, err = command("train", *TOY, *test_processes.RUN, f"--workdir={tmp_path / 'one'}")
    assert code == 0, err
    (two,) = submitted(tmp_path / "two", *TOY, *test_processes.RUN, nodes=2, python=sys.executable)
    assert code_of(two) == process.DONE, said(tmp_path / "two", two)
    test_processes.assert_same_run(tmp_path / "two", tmp_path / "one", range(1, 7))
    assert read_json(tmp_path / "two" / "environment.json")["devices"].startswith("2 ")


@many
def test_a_mistake_in_the_config_is_not_tried_again(slurm, tmp_path):
    (one,) = submitted(tmp_path / "run", *TOY, "--config.mesh.data=3", python=sys.executable)
    assert code_of(one) == process.CONFIG_ERROR
    (line,) = [line for line in said(tmp_path / "run", one).splitlines() if not line.startswith("srun: ")]
    assert "does not fit 1 devices" in line


@many
def test_a_sweep_runs_its_trials_as_jobs(slurm, tmp_path):
    (tmp_path / "toy.py").write_text(test_sweep.FILE)
    cluster = cluster_file(tmp_path / "cluster.py", poll_seconds=1.0, eval=dict(cpus=1))
    words = [f"--sweep={tmp_path / 'toy.py'}", f"--workdir={tmp_path / 'sweep'}", "--backend=slurm", f"--cluster={cluster}", "--parallel=2"]
    code, _, err = command("sweep", *TOY, *words)
    assert code == 0, err
    found = read_json(tmp_path / "sweep" / "results.json")
    assert [row["state"] for row in found["trials"]] == ["done", "done"] and found["best"]["value"] == found["trials"][0]["value"]
    array = read_json(tmp_path / "sweep" / "trials" / "0000" / "slurm" / "train.json")["job"].removesuffix("_0")
    for index, number in enumerate(("0000", "0001")):
        folder = tmp_path / "sweep" / "trials" / number
        jobs = {kind: read_json(folder / "slurm" / f"{kind}.json")["job"] for kind in ("train", "evaluate")}
        assert jobs["train"] == f"{array}_{index}"
        assert all((folder / "slurm" / f"{one}.code").read_text() == "0\n" for one in jobs.values())
        assert read_json(folder / "done.json") == {"step": 6, "exit_code": 0} and "accuracy@1" in (folder / "trial.log").read_text()
