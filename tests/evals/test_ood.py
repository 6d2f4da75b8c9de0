"""Unknown classes: detection by definition and by scikit-learn, both conventions, scores, and where unknown images come from."""

import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp, softmax
from scipy.stats import norm
from sklearn.metrics import auc, precision_recall_curve, roc_auc_score, roc_curve

from core.config import ConfigError
from evals.ood import detection, ood, scores
from evals.statistics import auroc
from tests.evals import toys
from tests.oracles import probes as oracle

FEW = st.lists(st.integers(0, 6), min_size=1, max_size=30)


@settings(deadline=None, max_examples=60)
@given(FEW, FEW)
def test_detection_is_that_of_the_definition(inside, outside):
    a, b = np.array(inside, float), np.array(outside, float)
    found = detection(a, b)
    assert found["auroc"] == pytest.approx(oracle.auroc(inside, outside), abs=1e-12)
    assert found["auroc_pessimistic"] == pytest.approx(np.mean([x > y for x in inside for y in outside]), abs=1e-12)
    assert found["tie_rate"] == pytest.approx(2 * (found["auroc"] - found["auroc_pessimistic"]), abs=1e-12)
    assert found["fpr95/id_positive"] == pytest.approx(oracle.fpr_at_95(inside, outside))
    assert found["fpr95/ood_positive"] == pytest.approx(oracle.fpr_at_95([-x for x in outside], [-x for x in inside]))
    label, score = np.repeat([1, 0], [len(a), len(b)]), np.concatenate([a, b])
    assert found["auroc"] == pytest.approx(roc_auc_score(label, score))
    for name, positive, sign in (("in", label, 1), ("out", 1 - label, -1)):
        precision, recall, _ = precision_recall_curve(positive, sign * score)
        assert found[f"aupr/{name}"] == pytest.approx(auc(recall, precision))
    for name, positive, sign in (("id_positive", label, 1), ("ood_positive", 1 - label, -1)):
        fpr, tpr, _ = roc_curve(positive, sign * score, drop_intermediate=False)
        assert found[f"fpr95/{name}"] == pytest.approx(fpr[np.flatnonzero(tpr >= 0.95)[0]])


@settings(deadline=None, max_examples=30)
@given(FEW, FEW)
def test_negating_and_mapping_and_swapping(inside, outside):
    a, b = np.array(inside, float), np.array(outside, float)
    found, mapped, turned, swapped = detection(a, b), detection(np.exp(a), np.exp(b)), detection(-b, -a), detection(b, a)
    assert mapped == pytest.approx(found)
    assert turned["auroc"] == pytest.approx(found["auroc"]) and swapped["auroc"] == pytest.approx(1 - found["auroc"])
    assert turned["fpr95/id_positive"] == found["fpr95/ood_positive"] and turned["aupr/in"] == pytest.approx(found["aupr/out"])


def test_separated_scores_make_no_mistake():
    found = detection(np.arange(10.0, 40), np.arange(9.0))
    assert (found["auroc"], found["fpr95/id_positive"], found["fpr95/ood_positive"]) == (1, 0, 0)
    assert (found["aupr/in"], found["aupr/out"]) == pytest.approx((1, 1))


def test_the_two_conventions_differ_by_what_the_distributions_say():
    """One draw of known ~ N(1, 1) x 1000 and unknown ~ N(0, 1.6) x 400 is quoted with 0.6425 and 0.942 at an AUROC of 0.707."""
    draws = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        found = detection(rng.normal(1, 1, 1000), rng.normal(0, 1.6, 400))
        draws.append([found[name] for name in ("fpr95/id_positive", "fpr95/ood_positive", "auroc")])
    spread, mean = np.std(draws, axis=0), np.mean(draws, axis=0)
    edge = norm.ppf(0.95)
    exact = [1 - norm.cdf((1 - edge) / 1.6), norm.cdf(1.6 * edge - 1), norm.cdf(1 / np.hypot(1, 1.6))]
    assert (np.abs(mean - exact) < 4 * spread / np.sqrt(60) + [2e-3, 2e-3, 0]).all()  # the quantile of few rows is a little off
    assert (np.abs(np.array([0.6425, 0.942, 0.707]) - exact) < 3 * spread).all()


