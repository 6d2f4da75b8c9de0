"""Sources of encoded images: every form gives the same records, and whatever is wrong with one is counted."""

import io
import json
import pathlib
import pickle
import tarfile

import fsspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from input_pipeline import SOURCES, batching, index_cache, tar
from input_pipeline.bad_records import KINDS, BadRecord
from input_pipeline.sources.captions import Captions
from input_pipeline.sources.image_folder import ImageFolder
from input_pipeline.sources.tfds import Tfds
from input_pipeline.sources.webdataset import WebDataset
from tests.input_pipeline import encoded
from tests.input_pipeline.encoded import COUNT, captions, members, picture, write_tar
from tests.input_pipeline.test_tables import write_saved
from tests.input_pipeline.toys import config

CROP = dict(image=dict(name="random_crop", options=dict(height=8, width=8)), text=dict(name="tokenize", options=dict(length=8)))


@pytest.fixture(autouse=True)
def index_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TANDEM_INDEX", str(tmp_path / "index"))
    monkeypatch.setattr(index_cache, "SMALL", 0)


@pytest.fixture(params=sorted(encoded.CASES))
def source(request, tmp_path):
    name, options = encoded.make(request.param, tmp_path)
    return SOURCES[name](**options)


def test_every_source_of_encoded_images_is_here():
    assert {name for name, _, _ in encoded.CASES.values()} == {n for n, make in SOURCES.items() if hasattr(make, "captions")}


def test_records_have_the_agreed_fields(source):
    assert len(source) == COUNT
    found = set()
    for i in range(COUNT):
        record = source[i]
        assert list(record) == ["image", "text", "id"] and type(record["image"]) is bytes
        assert 0 <= record["id"] < source.counts["id"] and record["text"] == source.captions(i)[0]
        found.add(record["image"])
    assert found in ({picture(i) for i in range(COUNT)}, {picture(i, "PNG") for i in range(COUNT)})
    again = pickle.loads(pickle.dumps(source))
    assert [again[i] for i in range(COUNT)] == [source[i] for i in range(COUNT)]


def test_a_caption_is_drawn_in_training(source):
    for i in range(COUNT):
        drawn = {source.read(i, np.random.default_rng(seed))["text"] for seed in range(40)}
        assert drawn == set(source.captions(i))


def test_the_tokenizer_sees_each_caption_once(source):
    texts = list(source.texts())
    assert len(texts) == len(set(texts)) and set(texts) == {text for i in range(COUNT) for text in source.captions(i)}


def test_the_retrieval_task_has_every_caption(source):
    task = source.retrieval()
    assert len(task.images) == len(task.groups) == COUNT and len(set(task.texts)) == len(task.texts)
    assert task.images[2:4] == [source[2]["image"], source[3]["image"]] and task.images[-1] == source[COUNT - 1]["image"]
    with pytest.raises(IndexError):
        task.images[COUNT]
    pairs = set(map(tuple, task.relevant.tolist()))
    assert pairs == {(i, task.texts.index(text)) for i in range(COUNT) for text in source.captions(i)}
    assert task.relevant.tolist() == sorted(map(list, pairs))


def batches(source, count, start=0, **changes):
    data = config(global_batch=4, transforms=CROP, **changes)
    tokenizer = batching.make_tokenizer(data, {"main": source})
    with batching.batches(data, {"main": source}, tokenizer, seed=0, start=start) as rows:
        return [next(rows) for _ in range(count)]


def test_training_goes_on_where_it_stopped(source):
    whole = batches(source, 5)
    for start in range(5):
        for a, b in zip(whole[start:], batches(source, 5 - start, start, threads=start % 2), strict=True):
            for name in a:
                np.testing.assert_array_equal(a[name], b[name])
    epoch = np.concatenate([batch["record"] for batch in batches(source, COUNT)])
    assert sorted(epoch.tolist()) == sorted(list(range(COUNT)) * 4)  # 36 rows are four epochs


def test_captions_of_all_forms_are_the_same(tmp_path):
    for case in ("array_record", "tfds", "captions", "captions parquet", "webdataset json", "image_folder files"):
        (tmp_path / case).mkdir()
        name, options = encoded.make(case, tmp_path / case)
        source = SOURCES[name](**options)
        assert [source.captions(i) for i in range(COUNT)] == [captions(i) for i in range(COUNT)], case


