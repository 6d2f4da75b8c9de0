"""Rendered characters and their names, as in `configs/glyphs.py`, with objectives beyond a contrastive loss.

    python -m launch.train --config=configs/glyphs_methods.py:method=mochi --workdir=runs/mochi

`mochi`: keys from an average of the text tower, negatives from a queue, mixed into harder ones. `m2_mix`: mixtures of both sides as further
negatives, from random init and at a learned temperature where the paper tunes a finished model at 0.01. `mi_mix`: plain pairs for a third
of the steps, then names whose hidden states are mixed. `slip`: two more views of each image, whose projected vectors the projector reads.
`structure_clip`: beside each name one that is false of the image by a word. `clim`: plain pairs for three quarters of the steps, then tiles
of mosaics against their names, which stay as they are. With a tower that stands still: `lit`, the image tower of an earlier run, whose
workdir is `path`; `llm2clip`, a sentence-transformers model of BERT's kind, in the folder `path`, behind a residual adapter on the text
side. With `smoke` and no path, the tower that stands still is a random one.
"""

from ml_collections import ConfigDict

from configs import common

PAIR = dict(zq="z_image", zp="z_text")
LABELS = dict(id="id", alias="pixel_id")


def get_config(arg: str = "") -> ConfigDict:
    arg = common.parse_arg(arg, method="mochi", path="", smoke=False)
    if arg.method not in METHODS:
        raise ValueError(f"the config's argument method={arg.method!r} must be one of: {', '.join(METHODS)}.")
    if arg.method in ("lit", "llm2clip") and not (arg.path or arg.smoke):
        raise ValueError(f"method={arg.method} starts from a finished tower: add path=..., as the head of configs/glyphs_methods.py says.")
    config = common.base()
    size, length, vocab_size = 32, 16, 1024
    config.data.global_batch = 256
    config.data.sources = dict(main=dict(name="glyphs", weight=1.0, options=dict(split="train", size=size)))
    config.data.tokenizer = dict(name="bpe", options=dict(vocab_size=vocab_size))
    # Whole characters in each view: a crop or a flip would make another one of it.
    image_view = dict(name="augment", options=dict(shift=0.08, scale=0.1, rotate=6.0, noise=0.04, keep_inside=True))
    config.data.transforms = dict(image=image_view, text=dict(name="tokenize", options=dict(length=length)))
    image = dict(image_size=size, channels=1, widths=(32, 64, 128, 192), blocks=(1, 1, 1, 1), embed_dim=128)
    text = dict(vocab_size=vocab_size, length=length, width=128, layers=1, heads=4, causal=False, pooling="mean", embed_dim=128)
    config.model.towers = dict(image=dict(name="resnet", options=image), text=dict(name="text", options=text))
    config.model.views = dict(image="image", text="text")
    config.optimizer.learning_rate = 2e-3
    config.optimizer.ema_decay = 0.99
    config.train.steps = 20 if arg.smoke else 1200
    config.checkpoint.every_steps = 10 if arg.smoke else 240
    config.checkpoint.best = "unseen"
    data = dict(name="glyphs", options=dict(split="unseen", size=size))
    config.evals.unseen = dict(name="image_text_retrieval", every_steps=config.checkpoint.every_steps, data=data, options={})
    METHODS[arg.method](config, arg)
    return config.lock()


def _contrast(**changes) -> dict:
    return dict(name="infonce", inputs=PAIR | LABELS, weight=1.0, options={}) | changes


def _mochi(config, arg) -> None:
    config.model.momentum.slow = dict(views=("text",), decay=0.99)
    inputs = dict(z="z_text_slow", id="id", alias="pixel_id")
    config.train.carries.queue = dict(name="queue", inputs=inputs, options=dict(batches=4))
    config.losses.main = _contrast()  # trains the text tower, whose average makes the keys
    options = dict(hardest=64, mixed=64, with_query=16)
    config.losses.mixed = dict(name="mochi", inputs=dict(zq="z_image", zp="z_text_slow") | LABELS, weight=1.0, options=options)


