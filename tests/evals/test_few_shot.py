"""Few shots: the draws by definition, what is encoded, means over draws, and what is refused."""

import random

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from core.config import ConfigError
from evals.few_shot import few_shot, sample
from evals.metrics import unit
from input_pipeline.tasks import Labelled, ProbeTask


class Data:
    def __init__(self, seed=0, train=90, test=40, classes=3):
        rng = np.random.default_rng(seed)
        self.labels = rng.integers(0, classes, train + test)
        self.rows = unit(np.eye(6)[self.labels] + 0.5 * rng.normal(size=(train + test, 6)), "rows").astype(np.float32)
        part = lambda rows: Labelled(list(rows), self.labels[rows])
        self.task = ProbeTask(part(np.arange(train)), part(np.arange(train, train + test)))

    def probe(self):
        return self.task


def test_every_draw_goes_on_from_the_order_of_the_last():
    labels = np.random.default_rng(0).integers(0, 4, 50)
    order, expected = list(range(50)), []
    for _ in range(3):
        np.random.RandomState(7).shuffle(order)
        seen, rows = dict.fromkeys(range(4), 0), []
        for i in order:
            if seen[labels[i]] < 3:
                rows.append(i)
                seen[labels[i]] += 1
        expected.append(rows)
    assert [rows.tolist() for rows in sample(labels, 3, 3, 7)] == expected
    assert len({tuple(sorted(rows)) for rows in expected}) == 3


def test_scores_are_means_over_the_draws_and_only_what_is_drawn_is_encoded():
    data, encoded = Data(), []
    encode = {"text": lambda some: encoded.extend(some) or data.rows[some]}
    result = few_shot(encode, data, shots=4, draws=5)
    rows = sample(data.task.train.labels, 4, 5, 42)
    right = []
    for some in rows:
        model = LogisticRegression().fit(data.rows[some], data.labels[some])
        right.append(model.predict(data.rows[90:]) == data.labels[90:])
    assert result.metrics["accuracy@1"] == pytest.approx(np.mean(right))
    assert result.metrics["std/accuracy@1"] == pytest.approx(np.std([one.mean() for one in right]))
    np.testing.assert_allclose(result.items, np.mean(right, axis=0))
    used = sorted(set(np.concatenate(rows).tolist()))
    assert encoded == [*used, *range(90, 130)] and result.metrics["count/train"] == len(used) < 90


def test_a_class_with_fewer_examples_gives_all():
    labels = np.array([0] * 20 + [1] * 2)
    random.Random(0).shuffle(labels)
    assert [np.bincount(labels[rows]).tolist() for rows in sample(labels, 8, 2, 0)] == [[8, 2]] * 2


def test_what_cannot_be_learnt_is_refused():
    data = Data()
    encode = {"text": lambda some: data.rows[some]}
    for options in ({"shots": 0}, {"draws": 0}, {"iterations": 0}):
        with pytest.raises(ConfigError, match="config.evals.<label>.options"):
            few_shot(encode, data, **options)
    data.task = ProbeTask(Labelled(data.task.train.values, np.zeros(90, int)), data.task.test)
    with pytest.raises(ValueError, match="examples of class 0 alone"):
        few_shot(encode, data)
