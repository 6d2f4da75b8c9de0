"""Which record a row of a run holds, and where its random numbers come from: functions of the seed and the row alone."""

import dataclasses
import functools
import zlib
from collections.abc import Mapping

import grain
import numpy as np


@dataclasses.dataclass(frozen=True)
class Key:
    """A record of the source with this number, read for the `epoch`-th time."""

    source: int
    record: int
    epoch: int


def keys(sizes: Mapping[str, int], weights: Mapping[str, float], *, seed: int, shuffle: bool) -> grain.MapDataset:
    """The `Key` of every row of a run, without end; its length is one epoch.

    Each source has its own order, new in every epoch, in which each record comes once. Sources alternate in proportion to their weights.

    Args:
        sizes: records of each source, by label.
        weights: share of the rows, up to a common factor.
        seed: of the run.
        shuffle: else records come as the source numbers them.
    """
    orders = []
    for number, (label, size) in enumerate(sizes.items()):
        order = grain.MapDataset.range(size)
        if shuffle:
            order = order.shuffle(seed=stream(seed, f"shuffle {label}"))
        orders.append(order.map_with_index(functools.partial(_key, number, size)))
    return orders[0] if len(orders) == 1 else grain.MapDataset.mix(orders, [float(weights[label]) for label in sizes])


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
