"""S110, Structure-CLIP: do captions that a swap of one word made false teach a model to look at every word?

Rendered characters and their names, from random init. Each image of a character that training never showed picks between its name and
the name of another character that differs in one word (case, script, mark or letter). Negatives of training are such names, or names
with any word put in, or there are none.
"""

import pathlib
from collections.abc import Mapping

import numpy as np
from ml_collections import ConfigDict

import retrieval
from claims.claim import Claim, Contrast
from claims.names import reciprocal_ranks
from configs import common
from evals import metrics
from input_pipeline.sources.glyph_swaps import GlyphSwaps

SIZE = 24
RUNS = ("plain", "word", "swap")


def get_config(arg: str = "") -> ConfigDict:
    """Of one run: `plain`, `word` or `swap`, which say what the negatives are."""
    arg = common.parse_arg(arg, run="plain", quick=False)
    config = common.base()
    config.data.global_batch = 192
    options = dict(size=SIZE, negatives="word" if arg.run == "word" else "swap")
    config.data.sources = dict(main=dict(name="glyph_swaps", weight=1.0, options=options))
    config.data.tokenizer = dict(name="bpe", options=dict(vocab_size=1024))
    tokens = dict(name="tokenize", options=dict(length=16))
    moved = dict(name="augment", options=dict(shift=0.08, scale=0.1, rotate=6.0, noise=0.04, keep_inside=True))
    config.data.transforms = dict(image=moved, text=tokens, negatives=tokens)
    image = dict(image_size=SIZE, channels=1, widths=(32, 64, 128), blocks=(1, 1, 1), embed_dim=128)
    text = dict(vocab_size=1024, length=16, width=128, layers=1, heads=4, causal=False, pooling="mean", embed_dim=128)
    config.model.towers = dict(image=dict(name="resnet", options=image), text=dict(name="text", options=text))
    config.model.views = dict(image="image", text="text", negatives="text")
    pair = dict(zq="z_image", zp="z_text", id="id", alias="pixel_id")
    config.losses.main = dict(name="infonce", inputs=pair, weight=1.0, options={})
    if arg.run != "plain":
        swaps = pair | dict(zn="z_negatives", zn_weight="negatives_weight")
        config.losses.swaps = dict(name="structure_clip", inputs=swaps, weight=1.0, options=dict(in_batch=False))
    config.optimizer.learning_rate = 2e-3
    config.train.steps = 40 if arg.quick else 400
    config.checkpoint.every_steps = config.train.steps
    config.checkpoint.keep_last = 1
    return config.lock()


def measure(workdirs: Mapping[str, pathlib.Path]) -> dict[str, np.ndarray]:
    """By run, whether each image picks its name (`<run>`), and the reciprocal rank of its name among all held-out names (`<run>_mrr`)."""
    data = GlyphSwaps(split="unseen", size=SIZE)
    task, names = data.candidates(), list(data.texts())
    own = np.array([names.index(task.candidates[right]) for right in task.right])
    arms = {}
    for run, workdir in workdirs.items():
        model = retrieval.load(workdir)
        images, pool, all_names = (
            model.encode(v, view) for v, view in ((task.queries, "image"), (task.candidates, "text"), (names, "text"))
        )
        scores = np.stack([metrics.scores(images[i : i + 1], pool[one])[0] for i, one in enumerate(task.lists)])
        arms[run] = (scores[:, 0] > scores[:, 1]).astype(np.float64)  # the first of each list is right; a tie is a miss
        arms[f"{run}_mrr"] = reciprocal_ranks(data, images, all_names, names, own)
    return arms


CLAIM = Claim(
    title="Structure-CLIP",
    says="Captions made false by a swap of one word teach a model to tell such captions apart, and cost no retrieval.",
    file=pathlib.Path(__file__),
    runs=RUNS,
    measure=measure,
    metric="two-way accuracy",
    contrasts=(
        Contrast("swap", "plain", 0.02),
        Contrast("swap", "word", 0.02),
        Contrast("word", "plain", 0.02),
        Contrast("swap_mrr", "plain_mrr", 0.02),
    ),
)
