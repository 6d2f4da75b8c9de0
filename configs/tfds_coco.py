"""Photographs of COCO against their five captions, from the folder that TensorFlow Datasets prepared.

    python -m launch.train --config=configs/tfds_coco.py:path=FOLDER --workdir=runs/coco

FOLDER is `tensorflow_datasets/coco_captions/2014/1.1.0`, which `tfds.builder("coco_captions", file_format="array_record")` and its
`download_and_prepare()` write elsewhere; here neither TensorFlow nor TFDS is needed. Splits are Karpathy's: 113,287 photographs to
train on, 5,000 to choose by, 5,000 to report. With `smoke` towers are toys, and without a path digits stand in.

Last measured: not yet; a folder of nine photographs stands in for COCO in the tests.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    arg = common.parse_arg(arg, path="", global_batch=1024, steps=3300, smoke=False)
    config = common.base()
    size, length, vocab_size = (16, 16, 320) if arg.smoke else (224, 32, 8192)
    config.data.global_batch = 8 if arg.smoke else arg.global_batch
    config.data.threads, config.data.workers = (2, 0) if arg.smoke else (4, 8)
    config.data.sources = dict(main=_photos(arg, "train+restval") | dict(weight=1.0))
    config.data.tokenizer = dict(name="bpe", options=dict(vocab_size=vocab_size))
    config.data.transforms = dict(
        image=dict(name="random_crop", options=dict(height=size, width=size, area=(0.5, 1.0), flip=0.5, crop=True)),
        text=dict(name="tokenize", options=dict(length=length)),
    )
    deep = lambda width, heads: dict(width=32, layers=1, heads=2) if arg.smoke else dict(width=width, layers=12, heads=heads)
    shared = dict(embed_dim=32) if arg.smoke else dict(embed_dim=384, dtype="bfloat16", dropout=0.1)
    image = dict(image_size=size, patch_size=8 if arg.smoke else 16, channels=3) | deep(384, 6) | shared
    text = dict(vocab_size=vocab_size, length=length) | deep(384, 6) | shared
    config.model.towers = dict(image=dict(name="vit", options=image), text=dict(name="text", options=text))
    config.model.views = dict(image="image", text="text")
    config.losses.matmul_dtype = "float32" if arg.smoke else "bfloat16"
    config.losses.main = dict(name="infonce", inputs=dict(zq="z_image", zp="z_text", id="id"), weight=1.0, options={})
    config.optimizer.learning_rate, config.optimizer.warmup_steps = 1e-3, 5 if arg.smoke else 300
    config.optimizer.ema_decay = 0.999
    config.train.steps = 20 if arg.smoke else arg.steps  # 30 epochs
    every = config.checkpoint.every_steps = 10 if arg.smoke else 500
    config.checkpoint.best = "val"
    config.evals.val = dict(name="image_text_retrieval", every_steps=every, data=_photos(arg, "val"), options={})
    config.evals.test = dict(name="image_text_retrieval", every_steps=every, data=_photos(arg, "test"), options={})
    return config.lock()


def _photos(arg: ConfigDict, split: str) -> dict:
    if arg.smoke and not arg.path:
        return dict(name="digits", options=dict(split="test"))
    return dict(name="tfds", options=dict(folder=arg.path, split=split, text=("captions/text",)))
