"""Emoji and their names, from random init: 2,126 pictures of OpenMoji in 72 px, 236 held out.

    python -m launch.train --config=configs/openmoji.py:path=FOLDER --workdir=runs/openmoji

FOLDER holds `png/`, and `train.jsonl` and `held_out.jsonl` made of the published `openmoji.json`, without skin tones:

    python -c "import json, random; rows = [r | {'image': r['hexcode'] + '.png'} for r in json.load(open('openmoji.json'))
    if not r['skintone']]; random.Random(0).shuffle(rows); [open(name, 'w').writelines(json.dumps(r) + chr(10) for r in part)
    for name, part in (('held_out.jsonl', rows[:236]), ('train.jsonl', rows[236:]))]"

A caption is the name or one of the lists of tags, drawn in each epoch; held-out emoji rank all captions of all held-out emoji. They have
transparent grounds, which show white. With `smoke` and no path, digits stand in for emoji.

Last measured (2026-11-21, 7bfb0ba, two shared cores at 38 GFLOP/s, 3 min 29 s): img2txt recall@1 0.051, recall@10 0.233, txt2img
0.055, 0.273; after 100 steps img2txt recall@1 0.038, untrained 0.004 and recall@10 0.042, by chance 0.004.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    arg = common.parse_arg(arg, path="", size=48, steps=200, smoke=False)
    config = common.base()
    vocab_size, length = 1024, 16
    config.data.global_batch = 64 if arg.smoke else 128
    config.data.sources = dict(main=_emoji(arg, "train") | dict(weight=1.0))
    config.data.tokenizer = dict(name="bpe", options=dict(vocab_size=vocab_size))
    # No flips: an arrow to the left is no arrow to the right.
    change = dict(area=(0.7, 1.0), jitter=(0.2, 0.2, 0.2, 0.05), cutout=0.2)
    config.data.transforms = dict(
        image=dict(name="random_crop", options=dict(height=arg.size, width=arg.size) | change),
        text=dict(name="tokenize", options=dict(length=length)),
    )
    image = dict(image_size=arg.size, channels=3, widths=(32, 64, 96, 128), blocks=(1, 1, 1, 1), embed_dim=128, dropout=0.1)
    text = dict(
        vocab_size=vocab_size, length=length, width=128, layers=0, heads=4, causal=False, pooling="mean", embed_dim=128, dropout=0.1
    )  # fmt: skip
    config.model.towers = dict(image=dict(name="resnet", options=image), text=dict(name="text", options=text))
    config.model.views = dict(image="image", text="text")
    config.losses.main = dict(name="infonce", inputs=dict(zq="z_image", zp="z_text", id="id"), weight=1.0, options={})
    config.optimizer.learning_rate = 1e-3
    config.optimizer.ema_decay = 0.98
    config.train.steps = 20 if arg.smoke else arg.steps
    config.checkpoint.every_steps = 10 if arg.smoke else 100
    config.checkpoint.best = "held_out"
    held_out = dict(name="image_text_retrieval", every_steps=config.checkpoint.every_steps, data=_emoji(arg, "held_out"), options={})
    config.evals.held_out = held_out
    return config.lock()


def _emoji(arg: ConfigDict, part: str) -> dict:
    if arg.smoke and not arg.path:
        return dict(name="digits", options=dict(split="train" if part == "train" else "test"))
    columns = dict(image="image", text=("annotation", "tags", "openmoji_tags"))
    return dict(name="captions", options=dict(files=(f"{arg.path}/{part}.jsonl",), root=f"{arg.path}/png", **columns))
