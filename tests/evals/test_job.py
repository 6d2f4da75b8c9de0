"""The eval job on a real toy run: once per step, safe to repeat, clear about what is missing."""

import json
import math
import re
import shutil
import threading

import jax.numpy as jnp
import numpy as np
import pytest

import evals
import retrieval
from core.checkpoint import committed_steps
from core.config import ConfigError, plain
from core.events import tag
from core.workdir import claim_config, read_json, write_json
from evals import EVALUATORS, best, encoders, job
from evals.evaluation import Evaluation
from input_pipeline.batching import make_source
from tests import tiny
from tests.core.test_logbook import events


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("trained")
    made = tiny.config(optimizer__ema_decay=0.5)
    claim_config(workdir, made)
    tiny.train(made, workdir)
    write_json(workdir / "done.json", {"step": 6, "exit_code": 0})
    return workdir


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def test_every_step_is_evaluated_once(run):
    written = job.run(run)
    assert [path.relative_to(run).as_posix() for path in written] == [f"evals/{step}/test.json" for step in (2, 4, 6)]
    assert job.run(run) == []
    result = read_json(written[-1])
    assert set(result) == {"evaluator", "label", "step", "primary", "metrics", "settings", "count", "items", "seconds"}
    assert result["primary"] == {"name": "accuracy@1", "value": result["metrics"]["accuracy@1"]}
    assert result["settings"]["weights"] == "ema" and len(result["settings"]["fingerprint"]) == 16
    with np.load(written[-1].with_suffix(".items.npz"), allow_pickle=False) as stored:
        assert stored["items"].mean() == pytest.approx(result["primary"]["value"])
        assert result["items"] == {"statistic": "mean", "count": len(stored["items"])}


def test_a_lost_result_alone_is_made_again_with_the_same_numbers(run):
    first = {path: read_json(path)["metrics"] for path in job.run(run)}
    (run / "evals" / "4" / "test.json").unlink()
    (again,) = job.run(run)
    assert again.parent.name == "4" and read_json(again)["metrics"] == first[again]


def test_the_result_equals_the_encoders_own(run):
    (path,) = job.run(run, step=6)
    encoder, digits = retrieval.load(run, 6), make_source(tiny.config().evals.test.data, "data").classification()
    classes = np.stack([encoder.encode([t.format(name) for t in digits.templates]).mean(0) for name in digits.class_names])
    scores = encoder.encode(list(digits.images)) @ (classes / np.linalg.norm(classes, axis=1, keepdims=True)).T
    assert read_json(path)["metrics"]["accuracy@1"] == pytest.approx(np.mean(scores.argmax(1) == digits.labels), abs=1e-9)


def test_an_entry_may_cut_the_model(run, monkeypatch):
    entry, small = plain(tiny.config().evals.test), {"layers": 1, "truncate_dim": 4}
    monkeypatch.setattr(job.results, "measure", lambda encode, *_: (encode.made_by, {}, 0.0))
    found = job.evaluate(run, {"whole": entry, "narrow": entry | {"size": small}}, step=6)
    assert {label: made_by["views"]["text"]["dim"] for label, made_by in found.items()} == {"whole": 16, "narrow": 4}
    with pytest.raises(ConfigError, match="evals.narrow.size.dims"):
        job.evaluate(run, {"narrow": entry | {"size": {"dims": 4}}})
    with pytest.raises(ConfigError, match="tower image has 1 layers, not 2"):
        job.evaluate(run, {"narrow": entry | {"size": {"layers": 2}}})


def test_parameters_alone_are_read_onto_a_mesh_of_its_own(run):
    """Training's other items may be gone, and it ran on one device."""
    for item in ("opt", "data"):
        shutil.rmtree(run / "checkpoints" / "6" / item)
    (path,) = job.run(run, step=6)
    assert read_json(path)["settings"]["devices"] == {"kind": "cpu", "count": 8}