def _m2_mix(config, arg) -> None:
    config.losses.main = _contrast()
    falling = dict(name="inverse", options=dict(start=0.05, every_steps=200))
    config.losses.mixed = dict(name="m2_mix", inputs=PAIR | LABELS, weight=falling, options={})


def _mi_mix(config, arg) -> None:
    change = config.train.steps // 3
    config.model.mixing.mixed = dict(views=("text",), group=16)
    config.losses.main = dict(name="simclr", inputs=PAIR | LABELS, weight=1.0, options=dict(weighted=True), until_step=change)
    inputs = dict(zq="z_text_mixed", zp="z_image", share="share_text_mixed", partner="partner_text_mixed")
    config.losses.mixed = dict(name="mi_mix", inputs=inputs | LABELS, weight=1.0, options={}, from_step=change)


def _slip(config, arg) -> None:
    for view in ("one", "two"):
        config.data.copies[view], config.data.transforms[view], config.model.views[view] = "image", config.data.transforms.image, "image"
    config.model.heads.project = dict(name="projector", inputs=dict(one="z_one", two="z_two"), options=dict(widths=(512, 512, 128)))
    config.losses.main = _contrast()
    views = dict(zq="project_one", zp="project_two") | LABELS
    config.losses.views = dict(name="simclr", inputs=views, weight=1.0, options=dict(temperature=0.1))


def _structure_clip(config, arg) -> None:
    config.data.sources.main.name = "glyph_swaps"
    config.data.transforms.negatives, config.model.views.negatives = config.data.transforms.text, "text"
    config.losses.main = _contrast()
    swaps = PAIR | LABELS | dict(zn="z_negatives", zn_weight="negatives_weight")
    config.losses.swaps = dict(name="structure_clip", inputs=swaps, weight=1.0, options=dict(in_batch=False))
    unseen = config.evals.unseen
    config.evals.swaps = dict(name="candidates", every_steps=unseen.every_steps, data=dict(unseen.data, name="glyph_swaps"), options={})


def _clim(config, arg) -> None:
    config.data.sources.main.name, change = "glyph_mosaics", config.train.steps * 3 // 4
    text = config.data.transforms.text
    config.data.transforms.update(canvas=dict(name="stack", options={}), tiles=text)
    config.model.views.update(canvas="image", tiles="text")
    config.losses.main = _contrast(until_step=change)
    tiles = dict(zq="dense_canvas", zp="z_tiles", boxes="boxes", id="tiles_id", alias="tiles_pixel_id")
    whole = dict(zq="dense_image", zp="z_text", boxes=None) | LABELS  # those of the batch are of tiles
    for label, inputs in (("tiles", tiles), ("whole", whole)):
        config.losses[label] = dict(name="clim", inputs=inputs, weight=1.0, options={}, from_step=change)


def _lit(config, arg) -> None:
    if arg.path:
        config.model.towers.image.init = dict(format="tandem", path=arg.path, keep=())
    config.optimizer.freeze = ("^towers_image/",)
    config.losses.main = _contrast()


def _llm2clip(config, arg) -> None:
    width = config.model.towers.image.options.embed_dim
    if arg.path:
        config.data.tokenizer = dict(name="hf", options=dict(path=arg.path))
        start = dict(format="sentence_transformers", path=arg.path, keep=("/(projection|pool)/",))
        config.model.towers.text = dict(name="bert", options=dict(embed_dim=width, pooling="adapted"), init=start)
    else:
        options = dict(vocab_size=config.model.towers.text.options.vocab_size, width=32, layers=1, heads=2)
        config.model.towers.text = dict(name="bert", options=options | dict(embed_dim=width, pooling="adapted"))
    config.optimizer.freeze = ("^towers_text/(?!projection|pool)",)
    config.losses.main = _contrast()


METHODS = {
    "clim": _clim,
    "lit": _lit,
    "llm2clip": _llm2clip,
    "m2_mix": _m2_mix,
    "mi_mix": _mi_mix,
    "mochi": _mochi,
    "slip": _slip,
    "structure_clip": _structure_clip,
}
