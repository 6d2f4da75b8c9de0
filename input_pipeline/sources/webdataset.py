"""Images and captions in tar shards, as img2dataset and webdataset write them: files of one record share a name up to its first dot.

Records are found through an index of each shard, made in one pass over its headers and kept (`input_pipeline/index_cache.py`): 12 bytes
of memory for each file that is used. Leaves drawing captions to `input_pipeline/captioned.py`.
"""

import json
import logging
import posixpath
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from input_pipeline import columns, files, index_cache, tar
from input_pipeline.bad_records import BadRecord
from input_pipeline.captioned import MAX_CHARACTERS, Captioned

log = logging.getLogger(__name__)

IMAGES = ("jpg", "jpeg", "png", "webp")
PACKED = (".gz", ".tgz", ".bz2", ".xz", ".zst", ".lz4")
PARTS = ("image", "caption", "json")
READERS = 16  # shards indexed at once; most of that is waiting where they are remote
NONE = np.uint32(2**32 - 1)  # size of a file that a record lacks, and more than a shard's member can have


class WebDataset(Captioned):
    """Records of tar shards by number, in the order of the shards and of the files in them.

    A record lacks its image or caption where a shard does, and is bad then; so is one more at the end of a shard that is cut short.

    Args:
        shards: paths, URLs or patterns, for example `data/{00000..00099}.tar`.
        image: endings of an image's name; the first that a record has counts.
        text: ending of the name of the caption's file; with a dot, `json.caption`, a key in a JSON file, a text or a list of texts.
        draw: False takes the first caption in training too.
        numbers: keys of the JSON file whose numbers (scores, say) records have beside image and text.
        max_characters: a longer caption makes a record bad.

    Raises:
        ValueError: no shard, one that cannot be opened, or no record in any.
    """

    def __init__(
        self, *, shards: tuple[str, ...] = (), image: tuple[str, ...] = IMAGES, text: str = "txt", draw: bool = True,
        numbers: tuple[str, ...] = (), max_characters: int = MAX_CHARACTERS,
    ):  # fmt: skip
        super().__init__(draw)
        ending, _, self._key = text.lower().partition(".")
        if self._key and ending != "json":
            ending, self._key = text.lower(), ""  # such as `caption.txt`
        self._paths, self._most = files.expand(shards, "shards"), max_characters
        if packed := [path for path in self._paths if files.suffix(path) in PACKED]:
            raise ValueError(f"{packed[0]} is compressed, so that no record can be found in it alone; unpack it to a .tar.")
        self._numbers = tuple(numbers)
        endings = [tuple(name.lower() for name in image), (ending,)]
        if numbers and ending != "json":
            endings.append(("json",))
        self._json = len(endings) - 1
        find = partial(_index, endings=tuple(endings))
        with ThreadPoolExecutor(READERS) as pool:
            found = list(pool.map(find, self._paths))
        self._bounds = np.cumsum([0, *(len(index["start"]) for index in found)])
        if not len(self):
            raise ValueError(f"no shard of options.shards holds a file that ends in .{', .'.join((*image, ending))}.")
        self._start, self._size = (np.concatenate([index[name] for index in found]) for name in ("start", "size"))
        self.counts = {"id": len(self)}

    def __len__(self) -> int:
        return int(self._bounds[-1])

    def image(self, i: int) -> bytes:
        """The bytes of the image of record i.

        Raises:
            BadRecord: there is none, or it cannot be read.
        """
        return self._file(i, 0)

    def captions(self, i: int) -> list[str]:
        """The captions of record i that are not blank.

        Raises:
            BadRecord: there is no file for them, or it cannot be read.
        """
        data = self._file(i, 1)
        value = self._parsed(data, i).get(self._key) if self._key else data
        texts = columns.texts({"text": value}, "text", i, self._most)
        return texts if self._key else [text.strip() for text in texts]  # files end in a new line, as a rule

    def numbers(self, i: int) -> dict[str, float]:
        """The numbers of record i in its JSON file.

        Raises:
            BadRecord: no such file, or something that is no number.
        """
        if not self._numbers:
            return {}
        found = self._parsed(self._file(i, self._json), i)
        return {name: columns.number({name: found.get(name.lower())}, name, self.name(i)) for name in self._numbers}

    def name(self, i: int) -> str:
        """Shard and name of record i, for people."""
        path, start = self._paths[self._shard(i)], int(self._start[i].max())
        header = files.read(path, start - tar.BLOCK, start - tar.BLOCK + 100)
        return f"{path}/{header.split(bytes(1))[0].decode('utf-8', 'replace')}"

    def _shard(self, i: int) -> int:
        return int(np.searchsorted(self._bounds, i, side="right")) - 1

    def _parsed(self, data: bytes, i: int) -> dict[str, Any]:
        """A JSON object; its keys in lower case, as the options are."""
        try:
            found = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise BadRecord(f"{self.name(i)} is not JSON: {error}", "malformed") from error
        return {str(key).lower(): value for key, value in found.items()} if isinstance(found, dict) else {}

    def _file(self, i: int, column: int) -> bytes:
        shard = self._shard(i)
        start, size = int(self._start[i, column]), self._size[i, column]
        if start < 0:
            raise BadRecord(f"{self._paths[shard]} is cut short or damaged: no more records can be found in it", "truncated")
        if size == NONE:
            raise BadRecord(f"{self.name(i)}: its {PARTS[column]} is not there", "missing")
        if size == 0:
            raise BadRecord(f"{self.name(i)}: its {PARTS[column]} has no bytes", "empty")
        try:
            return files.read(self._paths[shard], start, start + int(size))
        except BadRecord as error:
            until = int(self._bounds[shard + 1]) if error.kind == "gone" else None  # the shard, and so all its records
            raise BadRecord(str(error), error.kind, until=until) from error


