"""Queries cut out of their own passages, and the single texts that they are cut out of."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from core.config import ConfigError
from input_pipeline import batching
from input_pipeline.inverse_cloze import InverseCloze
from input_pipeline.sources import library
from input_pipeline.sources.docstrings import Docstrings
from tests.input_pipeline.toys import config

PROSE = "Opens a file, e.g. for reading.  It may be\nabsent. Closing is yours! See\n\nTwice said: it may be absent. Done"
PARTS = ["Opens a file, e.g. for reading.", "It may be absent.", "Closing is yours!", "See", "Twice said: it may be absent.", "Done"]
CODE = "if x is None:\n    x = read(path)\n    x = read(path)\nreturn x + one"


class Texts:
    """A source of single texts."""

    counts = {"id": 9}

    def __init__(self, *texts):
        self._texts = texts

    def __len__(self):
        return len(self._texts)

    def __getitem__(self, i):
        return {"text": self._texts[i], "note": "dropped", "id": i}

    def texts(self):
        return iter(self._texts)


def pairs(source, epochs=200):
    return [source.read(0, np.random.default_rng(epoch)) for epoch in range(epochs)]


def test_sentences_and_lines_are_told_apart():
    assert InverseCloze(Texts(PROSE))._parts(0) == PARTS
    assert InverseCloze(Texts(CODE), unit="line")._parts(0) == CODE.split("\n")


def test_a_query_is_a_part_and_its_passage_the_others():
    found = pairs(InverseCloze(Texts(PROSE), keep=0.0))
    assert {record["query"] for record in found} == {part for part in PARTS if len(part.split()) >= 3}
    for record in found:
        assert record["query"] not in record["passage"] and record.keys() == {"query", "passage", "id"} and record["id"] == 0
        assert record["passage"] == " ".join(part for part in PARTS if part != record["query"])


def test_a_line_that_stands_twice_goes_twice():
    found = {record["query"]: record["passage"] for record in pairs(InverseCloze(Texts(CODE), unit="line", keep=0.0, least=2))}
    assert found["x = read(path)"] == "if x is None:\nreturn x + one"
    assert found["return x + one"] == "if x is None:\n    x = read(path)\n    x = read(path)"


def test_some_passages_stay_whole():
    found = pairs(InverseCloze(Texts(PROSE)), 1000)
    whole = [record for record in found if record["passage"] == " ".join(PARTS)]
    assert 65 <= len(whole) <= 135  # a tenth of 1,000, give or take 3.7 standard deviations
    assert all(record["query"] in record["passage"] for record in whole)
    assert all(record["passage"] == " ".join(PARTS) for record in pairs(InverseCloze(Texts(PROSE), keep=1.0), 9))


def test_passages_that_cannot_be_parted_are_skipped():
    source = InverseCloze(Texts("Only one sentence is here.", PROSE, "", "Yes. No. Or.", "The same again. The same again."))
    assert len(source) == 1 and source[0]["id"] == source.id(0) == 1 and source[0]["query"] == PARTS[0]
    with pytest.raises(ValueError, match="no text of 'text' has two sentences that could be parted"):
        InverseCloze(Texts("Only one sentence is here."))


@pytest.mark.parametrize(
    "options, said",
    [
        (dict(unit="word"), "set unit to 'sentence' or 'line'"),
        (dict(keep=1.5), "keep to a share"),
        (dict(column="passage"), "inverse_cloze.column is 'passage', but records hold text, note, id"),
        (dict(kept=0.1), "inverse_cloze.kept is not a key"),
    ],
)
def test_what_cannot_be_is_refused_by_its_key(options, said):
    entry = ConfigDict(dict(name="texts", options={}, inverse_cloze=options))
    with pytest.raises(ConfigError, match=rf"config\.data\.sources\.main.*{said}"):
        batching.make_source(entry, "config.data.sources.main", dict(texts=lambda: Texts(PROSE)))


def test_what_is_drawn_follows_from_seed_epoch_and_record():
    tokens = dict(name="tokenize", options=dict(length=24))
    data = config(copies={}, transforms=dict(query=tokens, passage=tokens))
    source = InverseCloze(Texts(*(PROSE.replace("file", f"file {i}") for i in range(8))))
    tokenizer = batching.make_tokenizer(data, {"main": source})

    def read(start, count, seed=0):
        with batching.batches(data, {"main": source}, tokenizer, seed=seed, start=start) as rows:
            return [next(rows) for _ in range(count)]

    whole, later = read(0, 3), read(2, 1)
    by_record = lambda batch: {int(r): row.tobytes() for r, row in zip(batch["record"], batch["query"], strict=True)}
    assert by_record(whole[2]) == by_record(later[0])
    assert by_record(whole[0]) != by_record(whole[1])  # the same records in another epoch


@pytest.fixture(scope="module")
def held_out():
    return library.Library(split="test")


def test_the_library_has_single_texts_of_both_kinds(held_out):
    texts = list(held_out.texts())
    assert len(texts) == len(set(texts)) == len(held_out) and held_out[3] == {"text": texts[3], "id": 3}
    docs = library.Library(split="test", kinds=("docstring",))
    assert set(docs.texts()) < set(texts) and all(len(text.split()) >= 3 for text in docs.texts())
    pairs = Docstrings(split="test")
    assert {pairs[i]["passage"] for i in range(len(pairs))} <= set(texts)


def test_a_library_refuses_what_it_does_not_have():
    with pytest.raises(ValueError, match="set options.split to one of: train, test, and options.kinds to some of: body, docstring"):
        library.Library(split="dev")
