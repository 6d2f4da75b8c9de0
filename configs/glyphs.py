"""CLIP-style model on rendered characters and their Unicode names; needs no download and no accelerator.

python -m launch.train --config=configs/glyphs.py --workdir=runs/glyphs
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    arg = common.parse_arg(arg, smoke=False, size=32)
    config = common.base()
    glyphs = lambda split: dict(name="glyphs", options=dict(split=split, size=arg.size))
    config.data.global_batch = 256
    config.data.sources = dict(main=glyphs("train") | dict(weight=1.0))
    config.data.tokenizer = dict(name="bpe", options=dict(vocab_size=1024))
    config.data.transforms = dict(
        image=dict(name="augment", options=dict(shift=0.08, scale=0.1, rotate=6.0, noise=0.04, keep_inside=True)),
        text=dict(name="tokenize", options=dict(length=20)),
    )
    image = dict(image_size=arg.size, patch_size=8, channels=1, width=128, layers=4, heads=4, embed_dim=128)
    text = dict(vocab_size=1024, length=20, width=128, layers=2, heads=4, embed_dim=128)
    config.model.towers = dict(image=dict(name="vit", options=image), text=dict(name="text", options=text))
    config.model.views = dict(image="image", text="text")
    inputs = dict(zq="z_image", zp="z_text", id="id", alias="pixel_id")
    config.losses.main = dict(name="infonce", inputs=inputs, weight=1.0, options=dict(symmetric=True))
    config.train.steps = 20 if arg.smoke else 1000
    config.checkpoint.every_steps = 10 if arg.smoke else 200
    config.evals.unseen = dict(name="image_text_retrieval", every_steps=config.checkpoint.every_steps, data=glyphs("unseen"), options={})
    config.evals.script = dict(name="zeroshot", every_steps=config.checkpoint.every_steps, data=glyphs("unseen"), options={})
    config.evals.loss = dict(
        name="held_out_loss", every_steps=config.checkpoint.every_steps, data=glyphs("unseen"), options=dict(batch=256)
    )
    config.checkpoint.best = "unseen"
    return config.lock()
