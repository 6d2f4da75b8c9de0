"""Tokens per second of pairs of texts beside torch's DataLoader; start and memory of ten million records beside array_record itself.

    python -m benchmarks.input_text                       # needs requirements-parity.txt
    python -m benchmarks.input_text --records=100000

Pairs are the docstrings and functions of the standard library, split by one trained vocabulary, cut to 32 and 96 tokens, 256 pairs to a
batch: through Tandem's pipeline with two threads, and through a DataLoader with two worker processes, which pads each batch with the same
library. Tokens of padding do not count.

The records are one ArrayRecord file of `tf.train.Example`s with two short texts, read by a process of its own: the time from nothing
imported of Tandem or array_record to the first batch of 256 in random order, and what that adds to the resident memory. array_record
alone opens the file and reads as many records in the same order.

Two cores of an AMD EPYC, 2026-11-21: 347,000 tokens/s and core, 224,000 in a DataLoader. Ten million records take 0.16 s to the first
batch after 0.32 s of imports (array_record alone 0.03 s after 0.01 s), and 73 MB with all that is imported (18 MB).
"""

import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time

from absl import app, flags
from ml_collections import ConfigDict

from benchmarks import measure, peers
from configs import common
from input_pipeline import batching, examples

RECORDS = flags.DEFINE_integer("records", 10_000_000, "Records of the synthetic file.")
BATCHES = flags.DEFINE_integer("batches", 80, "Batches of each arm in a round.")
ROUNDS = flags.DEFINE_integer("rounds", 3, "Runs of each arm.")
BATCH, CORES = 256, 2
LENGTHS = {"query": 32, "passage": 96}
DISTINCT = 1000  # texts of the synthetic records
GROUP = 64  # records that are compressed together

# Each prints seconds and megabytes; the interpreter, numpy and grain's jax are there before the clock starts.
TANDEM = """
import json, resource, sys, time
import jax, numpy
from configs import common
before, start = int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize(), time.perf_counter()
from input_pipeline import batching, tokenize
imported = time.perf_counter() - start
data = common.base().data
data.global_batch = 256
data.sources = dict(main=dict(name="pairs", weight=1.0, options=dict(files=(sys.argv[1],))))
data.transforms = {view: dict(name="tokenize", options=dict(length=16)) for view in ("query", "passage")}
sources, tokenizer = batching.make_sources(data), tokenize.train_bpe(["some words"], vocab_size=300)
with batching.batches(data, sources, tokenizer, seed=0) as rows:
    next(rows)
    seconds = time.perf_counter() - start
    after = int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
print(json.dumps([len(sources["main"]), seconds, imported, (after - before) / 2**20]))
"""
ALONE = """
import json, resource, sys, time
import jax, numpy
before, start = int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize(), time.perf_counter()
from array_record.python.array_record_data_source import ArrayRecordDataSource
imported = time.perf_counter() - start
source = ArrayRecordDataSource([sys.argv[1]])
order = numpy.random.default_rng(0).integers(len(source), size=256)
records = source.__getitems__(order.tolist())
seconds = time.perf_counter() - start
after = int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
print(json.dumps([len(source), seconds, imported, (after - before) / 2**20]))
"""


def section() -> ConfigDict:
    """`config.data` of the pairs."""
    data = common.base().data
    data.global_batch, data.threads = BATCH, CORES
    data.sources = dict(main=dict(name="docstrings", weight=1.0, options={}))
    data.tokenizer = dict(name="bpe", options=dict(vocab_size=8192))
    data.transforms = {view: dict(name="tokenize", options=dict(length=length)) for view, length in LENGTHS.items()}
    return data


class Pairs:
    """A torch data set of texts in memory."""

    def __init__(self, rows: list[tuple[str, str]]):
        self._rows = rows

    def __len__(self) -> int:
        return BATCH * 1000

    def __getitem__(self, i: int) -> tuple[str, str]:
        return self._rows[i % len(self._rows)]


def collate(library, pairs: list[tuple[str, str]]) -> dict:
    """Ids and masks of a batch, cut and padded by the `tokenizers` library."""
    torch, made = peers.torch(), {}
    for (view, length), texts in zip(LENGTHS.items(), zip(*pairs, strict=True), strict=True):
        library.enable_truncation(length)
        library.enable_padding(length=length)
        found = library.encode_batch_fast(list(texts))
        made[view] = torch.tensor([row.ids for row in found], dtype=torch.int32)
        made[f"{view}_mask"] = torch.tensor([row.attention_mask for row in found], dtype=torch.bool)
    return made


def rate(make) -> float:
    """Tokens per second after the first batch."""
    batches, tokens = make(), 0
    iterator = iter(batches)
    next(iterator)
    start = time.perf_counter()
    for batch in itertools.islice(iterator, BATCHES.value):
        tokens += sum(int(batch[f"{view}_mask"].sum()) for view in LENGTHS)
    found = tokens / (time.perf_counter() - start)
    if hasattr(batches, "close"):
        batches.close()
    return found


def start_up(folder: str) -> dict[str, dict[str, float]]:
    """Seconds to the first 256 records, and megabytes that they leave behind; the best of three processes each."""
    from array_record.python import array_record_module

    path = os.path.join(folder, "records.array_record")
    words = [examples.serialize({"query": f"the question number {i}", "positive": f"what answers it, {i * i}"}) for i in range(DISTINCT)]
    writer = array_record_module.ArrayRecordWriter(path, f"group_size:{GROUP}")
    for i in range(RECORDS.value):
        writer.write(words[i % DISTINCT])
    writer.close()
    found = {"tandem": [], "array_record alone": []}
    for _ in range(3):
        for name, program in (("tandem", TANDEM), ("array_record alone", ALONE)):
            done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
            count, *measured = json.loads(done.stdout.splitlines()[-1])
            assert count == RECORDS.value
            found[name].append(measured)
    names = ("seconds", "of_which_importing", "megabytes")
    return {"file_megabytes": os.path.getsize(path) / 2**20} | {
        name: dict(zip(names, min(rows), strict=True)) for name, rows in found.items()
    }


def main(_):
    data = section()
    sources = batching.make_sources(data)
    tokenizer = batching.make_tokenizer(data, sources)
    source = sources["main"]
    rows = [(record["query"], record["passage"]) for record in (source[i] for i in range(len(source)))]
    torch = peers.torch(1)

    def data_loader():
        fill = lambda pairs: collate(tokenizer.engine.to_library(), pairs)
        return torch.utils.data.DataLoader(Pairs(rows), BATCH, shuffle=True, num_workers=CORES, collate_fn=fill, drop_last=True)

    arms = {"tandem": lambda: batching.batches(data, sources, tokenizer, seed=0), "DataLoader": data_loader}
    rates = {name: [] for name in arms}
    for _ in range(ROUNDS.value):
        for name, make in arms.items():
            rates[name].append(rate(make))
    best = {name: max(found) / CORES for name, found in rates.items()}
    with tempfile.TemporaryDirectory() as folder:
        started = start_up(folder)
    result = {
        "question": f"Tokens per second and core of {len(rows)} pairs of texts, batch {BATCH}?",
        "ratio": best["tandem"] / best["DataLoader"],
        "ours": best["tandem"],
        "peer": best["DataLoader"],
        "peer_name": f"torch DataLoader + tokenizers, {CORES} worker processes",
        "unit": "tokens/s per core",
        "machine": measure.machine(),
        "start_up": {"records": RECORDS.value} | started,
        "greatest_resident_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    measure.save("input_text", result)


if __name__ == "__main__":
    app.run(main)
