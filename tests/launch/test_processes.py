"""Several real processes on this machine: the result of one, checkpoints for any number, and an end for all when one ends."""

import json
import re
import shutil
import signal
import time

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from core import mesh as meshes
from core.checkpoint import committed_steps, restore
from core.logbook import read_lines
from core.workdir import locked, read_json
from launch.children import free_port
from tests.launch.test_commands import TOY, run, start
from training import run as runs
from training.data import open_data

GLYPHS = [
    "--config=configs/glyphs.py:smoke", "--config.data.global_batch=64", "--config.train.steps=6", "--config.checkpoint.every_steps=3",
    "--config.log.every_steps=1",
]  # fmt: skip
FSDP = "--config.mesh.fsdp=2"  # data takes what is left: 1 of two processes, 2 of four
# Adam divides by the size of a gradient, and where that is all rounding, so would be the step. With eps = 1 a step is proportional to
# its gradient: with 0.01 two runs of the residual network were 1e-7 apart in loss after four steps and 2e-5 after five.
RUN = ["--config.optimizer.options.eps=1.0", "--config.optimizer.learning_rate=0.1", "--config.optimizer.warmup_steps=1"]
LONG = ["--config.train.steps=100000", "--config.checkpoint.every_steps=100000"]
# A text tower whose texts come in two widths.
BUCKETS = """
from configs import common


def get_config(arg):
    config = common.base()
    config.data.update(global_batch=4, shuffle=False, tokenizer=dict(name="bpe", options=dict(vocab_size=262)))
    config.data.sources = dict(main=dict(name="pairs", weight=1.0, options=dict(files=(arg,))))
    tokens = dict(name="tokenize", options=dict(length=16, buckets=(8,)))
    config.data.transforms = dict(query=tokens, passage=tokens)
    text = dict(vocab_size=262, length=16, width=16, layers=1, heads=2, causal=False, pooling="mean", embed_dim=16)
    config.model.update(towers=dict(text=dict(name="text", options=text)), views=dict(query="text", passage="text"))
    config.losses.main = dict(name="infonce", inputs=dict(zq="z_query", zp="z_passage"), weight=1.0, options={})
    config.train.steps, config.checkpoint.every_steps, config.log.every_steps, config.log.tensorboard = 6, 3, 1, False
    return config.lock()
"""
BOUND = 60  # seconds: against hanging, not a measurement

pytestmark = pytest.mark.many_processes


def start_all(count, workdir, *arguments, recipe=TOY, **environment):
    shared = dict(TANDEM_COORDINATOR=f"127.0.0.1:{free_port()}", TANDEM_PROCESSES=str(count), **environment)
    return [start("train", *recipe, *RUN, *arguments, f"--workdir={workdir}", **shared, TANDEM_PROCESS=str(rank)) for rank in range(count)]


def finish(processes, timeout=480):
    """(code, stderr) of each; none outlives the test."""
    try:
        errors = [process.communicate(timeout=timeout)[1] for process in processes]
        return [(process.returncode, err) for process, err in zip(processes, errors, strict=True)]
    finally:
        for process in processes:
            process.kill()


def train_all(count, workdir, *arguments, **environment):
    found = finish(start_all(count, workdir, *arguments, recipe=GLYPHS, **environment))
    assert [code for code, _ in found] == [0] * count, found


def until_stepping(processes, workdir):
    deadline = time.monotonic() + 120
    while not (workdir / "metrics.jsonl").exists() or len(read_lines(workdir / "metrics.jsonl")) < 2:
        if time.monotonic() > deadline or any(process.poll() is not None for process in processes):
            for process in processes:
                process.kill()
            pytest.fail(f"the run did not come to its second step: {finish(processes)}")
        time.sleep(0.02)


def column(workdir, name):
    return {row["step"]: row[name] for row in read_lines(workdir / "metrics.jsonl")}


def params(workdir, step):
    """Parameters of a checkpoint on one device of this process, whoever wrote them."""
    config = ConfigDict(read_json(workdir / "config.json"))
    run_of_one = runs.prepare(config, open_data(config, workdir), meshes.make(devices=jax.devices()[:1]))
    return jax.tree.map(np.asarray, restore(workdir / "checkpoints", step, "params", run_of_one.abstract.params))


def assert_same_run(workdir, reference, steps):
    losses, expected = column(workdir, "train/loss"), column(reference, "train/loss")
    assert sorted(losses) == list(steps)
    np.testing.assert_allclose([losses[s] for s in steps], [expected[s] for s in steps], rtol=1e-5)  # float32 sums in another order
    norms, expected = column(workdir, "opt/grad_norm"), column(reference, "opt/grad_norm")
    np.testing.assert_allclose([norms[s] for s in steps], [expected[s] for s in steps], rtol=1e-3)
    last = params(reference, 6)
    jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-6), params(workdir, 6), last)
    moved = jax.tree.map(lambda new, old: np.abs(new - old).max(), last, params(reference, 3))
    assert max(jax.tree.leaves(moved)) > 1e-4  # else any run would do


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("processes") / "one"
    code, _, err = run("train", *GLYPHS, *RUN, f"--workdir={workdir}")
    assert code == 0, err
    return workdir


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("processes") / "four"
    train_all(4, workdir, FSDP, JAX_COMPILATION_CACHE_DIR=str(workdir.parent / "cache"))
    return workdir


