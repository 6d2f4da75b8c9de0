"""Noise in a corpus: what it changes and what it leaves, the distance it makes, and the score that is left."""

import collections
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.config import ConfigError
from evals.noise import edit_distance, edited, noise
from input_pipeline import text_noise
from input_pipeline.tasks import ranking_task
from input_pipeline.text_noise import KINDS, noisy
from tests.evals import toys

TEXT = "The moon, in 1969, was 384,400 km away:\n  a walk of 9 years - if one could walk. " * 20
TEXTS = st.text(alphabet="abc DEF01\n.,mwé字", max_size=60)
RATES = {"characters": (0.05, 0.5), "words": (0.1,), "layout": (0.1,)}


@pytest.mark.parametrize("kind", sorted(KINDS))
@settings(deadline=None, max_examples=40)
@given(text=TEXTS, rate=st.floats(0, 1), seed=st.integers(0, 9))
def test_noise_is_that_of_the_text_and_the_seed(kind, text, rate, seed):
    assert noisy(text, kind, 0.0, seed) == text
    once = noisy(text, kind, rate, seed)
    assert once == noisy(text, kind, rate, seed)
    if kind == "layout":
        assert [mark for mark in once if mark.isalnum()] == [mark for mark in text if mark.isalnum()]
    if kind == "words":
        assert set(once.split()) <= set(text.split()) | {a + b for a in text.split() for b in text.split()}


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_another_seed_is_other_noise_and_more_is_further_away(kind):
    assert noisy(TEXT, kind, 0.2, 0) != noisy(TEXT, kind, 0.2, 1)
    shares = [edited([TEXT], kind, rate, 0) for rate in (0, 0.05, 0.2, 0.6)]
    assert shares[0] == 0 and shares == sorted(shares) and shares[1] > 0


def test_characters_change_as_often_and_in_the_ways_that_are_said():
    text, rate, count = "a" * 50_000, 0.2, collections.Counter()
    rng = random.Random(0)
    out = text_noise.characters(text, rate, rng)
    count.update(out)
    assert set(count) == {"a", "o"} and count["o"] / len(text) == pytest.approx(0.6 * rate, rel=0.05)
    # 2 of 10 vanish, 1 is doubled; a place that changes in a run of one letter shows nothing.
    assert len(out) / len(text) == pytest.approx(1 - 0.2 * rate + 0.1 * rate, abs=0.003)
    assert text_noise.characters("字" * 1000, 1.0, rng).count("字") < 1000  # nothing looks like it
    assert "rn" in text_noise.characters("m" * 50, 0.5, rng) and sorted(text_noise.CONFUSED["O"]) == sorted("0oDQ")


def test_words_vanish_change_and_move():
    text = " ".join(f"w{i}" for i in range(20_000))
    out = text_noise.words(text, 0.3, random.Random(0)).split()
    drawn = 0.3 / (1 + 0.3 * 0.3)  # a word that moves takes the next along, which is not drawn
    assert 1 - len(out) / 20_000 == pytest.approx(0.4 * drawn, abs=0.01)
    numbers = [int(word[1:]) for word in out]
    assert sum(b == a - 1 for a, b in zip(numbers, numbers[1:], strict=False)) / 20_000 == pytest.approx(0.3 * drawn, abs=0.01)
    assert (len(out) - len(set(out))) / 20_000 == pytest.approx(0.3 * drawn, abs=0.02)


def slow_distance(one, other):
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]


@settings(deadline=None, max_examples=100)
@given(st.text("abc", max_size=12), st.text("abc", max_size=12))
def test_distance_is_the_fewest_edits(one, other):
    assert edit_distance(one, other) == slow_distance(one, other)


def test_golden_distances():
    assert (edit_distance("kitten", "sitting"), edit_distance("", "abc"), edit_distance("same", "same")) == (3, 3, 0)


class Search:
    """Made-up words, of which each question asks for two."""

    def __init__(self, documents=40):
        rng = np.random.default_rng(0)
        words = ["".join(rng.choice(list("abcdehimnortuvw"), 6)) for _ in range(3 * documents)]
        self.texts = [" ".join(words[3 * i : 3 * i + 3]) for i in range(documents)]
        self.questions = [" ".join(text.split()[:2]) for text in self.texts]

    def ranking(self):
        return ranking_task(zip(self.questions, self.texts, strict=True))


def test_scores_fall_with_noise_and_are_means_of_their_parts():
    data, encode = Search(), toys.Encoders(query=toys.letters, passage=toys.letters)
    result = noise(encode, data, **RATES, controls=("bag_of_words", "bm25"))
    values = result.metrics
    for who in ("", "bag_of_words/", "bm25/"):
        each = [values[f"{who}ndcg@10/{kind}_{rate:g}"] for kind, rates in RATES.items() for rate in rates]
        assert values[f"{who}ndcg@10/noisy"] == pytest.approx(np.mean(each))
        assert values[f"{who}ndcg@10/characters"] == pytest.approx(np.mean(each[:2])) and values[f"{who}ndcg@10/words"] == each[2]
        assert values[f"{who}kept"] == pytest.approx(values[f"{who}ndcg@10/noisy"] / values[f"{who}ndcg@10/clean"])
        assert values[f"{who}ndcg@10/clean"] > values[f"{who}ndcg@10/characters_0.05"] > values[f"{who}ndcg@10/characters_0.5"]
        assert values[f"{who}ndcg@10_pessimistic/noisy"] <= values[f"{who}ndcg@10/noisy"]
    # Marks of layout are no words: word overlap loses nothing to them, counts of letters no letter.
    for who in ("", "bag_of_words/", "bm25/"):
        assert values[f"{who}ndcg@10/layout"] == pytest.approx(values[f"{who}ndcg@10/clean"])
    assert 0 < values["edited/characters_0.05"] < values["edited/characters_0.5"] and result.count == 40
    again = noise(encode, data, **RATES)
    assert again.metrics == {key: value for key, value in values.items() if "bm25/" not in key and "bag_of_words/" not in key}
    assert noise(encode, data, **RATES, seed=1).metrics != again.metrics


def test_no_noise_leaves_all():
    data, encode = Search(), toys.Encoders(query=toys.letters, passage=toys.letters)
    values = noise(encode, data, characters=(0.0,), words=(0.0,), layout=(0.0,), measure="mrr@5").metrics
    assert values["kept"] == pytest.approx(1) and values["mrr@5/words_0"] == values["mrr@5/clean"] and values["edited/words_0"] == 0


@pytest.mark.parametrize(
    "options, message",
    [
        ({"characters": (), "words": (), "layout": ()}, "there is no noise"),
        ({"characters": (1.5,)}, r"characters is \(1.5,\)"),
        ({"words": (0.1, 0.1)}, "distinct shares"),
        ({"measure": "accuracy"}, "measure is 'accuracy'"),
        ({"measure": "ndcg@0"}, "measure is 'ndcg@0'"),
        ({"controls": ("tfidf",)}, "options.controls"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        noise({}, Search(), **options)


def test_a_corpus_of_images_is_refused():
    with pytest.raises(ValueError, match="the corpus is no text"):
        noise(toys.perfect(toys.Toy()), type("Back", (), {"ranking": lambda self: ranking_task([((1,), (2,))])})(), query="image")
