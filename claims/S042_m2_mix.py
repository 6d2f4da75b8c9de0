"""S042, geodesic multi-modal mixup: does it bring images and names nearer to each other when a model learns a new script?

Rendered characters and their names. A model that never saw Cyrillic learns it for nine epochs from its characters in `train`, with the
contrastive loss alone or with mixtures as further negatives. Measured on the characters that training never shows, of Cyrillic and of all
else, whose names are ranked together. Both stages have the card's temperature of 0.01, which is CLIP's when tuning begins.
"""

import pathlib
from collections.abc import Mapping

import numpy as np
from ml_collections import ConfigDict

import retrieval
from claims.claim import Claim, Contrast
from claims.spread import spread
from configs import common
from evals import metrics
from input_pipeline.sources.glyphs import OTHER, SCRIPTS, Glyphs

NEW, SIZE, WIDTH, BATCH = "cyrillic", 24, 96, 128
EPOCH = 24  # steps in which the 3,060 images of the new script are read once


def get_config(arg: str = "") -> ConfigDict:
    """Of one run: `first`, which never sees the new script, or what goes on from it, `clip` or `mix`."""
    arg = common.parse_arg(arg, run="mix", first="", quick=False)
    tuned = arg.run != "first"
    config = common.base()
    config.data.global_batch = BATCH
    scripts = (NEW,) if tuned else (*(name for name in SCRIPTS.values() if name != NEW), OTHER)
    config.data.sources = dict(main=dict(name="glyphs", weight=1.0, options=dict(size=SIZE, scripts=scripts)))
    config.data.tokenizer = dict(name="bpe", options=dict(vocab_size=1024))
    moved = dict(name="augment", options=dict(shift=0.08, scale=0.1, rotate=6.0, noise=0.04, keep_inside=True))
    config.data.transforms = dict(image=moved, text=dict(name="tokenize", options=dict(length=16)))
    image = dict(image_size=SIZE, channels=1, widths=(24, 48, 96), blocks=(1, 1, 1), embed_dim=WIDTH)
    text = dict(vocab_size=1024, length=16, width=WIDTH, layers=1, heads=4, causal=False, pooling="mean", embed_dim=WIDTH)
    config.model.towers = dict(image=dict(name="resnet", options=image), text=dict(name="text", options=text))
    config.model.views = dict(image="image", text="text")
    config.model.temperature_init = 0.01
    config.optimizer.freeze = ("^log_logit_scale$",)
    inputs = dict(zq="z_image", zp="z_text", id="id", alias="pixel_id")
    config.losses.main = dict(name="infonce", inputs=inputs, weight=1.0, options={})
    if tuned:
        first = arg.first or "runs/first"  # nothing to start from: the file is only looked at
        config.data.tokenizer = dict(name="saved", options=dict(path=f"{first}/tokenizer"))
        for tower in config.model.towers.values():
            tower.init = dict(format="tandem", path=first, keep=())
    if arg.run == "mix":
        falling = dict(name="inverse", options=dict(start=0.05, every_steps=EPOCH))
        config.losses.mix = dict(name="m2_mix", inputs=inputs, weight=falling, options=dict(temperature=0.07))
    config.optimizer.learning_rate = 3e-4 if tuned else 3e-3
    config.optimizer.warmup_steps = 20
    config.train.steps = (20 if arg.quick else 9 * EPOCH) if tuned else (40 if arg.quick else 250)
    config.checkpoint.every_steps = config.train.steps
    config.checkpoint.keep_last = 1
    return config.lock()


def measure(workdirs: Mapping[str, pathlib.Path]) -> dict[str, np.ndarray]:
    """By run, one number for each image of an unseen character of the new script.

    `<run>_gap` is its part in the distance of both sides' centroids, `<run>_align` minus the squared distance to its name,
    `<run>_uniform` minus the uniformity of both sides there, `<run>_new` the reciprocal rank of its first right name; `<run>_old` is that
    of as many images of the other scripts.
    """
    data, arms = Glyphs(split="unseen", size=SIZE), {}
    task = data.retrieval()
    is_new = np.array(task.groups) == NEW
    new, old = np.flatnonzero(is_new), np.flatnonzero(~is_new)
    old = old[np.linspace(0, len(old) - 1, len(new)).astype(int)]
    names, own = np.unique([task.texts.index(data[i]["text"]) for i in new], return_inverse=True)
    for run, workdir in workdirs.items():
        model = retrieval.load(workdir)
        images, texts = model.encode(task.images, "image"), model.encode(task.texts, "text")
        reciprocal = 1 / (1 + metrics.ranks(images, texts, np.asarray(task.relevant)).reference)
        x, y = images[new].astype(np.float64), texts[names[own]].astype(np.float64)
        between = (x - y).mean(0)
        arms |= {
            f"{run}_gap": (x - y) @ between / np.linalg.norm(between),  # of which the mean is the length of `between`
            f"{run}_align": -np.square(x - y).sum(1),
            f"{run}_uniform": (spread(x) + spread(texts[names])[own]) / 2,
            f"{run}_new": reciprocal[new],
            f"{run}_old": reciprocal[old],
        }
    return arms


CLAIM = Claim(
    title="Geodesic multi-modal mixup",
    says="Learning a new script with mixtures of images and their names as negatives leaves the two sides nearer to each other.",
    file=pathlib.Path(__file__),
    runs=("first", "clip", "mix"),
    measure=measure,
    metric="modality gap",
    contrasts=(
        Contrast("clip_gap", "mix_gap", 0.02),
        Contrast("mix_new", "clip_new", 0.03),
        Contrast("mix_old", "clip_old", 0.03),
        Contrast("mix_align", "clip_align", 0.02),
        Contrast("mix_uniform", "clip_uniform", 0.05),
        Contrast("clip_new", "first_new", 0.03),
        Contrast("first_old", "clip_old", 0.03),
    ),
    first={"clip": "first", "mix": "first"},
)
