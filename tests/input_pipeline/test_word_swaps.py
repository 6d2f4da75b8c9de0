"""Names that differ in one word, spans that change places, and the records of `glyph_swaps` made of them."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from input_pipeline import word_swaps
from input_pipeline.sources.glyph_swaps import GlyphSwaps
from input_pipeline.sources.glyphs import SCRIPTS

NAMES = ["latin small letter a", "latin capital letter a", "greek small letter a", "latin small letter b", "latin small letter a with dot",
         "latin small letter a with hook", "small"]  # fmt: skip
FACE = dict(size=12, heldout=60, only=("STIXGeneralBol",))


@pytest.fixture(scope="module")
def sources():
    return {split: GlyphSwaps(split=split, k=2 if split == "train" else 1, **FACE) for split in ("train", "unseen")}


def test_neighbours_differ_in_one_word_and_are_sorted_by_its_kind():
    found = word_swaps.neighbours(NAMES, frozenset(SCRIPTS))
    assert found["latin small letter a"] == {
        "case": ["latin capital letter a"], "letter": ["latin small letter b"], "script": ["greek small letter a"],
    }  # fmt: skip
    assert found["latin small letter a with dot"] == {"mark": ["latin small letter a with hook"]}
    assert "small" not in found


@settings(deadline=None, max_examples=50)
@given(st.sets(st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(" ".join), max_size=12))
def test_neighbours_are_all_pairs_of_names_that_differ_in_one_word(names):
    def differ(one, other):
        one, other = one.split(), other.split()
        return len(one) == len(other) and sum(a != b for a, b in zip(one, other, strict=True)) == 1

    found = word_swaps.neighbours(names)
    for name in names:
        assert sorted(sum(found.get(name, {}).values(), [])) == sorted(other for other in names if differ(name, other))


@settings(deadline=None, max_examples=50)
@given(st.permutations("abcdefgh"), st.lists(st.integers(0, 8), min_size=4, max_size=4, unique=True).map(sorted), st.booleans())
def test_an_exchange_undoes_itself_and_keeps_every_word(words, bounds, turned):
    a, b, c, d = bounds
    text, spans = " ".join(words), [" ".join(words[a:b]), " ".join(words[c:d])]
    spans = spans[::-1] if turned else spans
    made = word_swaps.exchange(text, *spans)
    assert made != text and sorted(made.split()) == sorted(text.split())
    assert word_swaps.exchange(made, *spans) == text


def test_an_exchange_leaves_longer_words_alone_and_refuses_what_is_not_there_once():
    assert word_swaps.exchange("alpha left of a", "alpha", "a") == "a left of alpha"
    with pytest.raises(ValueError, match="'a' stands 2 times in 'a left of a'"):
        word_swaps.exchange("a left of a", "a", "left")
    with pytest.raises(ValueError, match="overlap"):
        word_swaps.exchange("a b c", "a b", "b c")


def test_exchanged_words_give_two_known_names():
    known = {"greek small letter alpha", "greek capital letter alpha", "latin small letter b", "latin capital letter b"}
    found = word_swaps.exchanged_words("greek small letter alpha", "latin capital letter b", known.__contains__)
    assert found == [("greek capital letter alpha", "latin small letter b")]
    assert word_swaps.exchanged_words("greek small letter alpha", "latin small letter b", known.__contains__) == []


def test_draws_take_every_text_before_one_comes_twice():
    by_kind = {"case": ["a"], "letter": ["b", "c"]}
    assert word_swaps.draw(by_kind, 2, None) == ["a", "b"] and word_swaps.draw({}, 2, None) == []
    rng = np.random.default_rng(0)
    for _ in range(20):
        drawn = word_swaps.draw(by_kind, 5, rng)
        assert sorted(drawn[:3]) == ["a", "b", "c"] and len(drawn) == 5
    # a kind is drawn first: the one capital is as likely as both letters together
    firsts = [word_swaps.draw(by_kind, 1, rng)[0] for _ in range(400)]
    assert abs(firsts.count("a") / 400 - 0.5) < 0.1


def looks(*sources):
    """Which images there are of each name, of all splits."""
    found = {}
    for source in sources:
        for i in range(len(source)):
            found.setdefault(source[i]["text"], set()).add(source[i]["pixel_id"])
    return found


def test_a_swapped_name_is_another_existing_character_that_looks_different(sources):
    source, rng = sources["train"], np.random.default_rng(0)
    seen, shown = set(source.texts()), looks(*sources.values())
    with_swaps = 0
    for i in range(0, len(source), 3):
        record = source.read(i, rng)
        name, negatives = record["text"].split(), record["negatives"]
        assert len(negatives) == 2
        if not record["negatives_weight"]:
            assert negatives == [record["text"]] * 2
            continue
        with_swaps += 1
        for other in negatives:
            assert other in seen and unicodedata.lookup(other.upper()) and not shown[other] & shown[record["text"]]
            assert len(other.split()) == len(name) and sum(a != b for a, b in zip(other.split(), name, strict=True)) == 1
    assert with_swaps > 0.5 * len(source) / 3
    assert source[5]["negatives"] == source[5]["negatives"] and any(
        source.read(i, rng)["negatives"] != source[i]["negatives"] for i in range(20)
    )


def test_words_put_in_at_random_say_nothing_true(sources):
    source, rng = GlyphSwaps(split="unseen", negatives="word", **FACE), np.random.default_rng(0)
    words = {word for name in sources["train"].texts() for word in name.split()}
    for i in range(0, len(source), 3):
        record = source.read(i, rng)
        (made,) = record["negatives"]
        (changed,) = [b for a, b in zip(record["text"].split(), made.split(), strict=True) if a != b]
        assert changed in words and not source.alike(made, record["text"]) and record["negatives_weight"] == 1


def test_each_image_picks_between_its_name_and_one_that_is_false(sources):
    source = sources["unseen"]
    task, shown = source.candidates(), looks(*sources.values())
    assert set(task.groups) <= {"case", "script", "mark", "letter"} and len(task.groups) == len(task.queries) > 60
    by_image = {source[i]["image"].tobytes(): source[i]["text"] for i in range(len(source))}
    for query, (own, other), right in zip(task.queries, task.lists, task.right, strict=True):
        assert own == right and not shown[task.candidates[own]] & shown[task.candidates[other]]
        assert shown[by_image[query.tobytes()]] & shown[task.candidates[own]]


def test_mistakes_name_the_option():
    with pytest.raises(ValueError, match="set options.negatives to swap or word"):
        GlyphSwaps(negatives="swaps")
    with pytest.raises(ValueError, match="there is no face 'Arial'; set options.only to some of: DejaVuSans"):
        GlyphSwaps(only=("Arial",))
