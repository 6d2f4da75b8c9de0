"""S057, LLM2CLIP: does a frozen model of language make a better text side for images than a tower that starts at random?

Retrieval of the names of characters that training never shows by their images. The frozen model is all-MiniLM-L6-v2, where the paper has
a language model that was first tuned to tell captions apart; that first stage is left out, since a character has no second caption here.
Its mean over tokens goes through the paper's residual adapter, or through one linear map. Names are a small language, so the tower from
scratch may win.
"""

import pathlib
from collections.abc import Mapping

import numpy as np
from ml_collections import ConfigDict

import retrieval
from claims import code_search
from claims.claim import Claim, Contrast
from configs import common
from evals import metrics
from input_pipeline.sources.glyphs import Glyphs

RUNS = ("scratch", "linear", "adapter")
SIZE, WIDTH = 24, 96


def get_config(arg: str = "") -> ConfigDict:
    """Of one run, a name in `RUNS`."""
    arg = common.parse_arg(arg, run="adapter", quick=False)
    config = common.base()
    config.data.global_batch = 128
    config.data.sources = dict(main=dict(name="glyphs", weight=1.0, options=dict(split="train", size=SIZE)))
    path = code_search.minilm()
    config.data.tokenizer = dict(name="hf", options=dict(path=path))
    view = dict(name="augment", options=dict(shift=0.08, scale=0.1, rotate=6.0, noise=0.04, keep_inside=True))
    config.data.transforms = dict(image=view, text=dict(name="tokenize", options=dict(length=16)))
    image = dict(image_size=SIZE, channels=1, widths=(24, 48, 96), blocks=(1, 1, 1), embed_dim=WIDTH)
    if arg.run == "scratch":
        options = dict(vocab_size=30_522, length=16, width=WIDTH, layers=1, heads=4, causal=False, pooling="mean", embed_dim=WIDTH)
        text = dict(name="text", options=options)
    else:
        pooling, added = ("mean", "projection") if arg.run == "linear" else ("adapted", "projection|pool")
        start = dict(format="sentence_transformers", path=path, keep=(f"/({added})/",))
        text = dict(name="bert", options=dict(embed_dim=WIDTH, pooling=pooling), init=start)
        config.optimizer.freeze = (f"towers_text/(?!{added})",)
    config.model.towers = dict(image=dict(name="resnet", options=image), text=text)
    config.model.views = dict(image="image", text="text")
    inputs = dict(zq="z_image", zp="z_text", id="id", alias="pixel_id")
    config.losses.main = dict(name="infonce", inputs=inputs, weight=1.0, options={})
    config.optimizer.learning_rate = 3e-3
    config.optimizer.warmup_steps = 20
    config.train.steps = 12 if arg.quick else 150
    config.checkpoint.every_steps = config.train.steps
    config.checkpoint.keep_last = 1
    return config.lock()


def measure(workdirs: Mapping[str, pathlib.Path]) -> dict[str, np.ndarray]:
    """1 / rank of the first right name for each image of an unseen character, by run."""
    task, found = Glyphs(split="unseen", size=SIZE).retrieval(), {}
    for run, workdir in workdirs.items():
        model = retrieval.load(workdir)
        images, texts = model.encode(task.images, "image"), model.encode(task.texts, "text")
        found[run] = 1 / (1 + metrics.ranks(images, texts, np.asarray(task.relevant)).reference)
    return found


CLAIM = Claim(
    title="LLM2CLIP",
    says="A frozen MiniLM behind a residual adapter makes a better text side for images of characters than one behind a linear map.",
    file=pathlib.Path(__file__),
    runs=RUNS,
    measure=measure,
    metric="img2txt MRR",
    contrasts=(Contrast("adapter", "linear", 0.02), Contrast("adapter", "scratch", 0.02), Contrast("linear", "scratch", 0.02)),
)
