"""CLIP with a ViT-B/16 on image-text pairs from the web, in tar shards as img2dataset writes them.

    python -m launch.train --config=configs/webdataset.py:shards=cc12m/{00000..01242}.tar,held_out=cc12m/01243.tar --workdir=runs/cc12m

Captions are in `.txt` members. A record that is missing, empty, torn or too large is replaced by its successor and noted in
`bad_records.jsonl`; of such sets about one in a hundred may be. With `smoke` towers are toys, and without shards digits stand in.

Last measured: not yet; shards of nine records stand in for the web in the tests.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    arg = common.parse_arg(arg, shards="", held_out="", global_batch=4096, steps=73_000, smoke=False)
    config = common.base()
    size, length, vocab_size = (16, 16, 320) if arg.smoke else (224, 64, 32_768)
    config.data.global_batch = 8 if arg.smoke else arg.global_batch
    config.data.threads, config.data.workers = (2, 0) if arg.smoke else (8, 8)
    config.data.max_bad_fraction = 0.02
    config.data.sources = dict(main=_pairs(arg, arg.shards) | dict(weight=1.0))
    config.data.tokenizer = dict(name="bpe", options=dict(vocab_size=vocab_size))
    config.data.transforms = dict(
        image=dict(name="random_crop", options=dict(height=size, width=size, crop=True)),
        text=dict(name="tokenize", options=dict(length=length)),
    )
    deep = lambda width, heads: dict(width=32, layers=1, heads=2) if arg.smoke else dict(width=width, layers=12, heads=heads)
    shared = dict(embed_dim=32) if arg.smoke else dict(embed_dim=512, dtype="bfloat16", remat=True)
    image = dict(image_size=size, patch_size=8 if arg.smoke else 16, channels=3, pooling="mean") | deep(768, 12) | shared
    text = dict(vocab_size=vocab_size, length=length) | deep(512, 8) | shared
    config.model.towers = dict(image=dict(name="vit", options=image), text=dict(name="text", options=text))
    config.model.views = dict(image="image", text="text")
    config.losses.matmul_dtype = "float32" if arg.smoke else "bfloat16"
    config.losses.main = dict(name="infonce", inputs=dict(zq="z_image", zp="z_text", id="id"), weight=1.0, options={})
    config.optimizer.learning_rate, config.optimizer.warmup_steps = 1e-3, 5 if arg.smoke else 2000
    config.optimizer.options = dict(b1=0.9, b2=0.98, eps=1e-6, weight_decay=0.2)
    config.train.steps = 20 if arg.smoke else arg.steps  # 300 million pairs
    config.checkpoint.every_steps = 10 if arg.smoke else 2000
    if arg.held_out or arg.smoke:
        data = _pairs(arg, arg.held_out)
        config.evals.held_out = dict(name="image_text_retrieval", every_steps=config.checkpoint.every_steps, data=data, options={})
        config.checkpoint.best = "held_out"
    return config.lock()


def _pairs(arg: ConfigDict, shards: str) -> dict:
    if arg.smoke and not shards:
        return dict(name="digits", options=dict(split="test"))
    return dict(name="webdataset", options=dict(shards=(shards,)))
