"""S037, GISTEmbed: does a frozen guide know which passages of a batch are no negatives?

Retrieval of functions by their docstrings, held out by package, from random init. Names of undocumented functions are queries too
("close", "get size"), so that batches hold many functions that answer each other's queries. The guide is all-MiniLM-L6-v2, the real
weights, as a companion of the student and with its tokenizer. `plain` and `oracle` have the same loss over four blocks and no guide:
theirs is the student with a margin beyond any cosine. The oracle is told by `id` which records share a text.

The card would have duplicates put in, and the mask's precision and recall; neither is here. The temperature starts at 0.05 and is learned.
"""

import pathlib
from collections.abc import Mapping

import numpy as np
from ml_collections import ConfigDict

from claims import code_search
from claims.claim import Claim, Contrast
from configs import common

RUNS = ("plain", "gist", "oracle")
NOTHING = -3.0  # a margin with which nothing is dropped: no cosine is 3 above that of the own pair
VOCAB = 30_522  # of MiniLM


def get_config(arg: str = "") -> ConfigDict:
    """Of one run, a name in `RUNS`."""
    arg = common.parse_arg(arg, run="gist", quick=False)
    # Short texts: the guide is a hundred times the work of the student.
    config = code_search.base(128, query=16, passage=48, vocab_size=VOCAB)
    config.data.global_batch = 96
    config.data.sources.main.options = dict(names=True)
    path = code_search.minilm()
    config.data.tokenizer = dict(name="hf", options=dict(path=path))
    inputs = dict(zq="z_query", zp="z_passage", zq_guide="z_query", zp_guide="z_passage", id="id" if arg.run == "oracle" else None)
    options = dict(margin=NOTHING)
    if arg.run == "gist":
        start = dict(format="sentence_transformers", path=path, keep=())
        config.model.towers.guide = dict(name="bert", options={}, init=start)
        for view in ("query", "passage"):
            config.data.copies[f"{view}_guide"], config.model.views[f"{view}_guide"] = view, "guide"
            config.data.transforms[f"{view}_guide"] = config.data.transforms[view]
        config.model.companions = ("guide",)
        inputs |= dict(zq_guide="z_query_guide", zp_guide="z_passage_guide")
        options = {}
    config.losses.main = dict(name="gist", inputs=inputs, weight=1.0, options=options)
    config.optimizer.learning_rate = 5e-3
    config.optimizer.warmup_steps = 8
    config.train.steps = 20 if arg.quick else 80
    config.checkpoint.every_steps = config.train.steps
    return config.lock()


def measure(workdirs: Mapping[str, pathlib.Path]) -> dict[str, np.ndarray]:
    """Reciprocal rank of each held-out query by run."""
    return {run: code_search.reciprocal_ranks(workdir) for run, workdir in workdirs.items()}


CLAIM = Claim(
    title="GISTEmbed",
    says="A frozen MiniLM that says which candidates are no negatives makes a better retriever of functions.",
    file=pathlib.Path(__file__),
    runs=RUNS,
    measure=measure,
    metric="MRR@10",
    contrasts=(Contrast("gist", "plain", 0.01), Contrast("oracle", "plain", 0.01), Contrast("gist", "oracle", 0.01)),
)