def test_scores_order_rows_as_their_definitions_do():
    rng = np.random.default_rng(0)
    cosines = rng.uniform(-1, 1, (50, 6))
    found = scores(cosines, 12.0, 0.5)
    expected = {
        "msp": softmax(12 * cosines, axis=1).max(axis=1), "logit": cosines.max(axis=1),
        "energy": logsumexp(12 * cosines, axis=1), "mcm": softmax(cosines / 0.5, axis=1).max(axis=1),
    }  # fmt: skip
    for name, score in expected.items():
        np.testing.assert_array_equal(np.argsort(found[name]), np.argsort(score), err_msg=name)
    p = softmax(12 * cosines, axis=1).max(axis=1)
    np.testing.assert_allclose(found["msp"], np.log(p / (1 - p)), rtol=1e-7)
    sure = scores(np.array([[0.9, 0.1], [0.95, 0.1]]), 100.0, 1.0)["msp"]
    assert sure[1] > sure[0]  # both probabilities are 1 in float64


def test_a_scale_moves_msp_but_not_the_largest_logit():
    rng = np.random.default_rng(1)
    cosines = rng.uniform(-0.3, 0.3, (200, 5))
    cosines[:100, 0] += 0.1
    at = lambda scale: {name: detection(score[:100], score[100:])["auroc"] for name, score in scores(cosines, scale, 1.0).items()}
    low, high = at(1.0), at(50.0)
    assert low["logit"] == high["logit"] and low["mcm"] == high["mcm"] and low["msp"] != high["msp"]
    assert low["msp"] == low["mcm"]  # a scale of 1 and a temperature of 1 are the same


def test_unknown_classes_have_no_part_in_the_prompts():
    toy = toys.Toy()
    asked = ood(toys.perfect(toy), toy, unknown_share=0.4).metrics
    assert (asked["count/classes"], asked["count/known"], asked["count/unknown"]) == (3, 36, 24)
    encode = toys.perfect(toy)
    known = ood(encode, toy, unknown_share=0.4, seed=1).metrics
    assert known["accuracy@1"] == 1
    rng = np.random.default_rng(1)
    unknown = {toy.scripts[c] for c in rng.permutation(5)[:2]}
    text = encode["text"]
    noise = np.random.default_rng(2)
    encode["text"] = lambda texts: np.array(
        [noise.normal(size=25) if any(name in t for name in unknown) else row for t, row in zip(texts, text(texts), strict=True)]
    )
    assert ood(encode, toy, unknown_share=0.4, seed=1).metrics == known


def test_unknown_images_may_come_from_elsewhere():
    toy = toys.Toy()
    outside = {"name": "digits", "options": {"split": "test"}}
    result = ood(toys.random(0), toy, outside=outside)
    assert result.count == 60 + 359 and result.metrics["count/classes"] == 5 and result.metrics["count/unknown"] == 359
    assert result.metrics["msp/auroc"] == pytest.approx(auroc(result.items))
    with pytest.raises(ConfigError, match="config.evals.<label>.options.outside.name is 'nothing'"):
        ood(toys.random(0), toy, outside={"name": "nothing", "options": {}})
    names = types.SimpleNamespace(classification=lambda: toys.Classes(toy.retrieval().images, np.zeros(60, int), ["zero", "x"], ["{}"]))
    with pytest.raises(ValueError, match="1 classes of config.evals.<label>.options.outside are known: zero"):
        ood(toys.random(0), names, outside=outside)


def test_what_cannot_be_told_apart_is_refused():
    toy = toys.Toy()
    for options in ({"unknown_share": 0.0}, {"unknown_share": 1.0}, {"scale": -1.0}, {"temperature": 0.0}):
        with pytest.raises(ConfigError, match="config.evals.<label>.options"):
            ood(toys.perfect(toy), toy, **options)
    with pytest.raises(ValueError, match="1 known classes; need"):
        ood(toys.perfect(toy), toy, unknown_share=0.8)
    assert np.isnan(auroc(np.array([[0.3, 1.0], [0.5, 1.0]])))
