"""launch.prepare: what is kept, what is dropped and why; the same folder whatever stopped it and whoever worked on it."""

import io
import json
import sys

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from PIL import Image

from core.config import ConfigError
from core.workdir import write_json
from input_pipeline import SOURCES, near_duplicates
from input_pipeline.prepare import Rules
from input_pipeline.sources.array_record import ArrayRecord
from input_pipeline.sources.pairs import Pairs
from input_pipeline.sources.webdataset import WebDataset
from launch import prepare
from tests.input_pipeline.encoded import captions, members, picture, write_tar
from tests.launch.test_commands import run


def prepared(source, folder, rules=None, size=4, **options):
    """The source that reads what is made of another one."""
    folder.mkdir(exist_ok=True)
    parts = [range(a, min(a + size, len(source))) for a in range(0, len(source), size)]
    manifest = prepare.make(source, parts, folder, rules or Rules(), map, lambda rows: None, 6)
    write_json(folder / "manifest.json", manifest)
    return ArrayRecord(folder=str(folder), **options)


def dropped(folder):
    return {line["record"]: line["kind"] for line in map(json.loads, (folder / "dropped.jsonl").read_text().splitlines())}


def shard(path):
    """Good records, and one for each reason to drop one."""
    wide = Image.new("RGB", (400, 40))
    wide.save(path.parent / "wide.png")
    record = lambda name, image, score, text: [
        (f"{name}.jpg", image), (f"{name}.json", json.dumps({"caption": text, "Score": score}).encode())
    ]  # fmt: skip
    return write_tar(
        path,
        [
            *record("a", picture(0), 0.9, ["a good one", "x"]),
            *record("b", picture(1), 0.1, "a low one"),
            *record("c", picture(0), 0.9, "the same picture"),
            *record("d", (path.parent / "wide.png").read_bytes(), 0.9, "a wide one"),
            *record("e", picture(2), 0.9, "short"),
            *record("f", picture(3)[:-300], 0.9, "a torn one"),
            *record("g", b"", 0.9, "an empty one"),
            *record("h", picture(4), None, "without a score"),
            *record("i", picture(5), 0.5, "another good one"),
        ],
    )


RULES = Rules(min_characters=6, max_aspect=3.0, least={"score": 0.2}, decode=True)
REASONS = {1: "low_score", 2: "duplicate", 3: "aspect", 4: "text_length", 6: "empty", 7: "missing"}


def test_what_is_dropped_is_named_and_the_rest_is_kept(tmp_path):
    source = WebDataset(shards=(shard(tmp_path / "a.tar"),), text="json.caption", numbers=("score",))
    found = prepared(source, tmp_path / "out", RULES, size=2)
    reasons = dropped(tmp_path / "out")
    assert reasons.pop(5) in ("truncated", "image") and reasons == REASONS
    assert len(found) == 2 and found.whole(0) == {"image": picture(0), "text": ["a good one"], "id": 0, "score": pytest.approx(0.9)}
    assert found[1]["image"] == picture(5) and found[1]["score"] == 0.5 and found.counts == {"id": 2}
    statistics = json.loads((tmp_path / "out" / "statistics.json").read_text())
    assert statistics["records"] == 9 and statistics["kept"] == 2 and sum(statistics["dropped"].values()) == 7
    assert statistics["image.height"] == {f"p{p}": pytest.approx(10 + 5 * p / 100) for p in (0, 1, 5, 25, 50, 75, 95, 99, 100)}
    with Image.open(tmp_path / "out" / "contact_sheet.png") as sheet:
        assert sheet.width > 900 and len(np.unique(np.asarray(sheet))) > 50


