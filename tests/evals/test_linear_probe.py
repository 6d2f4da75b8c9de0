"""The linear probe: the minimum by definition, the sweep, what may not move it, and what it refuses."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

from core.config import ConfigError
from evals.linear_probe import fit, linear_probe, search
from evals.metrics import unit
from evals.probes import Part, set_aside
from input_pipeline.tasks import Labelled, ProbeTask
from tests.oracles import probes as oracle


def blobs(seed=0, classes=3, train=60, test=30, width=4, spread=0.6):
    rng = np.random.default_rng(seed)
    labels = np.arange(train + test) % classes
    rows = unit(np.eye(width)[labels] + spread * rng.normal(size=(train + test, width)), "rows").astype(np.float32)
    return ProbeTask(Labelled(list(rows[:train]), labels[:train]), Labelled(list(rows[train:]), labels[train:]))


class Data:
    def __init__(self, task):
        self.task = task

    def probe(self):
        return self.task


def run(task, **options):
    return linear_probe({"text": lambda rows: np.array(rows, np.float32)}, Data(task), **options)


def part(task):
    return Part(np.array(task.train.values), task.train.labels)


def test_the_fit_is_the_minimum_of_the_definition():
    data, c = part(blobs()), 0.8
    model = fit(data, c, tolerance=1e-10)
    rows, labels = data.rows.astype(np.float64), data.labels

    def objective(flat):
        weights, bias = flat[:12].reshape(3, 4), flat[12:]
        log_p = log_softmax(rows @ weights.T + bias, axis=1)
        p = np.exp(log_p)
        p[np.arange(len(labels)), labels] -= 1
        value = -c * log_p[np.arange(len(labels)), labels].sum() + (weights**2).sum() / 2
        return value, np.concatenate([(c * p.T @ rows + weights).ravel(), c * p.sum(axis=0)])

    own = np.concatenate([model.coef_.ravel(), model.intercept_])
    assert np.abs(objective(own)[1]).max() < 1e-6
    assert objective(own)[0] == pytest.approx(
        c * sum(oracle.cross_entropies(rows, labels, model.coef_, model.intercept_)) + (own[:12] ** 2).sum() / 2
    )
    found = minimize(objective, np.zeros(15), jac=True, method="BFGS", options={"gtol": 1e-9})
    np.testing.assert_allclose(own[:12], found.x[:12], atol=1e-5)
    theirs = LogisticRegression(C=c, tol=1e-10, max_iter=1000).fit(rows, labels)
    np.testing.assert_allclose(model.coef_, theirs.coef_, atol=1e-5)


def test_no_strength_predicts_the_majority_and_scaling_is_made_up_for():
    task = blobs(classes=3, train=61, spread=1.0)
    most = np.bincount(task.train.labels).argmax()
    assert (fit(part(task), 1e-9, tolerance=1e-12).predict(np.array(task.test.values)) == most).all()
    scaled = Part(part(task).rows * 7.0, task.train.labels)
    plain, other = (fit(some, c, tolerance=1e-10) for some, c in ((part(task), 3.0), (scaled, 3.0 / 49)))
    logits = [rows @ model.coef_.T + model.intercept_ for rows, model in ((part(task).rows, plain), (scaled.rows, other))]
    centred = [z - z.mean(axis=1, keepdims=True) for z in logits]  # a constant may be added to all biases
    np.testing.assert_allclose(*centred, atol=1e-4)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 5), min_size=97, max_size=97))
def test_the_search_halves_around_the_best(scores):
    asked = []
    place, score = search(lambda i: asked.append(i) or scores[i])
    assert asked[:7] == list(range(0, 97, 16)) and len(asked) == len(set(asked)) <= 15
    best = max(asked[:7], key=lambda i: (scores[i], -i))
    tried = asked[:7]
    for span in (8, 4, 2, 1):
        tried += [i for i in (best - span, best + span) if 0 <= i <= 96 and i not in tried]
        best = max(tried, key=lambda i: (scores[i], -tried.index(i)))
    assert (place, score, asked) == (best, scores[best], tried)


@pytest.mark.parametrize("peak", [0, 3, 41, 96])
def test_the_search_finds_a_single_peak(peak):
    assert search(lambda i: -abs(i - peak))[0] == peak


def test_the_sweep_takes_the_strength_that_is_best_on_validation_rows():
    task = blobs(seed=2, train=90, spread=0.8)
    held = Labelled(task.train.values[60:], task.train.labels[60:])
    task = ProbeTask(Labelled(task.train.values[:60], task.train.labels[:60]), task.test, held)
    values = run(task).metrics
    few = part(task)
    accuracy = lambda i: fit(few, 10 ** (6 - i / 8) / 60).score(np.array(held.values), held.labels)
    place, score = search(accuracy)
    assert values["validation/accuracy@1"] == pytest.approx(score)
    assert values["strength/log10_lambda"] == pytest.approx(-6 + place / 8)
    both = Part(np.concatenate([few.rows, np.array(held.values)]), np.concatenate([few.labels, held.labels]))
    model = fit(both, 10 ** (6 - place / 8) / 90)
    assert values["accuracy@1"] == model.score(np.array(task.test.values), task.test.labels)
    assert values["count/train"] == 90 and values["count/fits"] <= 16


def test_test_labels_move_no_choice():
    task = blobs(seed=3)
    poisoned = dataclasses.replace(task, test=Labelled(task.test.values, np.roll(task.test.labels, 1)))
    plain, other = run(task), run(poisoned)
    for name in ("strength/log10_lambda", "validation/accuracy@1", "count/fits"):
        assert plain.metrics[name] == other.metrics[name]
    assert plain.metrics["accuracy@1"] > other.metrics["accuracy@1"]


def test_a_fixed_strength_is_that_of_scikit_learn():
    task = blobs(seed=4, classes=2)
    result = run(task, sweep=False, inverse_strength=0.316)
    rows = np.array(task.train.values, np.float64)
    theirs = LogisticRegression(C=0.316, max_iter=1000).fit(rows, task.train.labels)
    np.testing.assert_array_equal(result.items, theirs.predict(np.array(task.test.values, np.float64)) == task.test.labels)
    assert result.metrics["strength/log10_lambda"] == pytest.approx(-np.log10(0.316 * 60)) and result.metrics["count/fits"] == 1
    own = theirs.predict_log_proba(np.array(task.test.values, np.float64))[np.arange(30), task.test.labels]
    assert result.metrics["cross_entropy"] == pytest.approx(-own.mean()) and "accuracy@5" not in result.metrics


def test_a_fit_that_did_not_converge_is_counted(caplog):
    values = run(blobs(), sweep=False, inverse_strength=1e4, iterations=2).metrics
    assert values["count/unconverged"] == 1 and "stopped after 2 iterations" in caplog.text
    assert run(blobs(), sweep=False).metrics["count/unconverged"] == 0


def test_rows_are_set_aside_by_class():
    labels = np.array([0] * 50 + [1] * 10 + [2])
    aside = set_aside(labels, 0.2, 0)
    assert np.bincount(labels[aside], minlength=3).tolist() == [10, 2, 0]
    assert (aside == set_aside(labels, 0.2, 0)).all() and (aside != set_aside(labels, 0.2, 1)).any()
    assert np.bincount(labels[~set_aside(labels, 0.99, 0)]).tolist() == [1, 1, 1]  # never all of a class
    with pytest.raises(ValueError, match="no class of train has rows enough to set a share of 0.2 aside"):
        set_aside(np.array([0, 1, 2]), 0.2, 0)


def test_what_cannot_be_learnt_is_refused():
    task = blobs()
    for options in ({"inverse_strength": 0.0}, {"validation_share": 1.0}, {"iterations": 0}, {"tolerance": 0.0}):
        with pytest.raises(ConfigError, match="config.evals.<label>.options"):
            run(task, **options)
    with pytest.raises(ValueError, match="examples of class 1 alone"):
        run(ProbeTask(Labelled(task.train.values, np.ones(60, int)), task.test))
    with pytest.raises(ValueError, match="test has rows of 1 classes that train has no example of: 2"):
        run(ProbeTask(Labelled(task.train.values, task.train.labels % 2), task.test))
    with pytest.raises(ValueError, match=r"test: labels int64 of shape \(0,\) for 0 values"):
        run(ProbeTask(task.train, Labelled([], np.zeros(0, int))))
    bad = np.array(task.test.values)
    bad[[1, 3]] = np.inf
    with pytest.raises(ValueError, match="test embeddings: values that are not finite in rows 1, 3"):
        run(ProbeTask(task.train, Labelled(list(bad), task.test.labels)))
