"""Calibration: errors by definition, the fitted temperature, and whose labels it may see."""

import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax

from core.config import ConfigError
from evals import calibration as measures
from evals.calibration import calibration
from evals.metrics import unit
from tests.evals import toys
from tests.oracles import probes as oracle


def drawn(seed, rows=80, classes=4, scale=6.0, width=5):
    """Cosines of drawn images with drawn classes, and labels that have the probabilities of softmax(scale * cosine)."""
    rng = np.random.default_rng(seed)
    images, weights = (unit(rng.normal(size=(n, width)), "rows").astype(np.float32) for n in (rows, classes))
    cosines = images.astype(np.float64) @ weights.astype(np.float64).T
    labels = np.array([rng.choice(classes, p=p) for p in softmax(scale * cosines, axis=1)])
    task = toys.Classes(list(images), labels, [str(c) for c in range(classes)], ["{}"])
    encode = toys.Encoders(7.0, image=np.array, text=lambda names: weights[[int(name) for name in names]])
    return encode, types.SimpleNamespace(classification=lambda: task), cosines, labels


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1000), st.integers(1, 30), st.integers(2, 5), st.integers(1, 20), st.floats(0.1, 30))
def test_errors_are_those_of_the_definition(seed, rows, classes, bins, scale):
    rng = np.random.default_rng(seed)
    logits, labels = scale * rng.normal(size=(rows, classes)), rng.integers(0, classes, rows)
    p = softmax(logits, axis=1)
    found = measures.reliability(logits, labels, bins)
    assert found["ece"] == pytest.approx(oracle.ece(p.tolist(), labels.tolist(), bins), abs=1e-12)
    wanted = np.eye(classes)[labels]
    assert found["brier"] == pytest.approx(
        np.mean([sum((a - b) ** 2 for a, b in zip(*pair, strict=True)) for pair in zip(p, wanted, strict=True)])
    )
    assert found["cross_entropy"] == pytest.approx(np.mean(oracle.cross_entropies(logits, labels, np.eye(classes), np.zeros(classes))))
    right = p.argmax(axis=1) == labels
    assert measures.adaptive_ece(p, labels, 1) == pytest.approx(abs(right.mean() - found["confidence"]))
    assert measures.adaptive_ece(p, labels, rows) == pytest.approx(np.mean(np.abs(right - p.max(axis=1))))


def test_certain_rows():
    labels = np.array([0, 1, 2, 1])
    right, wrong = np.eye(3)[labels], np.eye(3)[(labels + 1) % 3]
    for error in (measures.ece, measures.adaptive_ece):
        assert error(right, labels) == 0 and error(wrong, labels) == 1
    assert measures.ece(np.zeros((4, 3)), labels) == 0  # a confidence of 0 is in no bin


def test_a_bin_has_its_upper_edge():
    p = np.array([[0.6, 0.4], [0.62, 0.38]])  # of ten bins one ends at 0.6
    assert measures.ece(p, np.array([0, 1]), 10) == pytest.approx((abs(1 - 0.6) + abs(0 - 0.62)) / 2)
    assert measures.ece(p, np.array([0, 1]), 1) == pytest.approx(abs(0.5 - 0.61))


def test_equal_confidences_do_not_depend_on_their_order():
    p, labels = np.full((9, 2), 0.5), np.array([0, 0, 1, 1, 0, 1, 0, 0, 1])
    values = {measures.adaptive_ece(p, labels[np.random.default_rng(seed).permutation(9)], 2) for seed in range(8)}
    assert len(values) == 1


def test_the_temperature_is_the_minimum():
    _, _, cosines, labels = drawn(0, rows=3000, scale=4.0)
    found = measures.temperature(20 * cosines, labels)
    assert found == pytest.approx(5.0, rel=0.15)  # 20 / 4
    loss = lambda t: -log_softmax(20 * cosines / t, axis=1)[np.arange(3000), labels].mean()
    assert all(loss(found) <= loss(t) + 1e-12 for t in np.geomspace(1e-3, 1e3, 200))
    slope = (loss(found * (1 + 1e-5)) - loss(found * (1 - 1e-5))) / 2e-5
    assert abs(slope) < 1e-5


def test_scaling_mends_what_is_too_sure_and_moves_no_decision():
    encode, data, cosines, labels = drawn(1, rows=1000, scale=5.0)
    values = calibration(encode, data).metrics  # a scale of 100 where 5 would be right
    assert values["ece"] > 0.25 and values["scaled/ece"] < 0.1 and values["scaled/cross_entropy"] < values["cross_entropy"]
    assert values["temperature/fitted"] == pytest.approx(100 / 5, rel=0.2) and values["temperature/logit_scale"] == 100
    assert values["accuracy@1"] == pytest.approx(np.mean(cosines.argmax(axis=1) == labels))
    learned = calibration(encode, data, scale=0.0).metrics
    assert learned["temperature/logit_scale"] == 7 and learned["ece"] < values["ece"]
    assert learned["scaled/cross_entropy"] == pytest.approx(values["scaled/cross_entropy"], abs=1e-6)  # any scale is made up for


def test_no_image_is_scaled_by_its_own_label(monkeypatch):
    encode, data, cosines, labels = drawn(2, rows=31)
    fitted, scaled = [], []
    monkeypatch.setattr(measures, "temperature", lambda logits, some: fitted.append((logits, some)) or float(2 * len(fitted)))
    monkeypatch.setattr(measures, "reliability", lambda logits, labels, bins: scaled.append(logits) or {"ece": 0.0})
    calibration(encode, data)
    number = {row.tobytes(): i for i, row in enumerate(scaled[0])}
    used = (scaled[0] / scaled[1])[:, 0].round(6)  # the temperature of each image
    for temperature, (logits, some) in zip((2.0, 4.0), fitted, strict=True):
        rows = [number[row.tobytes()] for row in logits]
        np.testing.assert_array_equal(labels[rows], some)
        assert set(rows).isdisjoint(np.flatnonzero(used == temperature)) and len(rows) in (15, 16)
    assert set(used) == {2.0, 4.0}


def test_what_cannot_be_calibrated_is_refused():
    encode, data, *_ = drawn(3)
    for options in ({"scale": -1.0}, {"bins": 0}):
        with pytest.raises(ConfigError, match="config.evals.<label>.options"):
            calibration(encode, data, **options)
    task = data.classification()
    one = types.SimpleNamespace(classification=lambda: toys.Classes(task.images[:1], task.labels[:1], task.class_names, ["{}"]))
    with pytest.raises(ValueError, match="one image cannot be halved"):
        calibration(encode, one)
