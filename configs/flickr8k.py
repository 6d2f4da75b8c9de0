"""Photographs and what people say of them, from random init: a tiny model on 600 photos of Flickr8k, five captions each.

    head -3001 captions.csv > train.csv; (head -1 captions.csv; tail -n +3002 captions.csv) > held_out.csv
    python -m launch.train --config=configs/flickr8k.py:path=FOLDER --workdir=runs/flickr8k

FOLDER holds `images/` and the two files, whose columns are `image` and `caption`. One caption of a photo is drawn in each epoch; held-out
photos rank all captions of 100 photos, of which five are right. With `path=FOLDER,naflex` each photo keeps its shape, in as many patches
of 8 pixels as a square of 48 has. With `smoke` and no path, digits stand in for photos.

Last measured (2026-11-21, 7bfb0ba, two shared cores at 38 GFLOP/s, 2 min 56 s): img2txt recall@1 0.030, recall@10 0.170, txt2img
0.026, 0.236; after 100 steps img2txt recall@1 0.020, untrained 0.010 and recall@10 0.070, by chance 0.010. With `naflex` (e02e85a, the
same day, two shared cores at 46 GFLOP/s, 3 min 24 s): img2txt recall@1 0.050, recall@10 0.200, txt2img 0.046, 0.236; after 100 steps
img2txt recall@1 0.030.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    arg = common.parse_arg(arg, path="", size=48, steps=200, naflex=False, smoke=False)
    config = common.base()
    vocab_size, length = 1024, 24
    config.data.global_batch = 64 if arg.smoke else 128
    config.data.sources = dict(main=_photos(arg, "train") | dict(weight=1.0))
    config.data.tokenizer = dict(name="bpe", options=dict(vocab_size=vocab_size))
    # Few photos: crops down to half of one, mirrored and in other colours, so that they are not learned by heart at once.
    change = dict(area=(0.5, 1.0), flip=0.5, jitter=(0.4, 0.4, 0.4, 0.1), grey_share=0.1)
    config.data.transforms = dict(
        image=dict(name="random_crop", options=dict(height=arg.size, width=arg.size, crop=True) | change),
        text=dict(name="tokenize", options=dict(length=length)),
    )
    image = dict(image_size=arg.size, channels=3, widths=(32, 64, 96, 128), blocks=(1, 1, 1, 1), embed_dim=128, dropout=0.2)
    text = dict(
        vocab_size=vocab_size, length=length, width=128, layers=0, heads=4, causal=False, pooling="mean", embed_dim=128, dropout=0.2
    )  # fmt: skip
    config.model.towers = dict(image=dict(name="resnet", options=image), text=dict(name="text", options=text))
    if arg.naflex:
        config.data.transforms.image = dict(name="patches", options=dict(patch=8, budget=(arg.size // 8) ** 2, flip=0.5))
        patches = dict(grid=arg.size // 8, patch_size=8, channels=3, width=128, layers=2, heads=4, embed_dim=128, dropout=0.2)
        config.model.towers.image = dict(name="naflex", options=patches)
    config.model.views = dict(image="image", text="text")
    config.losses.main = dict(name="infonce", inputs=dict(zq="z_image", zp="z_text", id="id"), weight=1.0, options={})
    config.optimizer.learning_rate = 1e-3
    config.optimizer.ema_decay = 0.98
    config.train.steps = 20 if arg.smoke else arg.steps
    config.checkpoint.every_steps = 10 if arg.smoke else 100
    config.checkpoint.best = "held_out"
    held_out = dict(name="image_text_retrieval", every_steps=config.checkpoint.every_steps, data=_photos(arg, "held_out"), options={})
    config.evals.held_out = held_out
    return config.lock()


def _photos(arg: ConfigDict, part: str) -> dict:
    if arg.smoke and not arg.path:
        return dict(name="digits", options=dict(split="train" if part == "train" else "test"))
    columns = dict(image="image", text=("caption",), by="image")
    return dict(name="captions", options=dict(files=(f"{arg.path}/{part}.csv",), root=f"{arg.path}/images", **columns))
