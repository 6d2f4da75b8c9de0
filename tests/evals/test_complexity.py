"""Complexity of texts by definition, and the comparison of sets that it controls."""

import math
import types

import numpy as np
import pytest

from core.config import ConfigError
from evals.complexity import complexity, dependency_distance, entropy, fog, syllables, tree_distance
from evals.domain_effect import domain_effect
from input_pipeline.tasks import Labelled, PairScores, ProbeTask, RankingTask
from tests.evals import toys


def test_entropy_counts_bits():
    assert entropy(["a"] * 7) == 0 and math.copysign(1, entropy(["a"])) == 1
    assert entropy([*"abcdefgh"] * 3) == pytest.approx(3)
    one, other = [*"aab"], [*"xxy"]
    assert entropy(one + other) == pytest.approx(entropy(one) + 1)  # disjoint and equally long


def test_fog_of_short_and_long_words():
    for n in (1, 4, 9):
        assert fog(["the " * n + "."] * 3) == pytest.approx(0.4 * n)
    text = "Readability is a peculiar thing. It is!"  # 7 words in 2 sentences, 2 of three syllables or more
    assert fog([text]) == pytest.approx(0.4 * (7 / 2 + 100 * 2 / 7))
    assert fog([text, text]) == pytest.approx(fog([text])) and fog(["no end", "no end"]) == pytest.approx(0.8)
    assert math.isnan(fog(["...", "12 34"]))


@pytest.mark.parametrize(
    "word, expected", [("cat", 1), ("table", 2), ("code", 1), ("embedding", 3), ("the", 1), ("readability", 5), ("hm", 1)]
)
def test_syllables(word, expected):
    assert syllables(word) == syllables(word.upper()) == expected


def test_dependencies():
    assert dependency_distance([0, 1, 2, 3], [None, 0, 1, 2]) == 1  # a chain
    assert dependency_distance([0, 1, 2, 3], [None, 0, 0, 0]) == 2
    assert dependency_distance([5], [None]) is None


def test_trees_of_code():
    # a + b: the sum begins at token 0, as does its statement; a is at 0, b at 2: distances 0 (sum), 0 (a), 2 (b).
    assert tree_distance("a + b") == pytest.approx(2 / 3)
    assert tree_distance("a  +  b # c") == tree_distance("a + b")
    assert tree_distance("x = 'ü', 'ü', b") == tree_distance("x = 'u', 'u', b")  # places are letters, not bytes
    # f ( g ( h ) ): statement 0, call f 0, name f 0, call g 2, name g 2, name h 4 against their parents 0, 0, 0, 2, 2.
    assert tree_distance("f(g(h))") == pytest.approx((0 + 0 + 2 + 0 + 2) / 5)
    assert tree_distance("def (") is None and tree_distance("") is None and tree_distance("a\0") is None
    deep, flat = "if a:\n    if b:\n        c(d(e(f)))\n", "a\nb\nc\nd\n"
    assert tree_distance(deep) > tree_distance(flat)


def run(task, method, **options):
    encode = {"text": toys.letters}
    return complexity(encode, types.SimpleNamespace(**{method: lambda: task}), task=method, **options)


def test_texts_of_every_kind_of_set():
    ranked = RankingTask(["one query"], ["a text", "a text"], np.array([[0, 0]]))
    values = run(ranked, "ranking").metrics
    assert values["count/texts"] == 3 and values["count/words"] == 6 and values["complexity/fog"] == pytest.approx(0.8)
    assert values["complexity/entropy"] == pytest.approx(entropy("one query a text a text".split()))
    assert run(PairScores(["a"], ["b"], np.ones(1)), "similarity").primary == "complexity/entropy"
    code = run(Labelled(["a + b", "def ("], np.zeros(2, int)), "labelled", code=True).metrics
    assert code["complexity/tree_distance"] == pytest.approx(2 / 3) and code["count/unparsed"] == 1 and "complexity/fog" not in code


def test_entropy_is_taken_of_equally_many_words():
    task = Labelled([f"w{i} w{i + 1}" for i in range(50)], np.zeros(50, int))
    values = run(task, "labelled", words=20).metrics
    assert values["count/words"] == 20 and values["complexity/entropy"] <= np.log2(20) < run(task, "labelled").metrics["complexity/entropy"]
    assert values == run(task, "labelled", words=20).metrics


def test_a_fixed_probe_tells_how_much_is_learnt():
    texts = ["aaa bbb", "bbb aaa", "zzz yyy", "yyy zzz"] * 5
    task = ProbeTask(Labelled(texts, np.array([0, 0, 1, 1] * 5)), Labelled(texts[:4], np.array([0, 0, 1, 0])))
    result = run(task, "probe")
    assert result.primary == "accuracy@1" and result.metrics["accuracy@1"] == 0.75 and result.metrics["complexity/probe_error"] == 0.25


def test_what_has_no_complexity_is_refused():
    with pytest.raises(ConfigError, match="options.words is 0"):
        run(None, "labelled", words=0)
    with pytest.raises(ConfigError, match="options.task is 'images', which is not among: bitext"):
        run(None, "images")
    for values, message in ((["?", "!"], "none of 2 texts has a word"), ([np.zeros(3)], "no texts")):
        with pytest.raises(ValueError, match=message):
            run(Labelled(values, np.zeros(len(values), int)), "labelled")


def sets(seed, m=24):
    rng = np.random.default_rng(seed)
    return rng.normal(size=m), rng.normal(size=m), np.arange(m) % 2 == 0


def test_the_effect_is_that_of_least_squares():
    score, hard, domain = sets(0)
    found = domain_effect(score, hard, domain, number=200)
    columns = np.stack([np.ones(24), hard, domain], axis=1)
    assert found.effect == pytest.approx(np.linalg.solve(columns.T @ columns, columns.T @ score)[2])
    assert found.low < 0 < found.high and found.low < found.effect < found.high and found.p > 0.05
    assert found.counts.sum() == 24 and found.counts.sum(axis=1).tolist() == [8, 8, 8]
    third = np.argsort(np.argsort(hard)) // 8
    assert found.means[2, 1] == pytest.approx(score[(third == 2) & domain].mean())


def test_at_equal_complexity_it_is_the_difference_of_means():
    score, _, domain = sets(1)
    found = domain_effect(score, np.full(24, 3.0), domain, number=50)
    assert found.effect == pytest.approx(score[domain].mean() - score[~domain].mean())
    assert found.counts[0].tolist() == [12, 12] and np.isnan(found.means[1:]).all()


def test_what_complexity_explains_is_no_effect_of_the_domain():
    rng = np.random.default_rng(2)
    domain = np.arange(60) < 30
    hard = rng.normal(size=60) + 0.8 * domain
    score = 1 - 0.5 * hard + 0.01 * rng.normal(size=60)
    explained, left = domain_effect(score, hard, domain, number=300), domain_effect(score - 0.3 * domain, hard, domain, number=300)
    assert score[domain].mean() < score[~domain].mean() - 0.1 and abs(explained.effect) < 0.02
    assert left.effect == pytest.approx(-0.3, abs=0.02) and left.effect < left.low and left.p < 0.01


def test_sets_that_cannot_be_compared_are_refused():
    score, hard, domain = sets(3)
    with pytest.raises(ValueError, match="all 24 sets are of one kind"):
        domain_effect(score, hard, np.ones(24))
    for other in (hard[:5], np.where(domain, np.nan, hard)):
        with pytest.raises(ValueError, match="one finite number a set each"):
            domain_effect(score, other, domain)
