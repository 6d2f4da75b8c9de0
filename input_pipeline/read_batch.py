"""Makes one process's rows of a global batch from the batch's number alone.

Leaves threads, workers and positions to `input_pipeline/batching.py`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from core.config import ConfigError
from input_pipeline import order
from input_pipeline.tasks import BadRecord
from input_pipeline.tokenize import Tokenizer

MAX_TRIES = 100  # unreadable records in a row, after which the source counts as broken


@dataclasses.dataclass(frozen=True)
class ReadBatch:
    """`read(batch) -> {"arrays": {name: [P ...]}, "bad": [{"source", "record", "reason"}]}`; grain sends it to its workers.

    Beside the source's columns, `arrays` has `record` and `source`, which name what was read, and `bad`, how many records were passed
    over for this row, all int32 [P]. A record that cannot be read is replaced by its successor in the source, in the same epoch.

    Args:
        keys: what each row of the run holds.
        sources: by label.
        transforms: what makes arrays of each view; other columns are integers, floats or arrays of one shape.
        tokenizer: for transforms of text.
        seed: of the run.
        global_batch: rows of all processes.
        first_row: of this process in each global batch.
        rows: of this process.
    """

    keys: order.Keys
    sources: Mapping[str, Any]
    transforms: Mapping[str, Callable]
    tokenizer: Tokenizer | None
    seed: int
    global_batch: int
    first_row: int
    rows: int

    def __call__(self, batch: int) -> dict[str, Any]:
        start = batch * self.global_batch + self.first_row
        keys, records, skipped = zip(*(self._read(self.keys[i]) for i in range(start, start + self.rows)), strict=True)
        arrays = {}
        for name in self._columns(keys, records):
            arrays.update(self._arrays(name, [record[name] for record in records], keys))
        arrays["record"] = np.array([key.record for key in keys], np.int32)
        arrays["source"] = np.array([key.source for key in keys], np.int32)
        arrays["bad"] = np.array([len(entries) for entries in skipped], np.int32)
        return {"arrays": arrays, "bad": [entry for entries in skipped for entry in entries]}

    def _read(self, key: order.Key) -> tuple[order.Key, dict[str, Any], list[dict[str, Any]]]:
        label = list(self.sources)[key.source]
        source, skipped = self.sources[label], []
        for _ in range(MAX_TRIES):
            try:
                return key, self._record(label, source, key), skipped
            except BadRecord as error:
                skipped.append({"source": label, "record": key.record, "reason": str(error)})
                key = dataclasses.replace(key, record=(key.record + 1) % len(source))
        raise RuntimeError(f"{MAX_TRIES} records in a row of config.data.sources.{label} cannot be read; the last is {skipped[-1]}.")

    def _record(self, label: str, source: Any, key: order.Key) -> dict[str, Any]:
        """A source with `read` draws parts of its records (negatives) anew in each epoch."""
        if not hasattr(source, "read"):
            return source[key.record]
        return source.read(key.record, order.generator(order.stream(self.seed, f"record {label}"), key))

    def _columns(self, keys: Sequence[order.Key], records: Sequence[Mapping]) -> list[str]:
        names = list(records[0])
        for key, record in zip(keys, records, strict=True):
            if record.keys() != records[0].keys():
                a, b = (list(self.sources)[k.source] for k in (keys[0], key))
                raise ConfigError(
                    f"config.data.sources.{a} yields {names} but config.data.sources.{b} yields {list(record)}; "
                    "mixed sources need the same columns."
                )
        return names

    def _arrays(self, name: str, values: list, keys: Sequence[order.Key]) -> dict[str, np.ndarray]:
        if name in self.transforms:
            streams = [order.stream(self.seed, f"{name} {label}") for label in self.sources]
            rngs = (order.generator(streams[key.source], key) for key in keys)
            self._check_counts(name, values, keys)
            try:
                made = self.transforms[name](values, rngs, self.tokenizer)
            except ConfigError:
                raise
            except ValueError as error:
                raise ConfigError(f"config.data.transforms.{name}: {error}") from error
            return {name + suffix: array for suffix, array in made.items()}
        one = values[0][0] if isinstance(values[0], (list, tuple)) and values[0] else values[0]
        if isinstance(one, (str, bytes)):
            cure = f"set config.data.transforms.{name} to dict(name='tokenize', options=dict(length=32))"
            raise ConfigError(f"{name!r} is text, which no device takes; {cure}.")
        if isinstance(values[0], int):
            offsets = offsets_of(self.sources, name)
            return {name: np.array([value + offsets[key.source] for value, key in zip(values, keys, strict=True)], np.int32)}
        return {name: np.array(values, np.float32) if isinstance(values[0], float) else np.stack(values)}

    def _check_counts(self, name: str, values: list, keys: Sequence[order.Key]) -> None:
        """Lists, such as hard negatives, are as long in every row: `[N K T]` has one K."""
        sizes = [len(value) if isinstance(value, (list, tuple)) else None for value in values]
        wrong = [i for i, size in enumerate(sizes) if size != sizes[0] or size == 0]
        if wrong:
            say = lambda i: f"{sizes[i]} in record {keys[i].record} of config.data.sources.{list(self.sources)[keys[i].source]}"
            found = say(wrong[0]) if sizes[wrong[0]] == 0 else f"{say(0)} but {say(wrong[0])}"
            raise ConfigError(f"texts of {name!r}: {found}; let the source give every record the same number, 1 or more.")


def offsets_of(sources: Mapping[str, Any], name: str) -> list[int]:
    """What to add to column `name` of each source, so that two sources never share a number; 0 for one that does not count it."""
    offsets, total = [], 0
    for source in sources.values():
        count = getattr(source, "counts", {}).get(name, 0)
        offsets.append(total if count else 0)
        total += count
    return offsets
