"""Files of pairs: each format gives the same records, rows are found without reading the others, bad rows are named."""

import csv
import json
import pickle

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from core.config import ConfigError
from input_pipeline import arrow_tables, batching, order, tables
from input_pipeline.bad_records import BadRecord
from input_pipeline.prompts import Prompted
from input_pipeline.sources.pairs import Pairs
from tests.input_pipeline.toys import config

ODD = ', "quoted"\nand on the next line é'
ROWS = [
    {"query": f"query {i}{'' if i % 3 else ODD}", "positive": f"answer {i // 2} ☃", "no_1": f"a{i}", "no_2": f"b{i}"} for i in range(25)
]
NEGATIVES = ("no_1", "no_2")


def write(path, rows=ROWS):
    path = str(path)
    if path.endswith(".parquet"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=4)
        return path
    with open(path, "w", encoding="utf-8", newline="") as file:
        if path.endswith(".jsonl"):
            file.write("\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n\n")
        else:
            names = list(rows[0])
            writer = csv.writer(file) if path.endswith(".csv") else None
            for row in [names, *([row[name] for name in names] for row in rows)]:
                writer.writerow(row) if writer else file.write("\t".join(row).replace("\n", " ") + "\r\n")
    return path


@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv", "parquet"])
def test_every_format_gives_the_same_records_in_any_order(tmp_path, kind):
    path = write(tmp_path / f"rows.{kind}")
    source = Pairs(files=(path,), negatives=NEGATIVES, k=2)
    assert len(source) == len(ROWS)
    for i in np.random.default_rng(0).permutation(len(ROWS)).tolist():
        query = ROWS[i]["query"].replace("\n", " ") if kind == "tsv" else ROWS[i]["query"]
        expected = {"query": query, "passage": ROWS[i]["positive"], "id": i, "negatives": [f"a{i}", f"b{i}"]}
        assert source[i] == expected
    again = pickle.loads(pickle.dumps(source))
    assert again[7] == source[7] and list(again.texts()) == list(source.texts())


def test_a_text_file_costs_eight_bytes_a_row_and_no_text(tmp_path):
    table = tables.open_table(write(tmp_path / "rows.jsonl"), ["query"])
    assert table._offsets.dtype == np.int64 and len(table._offsets) == len(ROWS) + 1
    assert len(pickle.dumps(table)) < 800


def test_a_few_row_groups_stay_decoded(tmp_path):
    table = tables.open_table(write(tmp_path / "rows.parquet", [{"query": f"q{i}"} for i in range(60)]), ["query"])
    assert [table[i]["query"] for i in (*range(60), 3, 59)] == [f"q{i}" for i in (*range(60), 3, 59)]
    assert len(table._groups) == arrow_tables.GROUPS


def test_files_follow_each_other_by_name(tmp_path):
    for name, rows in (("b.jsonl", ROWS[10:]), ("a.csv", ROWS[:10])):
        write(tmp_path / name, rows)
    source = Pairs(files=(str(tmp_path / "*.csv"), str(tmp_path / "*.jsonl")))
    assert [source[i]["query"] for i in range(25)] == [row["query"] for row in ROWS]
    assert [source[i]["id"] for i in range(25)] == list(range(25)) and source.counts == {"id": 25}
    assert "negatives" not in source[0]


