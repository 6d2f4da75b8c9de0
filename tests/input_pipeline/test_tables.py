"""Tables: whatever the format and the place, the same rows by number; what is damaged is counted and never ends the process."""

import json
import os
import pickle
import struct
import subprocess
import sys
import zlib

import fsspec
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict

from core.config import ConfigError
from input_pipeline import columns, examples, files, index_cache, tables
from input_pipeline.bad_records import KINDS, BadRecord
from input_pipeline.batching import make_source

ROWS = [{"text": f"text {i} é", "image": b"\xff\xd8" + bytes(i), "label": i % 2} for i in range(9)]
NAMES = ["text", "image", "label"]


@pytest.fixture(autouse=True)
def index_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TANDEM_INDEX", str(tmp_path / "index"))
    monkeypatch.setattr(index_cache, "SMALL", 0)


def write_tfrecord(path, rows):
    """By definition: length, its checksum, data, its checksum; readers here do not look at the checksums."""
    with open(path, "wb") as file:
        for row in rows:
            data = examples.serialize(row)
            file.write(struct.pack("<QI", len(data), 0) + data + struct.pack("<I", zlib.crc32(data)))
    return str(path)


def write_array_record(path, rows):
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for row in rows:
        writer.write(examples.serialize(row))
    writer.close()
    return str(path)


def write_saved(path, rows, shards=2, features=None):
    """A folder as `datasets.Dataset.save_to_disk` lays it out."""
    os.makedirs(path)
    info = {"info": {"features": features or {}}}
    schema = pyarrow.Table.from_pylist(rows).schema.with_metadata({"huggingface": json.dumps(info)})
    names = [f"data-{k:05d}-of-{shards:05d}.arrow" for k in range(shards)]
    for k, name in enumerate(names):
        table = pyarrow.Table.from_pylist(rows[k::shards] if shards == 1 else rows[k * 5 : (k + 1) * 5], schema=schema)
        with pyarrow.OSFile(os.path.join(path, name), "wb") as sink, pyarrow.ipc.new_stream(sink, schema) as writer:
            writer.write_table(table, max_chunksize=2)
    with open(os.path.join(path, "state.json"), "w") as file:
        json.dump({"_data_files": [{"filename": name} for name in names], "_indices_data_files": None}, file)
    return str(path)


def write_parquet(path, rows):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=4)
    return str(path)


WRITE = {"a.tfrecord": write_tfrecord, "a.array_record": write_array_record, "saved": write_saved, "a.parquet": write_parquet}
WRITE |= {"a.tfrecord-00000-of-00001": write_tfrecord, "a.array_record-00000-of-00001": write_array_record}


@pytest.mark.parametrize("name", sorted(WRITE))
def test_rows_come_by_number_and_in_order(tmp_path, name):
    table = tables.open_table(WRITE[name](tmp_path / name, ROWS), NAMES)
    assert len(table) == len(ROWS)
    assert [table[i] for i in (5, 0, 8, 3)] == [_as_read(name, ROWS[i]) for i in (5, 0, 8, 3)]
    assert list(table.rows()) == [_as_read(name, row) for row in ROWS]
    assert pickle.loads(pickle.dumps(table))[7] == table[7]


def _as_read(name, row):
    return row | ({"text": row["text"].encode()} if "record" in name else {})  # records know bytes alone


def test_several_files_are_one_table(tmp_path):
    write_parquet(tmp_path / "b-01.parquet", ROWS[4:])
    write_parquet(tmp_path / "b-00.parquet", ROWS[:4])
    for pattern in ("b-*.parquet", "b-{00..01}.parquet", "b-{00,01}.parquet"):
        rows = tables.open_rows([str(tmp_path / pattern)], NAMES)
        assert [rows[i] for i in range(len(rows))] == ROWS == list(rows.rows())


def test_a_url_is_read_as_a_file_is(tmp_path):
    memory = fsspec.filesystem("memory")
    for name in ("a.tfrecord", "a.parquet"):
        WRITE[name](tmp_path / name, ROWS)
        memory.pipe(f"/tables/{name}", (tmp_path / name).read_bytes())
        table = tables.open_table(f"memory://tables/{name}", NAMES)
        assert [table[i] for i in (8, 1)] == [_as_read(name, ROWS[i]) for i in (8, 1)]
        assert pickle.loads(pickle.dumps(table))[2] == table[2]
    memory.pipe("/tables/a-0.jsonl", b'{"text": "x"}\n{"text": "y"}\n')
    memory.pipe("/tables/a-1.jsonl", b'{"text": "z"}\n')
    rows = tables.open_rows(["memory://tables/*.jsonl"], ["text"])
    assert [row["text"] for row in rows.rows()] == [rows[i]["text"] for i in range(3)] == ["x", "y", "z"]
    with pytest.raises(ValueError, match="absent.jsonl cannot be opened"):
        tables.open_rows(["memory://tables/absent.jsonl"], ["text"])


