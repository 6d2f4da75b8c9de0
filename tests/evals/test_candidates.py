"""Picking one out of a list: the definition, ties under both rules, chance, groups, controls, and lists that are refused."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.config import ConfigError
from evals import encoders
from evals.candidates import candidates
from input_pipeline.pictures import Pictures
from input_pipeline.tasks import CandidatesTask
from tests.evals import toys


class Set:
    def __init__(self, task):
        self.task = task

    def candidates(self):
        return self.task


def rows_as_they_are(values):
    return np.array([np.asarray(value, float) for value in values])


VECTORS = toys.Encoders(image=rows_as_they_are, text=rows_as_they_are)


@st.composite
def tasks(draw):
    """Few directions, so that ties are common; lists of different lengths in different orders."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, m = draw(st.integers(1, 6)), draw(st.integers(2, 9))
    directions = rng.normal(size=(draw(st.integers(1, 4)), 3))
    lists = [rng.permutation(m)[: rng.integers(2, m + 1)].tolist() for _ in range(n)]
    right = np.array([rng.choice(own) for own in lists])
    pick = lambda count: [directions[i] for i in rng.integers(0, len(directions), count)]
    return CandidatesTask(pick(n), pick(m), lists, right, [f"g{i}" for i in rng.integers(0, 3, n)])


def walked(task):
    """Best and worst place of each right candidate over all orders that its list's float32 cosines allow."""
    unit = lambda v: v / np.linalg.norm(v)
    for query, own, right in zip(task.queries, task.lists, task.right, strict=True):
        score = {i: np.float32(unit(query) @ unit(task.candidates[i])) for i in own}
        yield sum(score[i] > score[right] for i in own), sum(score[i] >= score[right] for i in own) - 1


@settings(deadline=None, max_examples=80)
@given(tasks())
def test_scores_are_those_of_the_lists_by_hand(task):
    places = np.array(list(walked(task)))
    values = candidates(VECTORS, Set(task)).metrics
    for column, suffix in enumerate(("", "_pessimistic")):
        hits = places[:, column] == 0
        assert values[f"accuracy{suffix}"] == pytest.approx(hits.mean())
        assert values[f"mrr{suffix}"] == pytest.approx(np.mean(1 / (places[:, column] + 1)))
        groups = {name: np.mean(hits[np.array(task.groups) == name]) for name in set(task.groups)}
        assert {name: values[f"accuracy{suffix}/{name}"] for name in groups} == pytest.approx(groups)
        assert values[f"accuracy{suffix}/groups"] == pytest.approx(np.mean(list(groups.values())))
    assert values["tie_rate"] == pytest.approx(np.mean(places[:, 0] != places[:, 1]))
    assert values["accuracy_chance"] == pytest.approx(np.mean([1 / len(own) for own in task.lists]))


def test_the_order_of_a_list_changes_nothing():
    task = toys.Toy().candidates()
    turned = dataclasses.replace(task, lists=[own[::-1] for own in task.lists])
    model = lambda: toys.random(3)
    assert candidates(model(), Set(task)).metrics == candidates(model(), Set(turned)).metrics


def test_ties_decide_between_a_collapsed_model_that_is_always_right_and_one_that_never_is():
    """Golden: the published rule takes the first of equals, and its lists begin with the right one."""
    values = candidates(toys.constant(None), Set(toys.Toy().candidates())).metrics
    assert (values["accuracy"], values["accuracy_pessimistic"], values["tie_rate"]) == (1, 0, 1)


def test_more_candidates_never_help():
    task = toys.Toy().candidates()
    fewer = dataclasses.replace(task, lists=[[c, *(o for o in own if o != c)][:3] for c, own in zip(task.right, task.lists, strict=True)])
    for seed in range(5):
        many, few = (candidates(toys.random(seed), Set(some)).items for some in (task, fewer))
        assert (many <= few).all()


def test_controls_read_the_same_lists():
    texts = CandidatesTask(["a red cat", "a dog"], ["red cat", "green cat", "the dog", "cat dog"], [[0, 1], [1, 2, 3]], np.array([0, 2]))
    values = candidates(toys.Encoders(text=toys.letters), Set(texts), query="text", controls=("bag_of_words", "bm25")).metrics
    assert values["bag_of_words/accuracy"] == 1 and values["bag_of_words/accuracy_pessimistic"] == 1 / 2  # `the dog`, `cat dog`
    assert values["bm25/accuracy"] == 1 and "bm25/accuracy_pessimistic" in values
    with pytest.raises(ConfigError, match="ranks texts alone"):
        candidates(toys.perfect(toys.Toy()), toys.Toy(), controls=("bm25",))
    with pytest.raises(ConfigError, match="options.controls"):
        candidates(toys.perfect(toys.Toy()), toys.Toy(), controls=("tfidf",))


@pytest.mark.parametrize(
    "lists, right, message",
    [
        ([[0, 1], [0]], [0, 0], "the list of query 1 has fewer than two candidates, as do 0 others"),
        ([[0, 3], [0, 1]], [0, 0], "names candidates that do not exist"),
        ([[0, 0], [0, 1]], [0, 0], "names a candidate twice"),
        ([[1, 2], [1, 2]], [0, 0], "the list of query 0 lacks its right candidate, as do 1 others"),
        ([[0, 1]], [0], "2 queries have 1 lists and 1 right"),
    ],
)
def test_lists_that_do_not_fit_are_refused(lists, right, message):
    task = CandidatesTask([[1, 0], [0, 1]], [[1, 0], [0, 1], [1, 1]], lists, np.array(right))
    with pytest.raises(ValueError, match=message):
        candidates(VECTORS, Set(task))
    whole = CandidatesTask([[1, 0]], [[1, 0], [0, 1]], [[0, 1]], np.array([0]), ["a", "b"])
    with pytest.raises(ValueError, match="1 queries have 2 groups"):
        candidates(VECTORS, Set(whole))


def test_sets_of_images_are_told_apart_by_their_files_without_reading_them():
    draw = encoders.random()["image"]
    one, same, other = (draw(Pictures(["a", "b"], [b"1", last])) for last in (b"2", b"2", b"3"))
    assert (one == same).all() and (one != other).any()
