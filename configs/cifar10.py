"""Photographs of ten kinds of things in 32 px against sentences that name the kind: CIFAR-10 as JPEG files in two tar archives.

    python -m launch.train --config=configs/cifar10.py:path=FOLDER --workdir=runs/cifar10

FOLDER holds `train.tar` and `test.tar`, whose members are `<split>/<class>/<name>.jpg`. Accuracy is that of the nearest class, each the
mean of its sentences, on the test archive. With `smoke` and no path, digits stand in for photographs.

Last measured (2026-11-21, 7bfb0ba, two shared cores, 1 min 40 s): accuracy 0.441; after 100 steps 0.378,
untrained 0.087, by chance 0.100.
"""

from ml_collections import ConfigDict

from configs import common

TEMPLATES = ("a photo of a {}.", "a blurry photo of a {}.", "a small picture of the {}.", "{}")


def get_config(arg: str = "") -> ConfigDict:
    arg = common.parse_arg(arg, path="", steps=200, smoke=False)
    config = common.base()
    size, vocab_size, length = 32, 320, 16
    config.data.global_batch = 64 if arg.smoke else 128
    config.data.sources = dict(main=_images(arg, "train") | dict(weight=1.0))
    config.data.tokenizer = dict(name="bpe", options=dict(vocab_size=vocab_size))
    change = dict(area=(0.5, 1.0), flip=0.5, jitter=(0.3, 0.3, 0.3, 0.05), cutout=0.25)
    config.data.transforms = dict(
        image=dict(name="random_crop", options=dict(height=size, width=size) | change),
        text=dict(name="tokenize", options=dict(length=length)),
    )
    image = dict(image_size=size, channels=3, widths=(32, 64, 128), blocks=(1, 1, 1), embed_dim=64)
    text = dict(vocab_size=vocab_size, length=length, width=64, layers=1, heads=2, causal=False, pooling="mean", embed_dim=64)
    config.model.towers = dict(image=dict(name="resnet", options=image), text=dict(name="text", options=text))
    config.model.views = dict(image="image", text="text")
    # Forty sentences in all: most of a batch is several positives of each other, by `id`.
    config.losses.main = dict(name="infonce", inputs=dict(zq="z_image", zp="z_text", id="id"), weight=1.0, options=dict(positives="mean"))
    config.optimizer.learning_rate = 2e-3
    config.optimizer.ema_decay = 0.98
    config.train.steps = 20 if arg.smoke else arg.steps
    config.checkpoint.every_steps = 10 if arg.smoke else 100
    config.checkpoint.best = "test"
    config.evals.test = dict(name="zeroshot", every_steps=config.checkpoint.every_steps, data=_images(arg, "test"), options={})
    return config.lock()


def _images(arg: ConfigDict, split: str) -> dict:
    if arg.smoke and not arg.path:
        return dict(name="digits", options=dict(split=split))
    return dict(name="image_folder", options=dict(folder=f"{arg.path}/{split}.tar", templates=TEMPLATES))
