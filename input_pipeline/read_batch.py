"""Makes one process's rows of a global batch from the batch's number alone.

Leaves threads, workers and positions to `input_pipeline/batching.py`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from core.config import ConfigError
from input_pipeline import order
from input_pipeline.bad_records import BadRecord
from input_pipeline.tokenize import Tokenizer

MAX_TRIES = 100  # unreadable records in a row, after which the source counts as broken


@dataclasses.dataclass(frozen=True)
class ReadBatch:
    """`read(batch) -> {"arrays": {name: [P ...]}, "bad": [{"source", "record", "kind", "reason"}]}`; grain sends it to its workers.

    Beside the source's columns, `arrays` has `record` and `source`, which name what was read, and `bad`, how many records were passed
    over for this row, all int32 [P]. A record that a source cannot read or a transform cannot use is replaced by its successor in the
    source, in the same epoch.

    Args:
        keys: what each row of the run holds.
        sources: by label.
        transforms: what makes arrays of each view; other columns are integers, floats or arrays of one shape.
        tokenizer: for transforms of text.
        seed: of the run.
        global_batch: rows of all processes.
        first_row: of this process in each global batch.
        rows: of this process.
        copies: views that begin as another one, by name: two passes of one text, two crops of one image.
        distinct: no two rows of a global batch share an `id`: a record whose id an earlier row has is replaced by the next one with
            another, `MAX_TRIES` further at most. A record is then read less often or more often than once in an epoch.
    """

    keys: order.Keys
    sources: Mapping[str, Any]
    transforms: Mapping[str, Callable]
    tokenizer: Tokenizer | None
    seed: int
    global_batch: int
    first_row: int
    rows: int
    copies: Mapping[str, str] = dataclasses.field(default_factory=dict)
    distinct: bool = False

    def __call__(self, batch: int) -> dict[str, Any]:
        rows = [self._read(key) for key in self._keys(batch)]
        while True:
            try:
                arrays = self._columns(rows)
                break
            except BadRecord as error:  # a transform could not use what the source read: an image that cannot be decoded, say
                for bad in (error, *error.more):
                    rows[bad.row] = self._pass_over(rows[bad.row], bad)
        arrays["record"] = np.array([row.key.record for row in rows], np.int32)
        arrays["source"] = np.array([row.key.source for row in rows], np.int32)
        arrays["bad"] = np.array([len(row.skipped) for row in rows], np.int32)
        return {"arrays": arrays, "bad": [entry for row in rows for entry in row.skipped]}

    def _keys(self, batch: int) -> list[order.Key]:
        """What the rows of this process hold."""
        start = batch * self.global_batch
        if not self.distinct:
            return [self.keys[i] for i in range(start + self.first_row, start + self.first_row + self.rows)]
        taken: set[int] = set()
        # Every process follows the rows before its own, and so picks what one process would.
        return [self._other(self.keys[start + i], taken) for i in range(self.first_row + self.rows)][self.first_row :]

    def _other(self, key: order.Key, taken: set[int]) -> order.Key:
        source, offset = list(self.sources.values())[key.source], offsets_of(self.sources, "id")[key.source]
        for step in range(MAX_TRIES):
            record = (key.record + step) % len(source)
            try:
                number = offset + (source.id(record) if hasattr(source, "id") else source[record]["id"])
            except BadRecord:
                return dataclasses.replace(key, record=record)  # to be passed over when it is read
            if number not in taken:
                taken.add(number)
                return dataclasses.replace(key, record=record)
        return key  # a source with fewer ids than rows

    def _read(self, key: order.Key, skipped: tuple = ()) -> "Row":
        """The record of `key`, or the first after it that can be read."""
        try:
            return Row(key, self._record(key), skipped)
        except BadRecord as error:
            return self._pass_over(Row(key, {}, skipped), error)

    def _pass_over(self, row: "Row", error: BadRecord) -> "Row":
        label = list(self.sources)[row.key.source]
        entry = {"source": label, "record": row.key.record, "kind": error.kind, "reason": str(error)}
        skipped = (*row.skipped, entry)
        if len(skipped) == MAX_TRIES:
            raise ConfigError(f"{MAX_TRIES} records in a row of config.data.sources.{label} cannot be read; the last is {entry}.")
        record = row.key.record + 1 if error.until is None else error.until
        return self._read(dataclasses.replace(row.key, record=record % len(self.sources[label])), skipped)

    def _record(self, key: order.Key) -> dict[str, Any]:
        """A source with `read` draws parts of its records (captions, negatives) anew in each epoch."""
        label = list(self.sources)[key.source]
        source = self.sources[label]
        drawn = hasattr(source, "read")
        record = source.read(key.record, order.generator(order.stream(self.seed, f"record {label}"), key)) if drawn else source[key.record]
        for name, of in self.copies.items():
            if name in record or of not in record:
                wrong = f"there is {name!r} already" if name in record else f"there is no {of!r}"
                raise ConfigError(f"config.data.copies.{name} copies {of!r}, but of {', '.join(record)} {wrong}.")
        return record | {name: record[of] for name, of in self.copies.items()}

    def _columns(self, rows: Sequence["Row"]) -> dict[str, np.ndarray]:
        names, arrays = list(rows[0].record), {}
        for row in rows:
            if row.record.keys() != rows[0].record.keys():
                a, b = (list(self.sources)[r.key.source] for r in (rows[0], row))
                raise ConfigError(
                    f"config.data.sources.{a} yields {names} but config.data.sources.{b} yields {list(row.record)}; "
                    "mixed sources need the same columns."
                )
        keys = [row.key for row in rows]
        for name in names:
            arrays.update(self._arrays(name, [row.record[name] for row in rows], keys))
        return arrays

    def _arrays(self, name: str, values: list, keys: Sequence[order.Key]) -> dict[str, np.ndarray]:
        if name in self.transforms:
            self._check_counts(name, values, keys)
            return {name + suffix: array for suffix, array in self._transformed(name, values, keys).items()}
        one = values[0][0] if isinstance(values[0], (list, tuple)) and values[0] else values[0]
        if isinstance(one, str):
            cure = f"set config.data.transforms.{name} to dict(name='tokenize', options=dict(length=32))"
            raise ConfigError(f"{name!r} is text, which no device takes; {cure}.")
        if isinstance(one, bytes):
            raise ConfigError(f"{name!r} is encoded, which no device takes; set config.data.transforms.{name} to one that decodes it.")
        if isinstance(values[0], int):
            offsets = offsets_of(self.sources, name)
            return {name: np.array([value + offsets[key.source] for value, key in zip(values, keys, strict=True)], np.int32)}
        if isinstance(values[0], float):
            return {name: np.array(values, np.float32)}
        for value, key in zip(values, keys, strict=True):
            if value.shape != values[0].shape:
                raise ConfigError(
                    f"{name!r} has the shape {values[0].shape} in record {keys[0].record} of config.data.sources."
                    f"{list(self.sources)[keys[0].source]}, but {value.shape} in record {key.record} of config.data.sources."
                    f"{list(self.sources)[key.source]}; a column has one shape in all records."
                )
        return {name: np.stack(values)}

    def _transformed(self, name: str, values: list, keys: Sequence[order.Key]) -> dict[str, np.ndarray]:
        """Raises `BadRecord`, with the number of its row, for a value that the transform cannot use."""
        streams = [order.stream(self.seed, f"{name} {label}") for label in self.sources]
        rngs = (order.generator(streams[key.source], key) for key in keys)
        try:
            return self.transforms[name](values, rngs, self.tokenizer)
        except BadRecord as error:
            if error.row is not None or len(values) == 1:
                raise BadRecord(str(error), error.kind, row=error.row or 0, more=error.more) from error
            for row, (value, key) in enumerate(zip(values, keys, strict=True)):  # the transform does not say which it was
                try:
                    self._transformed(name, [value], [key])
                except BadRecord as one:
                    raise BadRecord(str(one), one.kind, row=row) from one
            raise RuntimeError(f"config.data.transforms.{name} refuses a batch of whose rows it takes each: {error}") from error
        except ConfigError:
            raise
        except ValueError as error:
            raise ConfigError(f"config.data.transforms.{name}: {error}") from error

    def _check_counts(self, name: str, values: list, keys: Sequence[order.Key]) -> None:
        """Lists, such as hard negatives, are as long in every row: `[N K T]` has one K."""
        sizes = [len(value) if isinstance(value, (list, tuple)) else None for value in values]
        wrong = [i for i, size in enumerate(sizes) if size != sizes[0] or size == 0]
        if wrong:
            say = lambda i: f"{sizes[i]} in record {keys[i].record} of config.data.sources.{list(self.sources)[keys[i].source]}"
            found = say(wrong[0]) if sizes[wrong[0]] == 0 else f"{say(0)} but {say(wrong[0])}"
            raise ConfigError(f"texts of {name!r}: {found}; let the source give every record the same number, 1 or more.")


class Row(NamedTuple):
    """What a row of the batch holds, and the records that were passed over for it."""

    key: order.Key
    record: Mapping[str, Any]
    skipped: tuple[dict[str, Any], ...]


def offsets_of(sources: Mapping[str, Any], name: str) -> list[int]:
    """What to add to column `name` of each source, so that two sources never share a number; 0 for one that does not count it."""
    offsets, total = [], 0
    for source in sources.values():
        count = getattr(source, "counts", {}).get(name, 0)
        offsets.append(total if count else 0)
        total += count
    return offsets
