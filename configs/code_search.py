"""Finds a function by its docstring, from random init: no accelerator and no download.

    python -m launch.train --config=configs/code_search.py --workdir=runs/code_search

Queries are docstrings of 22 packages of the standard library that training never shows; the answer is the function's body without
its name. BM25 with identifiers split into words stands beside the model in every metric.

Last measured (2026-11-21, 9c2ff3c, two quiet cores at 193 GFLOP/s): MRR@10 0.265, recall@10 0.504 in 9 min 14 s; BM25 0.368, 0.587.
"""

from ml_collections import ConfigDict

from configs import common

# Installed with Tandem; what they define is read beside the standard library.
PACKAGES = ("absl", "etils", "flax", "fontTools", "grain", "jax", "jinja2", "matplotlib", "ml_collections", "numpy", "optax", "orbax",
            "PIL", "scipy", "sklearn")  # fmt: skip


def get_config(arg: str = "") -> ConfigDict:
    arg = common.parse_arg(arg, packages=True, smoke=False)
    config = common.base()
    length, width, vocab_size = 96, 512, 8192
    config.data.global_batch = 64 if arg.smoke else 512
    more = arg.packages and not arg.smoke
    # Names of undocumented functions are poor queries, but there are twice as many.
    options = dict(packages=PACKAGES if more else (), names=more)
    config.data.sources = dict(main=dict(name="docstrings", weight=1.0, options=options))
    config.data.tokenizer = dict(name="bpe", options=dict(vocab_size=vocab_size))
    tokens = lambda most: dict(name="tokenize", options=dict(length=most))
    config.data.transforms = dict(query=tokens(32), passage=tokens(length))
    # One tower for both sides, so that a word in both texts pulls them together before anything is learned; and no blocks: with one of
    # width 128 a few thousand pairs are learned by heart.
    text = dict(
        vocab_size=vocab_size, length=length, width=width, layers=0, causal=False, pooling="mean", embed_dim=width, dropout=0.3
    )  # fmt: skip
    config.model.towers = dict(text=dict(name="text", options=text))
    config.model.views = dict(query="text", passage="text")
    config.model.temperature_init = 0.05
    inputs = dict(zq="z_query", zp="z_passage", id="id")
    config.losses.main = dict(name="infonce", inputs=inputs, weight=1.0, options=dict(symmetric=True))
    config.optimizer.learning_rate = 2e-3
    config.optimizer.ema_decay = 0.99
    config.train.steps = 20 if arg.smoke else 600
    config.checkpoint.every_steps = 10 if arg.smoke else 150
    config.checkpoint.best = "held_out"
    data, every = dict(name="docstrings", options=dict(split="test")), config.checkpoint.every_steps
    config.evals.held_out = dict(name="ranking", every_steps=every, data=data, options=dict(controls=("bm25",)))
    config.evals.loss = dict(name="held_out_loss", every_steps=every, data=data, options=dict(batch=256))
    return config.lock()
