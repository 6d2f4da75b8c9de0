"""Which record a row of a run holds, and where its random numbers come from: functions of the seed and the row alone."""

import dataclasses
import functools
import zlib
from collections.abc import Iterable, Mapping, Sequence

import grain
import numpy as np

LAST_RUN = 2**40
Rngs = Iterable[np.random.Generator] | None  # one for each value of a batch, or None where nothing random may happen


@dataclasses.dataclass(frozen=True)
class Key:
    """A record of the source with this number, read for the `epoch`-th time."""

    source: int
    record: int
    epoch: int


def keys(sizes: Mapping[str, int], weights: Mapping[str, float], *, seed: int, shuffle: bool, run: int = 1) -> "Keys":
    """The `Key` of every row of a run, without end; its length is one epoch.

    Each source has its own order, new in every epoch, in which each record comes once. Sources alternate in proportion to their weights.

    Args:
        sizes: records of each source, by label.
        weights: share of the rows, up to a common factor.
        seed: of the run.
        shuffle: else records come as the source numbers them.
        run: rows in a row from one source, in runs aligned to multiples of it.
    """
    orders = []
    for number, (label, size) in enumerate(sizes.items()):
        order = grain.MapDataset.range(size)
        if shuffle:
            order = order.shuffle(seed=stream(seed, f"shuffle {label}"))
        orders.append(order.map_with_index(functools.partial(_key, number, size)))
    if len(orders) == 1:
        return orders[0]
    shares = [float(weights[label]) for label in sizes]
    return grain.MapDataset.mix(orders, shares) if run == 1 else Runs(orders, shares, run)


class Runs:
    """A mixture in aligned runs of `run` rows from one source; index and length as in a mixture row by row.

    Runs alternate as rows would, so a source is left and taken up again where it was: its epochs are whole, whatever `run` is.
    """

    def __init__(self, orders: Sequence[grain.MapDataset], shares: Sequence[float], run: int):
        self._orders, self._run = orders, run
        self._rows = len(grain.MapDataset.mix(orders, shares))
        numbered = [grain.MapDataset.range(LAST_RUN).map(functools.partial(_numbered, source)) for source in range(len(orders))]
        self._runs = grain.MapDataset.mix(numbered, shares)

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, row: int) -> Key:
        source, earlier = self._runs[row // self._run]
        return self._orders[source][earlier * self._run + row % self._run]


Keys = grain.MapDataset | Runs


def _numbered(source: int, earlier: int) -> tuple[int, int]:
    return source, earlier


def _key(source: int, size: int, index: int, record: int) -> Key:
    return Key(source, record, index // size)


def stream(seed: int, purpose: str) -> int:
    """32 bits for one purpose of a run.

    The hash matters: grain adds the epoch to a shuffle's seed, so that the runs 0 and 1 would otherwise share all orders but one.
    """
    return int(np.random.SeedSequence((seed, zlib.crc32(purpose.encode()))).generate_state(1)[0])


def generator(stream_number: int, key: Key) -> np.random.Generator:
    """Random numbers for one record in one epoch; Philox streams with different keys or counters do not meet."""
    bits = np.random.Philox(key=np.array([stream_number, key.epoch], np.uint64), counter=np.array([0, 0, 0, key.record], np.uint64))
    return np.random.Generator(bits)
