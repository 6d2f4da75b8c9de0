"""Sources small enough to check by hand, and the config section that reads them."""

import json
import os

import numpy as np
from ml_collections import ConfigDict

from input_pipeline.bad_records import BadRecord


def config(**changes):
    """`config.data` for the test digits, eight rows a batch."""
    data = dict(
        global_batch=8, shuffle=True, homogeneous=1, size_power=0.0, threads=0, workers=0, max_bad_fraction=0.0, distinct=False,
        sources=dict(main=dict(name="digits", weight=1.0, options=dict(split="test", size=8))),
        copies={},
        tokenizer=dict(name="bpe", options=dict(vocab_size=300)),
        transforms=dict(
            image=dict(name="augment", options=dict(shift=0.1, scale=0.1, rotate=8.0, noise=0.05)),
            text=dict(name="tokenize", options=dict(length=8)),
        ),
    )  # fmt: skip
    return ConfigDict(data | changes)


def toy_config(weights=None, **changes):
    """The section for sources of `Toy`s, which `batches` takes ready-made."""
    entries = {label: dict(name="digits", weight=weight, options={}) for label, weight in (weights or {"main": 1.0}).items()}
    return config(**(dict(transforms={}, sources=entries) | changes))


class Toy:
    """`size` records whose id is their index; those in `bad` cannot be read."""

    def __init__(self, size, bad=()):
        self.size, self.bad = size, frozenset(bad)
        self.counts = {"id": size}

    def __len__(self):
        return self.size

    def __getitem__(self, i):
        if i in self.bad:
            raise BadRecord(f"record {i} is torn")
        return {"x": np.full(2, i, np.float32), "id": i, "score": i / 2}


def write_pairs(folder, name="pairs.jsonl", count=9):
    """A file of pairs, two of them with the same positive; the path."""
    rows = [{"query": f"query {i}", "positive": f"answer {max(i, 1)}", "wrong": [f"wrong {i}", "wrong too"]} for i in range(count)]
    path = os.path.join(folder, name)
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path
