"""S109, Starbucks: does a fixed list of sizes train these sizes better than sizes drawn anew in each step?

Retrieval of functions by their docstrings, held out by package, from random init. Both take the loss of four sizes in each step: (1, 8),
(2, 16), (3, 32) and (4, 64) as layers and values, or the whole model, a drawn layer, a drawn width, and both. Off the list, (1, 64) and
(4, 8) are measured too: there the fixed list may lose.

Each arm is its method as published, so more differs than the sizes: of the fixed list, scores follow those of the whole model, which has no
gradient there, and all sizes count alike; of the drawn ones, vectors do, with a gradient on both sides, and shallow layers count more.
"""

import pathlib
from collections.abc import Mapping

import numpy as np
from ml_collections import ConfigDict

import retrieval
from claims import sizes
from claims.claim import Claim, Contrast
from configs import common
from input_pipeline.sources.docstrings import Docstrings

LISTED = tuple(zip(range(1, sizes.LAYERS + 1), sizes.DIMS, strict=True))
OFF = ((1, sizes.WIDTH), (sizes.LAYERS, sizes.DIMS[0]))


def get_config(arg: str = "") -> ConfigDict:
    """Of one run: `fixed` or `drawn`."""
    arg = common.parse_arg(arg, run="fixed", quick=False)
    config, inputs = sizes.base(quick=arg.quick), sizes.PAIR | sizes.STATES
    if arg.run == "fixed":
        config.losses.main = dict(name="starbucks", inputs=inputs, weight=1.0, options=dict(loss=sizes.INNER, sizes=LISTED))
    else:
        config.losses.main = dict(name="matryoshka_2d", inputs=inputs, weight=1.0, options=dict(loss=sizes.INNER, dims=sizes.DIMS))
    return config.lock()


def measure(workdirs: Mapping[str, pathlib.Path]) -> dict[str, np.ndarray]:
    """Reciprocal rank of each held-out query by arm: `<run>_<layers>x<width>`; `<run>_listed` is the mean over the smaller listed sizes."""
    data, arms = Docstrings(split="test", signature=True), {}
    for run, workdir in workdirs.items():
        model, found = retrieval.load(workdir), {}
        for layers in range(1, sizes.LAYERS + 1):
            dims = tuple(dim for depth, dim in (*LISTED, *OFF) if depth == layers)
            found |= {(layers, dim): ranks for dim, ranks in sizes.reciprocal_ranks(model, layers, dims, data).items()}
        arms |= {f"{run}_{layers}x{dim}": ranks for (layers, dim), ranks in found.items()}
        arms[f"{run}_listed"] = np.mean([found[size] for size in LISTED[:-1]], axis=0)
    return arms


CLAIM = Claim(
    title="Starbucks",
    says="Sizes of a fixed list retrieve better than the same sizes of a model whose sizes were drawn.",
    file=pathlib.Path(__file__),
    runs=("fixed", "drawn"),
    measure=measure,
    metric="MRR@10",
    contrasts=(
        Contrast("fixed_listed", "drawn_listed", 0.02),
        *(Contrast(f"fixed_{layers}x{dim}", f"drawn_{layers}x{dim}", 0.02) for layers, dim in (*LISTED, *OFF)),
    ),
)