def test_classes_come_from_folders_or_from_a_tar_of_them(tmp_path):
    (tmp_path / "a").mkdir()
    options = encoded.image_folder(tmp_path / "a", names={"dog": "hound"})
    files = sorted((tmp_path / "a").rglob("*.jpg"))
    archive = write_tar(tmp_path / "a.tar", [(f"./{path.relative_to(tmp_path / 'a')}", path.read_bytes()) for path in reversed(files)])
    plain, packed = ImageFolder(**options), ImageFolder(folder=archive, names={"dog": "hound"})
    for source in (plain, packed):
        task = source.classification()
        assert task.class_names == ("cat", "hound", "guinea pig") and task.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3
        assert source[4]["text"] == "a photo of a hound." and source[4]["id"] == 1 and source.counts == {"id": 3}
        assert source.groups()[4] == "hound" and len(source.labelled().values) == COUNT
    assert [plain[i] for i in range(COUNT)] == [packed[i] for i in range(COUNT)]
    with pytest.raises(ValueError, match="set it to 'classes'"):
        ImageFolder(folder=archive, captions="files").classification()


def test_classes_of_a_saved_dataset(tmp_path):
    features = {"label": {"_type": "ClassLabel", "names": ["cat", "guinea_pig"]}}
    rows = [{"image": {"bytes": picture(i), "path": None}, "label": i % 2} for i in range(9)]
    source = Captions(files=(write_saved(tmp_path / "saved", rows, features=features),), text=("label",))
    assert source[3] == {"image": picture(3), "text": "a photo of a guinea pig.", "id": 1} and source.counts == {"id": 2}
    assert source.classification().labels.tolist() == [i % 2 for i in range(9)] and source.groups()[0] == "cat"


def test_splits_and_classes_of_tfds(tmp_path):
    options = encoded.tfds(tmp_path)
    numbers = lambda split: [Tfds(**options, split=split).captions(i)[-1] for i in range(len(Tfds(**options, split=split)))]
    last = [captions(i)[-1] for i in range(COUNT)]
    assert (
        numbers("train[:50%]") == last[:4]
        and numbers("train[-2:]") == last[-2:]
        and numbers("train[1:3]+test[3:]") == last[1:3] + last[3:5]
    )
    source = Tfds(**options, text=("label",))
    assert source[5] == {"image": picture(5), "text": "a photo of a guinea pig.", "id": 2} and source.counts == {"id": 3}
    assert source.classification().labels.tolist() == [i % 3 for i in range(COUNT)]
    for changes, message in [
        (dict(split="dev"), "has no split 'dev'; set options.split to one of: train, test"),
        (dict(split="train[9:]"), r"split train\[9:\] of .* has no records"),
        (dict(text=("words",)), "has no feature 'words'; it has: captions/id, captions/text, image, label"),
        (dict(folder=str(tmp_path)[:-1] + "absent"), "has no dataset_info.json; set options.folder"),
    ]:
        with pytest.raises(ValueError, match=message):
            Tfds(**options | changes)
    next((tmp_path / "toy" / "1.0.0").glob("*train*00001-of*")).unlink()
    with pytest.raises(ValueError, match="00001-of-00002 cannot be opened"):
        Tfds(**options)


DESCRIBED = {"tfds": ("dataset_info.json", "features.json"), "array_record": ("manifest.json",), "saved": ("state.json",)}


