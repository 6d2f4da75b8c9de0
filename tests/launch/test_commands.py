"""The command lines as a user types them, in processes of their own: results, exit codes, one-line mistakes."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from core.checkpoint import committed_steps
from core.logbook import read_lines
from losses import LOSSES

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOY = [
    "--config=configs/digits.py:smoke", "--config.data.global_batch=16", "--config.train.steps=6", "--config.checkpoint.every_steps=3",
    "--config.evals.test.every_steps=3", "--config.log.every_steps=1", "--config.model.towers.image.options.width=16",
    "--config.model.towers.image.options.layers=1", "--config.model.towers.text.options.width=16",
]  # fmt: skip


def start(module, *arguments, **environment):
    words = [sys.executable, "-m", f"launch.{module}", *arguments]
    return subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"JAX_PLATFORMS": "cpu"} | environment
    )


def run(module, *arguments, **environment):
    process = start(module, *arguments, **environment)
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def test_train_evaluate_and_report(tmp_path):
    workdir = tmp_path / "run"
    follower = start("evaluate", f"--workdir={workdir}", "--follow", "--nice=19")
    code, _, err = run("train", *TOY, f"--workdir={workdir}")
    assert code == 0, err
    out, err = follower.communicate(timeout=240)
    assert follower.returncode == 0, err
    assert json.loads((workdir / "done.json").read_text()) == {"step": 6, "exit_code": 0}
    assert {p.parent.name for p in (workdir / "evals").glob("*/test.json")} == {"3", "6"}
    facts = json.loads((workdir / "environment.json").read_text())
    assert facts["matmul_gflops"] > 0 and facts["versions"]["jax"]
    code, out, err = run("report", f"--workdir={workdir}")
    assert code == 0, err
    assert "accuracy@1" in out and str(workdir / "report.html") in out
    page = (workdir / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page
    # Again: done is done.
    before = (workdir / "metrics.jsonl").read_bytes()
    code, _, err = run("train", *TOY, f"--workdir={workdir}")
    assert code == 0 and "is done: 6 steps" in err and (workdir / "metrics.jsonl").read_bytes() == before
    # Another config in the same folder is refused, key by key.
    code, _, err = run("train", *TOY, "--config.optimizer.learning_rate=0.5", f"--workdir={workdir}")
    assert code == 3 and "config.optimizer.learning_rate: 0.001 -> 0.5" in err and "Traceback" not in err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--config.optimizer.learning_rat=1"], "learning_rate"),
        (
            ["--config.losses.main.name=infonc"],
            f"config.losses.main.name is 'infonc', which is not among: {', '.join(sorted(LOSSES))}. Did you mean 'infonce'?",
        ),
        (["--config.mesh.data=2"], "does not fit 1 devices"),
        (["--config.losses.main.options.positives=guess"], "guess"),
    ],
)
def test_a_mistake_is_one_line_and_code_3(arguments, message, tmp_path):
    code, out, err = run("train", *TOY, *arguments, f"--workdir={tmp_path / 'run'}")
    assert code == 3 and message in err and "Traceback" not in err
    assert len(err.strip().splitlines()) == 1, err
    assert not (tmp_path / "run" / "config.json").exists()  # the corrected command may use the folder


def test_evaluating_an_empty_folder_is_one_line(tmp_path):
    code, _, err = run("evaluate", f"--workdir={tmp_path}")
    assert code == 3 and "holds no committed checkpoint" in err and len(err.strip().splitlines()) == 1


@pytest.mark.many_processes
def test_sigterm_leaves_with_75_and_the_command_goes_on(tmp_path):
    workdir, longer = (
        tmp_path / "run",
        ["--config.train.steps=400", "--config.checkpoint.every_steps=400", "--config.evals.test.every_steps=400"],
    )
    process = start("train", *TOY, *longer, f"--workdir={workdir}")
    deadline = time.monotonic() + 120
    while not (workdir / "metrics.jsonl").exists() or not read_lines(workdir / "metrics.jsonl"):
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 75, err
    (stopped,) = committed_steps(workdir / "checkpoints")
    assert 0 < stopped < 400 and not (workdir / "done.json").exists()
    code, _, err = run("train", *TOY, *longer, f"--workdir={workdir}")
    assert code == 0 and f"from step {stopped}" in err
    assert [row["step"] for row in read_lines(workdir / "metrics.jsonl")] == list(range(1, 401))
