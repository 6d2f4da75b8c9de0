"""Evaluation next to training: what `--eval` may say, which devices each gets, and what a crash of either does."""

import os
import subprocess
import sys
import threading
import time

import pytest

from core.config import ConfigError
from launch import beside, children, supervisor
from tests.launch.test_commands import TOY, run

HERE = (beside.CPU, beside.DEVICES, beside.AFTER, beside.NONE)


@pytest.mark.parametrize(
    "text, place",
    [("cpu", ("cpu", ())), ("devices:3", ("devices", ("3",))), ("devices:0, 2", ("devices", ("0", "2"))), ("after", ("after", ()))],
)
def test_what_eval_says(text, place):
    assert beside.parse(text, HERE) == place


@pytest.mark.parametrize(
    "text, message",
    [
        ("gpu", "--eval is 'gpu', which is not among: after, cpu, devices, job, none"),
        ("aftre", "Did you mean 'after'"),
        ("job", "--eval=job is not for this launcher, which has: cpu, devices, after, none. Use another"),
        ("devices", "name each device once"),
        ("devices:1,1", "name each device once"),
        ("cpu:0", "only with devices"),
    ],
)
def test_a_mistaken_eval_is_one_line(text, message):
    with pytest.raises(ConfigError, match=message):
        beside.parse(text, HERE, "Use another.")


def test_training_and_evaluation_never_share_a_device():
    place = beside.parse("devices:1,3", HERE)
    rest, variables = beside.split(place, ["0", "1", "2", "3"])
    assert rest == ["0", "2"] and variables == {"CUDA_VISIBLE_DEVICES": "1,3"}
    for gpus, message in ((["0", "1"], "needs GPU 3, .* may use GPU 0, 1"), (["1", "3"], "needs a GPU that it leaves"), ([], "use no GPU")):
        with pytest.raises(ConfigError, match=message):
            beside.split(place, gpus)
    assert beside.split(beside.Place("cpu"), ["0"]) == (["0"], {"JAX_PLATFORMS": "cpu"})
    assert beside.split(beside.Place("after"), ["0"]) == (["0"], {})


def test_the_words_of_an_evaluation():
    assert beside.words(beside.Place("after"), "w") == ["launch.evaluate", "--workdir=w"]
    assert beside.words(beside.Place("cpu"), "w")[2:] == ["--follow", "--timeout_seconds=inf", "--nice=19"]


def supervised(folder, training, evaluating, *, restarts=1, follows=True):
    """Code of a launcher whose trainer and evaluation are these scripts, and the starts of the latter."""
    command = lambda text: [sys.executable, "-c", f"import os, pathlib, sys, time\nhere = pathlib.Path({str(folder)!r})\n{text}"]
    note = "open(here / 'starts', 'a').write('x')\n"
    keeper = beside.Keeper(lambda: children.start(command(note + evaluating), os.environ, subprocess.DEVNULL), restarts)
    code = supervisor.supervise(command(training), 1, restarts=0, evaluation=keeper, follows=follows)
    starts = folder / "starts"
    return code, len(starts.read_text()) if starts.exists() else 0


FOLLOW = "while not (here / 'done').exists(): time.sleep(0.02)\n"
TRAIN = "time.sleep(0.3); (here / 'done').touch()"


def test_the_launcher_waits_for_the_evaluation(tmp_path):
    assert supervised(tmp_path, TRAIN, FOLLOW + "time.sleep(0.2); (here / 'evaluated').touch()") == (0, 1)
    assert (tmp_path / "evaluated").exists()


@pytest.mark.parametrize("ends, code, starts", [("sys.exit(7)", 7, 2), ("sys.exit(3)", 3, 1), ("os.kill(os.getpid(), 9)", 1, 2)])
def test_an_evaluation_that_crashes_leaves_training_alone(ends, code, starts, tmp_path, caplog):
    assert supervised(tmp_path, "time.sleep(0.5); (here / 'done').touch()", ends) == (code, starts)
    assert (tmp_path / "done").exists() and "it is not started again" in caplog.text and "not every checkpoint" in caplog.text


def test_a_crash_that_does_not_come_back_is_overcome(tmp_path):
    crash = "if not (here / 'once').exists(): (here / 'once').touch(); sys.exit(7)\n"
    code, starts = supervised(tmp_path, TRAIN, crash + FOLLOW)
    assert code == 0 and starts >= 2  # once more where it ends before training has been seen to end


def test_an_evaluation_that_met_an_earlier_end_comes_again(tmp_path):
    """`done.json` of an earlier run is there until training begins anew."""
    (tmp_path / "done").touch()
    code, starts = supervised(tmp_path, f"(here / 'done').unlink(); {TRAIN}", f"{FOLLOW}if not (here / 'done').exists(): sys.exit(7)")
    assert code == 0 and starts >= 1


@pytest.mark.parametrize("code, wanted, starts", [(0, 0, 1), (4, 4, 1), (3, 3, 0), (75, 75, 0)])
def test_after_training_only_what_ended_is_evaluated(code, wanted, starts, tmp_path):
    assert supervised(tmp_path, f"sys.exit({code})", "pass", follows=False) == (wanted, starts)


def test_a_signal_ends_both(tmp_path):
    train = "import signal\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\n(here / 'ready').touch(); time.sleep(30)"

    def stop():
        while not ((tmp_path / "ready").exists() and (tmp_path / "starts").exists()):
            time.sleep(0.02)
        os.kill(os.getpid(), 15)

    waiting = threading.Thread(target=stop)
    waiting.start()
    assert supervised(tmp_path, train, FOLLOW) == (75, 1)
    waiting.join()


@pytest.mark.many_processes
def test_a_run_with_its_evaluation_beside_it(tmp_path):
    workdir = tmp_path / "run"
    code, _, err = run("local", *TOY, f"--workdir={workdir}")
    assert code == 0, err
    assert {path.parent.name for path in (workdir / "evals").glob("*/test.json")} == {"3", "6"}
    assert any(line.startswith("[eval] ") and "step 6 test" in line for line in err.splitlines()), err
    code, _, err = run("local", *TOY, "--eval=job", f"--workdir={workdir}")
    assert code == 3 and "launch.slurm" in err