def test_a_job_killed_between_two_steps_goes_on_with_the_next(run, monkeypatch):
    asked, measure = [], job.results.measure

    def killed_at_the_second(encode, entry, key):
        asked.append(encode.made_by["step"])
        if len(asked) == 2:
            raise KeyboardInterrupt
        return measure(encode, entry, key)

    monkeypatch.setattr(job.results, "measure", killed_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        job.run(run)
    assert len(job.run(run)) == 2 and asked == [2, 4, 4, 6]


def test_results_stand_in_tensorboard_too(run):
    paths = job.run(run)
    found = {(e.step, v.tag): v.simple_value for e in events(run / "tensorboard" / "eval") for v in e.summary.value}
    for path in paths:
        result = read_json(path)
        for name, value in result["metrics"].items():
            assert found[result["step"], tag(f"eval/test/{name}")] == pytest.approx(value, rel=1e-6)


def test_the_best_checkpoint_is_kept_apart(run):
    results = [read_json(path) for path in job.run(run)]
    best = max(results, key=lambda r: (r["primary"]["value"], -r["step"]))
    kept = read_json(run / "evals" / "best" / "best.json")
    assert (kept["step"], kept["value"]) == (best["step"], best["primary"]["value"])
    assert (run / "evals" / "best" / "params").is_dir() and (run / "evals" / "best" / "ema").is_dir()


def test_the_best_is_found_after_a_kill_and_by_any_metric(run, caplog):
    results = [read_json(path) for path in job.run(run)]
    folder = run / "evals" / "best"
    folder.rename(run / "evals" / "best.old")  # killed in the middle of an exchange
    job.run(run)
    assert (folder / "params").is_dir() and not (run / "evals" / "best.old").exists()
    shutil.rmtree(folder)  # killed before it was compared
    config = read_json(run / "config.json")
    config["checkpoint"]["best"] = "test/cross_entropy"
    write_json(run / "config.json", config)
    job.run(run)
    least = min(results, key=lambda r: r["metrics"]["cross_entropy"])
    kept = read_json(folder / "best.json")
    assert kept == {
        "step": least["step"], "evaluator": "test", "metric": "cross_entropy", "value": least["metrics"]["cross_entropy"]
    }  # fmt: skip
    config["checkpoint"]["best"] = "test/cross_entrop"
    write_json(run / "config.json", config)
    with pytest.raises(ConfigError, match="'cross_entrop', which is not among: .* Did you mean 'cross_entropy'"):
        job.run(run)


def test_a_best_checkpoint_that_is_gone_leaves_the_one_before(run, caplog):
    job.run(run, step=2)
    kept = read_json(run / "evals" / "best" / "best.json")
    made = tiny.config()
    made.update(read_json(run / "config.json"))
    write_json(run / "evals" / "4" / "test.json", {"primary": {"name": "accuracy@1", "value": 2.0}, "metrics": {"accuracy@1": 2.0}})
    shutil.rmtree(run / "checkpoints" / "4")
    best.track(run, made, 4)
    assert read_json(run / "evals" / "best" / "best.json") == kept and "but its checkpoint is gone" in caplog.text


def test_what_is_undefined_is_null_and_never_best(run, monkeypatch):
    collapsed = lambda encode, data: Evaluation("cosine_spearman", {"cosine_spearman": math.nan, "count/undefined": 6.0}, 1)
    monkeypatch.setitem(EVALUATORS, "zeroshot", collapsed)
    for path in job.run(run):
        result = read_json(path)
        assert result["metrics"] == {"cosine_spearman": None, "count/undefined": 6} and result["primary"]["value"] is None
    assert not (run / "evals" / "best" / "best.json").exists()


def test_an_uncommitted_step_does_not_exist(run):
    (run / "checkpoints" / "8").mkdir()
    assert committed_steps(run / "checkpoints") == [2, 4, 6]
    with pytest.raises(FileNotFoundError, match=r"no committed checkpoint of step 8; there are: \[2, 4, 6\]"):
        job.run(run, step=8)


def test_a_checkpoint_deleted_under_the_job_is_skipped(run, monkeypatch, caplog):
    load = retrieval.load

    def delete_first(workdir, step):
        if step == 2:
            shutil.rmtree(workdir / "checkpoints" / "2")
        return load(workdir, step)

    monkeypatch.setattr(job.retrieval, "load", delete_first)
    assert [path.parent.name for path in job.run(run)] == ["4", "6"]
    assert "checkpoint 2 is gone before it was evaluated" in caplog.text


def test_nothing_to_evaluate_is_an_error_without_follow(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no committed checkpoint; .*pass --follow to wait"):
        job.run(tmp_path)


def test_follow_waits_for_a_run_and_ends_with_it(run, tmp_path):
    late = tmp_path / "late"
    worker_result = []
    worker = threading.Thread(target=lambda: worker_result.extend(job.run(late, follow=True, poll_seconds=0.05, timeout_seconds=60)))
    worker.start()
    late.mkdir()
    shutil.copytree(run / "tokenizer", late / "tokenizer")
    shutil.copy(run / "config.json", late)
    shutil.copytree(run / "checkpoints", late / "checkpoints")
    shutil.copy(run / "done.json", late)
    worker.join(timeout=120)
    assert not worker.is_alive() and {path.parent.name for path in worker_result} == {"2", "4", "6"}


def test_follow_gives_up_after_a_time(tmp_path):
    with pytest.raises(TimeoutError, match="no new checkpoint"):
        job.run(tmp_path, follow=True, poll_seconds=0.01, timeout_seconds=0.05)


def test_two_jobs_on_one_workdir_do_no_harm(run):
    failures = []

    def work():
        try:
            job.run(run)
        except Exception as error:  # a thread's error would be lost
            failures.append(error)

    workers = [threading.Thread(target=work) for _ in range(2)]
    [w.start() for w in workers]
    [w.join(timeout=120) for w in workers]
    assert failures == []
    for step in (2, 4, 6):
        assert json.loads((run / "evals" / str(step) / "test.json").read_text())["step"] == step


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(name="zero_shot"), r"config.evals.test.name is 'zero_shot'.* Did you mean 'zeroshot'\?"),
        (dict(options=dict(template=())), r"config.evals.test.options.template is not a key.* Did you mean 'templates'\?"),
        (dict(data=dict(name="digit", options={})), r"config.evals.test.data.name is 'digit'.* Did you mean 'digits'\?"),
        (dict(every=3), r"config.evals.test.every is not a key.* Did you mean 'every_steps'\?"),
        (dict(size=dict(layers=2)), r"config.evals.test.size.layers: tower image has 1 layers, not 2"),
    ],
)
def test_mistakes_are_found_before_anything_runs(change, message):
    made = tiny.config()
    made.evals.test.update(change)
    with pytest.raises(ConfigError, match=message):
        job.check(made)


