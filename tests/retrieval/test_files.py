"""From files to folders of vectors: what is read, what is refused, and that a killed job goes on to the same bytes."""

import json

import numpy as np
import pyarrow as arrow
import pytest
from PIL import Image
from pyarrow import parquet

from core.config import ConfigError
from retrieval import job, shards
from retrieval.values import open_values

SIZES = dict(shard_rows=4, batch=2, tokens=64, prompt=None)


class Toy:
    """Stands for an encoder: a vector of a text's length and first letters; counts what it is asked."""

    dim = 3

    def __init__(self, fails_after=10**9, fingerprint="a"):
        self.left, self.fingerprint = fails_after, fingerprint

    def encode(self, values, view, batch=0, *, prompt=None, tokens=None, done=lambda rows: None):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        done(len(values))
        texts = values if view == "text" else [str(int(np.asarray(value).sum())) for value in values]
        return np.array([[len(text), *(text.encode() + b"\0\0")[:2]] for text in texts], np.float32).reshape(-1, 3)

    def image(self, value, view):
        with Image.open(value) as picture:
            return np.asarray(picture.convert("L"))

    def describe(self, view):
        return {"fingerprint": self.fingerprint, "view": view}


def embed(encoder, source, output, view="text", format="npy", dtype="float32", **sizes):
    values = open_values(source)
    writer = shards.Writer(output, job.settings(encoder, values, view, **SIZES | sizes), dtype=dtype, format=format)
    if not writer.complete:
        job.embed(encoder, values, writer, view, **SIZES | sizes)
    return writer.manifest


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def source(tmp_path):
    lines = [json.dumps({"text": "x" * n}) for n in range(1, 14)]
    lines[5:7] = ["{oops", json.dumps({"body": "no text"})]
    path = tmp_path / "texts.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_rows_come_in_order_and_bad_ones_are_counted(source, tmp_path):
    manifest = embed(Toy(), source, tmp_path / "out")
    assert manifest["counts"] == {"rows": 13, "vectors": 11, "bad": 2} and manifest["complete"]
    assert [shard["rows"] for shard in manifest["shards"]] == [4, 4, 4, 1]
    ids, vectors = shards.read(tmp_path / "out")
    assert ids == [str(n) for n in range(13) if n not in (5, 6)]
    np.testing.assert_array_equal(np.concatenate(vectors)[:, 0], [n + 1 for n in range(13) if n not in (5, 6)])
    faults = json.loads((tmp_path / "out" / "00001.bad.json").read_text())
    assert [fault["id"] for fault in faults] == ["5", "6"]
    assert faults[0]["fault"].startswith("not JSON") and faults[1]["fault"] == "no 'text'; there are: body"


@pytest.mark.parametrize("format", ["npy", "arrow"])
@pytest.mark.parametrize("alive_for", [0, 1, 3])
def test_killed_and_started_again_gives_the_same_bytes(source, tmp_path, alive_for, format):
    embed(Toy(), source, tmp_path / "whole", format=format)
    with pytest.raises(KeyboardInterrupt):
        embed(Toy(fails_after=alive_for), source, tmp_path / "again", format=format)
    with pytest.raises(ValueError, match="is not complete"):
        shards.read(tmp_path / "again")
    (tmp_path / "again" / f".{alive_for:05d}.npy.tmp").write_bytes(b"half")  # what a kill may leave of a shard
    (tmp_path / "again" / f"{alive_for:05d}.{format}").write_bytes(b"whole, but not yet in the manifest")
    embed(Toy(), source, tmp_path / "again", format=format)
    (tmp_path / "again" / f".{alive_for:05d}.npy.tmp").unlink(missing_ok=True)
    assert content(tmp_path / "again") == content(tmp_path / "whole")
    embed(Toy(fails_after=0), source, tmp_path / "again", format=format)  # done is done


def test_killed_after_the_last_shard_only_the_end_is_missing(source, tmp_path):
    embed(Toy(), source, tmp_path / "out")
    before = content(tmp_path / "out")
    manifest = json.loads(before["manifest.json"]) | {"complete": False}
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(manifest))
    embed(Toy(fails_after=0), source, tmp_path / "out")
    assert content(tmp_path / "out") == before


def test_formats_hold_the_same(source, tmp_path):
    for format in shards.FORMATS:
        for dtype in shards.DTYPES:
            embed(Toy(), source, tmp_path / f"{format}{dtype}", format=format, dtype=dtype)
            ids, vectors = shards.read(tmp_path / f"{format}{dtype}")
            assert {v.dtype.name for v in vectors} == {dtype} and len(ids) == 11
            np.testing.assert_array_equal(np.concatenate(vectors)[:, 0], [n + 1 for n in range(13) if n not in (5, 6)])
    with arrow.memory_map(str(tmp_path / "arrowfloat32" / "00001.arrow")) as file:
        assert arrow.ipc.open_file(file).read_all().column_names == ["id", "vector"]


