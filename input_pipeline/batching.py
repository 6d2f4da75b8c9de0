"""Batches of numpy arrays in an order that only the seed decides, whatever reads them.

Row r of global batch b depends on (seed, b * global_batch + r) alone: its source, record and epoch, and the random stream of its
transforms. Threads, worker processes, hosts and restarts cannot change it, and a position is one integer, batches delivered.
"""

import collections
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import grain
import numpy as np
from absl import flags

from core.config import ConfigError, bind, check_section, choose, plain
from input_pipeline import SOURCES, order
from input_pipeline.constants import Constants
from input_pipeline.grouped import Grouped
from input_pipeline.inverse_cloze import InverseCloze
from input_pipeline.prompts import Prompted
from input_pipeline.read_batch import ReadBatch
from input_pipeline.tokenize import TOKENIZERS, Tokenizer
from input_pipeline.transforms import bind_transforms

KEYS = (
    "global_batch", "shuffle", "homogeneous", "size_power", "threads", "workers", "max_bad_fraction", "distinct", "sources", "copies",
    "tokenizer", "transforms",
)  # fmt: skip
AROUND = ("near_duplicates", "inverse_cloze", "constants", "prompts")  # what may stand around a source, from the inside out
MIN_ROWS = 1000  # bad records are judged against at least this many rows: a share of fewer says little
LAST_BATCH = 2**40


def make_sources(data: Mapping) -> dict[str, Any]:
    """The sources of `config.data.sources`, by label.

    Raises:
        ConfigError: no source, an unknown source, key or option, or a weight that is not positive.
    """
    check_section(data, KEYS, "config.data")
    if not data.sources:
        raise ConfigError(f"config.data.sources is empty; the choices are: {', '.join(sorted(SOURCES))}.")
    made = {}
    for label, entry in data.sources.items():
        key = f"config.data.sources.{label}"
        check_section(entry, ("name", "weight", "options", *AROUND), key, optional=AROUND)
        if not entry.weight > 0:
            raise ConfigError(f"{key}.weight is {entry.weight}; set it above 0, or leave the source out.")
        made[label] = make_source(entry, key)
    return made


def make_source(entry: Mapping, key: str, table: Mapping[str, Callable] = SOURCES) -> Any:
    """The source that `entry.name` and `entry.options` describe.

    Args:
        entry: a config section; `entry.prompts`, if there, is what its texts begin with, by view, and `entry.near_duplicates` how similar
            texts must be for their records to share an `id`, `entry.inverse_cloze` options of `InverseCloze`, and `entry.constants` numbers
            that every record has, by column.
        key: its path, for example `config.evals.unseen.data`.
        table: what there is to choose from.

    Raises:
        ConfigError: no such source or option, or a value that the source refuses.
    """
    make = bind(choose(table, entry.name, f"{key}.name"), entry.options, f"{key}.options")
    try:
        source = Grouped(make(), entry.near_duplicates) if "near_duplicates" in entry else make()
        if "inverse_cloze" in entry:
            source = bind(InverseCloze, entry.inverse_cloze, f"{key}.inverse_cloze")(source)
        if "constants" in entry:
            source = Constants(source, plain(entry.constants))
        return Prompted(source, plain(entry.prompts)) if "prompts" in entry else source
    except ValueError as error:
        raise ConfigError(f"{key}: {error}") from error


def make_tokenizer(data: Mapping, sources: Mapping[str, Any]) -> Tokenizer:
    """A tokenizer trained on the captions of all sources, in the order of the config.

    Raises:
        ConfigError: an unknown tokenizer, key or option.
    """
    key = "config.data.tokenizer"
    check_section(data.tokenizer, ("name", "options"), key)
    train = bind(choose(TOKENIZERS, data.tokenizer.name, f"{key}.name"), data.tokenizer.options, f"{key}.options")
    try:
        return train(itertools.chain.from_iterable(source.texts() for source in sources.values()))
    except ValueError as error:
        raise ConfigError(f"{key}: {error}") from error


def records_per_epoch(data: Mapping, sources: Mapping[str, Any]) -> int:
    """Rows in which a single source is read once; in a mixture, rows until the first of its sources is used up."""
    return len(_keys(data, sources, seed=0))