def test_sets_for_evaluation_take_no_prompts():
    made = tiny.config()
    made.evals.test.data = dict(name="stsb", options={}, prompts=dict(text="x"))
    with pytest.raises(ConfigError, match="config.evals.test.data.prompts: stsb takes none; set config.data.transforms"):
        job.check(made)


def test_best_must_name_an_evaluator():
    with pytest.raises(ConfigError, match="config.checkpoint.best is 'tset', which is not among: test"):
        job.check(tiny.config(checkpoint__best="tset"))


def test_a_loss_with_a_kernel_for_gpus_is_evaluated_without_one(trained):
    """Training with it is refused here; its held-out loss is not."""
    encoder = retrieval.load(trained, 6)
    plain = encoders.of_model(encoder).losses
    with encoder.config.unlocked():
        encoder.config.losses.main.options = dict(encoder.config.losses.main.options, method="ring", kernel="pallas")
    rows = jnp.asarray(encoder.encode(["one", "two", "six"], "text"))
    arrays = dict(z_image=rows, z_text=rows[::-1], logit_scale=jnp.float32(10), id=jnp.arange(3))
    (_, _, loss), (_, _, expected) = encoders.of_model(encoder).losses[0], plain[0]
    np.testing.assert_allclose(loss(arrays), expected(arrays), rtol=1e-5)


def test_evaluate_keeps_what_a_runs_config_asks_for(run, monkeypatch):
    found = evals.evaluate(run)["test"]
    stored = read_json(run / "evals" / "6" / "test.json")
    assert (found.primary, found.count) == (stored["primary"]["name"], stored["count"]) and found.metrics == stored["metrics"]
    assert found.items.mean() == pytest.approx(found.metrics["accuracy@1"]) and found.gallery and "array" not in repr(found)
    monkeypatch.setattr(job, "evaluate_step", lambda *_: pytest.fail("measured again"))
    assert evals.evaluate(str(run), ["test"], step=6)["test"].metrics == found.metrics


def test_evaluate_measures_other_entries_and_keeps_nothing(run):
    own = tiny.config().evals.test
    other = dict(name="image_text_retrieval", data=own.data, options=dict(gallery_queries=0))
    before = sorted(run.rglob("*"))
    found = evals.evaluate(retrieval.load(run), {"own": own, "other": other})
    assert (found["own"].count, found["other"].primary) == (359, "img2txt/recall@1") and sorted(run.rglob("*")) == before
    assert found["own"].metrics == evals.evaluate(run)["test"].metrics


@pytest.mark.parametrize(
    "wanted, step, error, message",
    [
        (["tests"], None, ConfigError, "evals is 'tests', which is not among: test. Did you mean 'test'?"),
        ({"x": dict(name="zeroshot", data=dict(name="digit", options={}), options={})}, None, ConfigError, "evals.x.data.name is 'digit'"),
        ({"x": dict(name="zeroshot", options={})}, None, ConfigError, "evals.x lacks data"),
        ([], 5, FileNotFoundError, "no committed checkpoint of step 5; there are: [2, 4, 6]"),
    ],
)
def test_evaluate_says_what_it_cannot_find(wanted, step, error, message, trained):
    with pytest.raises(error, match=re.escape(message)):
        evals.evaluate(trained, wanted, step=step)


def test_only_runs_have_evaluations_of_their_own(trained, tmp_path):
    for model in (retrieval.load(trained), tmp_path):
        with pytest.raises(ConfigError, match="only the folder of a run has evaluations of its own"):
            evals.evaluate(model)