def test_two_processes_of_the_launcher_train_what_one_does(one, tmp_path):
    code, _, err = run("local", "--processes=2", "--eval=none", *GLYPHS, *RUN, f"--workdir={tmp_path / 'two'}")
    assert code == 0, err
    assert_same_run(tmp_path / "two", one, range(1, 7))


def test_two_processes_agree_on_the_width_of_texts(tmp_path):
    """Batches of four, two rows a process: the long text lies with the first, the second or neither, and both compile what one would."""
    (tmp_path / "buckets.py").write_text(BUCKETS)
    texts = [f"{a} zyxw vutsrq" if row in (3, 8) else a for row, a in enumerate("abcdefghijkl")]
    pairs = [{"query": text, "positive": f"{text[:1]} x"} for text in texts]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    recipe = [f"--config={tmp_path / 'buckets.py'}:{tmp_path / 'pairs.jsonl'}"]
    code, _, err = run("train", *recipe, *RUN, f"--workdir={tmp_path / 'one'}")
    assert code == 0, err
    found = finish(start_all(2, tmp_path / "two", recipe=recipe))
    assert [code for code, _ in found] == [0, 0], found
    compiled = lambda err: re.findall(r"compiled the step for (query\[4, \d+\])", err)
    assert compiled(found[0][1]) == compiled(err) == ["query[4, 16]", "query[4, 8]"]
    assert_same_run(tmp_path / "two", tmp_path / "one", range(1, 7))


def test_four_processes_with_split_parameters_train_what_one_does(one, four):
    assert_same_run(four, one, range(1, 7))


def test_several_cpu_processes_leave_no_program_for_later_ones(four):
    # What the second run loaded from the cache computed other losses than what the first had compiled.
    assert not any((four.parent / "cache").glob("*"))


@pytest.mark.parametrize("count", [1, 2])
def test_a_checkpoint_of_four_processes_is_continued_by_fewer(count, one, four, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(four, workdir)
    shutil.rmtree(workdir / "checkpoints" / "6")
    (workdir / "metrics.jsonl").unlink()
    if count == 1:
        code, _, err = run("train", *GLYPHS, *RUN, "--allow_config_change", f"--workdir={workdir}")
        assert code == 0, err
    else:
        train_all(2, workdir, FSDP)
    assert_same_run(workdir, one, range(4, 7))


def test_a_signal_to_one_stops_both_at_the_same_step(tmp_path):
    workdir = tmp_path / "run"
    both = start_all(2, workdir, *LONG)
    until_stepping(both, workdir)
    both[1].send_signal(signal.SIGTERM)  # not the one that writes
    found = finish(both)
    assert [code for code, _ in found] == [75, 75], found
    # One committed step, which needs the parts of both: they stopped at the same one.
    (stopped,) = committed_steps(workdir / "checkpoints")
    assert 0 < stopped < 100000 and column(workdir, "train/loss").keys() == set(range(1, stopped + 1))
    assert not (workdir / "done.json").exists()


@pytest.mark.parametrize("lost", [0, 1], ids=["the coordinator", "another"])
def test_a_process_that_is_killed_ends_the_other_with_5(lost, tmp_path):
    workdir = tmp_path / "run"
    both = start_all(2, workdir, *LONG)
    until_stepping(both, workdir)
    both[lost].kill()
    ((code, err),) = finish([both[1 - lost]], timeout=BOUND)
    finish([both[lost]])
    assert code == 5, err
    assert "a process of this run is lost" in err.strip().splitlines()[-1], err
    assert committed_steps(workdir / "checkpoints") == []


def test_one_that_never_comes_is_named_in_bounded_time(tmp_path):
    alone = dict(TANDEM_COORDINATOR=f"127.0.0.1:{free_port()}", TANDEM_PROCESSES="2", TANDEM_PROCESS="0", TANDEM_ARRIVAL_SECONDS="1")
    code, _, err = run("train", *TOY, f"--workdir={tmp_path / 'run'}", **alone)
    assert code == 5 and "process 1 of 2 did not come within 1 s" in err and "Traceback" not in err, err


def test_a_mistake_ends_both_with_one_line_and_3(tmp_path):
    found = finish(start_all(2, tmp_path / "run", "--config.mesh.data=3"))
    assert [code for code, _ in found] == [3, 3], found
    assert all("does not fit 2 devices" in err and "Traceback" not in err for _, err in found), found


def test_a_mistake_of_one_process_ends_the_other_too(tmp_path):
    """Only the first looks at the lock; it says so and leaves with 3, and the other, which waits for it, is told."""
    with locked(tmp_path / "run"):
        (first, message), (second, err) = finish(start_all(2, tmp_path / "run", TANDEM_PARTING_SECONDS="3"), timeout=2 * BOUND)
    assert first == 3 and "is being trained by process" in message
    assert second == 5 and "a process of this run is lost" in err, err
