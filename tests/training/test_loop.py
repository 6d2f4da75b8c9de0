"""Whole runs at toy size: resumed = uninterrupted, bit for bit; what signals and bad losses leave behind."""

import json
import os
import shutil
import signal
import time

import jax
import numpy as np
import pytest

from core.checkpoint import committed_steps, read_facts, restore
from core.config import ConfigError
from core.logbook import read_lines
from core.workdir import read_json
from input_pipeline.sources.digits import Digits
from tests import tiny
from training import loop, optimizer
from training import run as runs


def saved(workdir, made, step, item="params", run=None):
    run = run or tiny.prepare(made, workdir)
    return jax.tree.map(np.asarray, restore(workdir / "checkpoints", step, item, run.abstract.items()[item]))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    made = tiny.config(optimizer__ema_decay=0.9)
    assert tiny.train(made, workdir) == loop.Outcome(6, False)
    return workdir, made


@pytest.fixture
def stopped(uninterrupted, tmp_path):
    """A copy of the run as its process would have left it after step 4 was saved; later steps compile to what is there already."""
    whole, made = uninterrupted
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "checkpoints" / "6")
    return tmp_path, made.copy_and_resolve_references()


def test_a_run_leaves_what_the_design_names(uninterrupted):
    workdir, _ = uninterrupted
    assert committed_steps(workdir / "checkpoints") == [2, 4, 6]
    assert read_facts(workdir / "checkpoints", 6, "data") == {"position": 6}
    assert read_facts(workdir / "checkpoints", 6, "meta")["examples"] == 96
    lines = read_lines(workdir / "metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    wanted = {
        "train/loss", "train/main", "train/positive_logit", "train/negative_logit", "train/recall@1_in_batch", "train/logit_scale",
        "train/effective_rank_query", "train/effective_rank_passage", "opt/grad_norm", "opt/learning_rate", "perf/examples_per_second",
        "perf/examples_per_second_per_device", "perf/input_wait_share",
    }  # fmt: skip
    assert wanted <= set(lines[-1])
    assert "perf/mfu" not in lines[-1]  # the peak of a CPU is not published
    assert 0 <= lines[-1]["perf/input_wait_share"] <= 1


def test_wall_time_is_accounted_for(uninterrupted):
    workdir, _ = uninterrupted
    found = read_json(workdir / "goodput.json")
    (start,) = found["starts"]
    assert (start["first_step"], start["last_step"], start["ended"]) == (0, 6, True)
    assert sum(start["seconds"].values()) == pytest.approx(start["until"] - start["began"])
    assert all(found["seconds"][kind] > 0 for kind in ("step", "setup", "compile", "input_wait", "checkpoint"))
    assert found["seconds"]["lost"] == found["seconds"]["down"] == 0
    shares = [line["perf/goodput"] for line in read_lines(workdir / "metrics.jsonl")]
    assert 0 < shares[-1] < 1


def test_the_learning_rate_in_the_log_is_the_schedules(uninterrupted):
    workdir, made = uninterrupted
    rate = optimizer.schedule(made.optimizer, 6)
    logged = [line["opt/learning_rate"] for line in read_lines(workdir / "metrics.jsonl")]
    np.testing.assert_allclose(logged, [rate(step) for step in range(6)], rtol=1e-6)
    assert logged[0] == 0.0 and max(logged) == pytest.approx(1e-3)


@pytest.mark.parametrize("stop_after", [1, 3])
def test_a_signal_saves_and_the_same_command_goes_on_bit_for_bit(stop_after, uninterrupted, tmp_path, monkeypatch):
    whole, made = uninterrupted
    delivered = 0
    place = loop.meshes.place_batch

    def interrupt(batch, mesh):
        nonlocal delivered
        delivered += 1
        if delivered == stop_after:
            os.kill(os.getpid(), signal.SIGTERM)
        return place(batch, mesh)

    monkeypatch.setattr(loop.meshes, "place_batch", interrupt)
    outcome = tiny.train(made, tmp_path)
    # The wish travels with the next batch and is read one step later: at most two more steps.
    assert outcome.stopped and stop_after < outcome.step <= stop_after + 2
    assert committed_steps(tmp_path / "checkpoints")[-1] == outcome.step
    assert tiny.train(made, tmp_path) == loop.Outcome(6, False)
    run = tiny.prepare(made, tmp_path)
    for item in ("params", "opt", "ema"):
        jax.tree.map(np.testing.assert_array_equal, *(saved(workdir, made, 6, item, run) for workdir in (tmp_path, whole)))
    rows = read_lines(tmp_path / "metrics.jsonl")
    assert [row["train/loss"] for row in rows] == [row["train/loss"] for row in read_lines(whole / "metrics.jsonl")]


def test_a_slow_disk_is_waited_for_and_counted(uninterrupted, stopped, monkeypatch):
    (whole, _), (workdir, made) = uninterrupted, stopped
    read = Digits.__getitem__

    def slowly(source, i):
        time.sleep(0.1)
        return read(source, i)

    monkeypatch.setattr(Digits, "__getitem__", slowly)
    assert tiny.train(made, workdir) == loop.Outcome(6, False)
    assert [row["train/loss"] for row in read_lines(workdir / "metrics.jsonl")] == [
        row["train/loss"] for row in read_lines(whole / "metrics.jsonl")
    ]
    assert read_json(workdir / "goodput.json")["starts"][-1]["seconds"]["input_wait"] > 0.05  # nothing else can be done meanwhile


