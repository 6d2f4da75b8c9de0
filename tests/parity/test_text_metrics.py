"""Metrics of text tasks against scipy, scikit-learn, trec_eval and MTEB, on drawn inputs and on real texts."""

import random
import types
from fractions import Fraction
from functools import partial

import numpy as np
import pytest

torch = pytest.importorskip("torch")
mteb = pytest.importorskip("mteb")

from hypothesis import example, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from mteb.abstasks.clustering import _evaluate_clustering_bootstrapped  # noqa: E402
from mteb.abstasks.pair_classification import AbsTaskPairClassification as PairTask  # noqa: E402
from mteb.abstasks.sts import AbsTaskSTS  # noqa: E402
from mteb.abstasks.text.bitext_mining import AbsTaskBitextMining  # noqa: E402
from scipy.stats import pearsonr, spearmanr  # noqa: E402
from sklearn.cluster import MiniBatchKMeans  # noqa: E402
from sklearn.metrics import average_precision_score, f1_score, v_measure_score  # noqa: E402
from sklearn.metrics.pairwise import (  # noqa: E402
    paired_cosine_distances,
    paired_euclidean_distances,
    paired_manhattan_distances,
)

from evals import metrics  # noqa: E402
from evals.bitext import bitext, weighted_scores  # noqa: E402
from evals.clustering import clustering  # noqa: E402
from evals.pair_classification import pair_classification, threshold_metrics  # noqa: E402
from evals.ranking import ranking  # noqa: E402
from evals.sts import pearson, spearman, sts  # noqa: E402
from input_pipeline import local_text  # noqa: E402

pytestmark = pytest.mark.parity
FEW = st.integers(-4, 4)


def trigrams(texts, width=256):
    """Counts of hashed trigrams, centred: float32 unit rows of real texts without a model."""
    rows = np.zeros((len(texts), width))
    for row, text in zip(rows, texts, strict=True):
        letters = np.frombuffer(text.lower().encode().ljust(3), np.uint8).astype(np.int64)
        row += np.bincount((letters[:-2] * 31**2 + letters[1:-1] * 31 + letters[2:]) * 40503 % 65521 % width, minlength=width)
    rows += np.random.default_rng(0).normal(scale=0.01, size=width)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


ENCODE = {"text": trigrams}


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(FEW, st.floats(-3, 3, width=32)), min_size=3, max_size=30))
def test_correlations_are_those_of_scipy(pairs):
    a, b = (np.array(row, float) for row in zip(*pairs, strict=True))
    if len(set(a)) > 1 and np.ptp(b) > 1e-3:
        assert pearson(a, b) == pytest.approx(pearsonr(a, b)[0], abs=1e-12)
        assert spearman(a, b) == pytest.approx(spearmanr(a, b)[0], abs=1e-12)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 1)), min_size=1, max_size=30))
@example([(0, 1), (2, 0), (4, 0), (4, 1), (4, 1), (4, 1)])  # two thresholds of one F1
def test_thresholds_are_those_of_mteb(pairs):
    score, label = (np.array(row) for row in zip(*(pairs + [(2, 1), (3, 0)]), strict=True))
    found = threshold_metrics(score.astype(np.float32), label == 1)
    assert found["ap"] == pytest.approx(average_precision_score(label, score), abs=1e-12)
    theirs = _mteb_thresholds(score.astype(float).tolist(), label, True)
    if _thresholds_of_the_best_f1(score, label) > 1:
        # Ours is the highest of them; rounding of 2 p r / (p + r) decides theirs, so that precision and recall may be another's.
        found, theirs = ({name: metrics[name] for name in ("ap", "accuracy", "f1")} for metrics in (found, theirs))
    assert found == pytest.approx(theirs, abs=1e-12)


def _thresholds_of_the_best_f1(score, label):
    f1 = [Fraction(2 * int(label[score >= t].sum()), int((score >= t).sum() + label.sum())) for t in sorted(set(score.tolist()))[1:]]
    return f1.count(max(f1)) if f1 else 0


def _mteb_thresholds(score, label, more_is_alike):
    own = types.SimpleNamespace(
        _find_best_acc_and_threshold=partial(PairTask._find_best_acc_and_threshold, None),
        _find_best_f1_and_threshold=partial(PairTask._find_best_f1_and_threshold, None),
    )
    return PairTask._compute_metrics_values(own, score, label, more_is_alike)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=30))
def test_translation_scores_are_those_of_scikit_learn(pairs):
    taken, gold = (np.array(row) for row in zip(*pairs, strict=True))
    assert weighted_scores(taken, gold)["f1"] == pytest.approx(f1_score(gold, taken, average="weighted", zero_division=0), abs=1e-12)