@pytest.mark.parametrize(
    "pattern, names",
    [
        ("s-{008..011}.tar", ["s-008.tar", "s-009.tar", "s-010.tar", "s-011.tar"]),
        ("{1..0}{x,y}", ["1x", "1y", "0x", "0y"]),
        ("{a}{b,{1..2}}", ["{a}b", "{a}1", "{a}2"]),
        ("plain{}", ["plain{}"]),
    ],
)
def test_braces_stand_for_several_names(pattern, names):
    assert list(dict.fromkeys(files.braces(pattern))) == names


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "", "http://x/y", "a\0b"])
def test_a_name_does_not_lead_out_of_its_folder(name):
    with pytest.raises(BadRecord, match="leads out of /data"):
        files.join("/data", name)
    assert files.join("/data/", "a/b.jpg") == "/data/a/b.jpg" and files.join("/", "/a/b.jpg") == "/a/b.jpg"


@pytest.mark.parametrize(
    "source, options", [("captions", dict(files=["memory://a.array_record"])), ("array_record", dict(folder="memory://a"))]
)
def test_what_needs_a_disk_says_so_with_the_key(source, options):
    entry = ConfigDict(dict(name=source, options=options))
    (key,) = options
    with pytest.raises(ConfigError, match=f"config.data.sources.main: memory://a.* from a disk alone; .* set options.{key}"):
        make_source(entry, "config.data.sources.main")


def test_a_store_that_refuses_is_one_line_and_bad_records(monkeypatch):
    class Refused(Exception):
        """As gcsfs has: neither an OSError nor a ValueError."""

    def refuse(*_):
        raise Refused("403 for this account")

    monkeypatch.setattr(fsspec.filesystem("memory"), "glob", refuse)
    monkeypatch.setattr(fsspec.filesystem("memory"), "open", refuse)
    with pytest.raises(ValueError, match=r"memory://a/\*.tar cannot be listed: 403 .* set options.shards"):
        files.expand(["memory://a/*.tar"], "shards")
    with pytest.raises(BadRecord, match="memory://a/b.tar cannot be read: 403") as error:
        files.read("memory://a/b.tar")
    assert error.value.kind == "gone"


def test_a_missing_package_of_a_store_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(ValueError, match="gs://bucket/a.tar cannot be read: .*gcsfs"):
        files.exists("gs://bucket/a.tar")


