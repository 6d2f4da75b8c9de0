"""CLIP-style model on rendered characters and their Unicode names; needs no download and no accelerator.

    python -m launch.train --config=configs/glyphs.py[:loss=sigmoid] --workdir=runs/glyphs

The eval split holds 500 characters that training never shows, in any face: names have to be put together from known words.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    arg = common.parse_arg(arg, loss="infonce", smoke=False)
    config = common.base()
    size, length, vocab_size = 32, 16, 1024  # 16 tokens hold 99 names of 100 whole
    config.data.global_batch = 256
    config.data.sources = dict(main=_glyphs("train", size) | dict(weight=1.0))
    config.data.tokenizer = dict(name="bpe", options=dict(vocab_size=vocab_size))
    config.data.transforms = dict(
        # keep_inside: a move that cuts the accent off a capital would make its name wrong.
        image=dict(name="augment", options=dict(shift=0.08, scale=0.1, rotate=6.0, noise=0.04, keep_inside=True)),
        text=dict(name="tokenize", options=dict(length=length)),
    )
    # Convolutions: in 900 steps and about as much time (one seed each) a ViT of 16 patches reached 0.38, a residual network 0.49.
    image = dict(image_size=size, channels=1, widths=(32, 64, 128, 192), blocks=(1, 1, 1, 1), embed_dim=128)
    text = dict(vocab_size=vocab_size, length=length, width=128, layers=1, heads=4, causal=False, pooling="mean", embed_dim=128)
    config.model.towers = dict(image=dict(name="resnet", options=image), text=dict(name="text", options=text))
    config.model.views = dict(image="image", text="text")
    # Positives: the same character, or another one that looks the same in this face.
    inputs = dict(zq="z_image", zp="z_text", id="id", alias="pixel_id")
    config.losses.main = dict(name=arg.loss, inputs=inputs, weight=1.0, options={})
    if arg.loss == "sigmoid":
        config.model.temperature_init, config.model.logit_bias_init = 0.1, -10.0
    config.optimizer.learning_rate = 2e-3
    config.optimizer.ema_decay = 0.99
    config.train.steps = 20 if arg.smoke else 1200
    config.checkpoint.every_steps = 10 if arg.smoke else 240
    config.checkpoint.best = "unseen"
    data, every = _glyphs("unseen", size), config.checkpoint.every_steps
    config.evals.unseen = dict(name="image_text_retrieval", every_steps=every, data=data, options={}, goal=0.55)
    config.evals.script = dict(name="zeroshot", every_steps=every, data=data, options={})
    config.evals.loss = dict(name="held_out_loss", every_steps=every, data=data, options=dict(batch=256))
    return config.lock()


def _glyphs(split: str, size: int) -> dict:
    return dict(name="glyphs", options=dict(split=split, size=size))
