"""X04, Matryoshka: do the first values of a vector make a better short vector when they were trained to?

Retrieval of functions by their docstrings, held out by package, from random init. Short vectors of 16 and 32 values come from a plain model
by truncation or by PCA (fitted on training texts), from one Matryoshka model, and from models of that width. The Matryoshka model is
trained at 64 and 128 values too; those are not compared, nor are images. Undocumented functions take part, with their names.
"""

import pathlib
from collections.abc import Mapping

import numpy as np
from ml_collections import ConfigDict
from sklearn.decomposition import PCA

import retrieval
from claims.claim import Claim, Contrast
from configs import common
from evals.ranking import ranking
from input_pipeline.sources.docstrings import Docstrings

WIDTH, SHORT = 256, (16, 32)
DIMS = (*SHORT, 64, 128, WIDTH)
PCA_TEXTS = 4000  # of the training split, half queries and half passages


def get_config(arg: str = "") -> ConfigDict:
    """Of one run: `plain`, `mrl`, or `separate16`, `separate32`."""
    arg = common.parse_arg(arg, run="plain", quick=False)
    width = int(arg.run.removeprefix("separate")) if arg.run.startswith("separate") else WIDTH
    config = common.base()
    config.data.global_batch = 256
    config.data.sources = dict(main=dict(name="docstrings", weight=1.0, options=dict(names=True)))
    config.data.tokenizer = dict(name="bpe", options=dict(vocab_size=4096))
    tokens = lambda most: dict(name="tokenize", options=dict(length=most))
    config.data.transforms = dict(query=tokens(32), passage=tokens(64))
    # A bag of words behind a linear map: its table is the same for all runs of a seed, and it learns in a minute.
    text = dict(
        vocab_size=4096, length=64, width=WIDTH, layers=0, causal=False, pooling="mean", embed_dim=width, dropout=0.2
    )  # fmt: skip
    config.model.towers = dict(text=dict(name="text", options=text))
    config.model.views = dict(query="text", passage="text")
    config.model.temperature_init = 0.05
    pair, inner = dict(zq="z_query", zp="z_passage"), dict(name="infonce", inputs=dict(id="id"), options={})
    if arg.run == "mrl":
        config.losses.main = dict(name="matryoshka", inputs=pair, weight=1.0, options=dict(loss=inner, dims=DIMS))
    else:
        config.losses.main = dict(name="infonce", inputs=pair | inner["inputs"], weight=1.0, options={})
    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup_steps = 20
    config.train.steps = 60 if arg.quick else 300
    config.checkpoint.every_steps = config.train.steps
    config.checkpoint.keep_last = 1
    return config.lock()


def measure(workdirs: Mapping[str, pathlib.Path]) -> dict[str, np.ndarray]:
    """Reciprocal rank of each held-out query by arm: `<way>_<width>`."""
    held_out, train = Docstrings(split="test"), Docstrings()
    models = {run: retrieval.load(workdir) for run, workdir in workdirs.items()}
    task = held_out.ranking()
    found = {run: _vectors(model, task.queries, task.corpus) for run, model in models.items()}
    step = max(1, 2 * len(train) // PCA_TEXTS)
    sample = [train[i] for i in range(0, len(train), step)]
    texts = np.concatenate(_vectors(models["plain"], *([record[side] for record in sample] for side in ("query", "passage"))))
    arms = {f"plain_{WIDTH}": found["plain"], f"mrl_{WIDTH}": found["mrl"]}
    for width in SHORT:
        pca = PCA(width, svd_solver="full").fit(texts)
        arms[f"truncated_{width}"] = tuple(side[:, :width] for side in found["plain"])
        arms[f"pca_{width}"] = tuple(pca.transform(side) for side in found["plain"])
        arms[f"mrl_{width}"] = tuple(side[:, :width] for side in found["mrl"])
        arms[f"separate_{width}"] = found[f"separate{width}"]
    return {arm: _reciprocal_ranks(held_out, *sides) for arm, sides in arms.items()}


def _vectors(model: retrieval.Encoder, queries, passages) -> tuple[np.ndarray, np.ndarray]:
    return model.encode(queries, "query"), model.encode(passages, "passage")


def _reciprocal_ranks(data: Docstrings, queries: np.ndarray, corpus: np.ndarray) -> np.ndarray:
    unit = lambda rows: (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)).astype(np.float32)
    sides = dict(query=lambda _: unit(queries), passage=lambda _: unit(corpus))
    return ranking(sides, data, gallery_queries=0).items


CLAIM = Claim(
    title="Matryoshka",
    says="Vectors of 16 values from one Matryoshka model retrieve better than the first 16 of a plain one.",
    file=pathlib.Path(__file__),
    runs=("plain", "mrl", *(f"separate{width}" for width in SHORT)),
    measure=measure,
    metric="MRR@10",
    contrasts=(
        Contrast("mrl_16", "truncated_16", 0.02),
        Contrast("mrl_32", "truncated_32", 0.02),
        Contrast("mrl_16", "pca_16", 0.02),
        Contrast("mrl_16", "separate_16", 0.02),
        Contrast("mrl_32", "separate_32", 0.02),
        Contrast(f"mrl_{WIDTH}", f"plain_{WIDTH}", 0.02),
    ),
)