def _index(path: str, endings: Sequence[tuple[str, ...]]) -> dict[str, np.ndarray]:
    try:
        return index_cache.cached(path, f"webdataset 1 {endings!r}", partial(build_index, endings=endings))
    except OSError as error:
        raise ValueError(f"{path} cannot be opened: {error}; set options.shards to paths or patterns of tar files.") from error


def build_index(path: str, endings: Sequence[tuple[str, ...]]) -> dict[str, np.ndarray]:
    """Where the files of each record lie: `start` int64 and `size` uint32 [N C], a column for each group of endings.

    A last start below 0 says that the shard is cut short or damaged.
    """
    column = {ending: c for c, group in enumerate(endings) for ending in group}
    numbers: dict[str, int] = {}
    starts, sizes, ranks = [], [], []
    length, damage = files.identity(path)[1], None
    with files.open_binary(path) as file:
        try:
            for member in tar.members(file, length):
                folder, name = posixpath.split(member.name)
                stem, _, ending = name.partition(".")
                ending = ending.lower()
                if ending not in column or not stem:
                    continue
                key, c = f"{folder}/{stem}", column[ending]
                rank = endings[c].index(ending)
                i = numbers.get(key)
                if i is None or (ranks[i][c] == rank):  # a name that comes twice is another record
                    i = numbers[key] = len(starts)
                    starts.append([0] * len(endings))
                    sizes.append([int(NONE)] * len(endings))
                    ranks.append([len(endings[k]) for k in range(len(endings))])
                if rank < ranks[i][c]:
                    starts[i][c], sizes[i][c], ranks[i][c] = member.start, min(member.size, int(NONE) - 1), rank
        except BadRecord as error:
            damage = error
            log.warning("%s: %s; %d records before it can be read", path, error, len(starts))
    if damage is not None:
        starts.append([-1] * len(endings))
        sizes.append([0] * len(endings))
    shape = (len(starts), len(endings))
    return {"start": np.array(starts, np.int64).reshape(shape), "size": np.array(sizes, np.uint32).reshape(shape)}
