"""What claims about models of several sizes share: a small encoder of docstrings and functions, and how well any size of it retrieves."""

import numpy as np
from ml_collections import ConfigDict

import retrieval
from claims import code_search
from evals.ranking import ranking
from input_pipeline.sources.docstrings import Docstrings

LAYERS, WIDTH = 4, 64
DIMS = (8, 16, 32, WIDTH)
PAIR = dict(zq="z_query", zp="z_passage")
STATES = dict(zq_layers="layers_pooled_query", zp_layers="layers_pooled_passage")
INNER = dict(name="infonce", inputs=dict(id="id"), options=dict(symmetric=False))


def base(*, layers: int = LAYERS, dim: int = WIDTH, quick: bool = False) -> ConfigDict:
    """Retrieval of functions by their docstrings from random init, without a loss; passages begin with the function's name."""
    config = code_search.base(WIDTH, query=16, passage=32, vocab_size=2048, layers=layers)
    config.data.global_batch = 128
    config.data.sources.main.options = dict(signature=True)
    config.model.towers.text.options.update(heads=4, embed_dim=dim, dropout=0.1)
    config.train.steps = 15 if quick else 250
    config.checkpoint.every_steps = config.train.steps
    return config


def reciprocal_ranks(model: retrieval.Encoder, layers: int, dims: tuple[int, ...], data: Docstrings) -> dict[int, np.ndarray]:
    """Reciprocal rank of each query by width, of the model's first layers."""
    small, task = model.smaller(layers=layers), data.ranking()
    queries, corpus = small.encode(task.queries, "query"), small.encode(task.corpus, "passage")
    unit = lambda rows: (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)).astype(np.float32)
    cut = lambda dim: dict(query=lambda _: unit(queries[:, :dim]), passage=lambda _: unit(corpus[:, :dim]))
    return {dim: ranking(cut(dim), data, gallery_queries=0).items for dim in dims}