def test_a_checkpoint_goes_on_on_another_mesh(uninterrupted, stopped):
    (whole, made), (workdir, _) = uninterrupted, stopped
    outcome = tiny.train(made, workdir, devices=jax.devices(), data=2, fsdp=2, tensor=2)
    assert outcome == loop.Outcome(6, False)
    assert read_json(workdir / "goodput.json")["starts"][-1]["first_step"] == 4
    run = tiny.prepare(made, workdir)
    left, right = (jax.tree.leaves(saved(folder, made, 6, run=run)) for folder in (workdir, whole))
    for one, other in zip(left, right, strict=True):
        np.testing.assert_allclose(one, other, atol=5e-5)  # Adam: steps of 5e-4 and 1.5e-4 on sums that differ in the last bit


def broken(made):
    """A learning rate that breaks every parameter in one update."""
    made.optimizer.update(learning_rate=float("inf"), warmup_steps=0)
    made.optimizer.schedule = dict(name="constant", options={})
    return made


def test_a_bad_loss_stops_the_run_and_overwrites_nothing(stopped):
    tmp_path, made = stopped
    made = broken(made)
    with pytest.raises(
        loop.BadLoss,
        match=r"(loss of step \d is nan|not finite after step \d); last good checkpoint: step 4; .*records \(\d+, .*config.optimizer",
    ):
        tiny.train(made, tmp_path)
    assert committed_steps(tmp_path / "checkpoints") == [2, 4]
    batch = json.loads((tmp_path / "bad_batch.json").read_text())
    assert batch["step"] > 4 and len(batch["record"]) == 16


def test_a_parameter_that_is_not_finite_is_never_saved(tmp_path):
    # The last update breaks the parameters after a loss that was still fine.
    made = broken(tiny.config(optimizer__ema_decay=0.9, train__steps=1))
    with pytest.raises(loop.BadLoss, match="a parameter is not finite after step 1; last good checkpoint: none"):
        tiny.train(made, tmp_path)
    assert committed_steps(tmp_path / "checkpoints") == []


@pytest.mark.parametrize("given, expected", [(dict(steps=7), 7), (dict(epochs=2.0), 25), (dict(examples=100), 13), (dict(examples=1), 1)])
def test_length_as_steps_epochs_or_examples(given, expected):
    made = tiny.config().train
    made.update(dict(steps=None, epochs=None, examples=None) | given)
    assert runs.total_steps(made, 8, 100) == expected


@pytest.mark.parametrize("given", [dict(), dict(steps=1, epochs=1.0)])
def test_exactly_one_length(given):
    made = tiny.config().train
    made.update(dict(steps=None, epochs=None, examples=None) | given)
    with pytest.raises(ConfigError, match="set exactly one of steps, epochs and examples"):
        runs.total_steps(made, 8, 100)


def test_a_batch_that_does_not_divide_names_the_nearest_two(tmp_path):
    with pytest.raises(ConfigError, match="20 queries do not split over 8 data shards; set config.data.global_batch to 16 or 24"):
        tiny.prepare(tiny.config(data__global_batch=20), tmp_path, devices=jax.devices(), data=8)


def test_a_trace_of_the_asked_steps_is_written(stopped):
    workdir, made = stopped
    made.train.profile_steps = (5, 6)
    tiny.train(made, workdir)
    assert list((workdir / "profile").rglob("*.xplane.pb"))


@pytest.mark.parametrize("name", sorted(optimizer.OPTIMIZERS))
def test_every_optimizer_learns(name, tmp_path):
    rates = dict(adafactor=3e-2, adamw=1e-2, lion=2e-3, sgd=1.0)
    made = tiny.config(
        train__steps=40, optimizer__name=name, optimizer__options={}, optimizer__learning_rate=rates[name], checkpoint__every_steps=40
    )
    tiny.train(made, tmp_path)
    losses = [line["train/main"] for line in read_lines(tmp_path / "metrics.jsonl")]
    # The loss of uniform positives is bounded below by their entropy, so learning shows as a drop, not as zero.
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.1


@pytest.mark.parametrize("name", sorted(optimizer.SCHEDULES))
@pytest.mark.parametrize("steps, warmup_steps", [(1, 0), (1, 1), (1, 10), (2, 0)])
def test_schedules_of_the_shortest_runs_are_finite(name, steps, warmup_steps):
    made = tiny.config(optimizer__schedule=dict(name=name, options={}), optimizer__warmup_steps=warmup_steps).optimizer
    rates = [float(optimizer.schedule(made, steps)(step)) for step in range(steps + 1)]
    assert all(0 <= rate <= made.learning_rate * (1 + 1e-6) for rate in rates)


@pytest.mark.parametrize(
    "name, options, ends",
    [("cosine", dict(end_factor=0.1), 1e-4), ("linear", {}, 0.0), ("constant", {}, 1e-3), ("rsqrt", dict(cooldown_steps=10), 0.0)],
)
def test_schedules_warm_up_to_the_peak_and_end_where_they_say(name, options, ends):
    made = tiny.config(optimizer__schedule=dict(name=name, options=options), optimizer__warmup_steps=10).optimizer
    rate = optimizer.schedule(made, 100)
    assert rate(0) == 0.0
    np.testing.assert_allclose([rate(5), rate(10), rate(100)], [5e-4, 1e-3, ends], rtol=1e-5, atol=1e-9)
