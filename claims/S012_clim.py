"""S012, CLIM: does a model that was tuned on mosaics know what each tile of one says?

Rendered characters and their names, from random init. Both runs learn from single images, with the same batches, for the same steps. Then
the names stand still, and one run goes on with regions of mosaics of four (2 by 2 alone) beside whole images, the other with whole images
alone, for as many images. Each tile of mosaics of characters that training never showed ranks all held-out names.
"""

import pathlib
from collections.abc import Mapping

import numpy as np
from ml_collections import ConfigDict

import retrieval
from claims.claim import Claim, Contrast
from claims.names import reciprocal_ranks
from configs import common
from input_pipeline.sources.glyph_mosaics import GlyphMosaics
from losses.clim import regions

SIZE, GRID = 32, 2
MOSAICS = 500  # of evaluation, four tiles each
STEPS, MORE = 360, 50  # on single images, and of mosaics after them


def get_config(arg: str = "") -> ConfigDict:
    """Of one run: `single` or `mosaic`."""
    arg = common.parse_arg(arg, run="single", quick=False)
    steps, more = (30, 6) if arg.quick else (STEPS, MORE)
    mosaics = arg.run == "mosaic"
    config = common.base()
    config.data.global_batch = 128
    # Of equally many records under one label, so both sources are read in one order.
    options = dict(size=SIZE) | (dict(grids=(GRID,)) if mosaics else {})
    config.data.sources = dict(main=dict(name="glyph_mosaics" if mosaics else "glyphs", weight=1.0, options=options))
    config.data.tokenizer = dict(name="bpe", options=dict(vocab_size=1024))
    tokens = dict(name="tokenize", options=dict(length=16))
    moved = dict(name="augment", options=dict(shift=0.08, scale=0.1, rotate=6.0, noise=0.04, keep_inside=True))
    config.data.transforms = dict(image=moved, text=tokens)
    image = dict(image_size=SIZE, channels=1, widths=(32, 64, 128), blocks=(1, 1, 1), embed_dim=128)  # ends in 4 x 4 positions
    text = dict(vocab_size=1024, length=16, width=128, layers=1, heads=4, causal=False, pooling="mean", embed_dim=128)
    config.model.towers = dict(image=dict(name="resnet", options=image), text=dict(name="text", options=text))
    config.model.views = dict(image="image", text="text")
    labels = dict(id="id", alias="pixel_id")
    config.losses.main = dict(name="infonce", inputs=dict(zq="z_image", zp="z_text") | labels, weight=1.0, options={}, until_step=steps)
    whole = dict(zq="dense_image", zp="z_text", boxes=None) | labels  # those of a batch are of its tiles
    config.losses.whole = dict(name="clim", inputs=whole, weight=1.0, options={}, from_step=steps)
    if mosaics:
        config.data.transforms.update(canvas=dict(name="stack", options={}), tiles=tokens)
        config.model.views.update(canvas="image", tiles="text")
        tiles = dict(zq="dense_canvas", zp="z_tiles", boxes="boxes", id="tiles_id", alias="tiles_pixel_id")
        config.losses.tiles = dict(name="clim", inputs=tiles, weight=1.0, options={}, from_step=steps)
    # One rate for both lengths, and no decay: names have to stand still once they get no gradient.
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule = dict(name="constant", options={})
    config.optimizer.options.weight_decay = 0.0
    config.train.steps = steps + more * (1 if mosaics else 1 + GRID**2)
    config.checkpoint.every_steps = config.train.steps
    config.checkpoint.keep_last = 1
    return config.lock()


def measure(workdirs: Mapping[str, pathlib.Path]) -> dict[str, np.ndarray]:
    """By run, the reciprocal rank of the name of each tile (`<run>`), and of the same characters as whole images (`<run>_whole`)."""
    data = GlyphMosaics(split="unseen", size=SIZE, grids=(GRID,))
    names = list(data.texts())
    first = {(record["id"], record["pixel_id"]): record for record in map(data.__getitem__, range(len(data)))}
    records = [data[i] for i in range(0, len(data), max(1, len(data) // MOSAICS))]
    tiles = [first[key] for r in records for key in zip(r["tiles_id"].tolist(), r["tiles_pixel_id"].tolist(), strict=True)]
    own = np.array([names.index(tile["text"]) for tile in tiles])
    arms = {}
    for run, workdir in workdirs.items():
        model = retrieval.load(workdir)
        pool = model.encode(names, "text")
        dense = model.dense([record["canvas"] for record in records], "image")
        found = np.asarray(regions(dense, np.stack([record["boxes"] for record in records])))
        whole = model.encode([tile["image"] for tile in tiles], "image")
        for arm, vectors in ((run, found.reshape(len(tiles), -1)), (f"{run}_whole", whole)):
            arms[arm] = reciprocal_ranks(data, vectors, pool, names, own)
    return arms


CLAIM = Claim(
    title="CLIM",
    says="Tuning on mosaics makes the part of an image under a tile say what the tile shows.",
    file=pathlib.Path(__file__),
    runs=("single", "mosaic"),
    measure=measure,
    metric="MRR of names",
    contrasts=(Contrast("mosaic", "single", 0.02), Contrast("mosaic_whole", "single_whole", 0.03)),
)