def batches(
    data: Mapping, sources: Mapping[str, Any], tokenizer: Tokenizer | None, *, seed: int, start: int = 0,
    process_index: int = 0, process_count: int = 1, on_bad: Callable[[dict[str, Any]], None] | None = None,
) -> "Batches":  # fmt: skip
    """This process's rows of every global batch from `start` on, without end.

    Args:
        data: the config section; see `KEYS`.
        sources: what `make_sources` made of it.
        tokenizer: for views of text.
        seed: of the run.
        start: batches already delivered.
        process_index: this process has rows [index * P, (index + 1) * P) of each global batch, P = global_batch / process_count.
        process_count: processes that share a global batch.
        on_bad: called with {"batch", "source", "record", "kind", "reason"} for each record passed over, when its batch is delivered.

    Raises:
        ConfigError: a global batch that does not split over the processes, or an unknown key, transform or option.
    """
    check_section(data, KEYS, "config.data")
    if data.global_batch % process_count:
        low = data.global_batch // process_count * process_count
        near = f"{low} or {low + process_count}" if low else str(process_count)
        raise ConfigError(
            f"config.data.global_batch is {data.global_batch}, which does not split over {process_count} processes; set it to {near}."
        )
    if data.homogeneous < 1 or data.global_batch % data.homogeneous:
        raise ConfigError(
            f"config.data.homogeneous is {data.homogeneous}, and runs of one source must fill a global batch of {data.global_batch}; "
            f"set it to 1 (mix row by row), {data.global_batch} (a batch is of one source) or another divisor."
        )
    rows = data.global_batch // process_count
    read = ReadBatch(
        keys=_keys(data, sources, seed), sources=dict(sources), transforms=bind_transforms(data.transforms), tokenizer=tokenizer,
        seed=seed, global_batch=data.global_batch, first_row=process_index * rows, rows=rows, copies=plain(data.copies),
        distinct=data.distinct,
    )  # fmt: skip
    weights = _weights(data, sources)
    epochs = {label: data.global_batch * weights[label] / sum(weights.values()) / len(source) for label, source in sources.items()}
    return Batches(read, data, start, epochs, on_bad)


def _keys(data: Mapping, sources: Mapping[str, Any], seed: int) -> order.Keys:
    sizes = {label: len(source) for label, source in sources.items()}
    return order.keys(sizes, _weights(data, sources), seed=seed, shuffle=data.shuffle, run=data.homogeneous)


def _weights(data: Mapping, sources: Mapping[str, Any]) -> dict[str, float]:
    # Tempered mixtures: 0 keeps the weights, 1 draws every record equally often, 0.5 lies between (a temperature of 2).
    return {label: data.sources[label].weight * len(source) ** data.size_power for label, source in sources.items()}


class Batches:
    """An endless iterator of dicts of arrays [P ...]; close it, or use it in a `with`, so that no worker outlives it.

    `position` is the number of global batches delivered since the beginning of the run: pass it as `start` to go on from there.
    `rows` and `bad_records` count what this object delivered and passed over, `bad_kinds` the latter by kind.

    Args:
        read: makes one batch.
        data: the config section.
        start: batches already delivered.
        epochs: by source, how much of it one global batch reads.
        on_bad: told of each record that was passed over.

    Raises:
        ConfigError: on delivery, once more than `max_bad_fraction` of the rows needed another record.
    """

    def __init__(
        self, read: ReadBatch, data: Mapping, start: int, epochs: Mapping[str, float], on_bad: Callable[[dict[str, Any]], None] | None
    ):
        self.position, self.rows, self.bad_records, self.bad_kinds = start, 0, 0, collections.Counter()
        self._epochs = dict(epochs)
        self._max_bad_fraction, self._workers, self._on_bad = data.max_bad_fraction, data.workers, on_bad
        self._iterator = iter(_start_reading(grain.MapDataset.range(start, LAST_BATCH).map(read), data.threads, data.workers))

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        element = next(self._iterator)
        for entry in element["bad"]:
            if self._on_bad is not None:
                self._on_bad({"batch": self.position, **entry})
        self.position += 1
        self.rows += len(element["arrays"]["record"])
        self.bad_records += len(element["bad"])
        self.bad_kinds.update(entry["kind"] for entry in element["bad"])
        if self.bad_records > self._max_bad_fraction * max(self.rows, MIN_ROWS):
            raise ConfigError(
                f"{self.bad_records} of {self.rows} records could not be read ({_counts(self.bad_kinds)}), "
                f"the last for: {element['bad'][-1]}; mend the data, or raise config.data.max_bad_fraction above {self._max_bad_fraction}."
            )
        # From a worker come views of shared memory, which last no longer than grain's own object; a copy is like any other array.
        return {name: np.array(array) for name, array in element["arrays"].items()} if self._workers else element["arrays"]

    def metrics(self) -> dict[str, float]:
        """For the log: what this process passed over since it started, and how often the whole run has read each source by now."""
        bad = {f"data/bad/{kind}": float(count) for kind, count in self.bad_kinds.items()}
        epochs = {f"data/epochs/{label}": self.position * share for label, share in self._epochs.items()}
        return {"data/bad_records": float(self.bad_records)} | bad | epochs

    def close(self) -> None:
        """Stops threads and workers; nothing is delivered afterwards. May be called again."""
        if hasattr(self._iterator, "close"):
            self._iterator.close()
        self._iterator = iter(())  # grain's own object complains when it is deleted with the interpreter

    def __enter__(self) -> "Batches":
        return self

    def __exit__(self, *exception) -> None:
        self.close()


def _counts(kinds: Mapping[str, int]) -> str:
    return ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items()))


def _start_reading(dataset: grain.MapDataset, threads: int, workers: int) -> grain.IterDataset:
    # Elements are whole batches: grain's default buffer of 500 would be gigabytes.
    stream = dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads))
    if workers == 0:
        return stream
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain reads its debug flags when it starts a worker
    return stream.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2), worker_init_fn=_start_worker)


def _start_worker(worker_index: int, worker_count: int) -> None:
    """Lets the main process decide when to stop: Ctrl-C reaches the whole group, and a killed parent leaves its workers waiting."""
    del worker_index, worker_count
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, args=(os.getppid(),), daemon=True).start()


def _leave_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(2.0)
    os._exit(1)
