"""Runs on an object store: training, a stop, going on, evaluation, report and export, all through a stand-in server for `gs://`."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("gcsfs")
pytest.importorskip("gcp_storage_emulator")

import retrieval  # noqa: E402
from core import lease, storage  # noqa: E402
from core.checkpoint import Checkpoints, committed_steps, read_facts  # noqa: E402
from core.config import ConfigError  # noqa: E402
from core.logbook import read_lines  # noqa: E402
from core.workdir import in_turn, locked, read_json, write_json  # noqa: E402
from evals import job, report  # noqa: E402
from input_pipeline import files  # noqa: E402
from launch import checkup  # noqa: E402
from tests.parity import gcs  # noqa: E402

pytestmark = pytest.mark.parity
ROOT = pathlib.Path(__file__).resolve().parents[2]
TOY = [
    "--config=configs/digits.py:smoke", "--config.data.global_batch=16", "--config.train.steps=200", "--config.checkpoint.every_steps=20",
    "--config.evals.test.every_steps=200", "--config.log.every_steps=1", "--config.model.towers.image.options.width=16",
    "--config.model.towers.image.options.layers=1", "--config.model.towers.text.options.width=16", "--config.checkpoint.best=test",
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def variables():
    with gcs.serving() as found, pytest.MonkeyPatch.context() as patch:
        for name, value in found.items():
            patch.setenv(name, value)
        yield found


def start(module, *arguments):
    words = [sys.executable, "-m", f"launch.{module}", *arguments]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def ended(process):
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def run(module, *arguments):
    return ended(start(module, *arguments))


def lines(err):
    """What Tandem says; TensorStore tells of the token that the stand-in needs."""
    return [line for line in err.strip().splitlines() if "GOOGLE_AUTH_TOKEN_FOR_TESTING" not in line]


def until(true, process):
    deadline = time.monotonic() + 120
    while not true():
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()[1]
        time.sleep(0.1)


@pytest.fixture(scope="module")
def run_on_store(tmp_path_factory):
    """A run that was stopped and went on, followed by an eval job; what each process said; and the same run in a folder."""
    url, local, said = "gs://bucket/runs/digits", tmp_path_factory.mktemp("local") / "digits", {}
    workdir = storage.as_path(url)
    trainer = start("train", *TOY, f"--workdir={url}")
    follower = start("evaluate", f"--workdir={url}", "--follow", "--nice=19")
    until(lambda: committed_steps(workdir / "checkpoints"), trainer)
    trainer.send_signal(signal.SIGTERM)
    said["stopped"] = ended(trainer)
    said["steps"], said["done"] = committed_steps(workdir / "checkpoints"), (workdir / "done.json").exists()
    said["lines"] = read_lines(workdir / "metrics.jsonl")
    said["resumed"] = run("train", *TOY, f"--workdir={url}")
    said["local"] = run("train", *TOY, f"--workdir={local}")
    said["follower"] = ended(follower)
    return workdir, local, said


def test_a_stopped_run_goes_on_to_the_parameters_of_a_local_one(run_on_store):
    workdir, local, said = run_on_store
    assert said["stopped"][0] == 75, said["stopped"]
    last = said["steps"][-1]
    assert 0 < last < 200 and not said["done"] and said["lines"][-1]["step"] == last
    assert said["resumed"][0] == 0 and f"from step {last}" in said["resumed"][2], said["resumed"]
    assert said["local"][0] == 0, said["local"]
    assert read_json(workdir / "done.json") == {"step": 200, "exit_code": 0}
    there, here = retrieval.load(str(workdir)), retrieval.load(local)
    assert there.step == here.step == 200
    jax.tree.map(np.testing.assert_array_equal, there.params, here.params)


def test_no_line_is_lost_by_a_stop(run_on_store):
    workdir, local, _ = run_on_store
    rows, same = read_lines(workdir / "metrics.jsonl"), read_lines(local / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 201))
    assert [row["train/loss"] for row in rows] == [row["train/loss"] for row in same]
    starts = read_json(workdir / "goodput.json")["starts"]
    assert len(starts) == 2 and starts[0]["ended"] and starts[1]["ended"]
    assert len(list((workdir / "tensorboard" / "train").glob("events*"))) == 2


def test_a_second_trainer_is_refused():
    workdir = storage.as_path("gs://bucket/runs/busy")
    with locked(workdir):
        code, _, err = run("train", *TOY, f"--workdir={workdir}")
    assert code == 3 and f"{workdir} is being trained by process {os.getpid()} on" in err and len(lines(err)) == 1, err
    assert not workdir.exists()


def test_the_eval_job_follows_and_keeps_the_best(run_on_store):
    workdir, _, said = run_on_store
    assert said["follower"][0] == 0, said["follower"]
    assert read_json(workdir / "evals" / "200" / "test.json")["count"] > 0
    best = workdir / "evals" / "best"
    assert read_json(best / "best.json")["step"] == 200 and (best / "params").is_dir() and not (workdir / "evals" / "best.tmp").exists()
    assert len(list((workdir / "tensorboard" / "eval").glob("events*"))) == 1


def test_report_reads_and_writes_it(run_on_store):
    workdir, _, _ = run_on_store
    report.write(str(workdir))
    assert "accuracy@1" in report.summary(str(workdir)) and (workdir / "report.html").read_text().startswith("<!")
    assert json.loads((workdir / "results.json").read_text())["evaluators"]["test"]["last"]["step"] == 200


def test_doctor_looks_at_the_store():
    found = {line.name: line for line in checkup.examine(None, "gs://bucket/new", take_step=False)}
    assert {"workdir", "store", "store speed", "store space"} <= set(found) and "disk speed" not in found
    assert "would be made" in found["workdir"].found and found["store"].state == checkup.OK
    assert not storage.as_path("gs://bucket/new").exists()


@pytest.mark.parametrize("module, flag", [("embed", "--input=x.txt"), ("export", "--format=hf_bert")])
def test_what_is_written_to_disks_says_so(module, flag, run_on_store):
    code, _, err = run(module, f"--workdir={run_on_store[0]}", flag, "--output=gs://bucket/out")
    assert code == 3 and "this is written to a folder on this machine" in err and len(lines(err)) == 1


def test_a_bucket_that_is_not_there_is_a_mistake():
    workdir = storage.as_path("gs://nowhere/run")
    with pytest.raises(ConfigError, match="gs://nowhere/run cannot be written"), locked(workdir):
        pytest.fail("locked")
    with pytest.raises(FileNotFoundError, match="gs://nowhere/run holds no committed checkpoint"):
        job.run(workdir)


def test_of_many_one_takes_the_lock():
    workdir, taken, refused = storage.as_path("gs://bucket/raced"), [], []

    def take():
        try:
            with locked(workdir):
                taken.append(1)
                time.sleep(1)
        except ConfigError as error:
            refused.append(error)

    threads = [threading.Thread(target=take) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(taken) == 1 and len(refused) == 3


def test_who_was_taken_for_dead_leaves():
    left = threading.Event()
    held = lease.Lease("gs://bucket/lost/", "lock", beat_seconds=0.1, leave=lambda code: left.set())
    with held:
        workdir = storage.as_path("gs://bucket/lost")
        write_json(workdir / "lock", read_json(workdir / "lock") | {"token": "of another"})
        assert left.wait(10)
    assert read_json(workdir / "lock")["token"] == "of another"


def test_turns_are_taken():
    workdir, inside, most = storage.as_path("gs://bucket/turns"), [], []

    def turn():
        with in_turn(workdir):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.05)
            inside.pop()

    threads = [threading.Thread(target=turn) for _ in range(3)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert most == [1, 1, 1]


@pytest.mark.parametrize("killed_after", ["copy", "removal", "exchange"])
def test_an_exchange_of_folders_survives_a_kill(killed_after):
    top = storage.as_path(f"gs://bucket/exchange_{killed_after}")
    best, fresh = top / "best", top / "best.tmp"
    for folder, word in ((best, "old"), (fresh, "new")):
        (folder / "params" / "deep").mkdir(parents=True, exist_ok=True)
        (folder / "params" / "deep" / "array").write_text(word)
        (folder / f"only_{word}").write_text(word)
        (folder / "best.json").write_text(word)
    if killed_after == "removal":
        storage.remove_folder(best)
        storage.mend_exchange(fresh, best, "best.json")
    elif killed_after == "exchange":
        storage.exchange(fresh, best, "best.json")
        storage.mend_exchange(fresh, best, "best.json")
    word = "old" if killed_after == "copy" else "new"  # without an exchange the old one stays
    storage.mend_exchange(fresh, best, "best.json")
    assert (best / "params" / "deep" / "array").read_text() == (best / "best.json").read_text() == word
    assert (best / f"only_{word}").exists() and sorted(p.name for p in best.iterdir()) == ["best.json", f"only_{word}", "params"]


def test_half_a_checkpoint_is_removed_and_old_ones_go():
    folder = storage.as_path("gs://bucket/half/checkpoints")
    (folder / "7" / "params" / "a").write_text("of a process that was killed")
    checkpoints = Checkpoints(folder, keep_last=1, keep_every_steps=None)
    for step in (8, 9):
        checkpoints.save(step, {"params": {"a": jnp.arange(3.0)}}, position=step, meta={})
        checkpoints.wait()
    checkpoints.close()
    assert committed_steps(folder) == [9] and [path.name for path in folder.iterdir()] == ["9"]
    assert read_facts(folder, 9, "data") == {"position": 9}


def test_data_may_lie_there_too():
    for i in range(3):
        (storage.as_path("gs://bucket/data") / f"shard-{i:03}.tar").write_bytes(bytes([i]) * 10)
    names = [f"gs://bucket/data/shard-{i:03}.tar" for i in range(3)]
    assert files.expand(["gs://bucket/data/shard-*.tar"]) == files.expand(["gs://bucket/data/shard-{000..002}.tar"]) == names
    assert files.read(names[1], 2, 5) == bytes([1]) * 3 and files.below("gs://bucket/data") == [name.rpartition("/")[2] for name in names]
