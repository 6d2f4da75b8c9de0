"""Tables of `tf.train.Example`s: TFRecord files, which are indexed first, and ArrayRecord files, which bring their index.

A feature with one value is that value, else a list; texts are bytes until someone asks for text.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from input_pipeline import examples, files, index_cache
from input_pipeline.bad_records import BadRecord, readable

HEAD, TAIL = 12, 4  # of a record in a TFRecord file: length and its checksum, checksum of the data


class Examples:
    """What both kinds share; a subclass has `__len__` and `_bytes(i)`."""

    def __init__(self, path: str, columns: Sequence[str]):
        self._path, self._columns = path, tuple(columns)

    def __getitem__(self, i: int) -> dict[str, Any]:
        data = self._bytes(i)
        try:
            found = examples.parse(data)
        except ValueError as error:
            raise BadRecord(f"{self._path} record {i + 1}: {error}", "malformed") from error
        return {name: _value(found[name]) for name in self._columns if name in found}

    def rows(self) -> Iterator[dict[str, Any] | None]:
        """All rows in order; None for one that cannot be read."""
        return readable(self)

    def names(self, column: str) -> tuple[str, ...]:
        """Records do not say what numbers stand for."""
        return ()


class TfRecord(Examples):
    """A TFRecord file. Checksums are not compared, as most readers do not: a damaged length ends the file, damaged data is no `Example`.

    A file whose end is missing has one more record, which is bad, so that the damage is counted.

    Raises:
        OSError: no such file.
        ValueError: a file in which nothing can be found.
    """

    def __init__(self, path: str, columns: Sequence[str]):
        super().__init__(path, columns)
        self._offsets = index_cache.cached(path, "tfrecord 1", _tfrecord_offsets)["offsets"]
        if len(self._offsets) == 2 and self._offsets[1] < 0:
            raise ValueError(f"{path} is no TFRecord file, or a compressed one; unpack it.")

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def _bytes(self, i: int) -> bytes:
        start, stop = self._offsets[i : i + 2].tolist()
        if stop < 0:
            raise BadRecord(f"{self._path} is damaged at byte {start}: nothing behind it can be found", "truncated")
        return files.read(self._path, start + HEAD, stop - TAIL)


class ArrayRecord(Examples):
    """An ArrayRecord file on this machine.

    Raises:
        OSError: no such file.
        ValueError: no ArrayRecord file.
    """

    def __init__(self, path: str, columns: Sequence[str]):
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        super().__init__(path, columns)
        files.need_disk(path, "an ArrayRecord file", "files (of tfds, options.folder)")
        files.identity(path)
        try:
            self._records = ArrayRecordDataSource([path])
        except (RuntimeError, ValueError, OSError) as error:
            raise ValueError(f"{path} is not an ArrayRecord file: {error}") from error

    def __len__(self) -> int:
        return len(self._records)

    def _bytes(self, i: int) -> bytes:
        try:
            return self._records[i]
        except (RuntimeError, ValueError, IndexError, OSError) as error:
            raise BadRecord(f"{self._path} record {i + 1} cannot be read: {error}", "malformed") from error


def _value(values: list) -> Any:
    return values[0] if len(values) == 1 else values


def _tfrecord_offsets(path: str) -> dict[str, np.ndarray]:
    """Where each record begins, and the end; a last offset of -1 says that the rest is damaged."""
    size, place, offsets = files.identity(path)[1], 0, [0]
    with files.open_binary(path) as file:
        while place < size:
            file.seek(place)
            head = file.read(HEAD)
            place += HEAD + TAIL + struct.unpack("<Q", head[:8])[0] if len(head) == HEAD else size + 1
            if place > size:
                offsets.append(-1)
                break
            offsets.append(place)
    return {"offsets": np.array(offsets, np.int64)}