@pytest.mark.parametrize("languages", [("en", ""), ("fr", "es")])
def test_real_sts_is_that_of_mteb(shared_data, languages):
    data = local_text.Stsb(path=str(shared_data / "stsb_mt_p"), first=languages[0], second=languages[1])
    task = data.similarity()
    a, b = trigrams(task.first), trigrams(task.second)
    scores = dict(
        cosine_scores=1 - paired_cosine_distances(a, b), manhattan_distances=-paired_manhattan_distances(a, b),
        euclidean_distances=-paired_euclidean_distances(a, b), similarity_scores=None,
    )  # fmt: skip
    theirs = AbsTaskSTS._calculate_scores(None, scores, (task.score / 5).tolist())
    ours = sts(ENCODE, data).metrics
    for name in ("cosine", "manhattan", "euclidean"):
        for measure in ("spearman", "pearson"):  # their float32 distances order near-ties otherwise
            assert ours[f"{name}_{measure}"] == pytest.approx(theirs[f"{name}_{measure}"], abs=1e-5), (name, measure)
    assert ours["cosine_spearman"] > (0.4 if languages == ("en", "") else 0.0)


def test_real_pairs_are_classified_as_by_mteb(shared_data):
    data = local_text.CoSqa(path=str(shared_data / "cosqa"))
    task = data.pairs()
    a, b = trigrams(task.first), trigrams(task.second)
    ours = pair_classification(ENCODE, data).metrics
    scores = {
        "cosine": (1 - paired_cosine_distances(a, b), True), "manhattan": (paired_manhattan_distances(a, b), False),
        "euclidean": (paired_euclidean_distances(a, b), False), "dot": ((a * b).sum(axis=1), True),
    }  # fmt: skip
    every = {name: _mteb_thresholds(score.tolist(), task.score, alike) for name, (score, alike) in scores.items()}
    for name, theirs in every.items():
        assert {key: ours[f"{name}_{key}"] for key in theirs} == pytest.approx(theirs, abs=1e-4), name
    assert ours["max_ap"] == pytest.approx(max(theirs["ap"] for theirs in every.values()), abs=1e-4)


def test_real_bitext_is_mined_as_by_mteb(shared_data):
    data = local_text.Tatoeba(path=str(shared_data / "tatoeba_p"), language="nld")
    task = data.bitext()
    nearest = (trigrams(task.sources) @ trigrams(task.targets).T).argmax(axis=1)
    theirs = AbsTaskBitextMining._compute_metrics(None, [{"corpus_id": j} for j in nearest.tolist()], [(i, i) for i in range(1000)])
    ours = bitext(ENCODE, data).metrics
    assert {key: ours[key] for key in theirs} == pytest.approx(theirs, abs=1e-6) and ours["f1"] > 0.05


@pytest.mark.parametrize("data, graded", [(local_text.Cranfield, True), (local_text.SciFact, False)])
def test_real_searches_score_as_by_trec_eval(shared_data, data, graded):
    pytrec_eval = pytest.importorskip("pytrec_eval")
    data = data(path=str(shared_data / data.__name__.lower()))
    task = data.ranking()
    relevant = {name: {} for name in task.query_ids}
    for query, candidate, grade in task.relevant.tolist():
        relevant[task.query_ids[query]][task.corpus_ids[candidate]] = grade
    assert (max(max(grades.values()) for grades in relevant.values()) > 1) == graded
    scores = metrics.scores(metrics.unit(trigrams(task.queries), "queries"), metrics.unit(trigrams(task.corpus), "corpus"))
    run = {name: dict(zip(task.corpus_ids, row.tolist(), strict=True)) for name, row in zip(task.query_ids, scores, strict=True)}
    theirs = pytrec_eval.RelevanceEvaluator(relevant, {"ndcg_cut.10", "map", "recall.100", "success.10"}).evaluate(run).values()
    ours = ranking(ENCODE, data, query="text", passage="text", gallery_queries=0).metrics
    for name, other in {"ndcg@10": "ndcg_cut_10", "map": "map", "recall@100": "recall_100", "success@10": "success_10"}.items():
        assert ours[name] == pytest.approx(np.mean([one[other] for one in theirs]), abs=1e-6), name
    assert ours["ndcg@10"] > 0.02


@pytest.mark.parametrize("levels", [1, 2])
def test_real_clusters_are_those_of_mteb(shared_data, levels):
    task = local_text.Banking77(path=str(shared_data / "banking77")).labelled()
    kept = [i for i, label in enumerate(task.labels.tolist()) if label < 8]
    labels = task.labels[kept]
    labels = labels if levels == 1 else np.stack([labels // 4, labels], axis=1)
    values = [task.values[i] for i in kept]
    data = types.SimpleNamespace(labelled=lambda: types.SimpleNamespace(values=values, labels=labels))
    given_labels = labels.reshape(len(labels), -1).astype(str).tolist()
    theirs, _ = _evaluate_clustering_bootstrapped(
        trigrams(values), given_labels, n_clusters=3, cluster_size=300, kmean_batch_size=512, max_depth=None,
        rng_state=random.Random(42), seed=42,
    )  # fmt: skip
    ours = clustering(ENCODE, data, draws=3, size=300).metrics
    for name in ("v_measure", "ami"):
        every = [value for level in theirs[name].values() for value in level]
        assert (ours[name], ours[f"std/{name}"]) == pytest.approx((np.mean(every), np.std(every)), abs=1e-9), name
    if levels == 1:
        model = MiniBatchKMeans(n_clusters=8, batch_size=500, n_init="auto", compute_labels=True, random_state=42).fit(trigrams(values))
        assert clustering(ENCODE, data, protocol="legacy").metrics["v_measure"] == pytest.approx(v_measure_score(labels, model.labels_))