def test_an_id_column_joins_rows(tmp_path):
    for kind in ("jsonl", "parquet"):
        source = Pairs(files=(write(tmp_path / f"rows.{kind}"),), id="positive")
        ids = [source[i]["id"] for i in range(25)]
        assert [ids[i] == ids[j] for i in range(25) for j in range(25)] == [i // 2 == j // 2 for i in range(25) for j in range(25)]
        assert sorted(set(ids)) == list(range(13)) and source.counts == {"id": 13}


def test_columns_without_a_header(tmp_path):
    (tmp_path / "rows.tsv").write_text('what "is\tan answer\n', encoding="utf-8")
    source = Pairs(files=(str(tmp_path / "rows.tsv"),), header=("ask", "say"), query="ask", positive="say")
    assert source[0] == {"query": 'what "is', "passage": "an answer", "id": 0}


def listed(tmp_path, **options):
    rows = [{"query": f"q{i}", "positive": [f"p{i}", f"r{i}"], "wrong": [f"n{i}.{j}" for j in range(5)]} for i in range(6)]
    return Pairs(files=(write(tmp_path / "lists.jsonl", rows),), negatives=("wrong",), **options)


def test_training_draws_by_seed_record_and_epoch(tmp_path):
    def batch(source, start, seed=0):
        data = config(global_batch=6, shuffle=False, transforms={})
        source = Letters(source)
        with batching.batches(data, {"main": source}, None, seed=seed, start=start) as rows:
            return next(rows)["drawn"].tolist()

    source = listed(tmp_path, k=3)
    epochs = [batch(source, start) for start in range(30)]
    assert epochs[0] == batch(source, 0) and batch(source, 0, seed=1) != epochs[0]
    counts = np.zeros((6, 7))
    for epoch in epochs:
        for record, (positive, *negatives) in enumerate(epoch):
            assert len(set(negatives)) == 3
            counts[record, [positive, *(2 + n for n in negatives)]] += 1
    assert (counts > 0).all()  # both positives and all five negatives of every record come up
    assert len({tuple(map(tuple, epoch)) for epoch in epochs}) == 30
    fixed = listed(tmp_path, k=3, draw=False)
    assert all(batch(fixed, start) == [[0, 0, 1, 2]] * 6 for start in range(3))


class Letters:
    """What a source drew, as numbers: which positive, which negatives."""

    def __init__(self, source):
        self.source = source

    def __len__(self):
        return len(self.source)

    def read(self, i, rng):
        record = self.source.read(i, rng)
        drawn = ["pr".index(record["passage"][0]), *(int(text.split(".")[1]) for text in record["negatives"])]
        return {"id": record["id"], "drawn": np.array(drawn)}


def test_the_first_ones_are_taken_outside_training_and_repeated_where_they_are_few(tmp_path):
    source = listed(tmp_path, k=7)
    assert source[2]["passage"] == "p2" and source[2]["negatives"] == [f"n2.{j}" for j in (0, 1, 2, 3, 4, 0, 1)]
    drawn = source.read(2, order.generator(0, order.Key(0, 2, 0)))["negatives"]
    assert len(drawn) == 7 and set(drawn) == {f"n2.{j}" for j in range(5)} and drawn[5:] == drawn[:2]


def test_the_ranking_task_has_negatives_as_distractors(tmp_path):
    task = listed(tmp_path).ranking()
    assert task.queries == [f"q{i}" for i in range(6)] and len(task.corpus) == 6 * 7
    assert [task.corpus[c] for q, c in task.relevant if q == 3] == ["p3", "r3"]


BAD = {
    "not json": (b'{"query": "a"', "row 2: "),
    "no object": (b'["a", "b"]', "row 2: a list, not an object"),
    "not utf-8": b'{"query": "\xff", "positive": "b"}',
    "no positive": (b'{"query": "a"}', "row 2: 'positive' holds 0 texts"),
    "blank": (b'{"query": " ", "positive": "b"}', "row 2: 'query' holds 0 texts"),
    "null": (b'{"query": null, "positive": "b"}', "row 2: 'query' holds 0 texts"),
    "a number": (b'{"query": "a", "positive": 3}', "row 2: 'positive' holds a int, not a text"),
    "two queries": (b'{"query": ["a", "b"], "positive": "b"}', "row 2: 'query' holds 2 texts"),
    "deep": (b"[" * 100_000, "row 2: "),
}
BAD["not utf-8"] = (BAD["not utf-8"], "row 2 is not UTF-8 at its byte 12")


@pytest.mark.parametrize("name", sorted(BAD))
def test_a_bad_row_is_named_and_the_others_are_read(tmp_path, name):
    raw, message = BAD[name]
    good = b'{"query": "a", "positive": "b"}\n'
    (tmp_path / "rows.jsonl").write_bytes(good + raw + b"\n" + good)
    source = Pairs(files=(str(tmp_path / "rows.jsonl"),), id="positive")
    with pytest.raises(BadRecord, match=message):
        source[1]
    assert source[0]["query"] == source[2]["query"] == "a" and source[0]["id"] == source[2]["id"]
    assert list(source.texts()) == ["a", "b"] * 2
    with pytest.raises(ValueError, match="an evaluation needs every row"):
        source.ranking()


def test_a_row_with_too_many_fields_and_one_without_negatives(tmp_path):
    (tmp_path / "rows.csv").write_text("query,positive,no\na,b,\na,b,c,d\n")
    source = Pairs(files=(str(tmp_path / "rows.csv"),), negatives=("no",), k=1)
    with pytest.raises(BadRecord, match="row 1 has no negatives in no"):
        source[0]
    with pytest.raises(BadRecord, match="row 2: 4 fields, where there are 3 columns"):
        source[1]


def test_a_long_text_is_a_text(tmp_path):
    path = write(tmp_path / "rows.csv", [{"query": "x" * 300_000, "positive": "b"}])
    assert len(Pairs(files=(path,))[0]["query"]) == 300_000


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(files=()), "options.files is empty; set it to paths"),
        (dict(files=("absent/*.jsonl",)), r"no file matches absent/\*\.jsonl"),
        (dict(files=("rows.jsonl.gz",)), "must end in one of .jsonl, .csv, .tsv, .parquet"),
        (dict(files=("rows.csv",), query="ask"), "rows.csv has no column 'ask'; it has: query, positive"),
        (dict(files=("rows.parquet",), query="ask"), "rows.parquet has no column 'ask'"),
        (dict(files=("torn.parquet",)), "torn.parquet is not a Parquet file"),
        (dict(files=("empty.jsonl",)), "options.files have no rows: empty.jsonl"),
        (dict(files=("empty.csv",)), "empty.csv has no column 'query'; it has: none"),
        (dict(files=("rows.csv",), k=2), "k is 2, but no column holds negatives"),
    ],
)
def test_mistakes_are_named(tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    for name in ("rows.csv", "rows.parquet"):
        write(name)
    for name in ("empty.jsonl", "empty.csv", "torn.parquet", "rows.jsonl.gz"):
        (tmp_path / name).write_bytes(b"PAR1" if name.startswith("torn") else b"")
    with pytest.raises(ValueError, match=message):
        Pairs(**options)


def test_prompts_stand_before_the_texts_of_one_source(tmp_path):
    entry = dict(name="pairs", options=dict(files=(write(tmp_path / "rows.jsonl"),), negatives=NEGATIVES, k=2))
    prompts = dict(query="ask: ", passage="say: ")
    data = config(sources=dict(main=entry | dict(weight=1.0, prompts=prompts)))
    plain, source = Pairs(**entry["options"]), batching.make_sources(data)["main"]
    for record, raw in ((source[3], plain[3]), (source.read(3, None), plain.read(3, None))):
        assert record["query"] == "ask: " + raw["query"] and record["passage"] == "say: " + raw["passage"]
        assert record["negatives"] == ["say: " + text for text in raw["negatives"]] and record["id"] == raw["id"]
    assert list(source.texts()) == list(plain.texts()) and source.counts == plain.counts and len(source) == 25
    task, bare = source.ranking(), plain.ranking()
    assert task.queries == ["ask: " + text for text in bare.queries] and task.corpus == ["say: " + text for text in bare.corpus]
    assert Prompted(plain, dict(passage="a ", negatives="b "))[0]["negatives"] == ["b a0", "b b0"]
    with data.unlocked():
        data.sources.main.prompts = dict(text="x")
    with pytest.raises(ConfigError, match="config.data.sources.main: prompts.text .* they have: query, passage, negatives"):
        batching.make_sources(data)