def test_two_models_inputs_or_settings_do_not_mix(source, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        embed(Toy(fails_after=2), source, tmp_path / "out")
    with pytest.raises(ConfigError, match="made_by.model.fingerprint: 'a' -> 'b'. Choose another --output"):
        embed(Toy(fingerprint="b"), source, tmp_path / "out")
    with pytest.raises(ConfigError, match="made_by.settings.shard_rows: 4 -> 5"):
        embed(Toy(), source, tmp_path / "out", shard_rows=5)
    with pytest.raises(ConfigError, match="made_by.dtype: 'float32' -> 'float16'"):
        embed(Toy(), source, tmp_path / "out", dtype="float16")
    source.write_text(source.read_text().replace("xxx", "yyy"))
    with pytest.raises(ConfigError, match="made_by.input.ends"):
        embed(Toy(), source, tmp_path / "out")


def test_a_shard_that_was_changed_is_refused(source, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        embed(Toy(fails_after=2), source, tmp_path / "out")
    (tmp_path / "out" / "00001.npy").write_bytes(b"other")
    with pytest.raises(ConfigError, match="00001.npy is not what manifest.json says: it was changed, cut off or deleted"):
        embed(Toy(), source, tmp_path / "out")


def test_a_folder_with_other_files_is_refused(source, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigError, match="holds thesis.tex but no manifest.json; choose an --output that is empty or not there"):
        embed(Toy(), source, tmp_path / "out")


def test_each_line_of_a_text_file_is_one_text(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_bytes(b"one\r\n\ntwo\x0b\xe2\x80\xa8still two\ncaf\xe9\nlast")
    values = open_values(path)
    assert [value.value for value in values.read()] == ["one", "", "two\x0b\u2028still two", "caf\ufffd", "last"]
    assert [value.id for value in values.read()] == ["0", "1", "2", "3", "4"] and values.total == 5


def test_parquet_columns_and_names(tmp_path):
    path = tmp_path / "rows.parquet"
    parquet.write_table(arrow.table({"key": ["a", "b", "c"], "body": ["one", None, "three"]}), path)
    values = open_values(path, "body", "key")
    assert [value[:2] for value in values.read()] == [("a", "one"), ("b", None), ("c", "three")] and values.total == 3
    assert list(values.read())[1].fault == "'body' is NoneType, not text"
    with pytest.raises(ConfigError, match="has no column 'text'; it has: key, body. Set --column or --id_column"):
        open_values(path)


def test_names_that_no_file_could_hold_are_mended(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"text": "a", "key": "half \\ud800"}\n{"text": "b", "key": 7}\n')
    assert [value.id for value in open_values(tmp_path / "rows.jsonl", id_column="key").read()] == ["half \ufffd", "7"]


def test_folders_of_images_by_path(tmp_path):
    folder = tmp_path / "images"
    (folder / "b").mkdir(parents=True)
    for name, shade in (("c.png", 3), ("b/a.png", 1), ("a.jpg", 2)):
        Image.fromarray(np.full((2, 2), shade, np.uint8)).save(folder / name)
    (folder / "broken.png").write_bytes(b"no image")
    (folder / "notes.md").write_text("not an image")
    manifest = embed(Toy(), folder, tmp_path / "out", view="image")
    ids, vectors = shards.read(tmp_path / "out")
    assert ids == ["a.jpg", "b/a.png", "c.png"] and manifest["counts"] == {"rows": 4, "vectors": 3, "bad": 1}
    np.testing.assert_array_equal(np.concatenate(vectors)[:, 1], [ord("8"), ord("4"), ord("1")])
    assert "UnidentifiedImageError" in (tmp_path / "out" / "00000.bad.json").read_text()


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist; give --input a file"):
        open_values(tmp_path / "none.jsonl")
    with pytest.raises(FileNotFoundError, match="holds no images"):
        open_values(tmp_path)
    (tmp_path / "a.pkl").write_bytes(b"")
    (tmp_path / "cut.parquet").write_bytes(b"PAR1....PAR1")
    with pytest.raises(ConfigError, match="cut.parquet is no complete Parquet file"):
        open_values(tmp_path / "cut.parquet")
    with pytest.raises(ConfigError, match="its ending is '.pkl', which is not among: .jsonl, .parquet, .txt"):
        open_values(tmp_path / "a.pkl")


def test_an_empty_file_is_done_at_once(tmp_path):
    (tmp_path / "none.txt").write_bytes(b"")
    assert embed(Toy(), tmp_path / "none.txt", tmp_path / "out") | {"made_by": 0} == {
        "made_by": 0,
        "shards": [],
        "counts": {},
        "complete": True,
    }
    assert shards.read(tmp_path / "out") == ([], [])
