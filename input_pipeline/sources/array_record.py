"""Folders that `launch.prepare` wrote: shards of ArrayRecord, a manifest that says what is in them, and columns of numbers beside them.

Any other ArrayRecord file of `tf.train.Example`s is a table that the sources `captions` and `pairs` read.
"""

import json
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from input_pipeline import columns, files
from input_pipeline.bad_records import BadRecord
from input_pipeline.captioned import Captioned
from input_pipeline.example_tables import ArrayRecord as Table
from input_pipeline.tables import Rows
from input_pipeline.tasks import RankingTask, RetrievalTask, ranking_task

MANIFEST, NUMBERS = "manifest.json", "numbers.npz"
FORMAT = 1
LONGEST = 2**31  # characters; lengths were checked when the folder was written


class ArrayRecord(Captioned):
    """Records as they were prepared: of several captions or positives one is drawn in each epoch, of negatives k.

    Args:
        folder: what `launch.prepare` wrote.
        k: negatives in a record, if the folder has any; 0 leaves them out.
        draw: False takes the first ones in training too.

    Raises:
        ValueError: no such folder, one that is not finished, shards of another size than the manifest says, or k without negatives.
    """

    def __init__(self, *, folder: str = "", k: int = 0, draw: bool = True):
        super().__init__(draw)
        files.need_disk(folder, "a prepared folder", "folder")
        if not os.path.exists(os.path.join(folder, MANIFEST)):
            raise ValueError(f"{folder or 'options.folder'} has no {MANIFEST}; set options.folder to what launch.prepare wrote.")
        with files.described_by(os.path.join(folder, MANIFEST), "folder"):
            self._open(folder, json.loads(files.read(os.path.join(folder, MANIFEST))), k)

    def _open(self, folder: str, manifest: dict[str, Any], k: int) -> None:
        if manifest["format"] != FORMAT:
            raise ValueError(f"{folder} is of format {manifest['format']}, and this reads {FORMAT}; prepare the folder again.")
        self.schema, self.counts, self._k = dict(manifest["schema"]), dict(manifest["counts"]), k
        if k and "negatives" not in self.schema:
            raise ValueError(f"options.k is {k}, but {folder} has no negatives; set it to 0.")
        for shard in manifest["shards"]:
            path = os.path.join(folder, shard["name"])
            if not os.path.exists(path) or os.path.getsize(path) != shard["bytes"]:
                raise ValueError(f"{path} is not there, or not of {shard['bytes']} bytes; prepare the folder again.")
        shards = [shard["name"] for shard in manifest["shards"] if shard["records"]]
        self._rows = Rows([Table(os.path.join(folder, name), tuple(self.schema)) for name in shards])
        with open(os.path.join(folder, NUMBERS), "rb") as file:
            self._columns = dict(np.load(file, allow_pickle=False))
        if len(self._rows) != manifest["records"] or any(len(column) != len(self._rows) for column in self._columns.values()):
            raise ValueError(f"{folder} holds {len(self._rows)} records, where its manifest has {manifest['records']}; prepare it again.")

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, i: int, rng: np.random.Generator | None) -> dict[str, Any]:
        """Record i; `rng` draws one of several texts, and the negatives.

        Raises:
            BadRecord: it cannot be read.
        """
        rng = rng if self._draw else None
        record = self.whole(i)
        for name, kind in self.schema.items():
            if kind == "texts":
                record[name] = record[name][0 if rng is None else int(rng.integers(len(record[name])))]
            if kind == "list" and self._k:
                if not record[name]:
                    raise BadRecord(f"record {i} has no {name}", "missing")
                record[name] = columns.drawn(record[name], self._k, rng)
            elif kind == "list":
                del record[name]
        return record

    def whole(self, i: int) -> dict[str, Any]:
        """Record i with all its texts, lists.

        Raises:
            BadRecord: it cannot be read.
        """
        row, record = self._rows[i], {}
        for name, kind in self.schema.items():
            if name in self._columns:
                record[name] = self._columns[name][i].item()
            elif kind == "image":
                record[name] = columns.image(row, name, i, "")
            else:
                record[name] = columns.texts(row, name, i, LONGEST)
        return record

    def id(self, i: int) -> int:
        """What records that are positives of each other share."""
        return int(self._columns["id"][i])

    def image(self, i: int) -> bytes:
        """The bytes of the image of record i.

        Raises:
            BadRecord: it cannot be read.
        """
        return columns.image(self._rows[i], "image", i, "")

    def captions(self, i: int) -> list[str]:
        """All texts of record i but for negatives.

        Raises:
            BadRecord: it cannot be read.
        """
        row = self._rows[i]
        return [text for name, kind in self.schema.items() if kind == "texts" for text in columns.texts(row, name, i, LONGEST)]

    def texts(self) -> Iterator[str]:
        """Each distinct text once, negatives left out."""
        return super().texts()

    def retrieval(self) -> RetrievalTask:
        """As `Captioned.retrieval`.

        Raises:
            ValueError: records of texts.
        """
        if "image" not in self.schema:
            raise ValueError(f"records have {', '.join(self.schema)} and no image; name an evaluator of texts, such as `ranking`.")
        return super().retrieval()

    def ranking(self) -> RankingTask:
        """Every query against all positives and negatives.

        Raises:
            ValueError: records without `query` and `passage`.
        """
        if not {"query", "passage"} <= set(self.schema):
            raise ValueError(f"records have {', '.join(self.schema)}, not query and passage; name an evaluator of images and texts.")
        rows = [self.whole(i) for i in range(len(self))]
        negatives = (text for row in rows if "negatives" in row for text in row["negatives"])
        return ranking_task(((query, text) for row in rows for query in row["query"] for text in row["passage"]), negatives)
