"""What every source owes its users."""

import pathlib

import numpy as np
import pytest

import input_pipeline
from input_pipeline import SOURCES
from tests.input_pipeline.toys import write_pairs

OPTIONS = {
    "digits": [dict(split="train"), dict(split="test", size=12)],
    "glyphs": [dict(split="unseen"), dict(split="faces", size=16)],
    "glyph_mosaics": [dict(split="unseen", size=12, heldout=60, only=("STIXGeneralBol",), grids=(1, 3))],
    "glyph_scenes": [dict(split="unseen", size=16, heldout=60, only=("STIXGeneralBol",))],
    "glyph_swaps": [dict(split="unseen", size=12, heldout=60, only=("STIXGeneralBol",))],
}
TEXTS = {"docstrings": [dict(split="test")], "pairs": [dict(), dict(negatives=("wrong",), k=3, id="positive")]}


def cases(options):
    return dict(scope="module", params=[(name, i) for name in sorted(options) for i in range(len(options[name]))], ids=str)


@pytest.fixture(**cases(OPTIONS))
def source(request):
    name, i = request.param
    return SOURCES[name](**OPTIONS[name][i])


@pytest.fixture(**cases(TEXTS))
def texts_source(request, tmp_path_factory):
    name, i = request.param
    files = dict(files=(write_pairs(tmp_path_factory.mktemp("pairs")),)) if name == "pairs" else {}
    return SOURCES[name](**files, **TEXTS[name][i])


def test_every_source_is_tested():
    assert set(OPTIONS) | set(TEXTS) | {"library"} == {
        name for name, make in SOURCES.items() if not hasattr(make, "captions")
    }  # see test_encoded.py, test_inverse_cloze.py


def test_the_table_lists_every_file():
    folder = pathlib.Path(input_pipeline.__file__).parent / "sources"
    assert sorted(SOURCES) == sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")


def test_records_have_the_agreed_fields(source):
    first = source[0]["image"].shape
    for i in range(0, len(source), max(len(source) // 50, 1)):
        record = source[i]
        assert record["image"].dtype == np.uint8 and record["image"].shape == first and record["image"].any()
        assert type(record["text"]) is str and record["text"]
        assert all(type(text) is str and text for text in record.get("negatives", ())) and 0 <= record.get("negatives_weight", 0.0) <= 1
        for name in set(record) - {
            "image",
            "text",
            "negatives",
            "negatives_weight",
            "canvas",
            "tiles",
            "tiles_id",
            "tiles_pixel_id",
            "boxes",
        }:
            assert type(record[name]) is int and 0 <= record[name] < source.counts[name]


def test_captions_are_listed_once_and_in_a_fixed_order(source):
    texts = list(source.texts())
    assert len(texts) == len(set(texts)) and texts == list(source.texts())
    assert {source[i]["text"] for i in range(len(source))} == set(texts)


def test_the_retrieval_task_is_complete(source):
    task = source.retrieval()
    assert len(task.images) == len(task.groups) == len(source)
    assert len(set(task.texts)) == len(task.texts)
    relevant = list(map(tuple, task.relevant.tolist()))
    assert relevant == sorted(set(relevant))
    assert {i for i, _ in relevant} == set(range(len(source)))
    assert {j for _, j in relevant} == set(range(len(task.texts)))
    pairs = set(relevant)
    number = {text: j for j, text in enumerate(task.texts)}
    for i in range(0, len(source), max(len(source) // 50, 1)):
        np.testing.assert_array_equal(task.images[i], source[i]["image"])
        assert (i, number[source[i]["text"]]) in pairs


def test_the_classification_task_is_complete(source):
    task = source.classification()
    assert len(task.images) == len(task.labels) > 0
    assert set(task.labels.tolist()) == set(range(len(task.class_names)))
    assert len(set(task.class_names)) == len(task.class_names)
    assert all(template.count("{}") == 1 for template in task.templates)
    assert task.prompts is None or (len(task.prompts) == len(task.class_names) and all(task.prompts))


def test_digits_are_split_in_two():
    whole = 1797
    train, test = SOURCES["digits"](split="train"), SOURCES["digits"](split="test")
    assert len(train) + len(test) == whole and len(test) == round(0.2 * whole)
    # The set has a few equal scans; more would mean that the splits overlap.
    images = {train[i]["image"].tobytes() for i in range(len(train))}
    assert sum(test[i]["image"].tobytes() in images for i in range(len(test))) <= 3
    assert set(train.classification().labels.tolist()) == set(test.classification().labels.tolist()) == set(range(10))


def test_records_of_texts_have_the_agreed_fields(texts_source):
    first = texts_source[0]
    for i in range(0, len(texts_source), max(len(texts_source) // 50, 1)):
        record = texts_source[i]
        assert record.keys() == first.keys() and len(record.get("negatives", ())) == len(first.get("negatives", ()))
        assert all(type(text) is str and text.strip() for text in (record["query"], record["passage"], *record.get("negatives", ())))
        for name in set(record) - {"query", "passage", "negatives"}:
            assert type(record[name]) is int and 0 <= record[name] < texts_source.counts[name]


def test_all_texts_of_the_records_are_listed_in_a_fixed_order(texts_source):
    texts = list(texts_source.texts())
    records = [texts_source[i] for i in range(len(texts_source))]
    assert texts == list(texts_source.texts())
    assert set(texts) >= {text for record in records for text in (record["query"], record["passage"])}


def test_the_ranking_task_has_every_record(texts_source):
    task = texts_source.ranking()
    assert len(set(task.queries)) == len(task.queries) and len(set(task.corpus)) == len(task.corpus)
    relevant = list(map(tuple, task.relevant.tolist()))
    assert relevant == sorted(set(relevant)) and {query for query, _ in relevant} == set(range(len(task.queries)))
    pairs = {(task.queries[q], task.corpus[p]) for q, p in relevant}
    assert pairs >= {(texts_source[i]["query"], texts_source[i]["passage"]) for i in range(len(texts_source))}


def test_a_probe_learns_from_one_part_and_is_measured_on_the_other():
    for split in ("train", "test"):
        task = SOURCES["digits"](split=split, size=12).probe()
        assert (len(task.train.values), len(task.test.values)) == (1438, 359) and task.train.values[0].shape == (12, 12, 1)
        assert len(task.train.labels) == 1438 and set(task.test.labels.tolist()) == set(range(10))
