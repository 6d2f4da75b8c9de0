"""What a teacher made once is found by what it belongs to, whatever the order of the batch."""

import numpy as np
import pytest

from core.config import ConfigError
from input_pipeline import batching
from input_pipeline.bad_records import BadRecord
from input_pipeline.sources.pairs import Pairs
from input_pipeline.stored import stored, write
from tests.input_pipeline.toys import config

VALUES = ["a b", "c", 7, "7", "c"]
ROWS = np.arange(10, dtype=np.float64).reshape(5, 2)


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "made", VALUES, ROWS, teacher="guide")
    return str(tmp_path / "made")


def test_a_value_finds_its_row_and_the_first_of_equal_ones(folder):
    found = stored(["c", 7, "7", "a b", "c"], None, None, path=folder)[""]
    np.testing.assert_array_equal(found, ROWS[[1, 2, 3, 0, 1]])
    assert found.dtype == np.float32
    nested = stored([["c", "7"], ["a b", "c"]], None, None, path=folder, teacher="guide")[""]
    np.testing.assert_array_equal(nested, ROWS[[[1, 3], [0, 1]]])


def test_what_is_not_stored_is_a_bad_record_and_another_teacher_an_error(folder):
    with pytest.raises(BadRecord, match="nothing is stored of 'd'") as error:
        stored(["c", "d"], None, None, path=folder)
    assert error.value.row == 1
    with pytest.raises(BadRecord) as error:
        stored([["c", "c"], ["d", "c"]], None, None, path=folder)
    assert error.value.row == 1
    with pytest.raises(ValueError, match="was made by 'guide', not by 'other'"):
        stored(["c"], None, None, path=folder, teacher="other")
    with pytest.raises(FileNotFoundError, match="set options.path"):
        stored(["c"], None, None, path=folder + "s")


def test_rows_that_are_not_finite_are_not_stored(tmp_path):
    with pytest.raises(ValueError, match="1 numbers not finite"):
        write(tmp_path, ["a"], np.array([[np.nan, 0]]), teacher="guide")
    with pytest.raises(ValueError, match="0 rows for 0 values"):
        write(tmp_path, [], np.zeros((0, 2)), teacher="guide")


def test_a_run_reads_vectors_and_scores_by_text_and_row(tmp_path):
    texts = [f"query {i}" for i in range(8)]
    write(tmp_path / "vectors", texts, np.arange(16).reshape(8, 2), teacher="guide")
    lines = [f'{{"query": "{text}", "positive": "p", "score": {i}, "all": [{i}, 0.5]}}\n' for i, text in enumerate(texts)]
    (tmp_path / "rows.jsonl").write_text("".join(lines))
    options = dict(files=(str(tmp_path / "rows.jsonl"),), numbers=("score", "all"))
    made = dict(name="stored", options=dict(path=str(tmp_path / "vectors")))
    tokens = dict(name="tokenize", options=dict(length=8))
    data = config(
        sources=dict(main=dict(name="pairs", weight=1.0, options=options)), copies=dict(guide="query"), global_batch=4,
        transforms=dict(guide=made, query=tokens, passage=tokens),
    )  # fmt: skip
    sources = batching.make_sources(data)
    with batching.batches(data, sources, batching.make_tokenizer(data, sources), seed=0) as rows:
        batch = next(rows)
    np.testing.assert_array_equal(batch["guide"][:, 0], 2 * batch["record"])
    np.testing.assert_array_equal(batch["score"], batch["record"])
    np.testing.assert_array_equal(batch["all"], np.stack([batch["record"], np.full(4, 0.5)], 1))
    assert batch["score"].dtype == batch["all"].dtype == np.float32


def test_columns_of_numbers_that_cannot_be_are_refused(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"query": "a", "positive": "p", "id": 1, "score": "high"}\n')
    files = (str(tmp_path / "rows.jsonl"),)
    with pytest.raises(ValueError, match="options.numbers names .'id'., which records have already"):
        Pairs(files=files, numbers=("id",))
    for name in ("score", "missing"):
        with pytest.raises(BadRecord, match=f"row 1: '{name}' holds"):
            Pairs(files=files, numbers=(name,))[0]


def test_lists_of_numbers_have_one_length(tmp_path):
    (tmp_path / "rows.jsonl").write_text("".join(f'{{"query": "q", "positive": "p", "s": {[1.0] * n}}}\n' for n in (1, 2)))
    entry = dict(main=dict(name="pairs", weight=1.0, options=dict(files=(str(tmp_path / "rows.jsonl"),), numbers=("s",))))
    tokens = dict(name="tokenize", options=dict(length=8))
    data = config(sources=entry, transforms=dict(query=tokens, passage=tokens), global_batch=2, threads=0)
    sources = batching.make_sources(data)
    with pytest.raises(ConfigError, match="'s' has the shape"):
        with batching.batches(data, sources, batching.make_tokenizer(data, sources), seed=0) as rows:
            next(rows)