def test_saved_datasets_name_their_classes_and_splits(tmp_path):
    path = write_saved(
        tmp_path / "one", ROWS, features={"label": {"_type": "ClassLabel", "names": ["cat", "dog"]}, "text": {"_type": "Value"}}
    )
    table = tables.open_table(path, NAMES)
    assert table.names("label") == ("cat", "dog") and table.names("text") == ()
    os.makedirs(tmp_path / "dict")
    (tmp_path / "dict" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(ValueError, match="holds the splits train, test; set options.files to one of them"):
        tables.open_table(str(tmp_path / "dict"), NAMES)


def kinds(table):
    """What reading every row of a table gives: a row, or the kind of damage."""
    found = []
    for i in range(len(table)):
        try:
            found.append(table[i])
        except BadRecord as error:
            assert error.kind in KINDS
            found.append(error.kind)
    return found


def test_a_file_that_is_cut_short_has_one_bad_record_more(tmp_path):
    path = write_tfrecord(tmp_path / "a.tfrecord", ROWS)
    whole = open(path, "rb").read()
    for cut in (1, 20, len(whole) // 2):
        (tmp_path / "b.tfrecord").write_bytes(whole[:-cut])
        found = kinds(tables.open_table(str(tmp_path / "b.tfrecord"), NAMES))
        assert found[-1] == "truncated" and found[:-1] == [_as_read("tfrecord", row) for row in ROWS[: len(found) - 1]]


@pytest.mark.parametrize("name", ["a.tfrecord", "a.jsonl", "a.csv"])
def test_a_file_that_vanishes_is_counted(tmp_path, name):
    path = tmp_path / name
    write_tfrecord(path, ROWS) if "tf" in name else path.write_text('{"text": "x"}\n' if "json" in name else "text\nx\n")
    table = tables.open_table(str(path), ["text"])
    text = path.read_bytes()
    path.unlink()
    assert set(kinds(table)) == {"gone"}
    path.write_bytes(text[:-8])
    assert kinds(table)[-1] == "truncated"


def test_an_index_is_made_once_and_belongs_to_its_file(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    made = []

    def build(path):
        made.append(path)
        return {"x": np.arange(3)}

    path = str(tmp_path / "a")
    for _ in range(2):
        np.testing.assert_array_equal(index_cache.cached(path, "test", build)["x"], [0, 1, 2])
    assert len(made) == 1 and index_cache.cached(path, "other", build) and len(made) == 2
    (tmp_path / "a").write_bytes(b"abcd")
    index_cache.cached(path, "test", build)
    assert len(made) == 3
    for damaged in index_cache.folder().iterdir():
        damaged.write_bytes(b"PK\3\4 not an index")
    index_cache.cached(path, "test", build)
    assert len(made) == 4


def test_an_index_that_cannot_be_kept_is_made_again(tmp_path, monkeypatch, caplog):
    (tmp_path / "a").write_bytes(b"abc")
    monkeypatch.setenv("TANDEM_INDEX", str(tmp_path / "a" / "under_a_file"))
    for _ in range(2):
        assert index_cache.cached(str(tmp_path / "a"), "test", lambda path: {"x": np.arange(3)})["x"].tolist() == [0, 1, 2]
    assert "cannot be kept" in caplog.text


def test_equal_values_have_equal_numbers():
    values = ["a", b"a", 3, None, "3", None, "b"]
    numbers = columns.numbers(values)
    assert numbers.dtype == np.int32 and sorted(set(numbers.tolist())) == list(range(5))
    assert [numbers[i] == numbers[j] for i, j in ((0, 1), (2, 4), (3, 5), (0, 6))] == [True, True, False, False]


@pytest.mark.parametrize(
    "value, kind",
    [(b"\xff", "encoding"), (3, "malformed"), ("x" * 11, "too_large"), (["a", 3], "malformed")],
)
def test_what_is_no_text_is_bad(value, kind):
    with pytest.raises(BadRecord) as found:
        columns.texts({"text": value}, "text", 0, 10)
    assert found.value.kind == kind


def test_texts_of_a_column_may_be_one_several_or_none():
    read = lambda value: columns.texts({"text": value}, "text", 0, 10)
    assert (read("a"), read(["a", b"b", " "]), read(None), columns.texts({}, "text", 0, 10)) == (["a"], ["a", "b"], [], [])


def test_examples_survive_the_way_to_bytes_and_back():
    row = {"a": "é", "b": [b"\0", b""], "c": [1, -(2**63)], "d": [0.5], "e": []}
    assert examples.parse(examples.serialize(row)) == {"a": ["é".encode()], "b": [b"\0", b""], "c": [1, -(2**63)], "d": [0.5], "e": []}
    assert examples.serialize(dict(reversed(row.items()))) == examples.serialize(row)
    with pytest.raises(TypeError, match="'x' holds bytes, int; a feature has one kind"):
        examples.serialize({"x": ["a", 1]})


MUTATE = """
import sys
sys.path.insert(0, {root!r})
from input_pipeline import tables
from input_pipeline.bad_records import BadRecord
from tests.input_pipeline.test_tables import kinds, NAMES
import random
file, table = sys.argv[1:3]
whole = open(file, "rb").read()
for seed in range(int(sys.argv[3])):
    rng = random.Random(seed)
    data = bytearray(whole)
    for _ in range(rng.choice((1, 3, 30))):
        data[rng.randrange(len(data))] = rng.randrange(256)
    data = bytes(data[: rng.choice((len(data), rng.randrange(len(data))))])
    open(file, "wb").write(data)
    try:
        kinds(tables.open_table(table, NAMES))
    except ValueError:
        pass
sys.stdout.write("done")
"""


@pytest.mark.parametrize("name", ["a.array_record", "a.parquet", "saved"])
def test_damage_never_ends_the_process_of_a_reader_in_another_language(tmp_path, name):
    """In a process of its own: a crash there would end this one."""
    path = WRITE[name](tmp_path / name, ROWS)
    file = os.path.join(path, "data-00000-of-00002.arrow") if name == "saved" else path
    code = MUTATE.format(root=os.getcwd())
    done = subprocess.run([sys.executable, "-c", code, file, path, "300"], capture_output=True, text=True, timeout=120, cwd=os.getcwd())
    assert (done.returncode, done.stdout) == (0, "done"), done.stderr[-2000:]


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=300), name=st.sampled_from(["x.jsonl", "x.csv", "x.tsv", "x.tfrecord"]))
def test_any_bytes_are_a_table_or_a_mistake(tmp_path_factory, data, name):
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(data)
    try:
        table = tables.open_table(str(path), [])
    except ValueError:
        return
    assert len(kinds(table)) == len(table)
