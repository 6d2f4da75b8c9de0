"""The kNN probe: votes by definition, its limits, ties, and what it refuses."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

from core.config import ConfigError
from evals.knn import knn, nearest
from evals.metrics import unit
from input_pipeline.tasks import Labelled, ProbeTask
from tests.oracles import probes as oracle


class Data:
    def __init__(self, train, train_labels, test=(), test_labels=()):
        self.train, self.test = Labelled(list(train), np.array(train_labels)), Labelled(list(test), np.array(test_labels))

    def probe(self):
        return ProbeTask(self.train, self.test)

    def labelled(self):
        return self.train


def run(data, **options):
    return knn({"text": lambda rows: np.array(rows, np.float32)}, data, **options)


def cloud(seed, train=30, test=12, classes=4, width=3):
    rng = np.random.default_rng(seed)
    rows = unit(rng.normal(size=(train + test, width)), "rows").astype(np.float32)
    labels = np.concatenate([np.arange(train) % classes, rng.integers(0, classes, test)])
    return Data(rows[:train], labels[:train], rows[train:], labels[train:])


def hits(data, winner):
    return [int(winner(row) == label) for row, label in zip(data.test.values, data.test.labels, strict=True)]


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.integers(1, 20), st.sampled_from([0.07, 0.5]))
def test_votes_are_those_of_the_definition(seed, k, temperature):
    data = cloud(seed)
    votes = lambda row: oracle.knn_votes(data.train.values, data.train.labels.tolist(), row, k, temperature)
    result = run(data, k=k, ks=(), temperature=temperature)
    assert result.items.tolist() == hits(data, lambda row: max(votes(row).items(), key=lambda item: (item[1], -item[0]))[0])
    first = lambda row: [c for c, _ in sorted(votes(row).items(), key=lambda item: -item[1])]
    uniform = run(data, k=k, ks=(), vote="uniform").items.tolist()
    assert uniform == hits(data, lambda row: oracle.uniform_winner(data.train.values, data.train.labels.tolist(), row, k))
    five = cloud(seed, classes=6)
    data = five
    found = [label in first(row)[: min(5, k)] for row, label in zip(five.test.values, five.test.labels, strict=True)]
    assert run(five, k=k, ks=(), temperature=temperature).metrics[f"k{k}/accuracy@5"] == pytest.approx(np.mean(found))


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 1000), st.integers(1, 5))
def test_ties_are_resolved_against_the_right_class(seed, k):
    rng = np.random.default_rng(seed)
    corners = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.6, 0.8, 0]], np.float32)
    data = Data(corners[rng.integers(0, 4, 9)], np.arange(9) % 3, corners[rng.integers(0, 4, 6)], rng.integers(0, 3, 6))
    values = run(data, k=k, ks=()).metrics
    train = np.array(data.train.values, np.float64)
    expected = [
        oracle.worst_case_hit(np.float32(train @ row).tolist(), data.train.labels.tolist(), label, k, lambda s: np.exp((s - 1) / 0.07))
        for row, label in zip(np.array(data.test.values, np.float64), data.test.labels.tolist(), strict=True)
    ]
    assert values[f"k{k}/accuracy@1_pessimistic"] == pytest.approx(np.mean(expected))
    assert values[f"k{k}/accuracy@1_pessimistic"] <= values[f"k{k}/accuracy@1"]


def test_its_limits_are_the_nearest_neighbour_and_the_majority():
    data = cloud(7, train=60, test=40)
    one = run(data, k=1, ks=()).items.tolist()
    assert one == hits(data, lambda row: data.train.labels[np.argmax([oracle.cosine(row, other) for other in data.train.values])])
    assert run(data, k=9, ks=(), temperature=1e-6).items.tolist() == one
    majority = KNeighborsClassifier(9, metric="cosine", algorithm="brute").fit(np.array(data.train.values), data.train.labels)
    counts = np.sort(majority.predict_proba(np.array(data.test.values)), axis=1)
    clear = counts[:, -1] > counts[:, -2]  # conventions differ where two classes have as many
    theirs = majority.predict(np.array(data.test.values)) == data.test.labels
    for options in ({"temperature": 1e6}, {"vote": "uniform"}):
        assert (run(data, k=9, ks=(), **options).items == theirs)[clear].all()


def test_doubling_the_training_set_and_k_changes_nothing():
    data = cloud(3, train=40, test=30)
    twice = Data(data.train.values * 2, np.tile(data.train.labels, 2), data.test.values, data.test.labels)
    for vote in ("weighted", "uniform"):
        np.testing.assert_array_equal(run(data, k=7, ks=(), vote=vote).items, run(twice, k=14, ks=(), vote=vote).items)


def test_a_row_finds_itself_unless_it_is_left_out():
    data = cloud(5, train=40)
    itself = Data(data.train.values, data.train.labels, data.train.values, data.train.labels)
    assert run(itself, k=1, ks=()).metrics["k1/accuracy@1"] == 1
    alone = run(data, k=3, ks=(), leave_one_out=True).items
    for i in range(0, 40, 7):
        others = np.arange(40) != i
        rest = Data(np.array(data.train.values)[others], data.train.labels[others], [data.train.values[i]], [data.train.labels[i]])
        assert run(rest, k=3, ks=()).items[0] == alone[i]


def test_rotation_and_blocks_change_nothing(monkeypatch):
    data = cloud(11, width=6)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0]
    turned = Data(np.array(data.train.values) @ turn, data.train.labels, np.array(data.test.values) @ turn, data.test.labels)
    options = dict(k=5, ks=(10, 20))
    whole = run(data, **options).metrics
    assert run(turned, **options).metrics == pytest.approx(whole)
    assert set(whole) >= {"k5/accuracy@1", "k10/accuracy@1", "k20/accuracy@1"}
    monkeypatch.setattr("evals.metrics.BLOCK_ENTRIES", 90)
    assert run(data, **options).metrics == whole


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.integers(0, 3), min_size=6, max_size=6), min_size=1, max_size=5), st.integers(1, 6))
def test_nearest_takes_equal_ones_in_their_order(rows, k):
    block = np.array(rows, np.float32)
    np.testing.assert_array_equal(nearest(block, k), np.argsort(-block, axis=1, kind="stable")[:, :k])


def test_what_cannot_be_classified_is_refused():
    data = cloud(0)
    with pytest.raises(ValueError, match="31 neighbours of 30 training rows; set config.evals.<label>.options.k and .ks to fewer"):
        run(data, k=31, ks=())
    with pytest.raises(ValueError, match="30 neighbours of 29"):
        run(data, k=30, ks=(), leave_one_out=True)
    for options in ({"k": 0}, {"temperature": 0.0}, {"vote": "loud"}):
        with pytest.raises(ConfigError, match="config.evals.<label>.options"):
            run(data, ks=(), **options)
    with pytest.raises(ValueError, match="test has rows of 1 classes that train has no example of: 9"):
        run(Data(data.train.values, data.train.labels, data.test.values[:1], [9]))
    with pytest.raises(ValueError, match="examples of class 2 alone"):
        run(Data(data.train.values, [2] * 30, data.test.values[:1], [2]))
    with pytest.raises(ValueError, match=r"train: labels int64 of shape \(2,\) for 30 values"):
        run(Data(data.train.values, [0, 1], data.test.values[:1], [0]))
    with pytest.raises(ValueError, match="classes 7 have one row each"):
        run(Data(data.train.values[:5], [0, 0, 7, 1, 1]), k=1, ks=(), leave_one_out=True)
    bad = np.array(data.train.values)
    bad[4] = np.nan
    with pytest.raises(ValueError, match="train embeddings: values that are not finite in rows 4"):
        run(Data(bad, data.train.labels, data.test.values, data.test.labels))
