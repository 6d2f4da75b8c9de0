"""Images with captions or classes that TensorFlow Datasets prepared, read from its folder without it and without TensorFlow.

Both of its file formats will do, ArrayRecord and TFRecord. Texts without images are a matter of `pairs` over the same files.
"""

import json
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from input_pipeline import files, tables
from input_pipeline.bad_records import BadRecord, readable
from input_pipeline.captioned import MAX_CHARACTERS
from input_pipeline.sources.captions import Captions

SLICE = re.compile(r"(?P<name>\w+)(\[(?P<start>-?\d+)?(?P<start_unit>%?):(?P<stop>-?\d+)?(?P<stop_unit>%?)\])?")


class Tfds(Captions):
    """Records of a data set's split, in the order of its files, as `tfds.data_source` numbers them.

    Args:
        folder: of one version, with `dataset_info.json`: `~/tensorflow_datasets/coco_captions/2014/1.1.0`. Given without the version, or
            without its configuration where there is one, the newest is taken.
        split: as TFDS writes it: `train`, `train[:90%]`, `train[1000:]`, `train+validation`.
        image: feature of the image.
        text: features of captions, together, those of lists by path (`captions/text`); or one of classes.
        templates: what captions of classes are drawn from; `{}` becomes the name of the class.
        draw: False takes the first caption in training too.
        numbers: features of numbers that records have beside image and text.
        max_characters: a longer caption makes a record bad.

    Raises:
        ValueError: no such folder, split or feature, or files that are missing.
    """

    def __init__(
        self, *, folder: str = "", split: str = "train", image: str = "image", text: tuple[str, ...] = ("captions/text",),
        templates: tuple[str, ...] = ("a photo of a {}.",), draw: bool = True, numbers: tuple[str, ...] = (),
        max_characters: int = MAX_CHARACTERS,
    ):  # fmt: skip
        self._folder, self._split = _version(os.path.expanduser(folder)), split
        shared = dict(templates=templates, draw=draw, numbers=numbers, max_characters=max_characters)
        super().__init__(image=image, text=text, root=self._folder, **shared)

    def _open(self, files: tuple[str, ...], names: list[str], header: tuple[str, ...]) -> "Split":
        return Split(self._folder, self._split, names)


class Split:
    """A table of the rows of a split.

    Args:
        folder: with `dataset_info.json`.
        split: as TFDS writes it.
        columns: features, by path.

    Raises:
        ValueError: no such split or feature.
    """

    def __init__(self, folder: str, split: str, columns: Sequence[str]):
        with files.described_by(f"{folder}/dataset_info.json", "folder"):
            self._folder, info = folder, json.loads(files.read(f"{folder}/dataset_info.json"))
        _check_features(folder, columns)
        self._parts, self._places = [], []
        first = 0
        for part in split.replace(" ", "").split("+"):
            with files.described_by(f"{folder}/dataset_info.json", "folder"):
                rows, places = _rows(folder, info, part, columns)
            self._parts.append(rows)
            self._places.append(places + first)
            first += len(rows)
        self._rows, self._places = tables.Rows(self._parts), np.concatenate(self._places)
        if not len(self):
            raise ValueError(f"split {split} of {folder} has no records; set options.split to more of it.")

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, i: int) -> dict[str, Any]:
        try:
            return self._rows[int(self._places[i])]
        except BadRecord as error:  # where the damage ends is a place in the files, not in the split
            raise BadRecord(str(error), error.kind) from error

    def rows(self) -> Iterator[dict[str, Any] | None]:
        """All rows in order; None for one that cannot be read."""
        return readable(self)

    def names(self, column: str) -> tuple[str, ...]:
        """What the numbers of a feature stand for; () for one that is no `ClassLabel`."""
        path = f"{self._folder}/{column.replace('/', '-')}.labels.txt"
        return tuple(files.read(path).decode("utf-8").splitlines()) if files.exists(path) else ()


def _version(folder: str) -> str:
    """The folder of the newest version at or below a folder, where there is one."""
    for _ in range(3):
        if files.exists(f"{folder}/dataset_info.json"):
            return folder
        inner = sorted((name for name in _folders(folder)), key=_by_number)
        if len(inner) > 1 and not all(re.fullmatch(r"\d+\.\d+\.\d+", name) for name in inner):
            raise ValueError(f"{folder} holds {', '.join(inner)}; set options.folder to one of them.")
        if not inner:
            break
        folder = f"{folder}/{inner[-1]}"
    raise ValueError(f"{folder or 'options.folder'} has no dataset_info.json; set options.folder to what download_and_prepare() wrote.")


def _folders(folder: str) -> list[str]:
    return [entry.name for entry in os.scandir(folder) if entry.is_dir()] if os.path.isdir(folder) else []


def _by_number(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


def _rows(folder: str, info: dict[str, Any], part: str, columns: Sequence[str]) -> tuple[tables.Rows, np.ndarray]:
    """The table of all rows of one split, and which of them `train[10%:]` asks for."""
    match = SLICE.fullmatch(part)
    splits = {split["name"]: split for split in info["splits"]}
    if match is None or match["name"] not in splits:
        raise ValueError(
            f"{folder} has no split {part!r}; set options.split to one of: {', '.join(splits)}, or a part such as train[:90%]."
        )
    split, ending = splits[match["name"]], info["fileFormat"] if "fileFormat" in info else "tfrecord"
    lengths = [int(length) for length in split["shardLengths"]]
    template = split["filepathTemplate"] if "filepathTemplate" in split else "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    paths = []
    for k in range(len(lengths)):
        names = dict(DATASET=info["name"], SPLIT=match["name"], FILEFORMAT=ending, SHARD_INDEX=f"{k:05d}", NUM_SHARDS=f"{len(lengths):05d}")
        paths.append(f"{folder}/{template.format(**names, SHARD_X_OF_Y=f'{k:05d}-of-{len(lengths):05d}')}")
    found = tables.Rows([tables.open_table(path, columns) for path in paths])
    if len(found) != sum(lengths):
        raise ValueError(
            f"{folder} has {len(found)} records of {match['name']}, and dataset_info.json says {sum(lengths)}; prepare it again."
        )
    start, stop = (_place(match[name], match[f"{name}_unit"], len(found)) for name in ("start", "stop"))
    return found, np.arange(len(found))[start:stop]


def _place(number: str | None, unit: str, size: int) -> int | None:
    if number is None:
        return None
    # TFDS rounds to the nearest, halves to even.
    return round(int(number) * size / 100) if unit else int(number)


def _check_features(folder: str, columns: Sequence[str]) -> None:
    with files.described_by(f"{folder}/features.json", "folder"):
        known = _paths(json.loads(files.read(f"{folder}/features.json")))
    if missing := [name for name in columns if name not in known]:
        raise ValueError(f"{folder} has no feature {missing[0]!r}; it has: {', '.join(known)}.")


def _paths(feature: dict[str, Any]) -> list[str]:
    """Paths of a feature's parts, as records name them: lists of dicts are dicts of lists."""
    if "sequence" in feature:
        return _paths(feature["sequence"]["feature"])
    if "featuresDict" not in feature:
        return [""]
    inner = feature["featuresDict"]["features"].items()
    return [f"{name}/{path}".rstrip("/") for name, part in inner for path in _paths(part)]