@pytest.mark.parametrize("kind", sorted(DESCRIBED))
def test_what_describes_a_folder_may_lack_anything(tmp_path, kind):
    """Each part of its JSON in turn is left out, or something else: the folder reads as before, or the error names the file."""
    if kind == "saved":
        rows = [{"image": {"bytes": picture(i), "path": None}, "text": "x"} for i in range(9)]
        make, options = Captions, dict(files=(write_saved(tmp_path / "saved", rows),))
    else:
        name, options = encoded.make(kind, tmp_path)
        make = SOURCES[name]
    seen = 0
    for file in (path for name in DESCRIBED[kind] for path in tmp_path.rglob(name)):
        whole = file.read_text()
        for damaged in _damaged(json.loads(whole)):
            file.write_text(json.dumps(damaged))
            try:
                make(**options)
            except ValueError as error:
                seen += file.name in str(error)
        file.write_text(whole[: len(whole) // 2])
        with pytest.raises(ValueError, match=file.name):
            make(**options)
        file.write_text(whole)
    assert seen >= 2


def _damaged(value):
    """A JSON value without each of its parts, and with a number or a text in its place."""
    yield from (None, 3, "x")
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        rest = dict(value) if isinstance(value, dict) else list(value)
        del rest[key]
        yield rest
        for part in _damaged(value[key]):
            changed = dict(value) if isinstance(value, dict) else list(value)
            changed[key] = part
            yield changed


def test_an_id_column_joins_records(tmp_path):
    rows = [{"image": f"{i}.png", "text": f"t{i}", "photo": i // 2} for i in range(6)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = Captions(files=(str(tmp_path / "rows.jsonl"),), id="photo")
    ids = [source._ids[i] for i in range(6)]
    assert [a == b for a in ids for b in ids] == [i // 2 == j // 2 for i in range(6) for j in range(6)] and source.counts == {"id": 3}


def test_remote_shards_and_images(tmp_path):
    memory = fsspec.filesystem("memory")
    options = encoded.webdataset(tmp_path)
    for path in tmp_path.glob("*.tar"):
        memory.pipe(f"/wds/{path.name}", path.read_bytes())
    local, remote = WebDataset(**options), WebDataset(shards=("memory://wds/*.tar",))
    assert [remote[i] for i in range(COUNT)] == [local[i] for i in range(COUNT)]
    (tmp_path / "c").mkdir()
    options = encoded.rows_of_paths(tmp_path / "c")
    for path in (tmp_path / "c").iterdir():
        memory.pipe(f"/rows/{path.name}", path.read_bytes())
    assert Captions(**options)[3] == Captions(**options | dict(files=("memory://rows/captions.csv",)))[3]
    memory.pipe("/classes/cat/a.jpg", picture(0))
    memory.pipe("/classes/dog/b.jpg", picture(1))
    assert ImageFolder(folder="memory://classes")[1] == {"image": picture(1), "text": "a photo of a dog.", "id": 1}
    with pytest.raises(ValueError, match="absent.tar cannot be opened"):
        WebDataset(shards=("memory://wds/absent.tar",))


# What is wrong in a shard.

DAMAGE = {
    "empty image": ([("a.jpg", b""), ("a.txt", b"x")], "empty"),
    "empty caption": ([("a.jpg", b"x"), ("a.txt", b"")], "empty"),
    "blank caption": ([("a.jpg", b"x"), ("a.txt", b" \n")], "missing"),
    "no caption": ([("a.jpg", b"x"), ("a.json", b"{}")], "missing"),
    "no image": ([("a.txt", b"x")], "missing"),
    "not utf-8": ([("a.jpg", b"x"), ("a.txt", b"\xff\xfe")], "encoding"),
    "huge caption": ([("a.jpg", b"x"), ("a.txt", b"x" * 10_001)], "too_large"),
}


def kind_of(source, i):
    with pytest.raises(BadRecord) as found:
        source[i]
    assert found.value.kind in KINDS
    return found.value.kind


@pytest.mark.parametrize("name", sorted(DAMAGE))
def test_a_damaged_record_is_counted_and_its_neighbours_are_read(tmp_path, name):
    bad, kind = DAMAGE[name]
    source = WebDataset(shards=(write_tar(tmp_path / "a.tar", [*members(0), *bad, *members(1)]),))
    assert len(source) == 3 and kind_of(source, 1) == kind
    assert source[0]["text"] == captions(0)[0] and source[2]["text"] == captions(1)[0]
    with pytest.raises(ValueError, match="an evaluation needs every"):
        task = source.retrieval()
        list(task.images)


@pytest.mark.parametrize("text", [b"{", b"[1]", b'{"caption": 3}', b"[" * 100_000, b'{"caption": null}'])
def test_a_damaged_json_is_counted(tmp_path, text):
    source = WebDataset(shards=(write_tar(tmp_path / "a.tar", [("a.jpg", b"x"), ("a.json", text)]),), text="json.caption")
    assert kind_of(source, 0) in ("malformed", "missing")


def test_names_that_lead_out_of_an_archive_lead_nowhere(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    names = ["../../evil", "/etc/evil", "..", "a/../../evil", "\0x", "C:\\evil"]
    shard = write_tar(
        inside / "a.tar", [(name + ending, b"x") for name in names for ending in (".jpg", ".txt") if name + ending != "\0x.jpg"]
    )
    with tarfile.open(shard, "a") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo("link.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    source = WebDataset(shards=(shard,))
    for i in range(len(source)):
        try:
            assert source[i]["image"] == b"x"
        except BadRecord:
            pass
    assert sorted(path.name for path in tmp_path.rglob("*") if "index" not in path.parts and path.is_file()) == ["a.tar"]
    folder = ImageFolder(folder=shard, captions="files")
    assert all(folder[i]["image"] == b"x" for i in range(len(folder)) if folder.captions(i))


def test_a_table_reads_no_image_outside_of_its_root(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "secret").write_bytes(b"x")
    rows = [{"image": name, "text": "x"} for name in ("../secret", str(tmp_path / "secret"), "", "a\0b", "absent.jpg")]
    (tmp_path / "data" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = Captions(files=(str(tmp_path / "data" / "rows.jsonl"),))
    assert [kind_of(source, i) for i in range(5)] == ["malformed", "malformed", "missing", "malformed", "gone"]
    assert Captions(files=(str(tmp_path / "data" / "rows.jsonl"),), root="/")[1]["image"] == b"x"


def test_a_missing_sidecar_is_counted(tmp_path):
    options = encoded.image_folder(tmp_path, captions="files")
    (tmp_path / "deep" / "3.txt").unlink()
    (tmp_path / "deep" / "4.txt").write_bytes(b"\n")
    (tmp_path / "deep" / "5.jpg").write_bytes(b"")
    source = ImageFolder(**options)
    (tmp_path / "deep" / "6.jpg").unlink()
    assert [kind_of(source, i) for i in (3, 4, 5, 6)] == ["missing", "missing", "empty", "gone"]


@pytest.mark.parametrize("cut", [1, 512, 700, 5000])
def test_a_shard_that_is_cut_short_has_one_bad_record_more(tmp_path, cut):
    path = pathlib.Path(write_tar(tmp_path / "a.tar", [member for i in range(COUNT) for member in members(i)]))
    whole = path.read_bytes().rstrip(b"\0")
    path.write_bytes(whole[: len(whole) - cut])
    source = WebDataset(shards=(str(path),))
    assert kind_of(source, len(source) - 1) == "truncated"
    good = []
    for i in range(len(source) - 1):
        try:
            good.append(source[i]["text"])
        except BadRecord as error:
            assert error.kind == "missing" and i == len(source) - 2  # the record that the cut went through
    assert good == [captions(i)[0] for i in range(len(good))] and len(good) >= COUNT - 5


def test_a_shard_that_vanishes_is_stepped_over_and_counted_once_a_row(tmp_path):
    source = WebDataset(**encoded.webdataset(tmp_path))
    data = config(global_batch=3, shuffle=False, transforms=CROP, max_bad_fraction=0.1)
    tokenizer, seen = batching.make_tokenizer(data, {"main": source}), []
    with batching.batches(data, {"main": source}, tokenizer, seed=0, on_bad=seen.append) as rows:
        next(rows)
        (tmp_path / "00001.tar").rename(tmp_path / "elsewhere")
        records = np.concatenate([next(rows)["record"] for _ in range(2)]).tolist()
        assert records == [3, 0, 0, 0, 0, 0] and rows.bad_kinds == {"gone": 5}
    assert [entry["record"] for entry in seen] == [4, 5, 6, 7, 8] and "00001.tar cannot be read" in seen[0]["reason"]
    (tmp_path / "elsewhere").rename(tmp_path / "00001.tar")
    parts = [_part(data, source, tokenizer, p) for p in range(3)]
    assert np.concatenate(parts).tolist() == [0, 1, 2]


def _part(data, source, tokenizer, process):
    with batching.batches(data, {"main": source}, tokenizer, seed=0, process_index=process, process_count=3) as rows:
        return next(rows)["record"]


def test_an_image_that_cannot_be_decoded_is_counted(tmp_path):
    rows = [member for i in range(4) for member in members(i)]
    rows[3] = (rows[3][0], rows[3][1][:-40])  # record 1: a torn JPEG
    rows[6] = (rows[6][0], b"GIF89a not")
    source = WebDataset(shards=(write_tar(tmp_path / "a.tar", rows),))
    data = config(global_batch=4, shuffle=False, transforms=CROP, max_bad_fraction=0.1)
    with batching.batches(data, {"main": source}, batching.make_tokenizer(data, {"main": source}), seed=0) as found:
        assert next(found)["record"].tolist() == [0, 3, 3, 3] and sum(found.bad_kinds.values()) == 3
        assert set(found.bad_kinds) <= {"image", "truncated"}


# The parser of archives.

# A last slash is left out: whether it makes a folder of a file depends on the format for tarfile.
names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=300).filter(lambda name: name[-1] != "/")


@settings(max_examples=60, deadline=None)
@given(
    files=st.lists(st.tuples(names, st.binary(max_size=1100)), max_size=6),
    format=st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    mtime=st.sampled_from([0, 1.5]),
)
def test_members_are_those_that_tarfile_finds(files, format, mtime):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format) as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), mtime
            try:
                archive.addfile(info, io.BytesIO(data))
            except ValueError:  # ustar has no place for a long name
                continue
    length = len(file.getvalue())
    with tarfile.open(fileobj=io.BytesIO(file.getvalue())) as archive:
        expected = [(member.name, member.offset_data, member.size) for member in archive if member.isreg()]
    assert [tuple(member) for member in tar.members(file, length)] == expected


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_mutated_archive_gives_members_within_it_or_an_error(data):
    whole = bytearray(encoded_tar())
    for _ in range(data.draw(st.integers(1, 20))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    whole = whole[: data.draw(st.integers(0, len(whole)))]
    last = 0
    try:
        for member in tar.members(io.BytesIO(whole), len(whole)):
            assert last < member.start <= member.start + member.size <= len(whole)
            last = member.start
    except BadRecord as error:
        assert error.kind == "truncated"


def encoded_tar():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("a.txt", "é" * 80, "b.jpg"):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = 700, 1.5
            archive.addfile(info, io.BytesIO(bytes(700)))
    return file.getvalue()


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda p: WebDataset(shards=()), "options.shards is empty"),
        (lambda p: WebDataset(shards=(f"{p}/absent.tar",)), "no file matches .*absent.tar; set options.shards"),
        (lambda p: WebDataset(shards=(write_tar(p / "a.tar", [("a.md", b"x")]),)), "no shard of options.shards holds a file that ends in"),
        (lambda p: ImageFolder(folder=f"{p}/absent"), "absent is no folder with files; set options.folder"),
        (lambda p: ImageFolder(folder=f"{p}/absent.tar"), "absent.tar cannot be opened"),
        (lambda p: ImageFolder(folder=write_tar(p / "a.tgz", [("a.jpg", b"x")])), "a.tgz is no folder with files; unpack it"),
        (lambda p: WebDataset(shards=(write_tar(p / "a.tar.gz", members(0)),)), "a.tar.gz is compressed, .* unpack it to a .tar"),
        (lambda p: WebDataset(shards=(3,)), "options.shards holds 3, which is no path"),
        (lambda p: ImageFolder(**encoded.image_folder(p, captions="tags")), "options.captions is 'tags'; set it to one of: classes, files"),
        (lambda p: ImageFolder(**encoded.image_folder(p, templates=("a {} {}",))), "options.templates is .*each needs one {}"),
        (lambda p: ImageFolder(folder=write_tar(p / "a.tar", [("a.jpg", b"x")])), "a.jpg lies in no folder of a class"),
        (lambda p: ImageFolder(folder=write_tar(p / "a.tar", [("a.txt", b"x")])), "holds no image"),
        (lambda p: Captions(**encoded.rows_of_paths(p, text=("words",))), "has no column 'words'; it has: image, caption"),
    ],
)
def test_mistakes_are_named(tmp_path, make, message):
    with pytest.raises(ValueError, match=message):
        make(tmp_path)
