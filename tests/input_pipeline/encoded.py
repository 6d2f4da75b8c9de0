"""Small sets of encoded images with captions, in every form that a source reads."""

import csv
import io
import json
import pathlib
import tarfile

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image

from core.workdir import write_json
from input_pipeline import examples
from input_pipeline.prepare import Rules
from input_pipeline.sources.webdataset import WebDataset
from launch import prepare

COUNT = 9
CLASSES = ("cat", "dog", "guinea_pig")


def picture(i, kind="JPEG"):
    """The bytes of a small image; every one is another."""
    pixels = np.random.default_rng(i).integers(0, 256, (10 + i, 12, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def captions(i):
    """One to three captions; the first of records 0 and 1 is the same."""
    return [f"picture {max(i, 1)} é", *(f"another of {i}.{k}" for k in range(i % 3))]


def write_tar(path, members, format=tarfile.USTAR_FORMAT):
    """An archive of (name, bytes)."""
    with tarfile.open(path, "w", format=format) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return str(path)


def members(i):
    """A record as img2dataset writes it."""
    facts = json.dumps({"caption": captions(i), "url": f"http://x/{i}", "status": "success"})
    return [(f"{i:09d}.jpg", picture(i)), (f"{i:09d}.json", facts.encode()), (f"{i:09d}.txt", captions(i)[0].encode())]


def webdataset(folder, **options):
    for shard, rows in enumerate((range(0, 4), range(4, COUNT))):
        write_tar(folder / f"{shard:05d}.tar", [member for i in rows for member in members(i)])
    return dict(shards=(f"{folder}/{{00000..00001}}.tar",)) | options


def image_folder(folder, **options):
    for i in range(COUNT):
        if "captions" in options:
            place = folder / "deep" / f"{i}.jpg"
            place.parent.mkdir(exist_ok=True)
            place.with_suffix(".txt").write_text("\n".join(captions(i)) + "\n", encoding="utf-8")
        else:
            place = folder / "train" / CLASSES[i % 3] / f"{i}.jpg"
            place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(picture(i))
    return dict(folder=str(folder)) | options


def rows_of_paths(folder, **options):
    """Flickr8k's form: a row for each caption, several with the same path."""
    with open(folder / "captions.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "caption"))
        for i in range(COUNT):
            (folder / f"{i}.png").write_bytes(picture(i, "PNG"))
            writer.writerows((f"{i}.png", caption) for caption in captions(i))
    return dict(files=(str(folder / "captions.csv"),), text=("caption",), by="image") | options


def parquet(folder, **options):
    import pyarrow
    import pyarrow.parquet

    rows = [{"image": {"bytes": picture(i), "path": None}, "text": captions(i)} for i in range(COUNT)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "rows.parquet", row_group_size=4)
    return dict(files=(str(folder / "*.parquet"),)) | options


def array_record(folder, **options):
    """What `launch.prepare` makes of the tar shards; parts of one record each but for the last."""
    prepared = folder / "prepared"
    prepared.mkdir()
    source = WebDataset(text="json.caption", **webdataset(folder))
    parts = [*(range(i, i + 1) for i in range(4)), range(4, COUNT)]
    manifest = prepare.make(source, parts, prepared, Rules(), map, lambda rows: None, 6)
    write_json(prepared / "manifest.json", manifest)
    return dict(folder=str(prepared)) | options


def tfds(folder, **options):
    """As `download_and_prepare()` of a set with Coco's features leaves it; `tests/parity/test_tfds.py` has TFDS write one."""
    version = folder / "toy" / "1.0.0"
    version.mkdir(parents=True)
    sequence = {"sequence": {"feature": {"featuresDict": {"features": {"id": {"tensor": {}}, "text": {"text": {}}}}}}}
    features = {"captions": sequence, "image": {"image": {}}, "label": {"classLabel": {"numClasses": "3"}}}
    write_json(version / "features.json", {"featuresDict": {"features": features}})
    (version / "label.labels.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    parts = {"train": [range(0, 4), range(4, COUNT)], "test": [range(5)]}
    splits = [{"name": name, "shardLengths": [str(len(rows)) for rows in shards]} for name, shards in parts.items()]
    write_json(version / "dataset_info.json", {"fileFormat": "array_record", "name": "toy", "splits": splits})
    for name, shards in parts.items():
        for k, rows in enumerate(shards):
            record = lambda i: {"captions/text": captions(i), "captions/id": [i], "image": picture(i), "label": i % 3}
            path = version / f"toy-{name}.array_record-{k:05d}-of-{len(shards):05d}"
            writer = ArrayRecordWriter(str(path), "group_size:1")
            for i in rows:
                writer.write(examples.serialize(record(i)))
            writer.close()
    return dict(folder=str(folder / "toy")) | options


# Name of the source, what writes it, options.
CASES = {
    "array_record": ("array_record", array_record, {}),
    "tfds": ("tfds", tfds, {}),
    "webdataset": ("webdataset", webdataset, {}),
    "webdataset json": ("webdataset", webdataset, dict(text="json.caption")),
    "image_folder": ("image_folder", image_folder, dict(templates=("a {}.", "this is a {}"))),
    "image_folder files": ("image_folder", image_folder, dict(captions="files")),
    "captions": ("captions", rows_of_paths, {}),
    "captions parquet": ("captions", parquet, {}),
}


def make(case, folder):
    """Name and options of the source of a case, written into a folder."""
    name, write, options = CASES[case]
    return name, write(pathlib.Path(folder), **options)
