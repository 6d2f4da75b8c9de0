"""S020, DNABERT-S: does mixing hidden states, after a while of plain pairs, teach an encoder to keep modules apart?

Bodies of functions of the standard library, from random init: two functions of one module are a pair, as two pieces of one genome are in
the paper. Modules of packages that training never saw are drawn ten at a time, with fifteen functions each, and k-means is to find them
again; an item is one such draw, so that draws share modules and the interval over items is too narrow. Texts are mixed as they come; most
fill the tokens that the encoder reads, so that few meet a much shorter one.

Chosen here: no head behind the tower, whose own projection is what a head would be; a temperature of 0.05 that is not learned.
"""

import json
import pathlib
from collections.abc import Iterator, Mapping

import numpy as np
from ml_collections import ConfigDict
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from threadpoolctl import threadpool_limits

import retrieval
from claims.claim import Claim, Contrast
from configs import common
from input_pipeline.sources import docstrings

RUNS = ("simclr", "weighted", "mixed", "curriculum")
LENGTH, WIDTH = 32, 64
LEAST = 40  # characters of a function's body
MODULES, EACH, DRAWS = 10, 15, 60  # of a draw, and how many there are


def get_config(arg: str = "") -> ConfigDict:
    """Of one run, a name in `RUNS`."""
    arg = common.parse_arg(arg, run="curriculum", folder="prepared", quick=False)
    config = common.base()
    config.data.global_batch = 96
    config.data.sources = dict(main=dict(name="pairs", weight=1.0, options=dict(files=(f"{arg.folder}/pairs.jsonl",), id="module")))
    config.data.tokenizer = dict(name="bpe", options=dict(vocab_size=2048))
    read = dict(name="tokenize", options=dict(length=LENGTH))
    config.data.transforms = dict(query=read, passage=read)
    text = dict(
        vocab_size=2048, length=LENGTH, width=WIDTH, layers=2, heads=4, causal=False, pooling="mean", embed_dim=WIDTH, dropout=0.1
    )  # fmt: skip
    config.model.towers = dict(text=dict(name="text", options=text))
    config.model.views = dict(query="text", passage="text")
    config.model.temperature_init = 0.05
    config.optimizer.freeze = ("^log_logit_scale$",)
    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup_steps = 20
    config.train.steps = 30 if arg.quick else 200
    config.checkpoint.every_steps = config.train.steps
    config.checkpoint.keep_last = 1
    _objective(config, arg.run)
    return config.lock()


def _objective(config: ConfigDict, run: str) -> None:
    if run != "mixed":
        inputs = dict(zq="z_query", zp="z_passage", id="id")
        config.losses.plain = dict(name="simclr", inputs=inputs, weight=1.0, options=dict(weighted=run != "simclr"))
    if run in ("mixed", "curriculum"):
        config.model.mixing.mixed = dict(views=("query",), group=16)
        inputs = dict(zq="z_query_mixed", zp="z_passage", share="share_query_mixed", partner="partner_query_mixed", id="id")
        config.losses.mixed = dict(name="mi_mix", inputs=inputs, weight=1.0, options={})
    if run == "curriculum":
        config.losses.plain.until_step = config.losses.mixed.from_step = config.train.steps // 3


def modules(held_out: bool) -> Iterator[list[str]]:
    """Distinct bodies of functions, without their docstrings, of each module."""
    ((prefix, root),) = docstrings.folders(())
    for package, tree, lines in docstrings.files(prefix, root, docstrings.HELDOUT if held_out else ()):
        if held_out or package not in docstrings.HELDOUT:
            found = (docstrings.pair(node, lines, signature=False, names=True) for node in docstrings.definitions(tree))
            yield list(dict.fromkeys(pair[1] for pair in found if pair and len(pair[1]) >= LEAST))


def prepare(folder: pathlib.Path, quick: bool) -> None:
    """Writes pairs: the functions of a module in a circle, each with the next one."""
    rng = np.random.default_rng(0)
    with open(folder / "pairs.jsonl", "w", encoding="utf-8") as file:
        for number, texts in enumerate(modules(held_out=False)):
            circle = rng.permutation(len(texts)).tolist() if len(texts) > 1 else []
            for one, other in zip(circle, circle[1:] + circle[:1], strict=True):
                file.write(json.dumps(dict(query=texts[one], positive=texts[other], module=number)) + "\n")


def measure(workdirs: Mapping[str, pathlib.Path]) -> dict[str, np.ndarray]:
    """Adjusted Rand index of the clusters in each draw of modules, by run."""
    held_out = [texts for texts in modules(held_out=True) if len(texts) >= EACH]
    starts = np.cumsum([0, *map(len, held_out)])
    arms = {}
    for run, workdir in workdirs.items():
        vectors = retrieval.load(workdir).encode([text for texts in held_out for text in texts], "query")
        arms[run] = np.array([_agreement(vectors, starts, np.random.default_rng(draw)) for draw in range(DRAWS)])
    return arms


def _agreement(vectors: np.ndarray, starts: np.ndarray, rng: np.random.Generator) -> float:
    chosen = rng.choice(len(starts) - 1, MODULES, replace=False)
    rows = np.concatenate([starts[m] + rng.choice(starts[m + 1] - starts[m], EACH, replace=False) for m in chosen])
    with threadpool_limits(1):  # sums in one order on every machine
        found = KMeans(MODULES, n_init=5, random_state=0).fit_predict(vectors[rows])
    return adjusted_rand_score(np.repeat(np.arange(MODULES), EACH), found)


CLAIM = Claim(
    title="DNABERT-S",
    says="Weighted pairs and then mixed hidden states cluster functions by module better than plain pairs throughout.",
    file=pathlib.Path(__file__),
    runs=RUNS,
    measure=measure,
    metric="adjusted Rand index",
    contrasts=(
        Contrast("curriculum", "simclr", 0.02),
        Contrast("curriculum", "weighted", 0.02),
        Contrast("curriculum", "mixed", 0.02),
        Contrast("weighted", "simclr", 0.02),
        Contrast("mixed", "simclr", 0.02),
    ),
    prepare=prepare,
)
