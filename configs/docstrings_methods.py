"""Functions and their docstrings, as in `configs/code_search.py`, with objectives beyond a contrastive loss.

    python -m launch.train --config=configs/docstrings_methods.py:method=starbucks --workdir=runs/starbucks

`simcse`: docstrings alone, each read twice with other dropout. `matryoshka_2d`: a drawn layer and width beside the whole model.
`starbucks`: three fixed sizes, the whole model among them. The last two also measure a third of the layers and an eighth of the values.
"""

from ml_collections import ConfigDict

from configs import common

METHODS = ("simcse", "matryoshka_2d", "starbucks")
LAYERS, WIDTH = 6, 256
SMALL = dict(layers=2, truncate_dim=32)
PAIR = dict(zq="z_query", zp="z_passage")


def get_config(arg: str = "") -> ConfigDict:
    arg = common.parse_arg(arg, method="simcse", smoke=False)
    if arg.method not in METHODS:
        raise ValueError(f"the config's argument method={arg.method!r} must be one of: {', '.join(METHODS)}.")
    config = common.base()
    length, vocab_size = 64, 4096
    config.data.global_batch = 64 if arg.smoke else 256
    config.data.sources = dict(main=dict(name="docstrings", weight=1.0, options=dict(names=not arg.smoke)))
    config.data.tokenizer = dict(name="bpe", options=dict(vocab_size=vocab_size))
    tokens = lambda most: dict(name="tokenize", options=dict(length=most))
    config.data.transforms = dict(query=tokens(32), passage=tokens(length))
    text = dict(
        vocab_size=vocab_size, length=length, width=WIDTH, layers=LAYERS, causal=False, pooling="mean", embed_dim=WIDTH, dropout=0.1
    )  # fmt: skip
    config.model.towers = dict(text=dict(name="text", options=text))
    config.model.views = dict(query="text", passage="text")
    config.model.temperature_init = 0.05
    config.optimizer.learning_rate = 5e-4
    config.train.steps = 20 if arg.smoke else 600
    config.checkpoint.every_steps = 10 if arg.smoke else 150
    config.checkpoint.best = "held_out"
    data, every = dict(name="docstrings", options=dict(split="test")), config.checkpoint.every_steps
    config.evals.held_out = dict(name="ranking", every_steps=every, data=data, options={})
    {"simcse": _simcse, "matryoshka_2d": _matryoshka_2d, "starbucks": _starbucks}[arg.method](config)
    return config.lock()


def _simcse(config) -> None:
    # A view has dropout keys of its own: a copy of the text is another pass of it. Names of undocumented functions are no sentences.
    config.data.sources.main.options.names = False
    config.optimizer.freeze = ("^log_logit_scale$",)  # published: 0.05 throughout
    config.data.copies.again, config.data.transforms.again, config.model.views.again = "query", config.data.transforms.query, "text"
    inputs = dict(zq="z_query", zp="z_again", id="id")
    config.losses.main = dict(name="infonce", inputs=inputs, weight=1.0, options=dict(symmetric=False, positives="exclude"))


def _sized(config, name: str, **options) -> None:
    inputs = PAIR | dict(zq_layers="layers_pooled_query", zp_layers="layers_pooled_passage")
    inner = dict(name="infonce", inputs=dict(id="id"), options=dict(symmetric=False))
    config.losses.main = dict(name=name, inputs=inputs, weight=1.0, options=dict(loss=inner, **options))
    config.evals.small = config.evals.held_out.to_dict() | dict(size=SMALL)


def _matryoshka_2d(config) -> None:
    _sized(config, "matryoshka_2d", dims=(16, 32, 64, 128, WIDTH))


def _starbucks(config) -> None:
    _sized(config, "starbucks", sizes=((2, 32), (4, 128), (LAYERS, WIDTH)))