def test_pairs_keep_their_positives_and_negatives(tmp_path):
    rows = [{"query": f"q{i}", "positive": [f"p{i}", "p"], "no": [f"n{i}.{k}" for k in range(i % 4)]} for i in range(7)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = Pairs(files=(str(tmp_path / "rows.jsonl"),), negatives=("no",), k=2)
    found = prepared(source, tmp_path / "out", k=2)
    assert [found.whole(i) for i in range(7)] == [source.whole(i) | {"query": [f"q{i}"]} for i in range(7)]
    for i in (1, 2, 3, 5, 6):
        assert found[i] == source[i]
        rngs = np.random.default_rng(i), np.random.default_rng(i)
        assert found.read(i, rngs[0])["passage"] == source.read(i, rngs[1])["passage"]
    assert set(ArrayRecord(folder=str(tmp_path / "out"))[0]) == {"query", "passage", "id"}
    task, same = found.ranking(), source.ranking()
    assert (task.queries, sorted(task.corpus), len(task.relevant)) == (same.queries, sorted(same.corpus), len(same.relevant))
    with pytest.raises(ValueError, match="and no image; name an evaluator of texts"):
        found.retrieval()


def test_a_source_of_arrays_becomes_png(tmp_path):
    source = SOURCES["digits"](split="test")
    found = prepared(source, tmp_path / "out", Rules(duplicates=True), size=200)
    with Image.open(io.BytesIO(found[17]["image"])) as image:
        np.testing.assert_array_equal(np.asarray(image), source[17]["image"][..., 0])
    assert found[17]["text"] == source[17]["text"] and found[17]["id"] == source[17]["id"]


def test_near_duplicates_are_those_that_share_shingles(tmp_path):
    words = [f"w{i}" for i in np.random.default_rng(0).integers(0, 1000, 60)]
    texts = [
        " ".join(words),
        " ".join([*words[:59], "other"]),
        " ".join(words[:30]),
        "W0, " + " ".join(words) + "!",
        " ".join(reversed(words)),
    ]
    sets = [near_duplicates.shingles(text) for text in texts]
    jaccard = lambda a, b: len(a & b) / len(a | b)
    signatures = np.stack([near_duplicates.signature(text) for text in texts])
    for i in range(5):
        for j in range(5):
            assert (signatures[i] == signatures[j]).mean() == pytest.approx(
                jaccard(sets[i], sets[j]), abs=0.14
            )  # three standard deviations
    assert near_duplicates.repeated(signatures, 0.8).tolist() == [False, True, False, True, False]
    rows = [{"query": f"{text}", "positive": "p"} for text in texts]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = prepared(Pairs(files=(str(tmp_path / "rows.jsonl"),)), tmp_path / "out", Rules(near=0.8))
    assert len(found) == 3 and dropped(tmp_path / "out") == {1: "near_duplicate", 3: "near_duplicate"}


def test_texts_of_other_languages_are_dropped(shared_data, tmp_path):
    pytest.importorskip("py3langid", reason="needs py3langid, which tells languages")
    read = lambda code: (shared_data / "multi30k_p" / "task1" / f"val.{code}").read_text(encoding="utf-8").splitlines()[:40]
    rows = [{"query": text, "positive": "x", "language": code} for code in ("en", "de", "fr", "cs") for text in read(code)]
    rows.append({"query": [read("en")[0], read("cs")[0]], "positive": "x", "language": "en"})
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = Pairs(files=(str(tmp_path / "rows.jsonl"),), query="positive", positive="query")
    found = prepared(source, tmp_path / "out", Rules(languages={"passage": ["en", "fr"]}, duplicates=True), size=1000)
    assert set(dropped(tmp_path / "out").values()) == {"language"}
    left = [i for i in range(len(rows)) if i not in dropped(tmp_path / "out")]
    right = [i for i, row in enumerate(rows) if row["language"] in ("en", "fr")]
    assert len(set(left) ^ set(right)) <= 1  # of 160 captions
    assert found.whole(len(left) - 1)["passage"] == [read("en")[0]]  # the Czech one is gone, the record stays


def test_a_language_that_nobody_knows_and_a_column_that_nobody_has(tmp_path, monkeypatch):
    pytest.importorskip("py3langid", reason="needs py3langid, which tells languages")
    source = SOURCES["digits"](split="test")
    for languages, message in (
        ({"text": ["en", "english"]}, "no language 'english'"),
        ({"title": ["en"]}, "'title', but the texts .* text"),
    ):
        with pytest.raises(ConfigError, match=message):
            prepared(source, tmp_path / "out", Rules(languages=languages))
    monkeypatch.setitem(sys.modules, "py3langid", None)
    with pytest.raises(ConfigError, match="pip install py3langid"):
        Rules(languages={"text": ["en"]}).trimmer()


@pytest.mark.parametrize("similarity", [0.3, 0.5, 0.8, 0.95, 1.0])
def test_bands_miss_one_similar_pair_in_a_hundred_at_most(similarity):
    rows = near_duplicates.band_rows(similarity)
    misses = lambda rows: (1 - similarity**rows) ** (near_duplicates.SIZE // rows)
    assert misses(rows) <= 0.01 or rows == 1
    assert rows == near_duplicates.SIZE or misses(rows + 1) > 0.01 or near_duplicates.SIZE // (rows + 1) == near_duplicates.SIZE // rows


def test_a_record_lost_between_the_passes_is_an_error(tmp_path):
    source = WebDataset(shards=(write_tar(tmp_path / "a.tar", [m for i in range(4) for m in members(i)]),))
    real = prepare._write
    lost = lambda *arguments: (tmp_path / "a.tar").rename(tmp_path / "b.tar") and real(*arguments)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="record 0 could be read when it was looked at"):
        patch.setattr(prepare, "_write", lost)
        prepared(source, tmp_path / "out")


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda p: (p / "manifest.json").unlink(), "has no manifest.json; set options.folder to what launch.prepare wrote"),
        (lambda p: (p / "data-00000-of-00001.array_record").write_bytes(b"x"), "not of .* bytes; prepare the folder again"),
        (lambda p: write_json(p / "manifest.json", {"format": 2}), "is of format 2, and this reads 1"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(tmp_path, damage, message):
    source = WebDataset(shards=(write_tar(tmp_path / "a.tar", members(0)),))
    prepared(source, tmp_path / "out")
    damage(tmp_path / "out")
    with pytest.raises(ValueError, match=message):
        ArrayRecord(folder=str(tmp_path / "out"))


def test_the_command_works_in_parallel_goes_on_and_refuses_other_settings(tmp_path):
    write_tar(tmp_path / "a.tar", [m for i in range(9) for m in members(i)])
    options = json.dumps({"shards": [str(tmp_path / "a.tar")], "text": "json.caption"})
    command = ["prepare", "--source=webdataset", f"--options={options}", "--shard_records=2", f"--output={tmp_path / 'out'}"]
    code, _, err = run(*command, "--workers=2")
    assert code == 0, err
    found = ArrayRecord(folder=str(tmp_path / "out"))
    assert [found.captions(i) for i in range(9)] == [captions(i) for i in range(9)]
    files = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.suffix in (".array_record", ".json", ".jsonl")}
    assert len(files) == 5 + 4
    # As a kill between two shards leaves the folder.
    for name in ("manifest.json", "data-00002-of-00005.array_record", "parts/00002.json", "parts/00003.npz"):
        (tmp_path / "out" / name).unlink()
    (tmp_path / "out" / "data-00002-of-00005.array_record.unfinished").write_bytes(b"half")
    with flagsaver.flagsaver(**flags_of(command)):
        prepare.prepare()
    assert files == {name: (tmp_path / "out" / name).read_bytes() for name in files}
    with flagsaver.flagsaver(**flags_of(command), min_side=3), pytest.raises(ConfigError, match="was begun with other settings"):
        prepare.prepare()


def flags_of(command):
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    given = dict(word.removeprefix("--").split("=", 1) for word in command[1:])
    return given | {"shard_records": int(given["shard_records"])}
