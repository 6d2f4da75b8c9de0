"""Functions and their docstrings, as in `configs/code_search.py`, with objectives beyond a contrastive loss of pairs.

    python -m launch.train --config=configs/docstrings_methods.py:method=starbucks --workdir=runs/starbucks

On texts alone: `simcse`, docstrings read twice with other dropout; `whitened`, WhitenedCSE on the bodies of functions, three passes with
shuffled groups of channels whitened in a head. For smaller models: `matryoshka`, five widths, of which the eighth of the values is also
measured; `matryoshka_2d`, a drawn layer and width beside the whole model; `starbucks`, three fixed sizes, the whole model among them. The
last two also measure a third of the layers with an eighth of the values.
After another model: `gist`, a frozen guide that says which candidates are no negatives; `path` is the folder of a sentence-transformers
model of BERT's kind, whose tokenizer the student shares (with `smoke` and no path, a toy guide starts at random). `scores`, a student of a
cross-encoder; `path` is a file whose rows have `query`, `positive`, `label` (0 or 1) and `teacher` (the cross-encoder's score).

What comes of them: `python -m launch.claim X03`, `S128`, `X04`, `S001`, `S109`, `S037`, `S103`.
"""

from ml_collections import ConfigDict

from configs import common

PAIR = dict(zq="z_query", zp="z_passage")


def get_config(arg: str = "") -> ConfigDict:
    arg = common.parse_arg(arg, method="simcse", path="", smoke=False)
    if arg.method not in METHODS:
        raise ValueError(f"the config's argument method={arg.method!r} must be one of: {', '.join(METHODS)}.")
    if not arg.path and (arg.method == "scores" or arg.method == "gist" and not arg.smoke):
        raise ValueError(f"method={arg.method} reads a teacher's work: add path=..., as the head of configs/docstrings_methods.py says.")
    config = common.base()
    length, width, vocab_size = 96, 64 if arg.smoke else 256, 512 if arg.smoke else 4096
    config.data.global_batch = 64 if arg.smoke else 512
    config.data.sources = dict(main=dict(name="docstrings", weight=1.0, options={}))
    config.data.tokenizer = dict(name="bpe", options=dict(vocab_size=vocab_size))
    tokens = lambda most: dict(name="tokenize", options=dict(length=most))
    config.data.transforms = dict(query=tokens(32), passage=tokens(length))
    text = dict(vocab_size=vocab_size, length=length, width=width, layers=0, causal=False, pooling="mean", embed_dim=width, dropout=0.2)
    config.model.towers = dict(text=dict(name="text", options=text))
    config.model.views = dict(query="text", passage="text")
    config.model.temperature_init = 0.05
    config.optimizer.learning_rate = 2e-3
    config.optimizer.ema_decay = 0.99
    config.train.steps = 20 if arg.smoke else 600
    config.checkpoint.every_steps = 10 if arg.smoke else 150
    config.checkpoint.best = "held_out"
    data, every = dict(name="docstrings", options=dict(split="test")), config.checkpoint.every_steps
    config.evals.held_out = dict(name="ranking", every_steps=every, data=data, options=dict(controls=("bm25",)))
    METHODS[arg.method](config, arg)
    return config.lock()


def _deep(config, arg) -> None:
    """Six layers, which take shorter texts, smaller batches and smaller steps."""
    config.model.towers.text.options.update(layers=3 if arg.smoke else 6, dropout=0.1, length=64)
    config.data.transforms.passage.options.length = 64
    config.data.global_batch = min(config.data.global_batch, 256)
    config.optimizer.learning_rate = 5e-4
    config.optimizer.ema_decay = None


def _simcse(config, arg) -> None:
    _deep(config, arg)
    config.optimizer.freeze = ("^log_logit_scale$",)  # published: 0.05 throughout
    # A view has dropout keys of its own: a copy of the text is another pass of it.
    config.data.copies.again, config.data.transforms.again, config.model.views.again = "query", config.data.transforms.query, "text"
    inputs = dict(zq="z_query", zp="z_again", id="id")
    config.losses.main = dict(name="infonce", inputs=inputs, weight=1.0, options=dict(symmetric=False, positives="exclude"))


def _whitened(config, arg) -> None:
    config.optimizer.freeze = ("^log_logit_scale$",)
    for view in ("two", "three"):
        config.data.copies[view], config.data.transforms[view] = "passage", config.data.transforms.passage
        config.model.views[view] = "text"
        inputs = dict(zq="cse_one", zp=f"cse_{view}", id="id")
        config.losses[view] = dict(name="infonce", inputs=inputs, weight=1.0, options=dict(symmetric=False))
    inputs = dict(one="z_passage", two="z_two", three="z_three", key="key")
    # Eight channels each: the paper has 128 groups of six.
    groups = config.model.towers.text.options.width // 8
    config.model.heads.cse = dict(name="shuffled_whitening", inputs=inputs, options=dict(groups=groups))


def _sized(config, arg, states: dict, **small: int) -> None:
    """A loss at many sizes, which may read inner states, and an evaluation of a small one."""
    config.data.sources.main.options.names = not arg.smoke  # undocumented functions too: twice as many pairs
    inner = dict(name="infonce", inputs=dict(id="id"), options=dict(symmetric=False))
    config.losses.main = dict(name=arg.method, inputs=PAIR | states, weight=1.0, options=dict(loss=inner))
    small["truncate_dim"] = config.model.towers.text.options.width // 8
    config.evals.small = config.evals.held_out.to_dict() | dict(options={}, size=small)  # BM25 is what it was


def _layered(config, arg) -> tuple[int, int]:
    """A loss that reads the states of all layers; how many there are, and their width."""
    _deep(config, arg)
    options, states = config.model.towers.text.options, dict(zq_layers="layers_pooled_query", zp_layers="layers_pooled_passage")
    _sized(config, arg, states, layers=options.layers // 3)
    return options.layers, options.width


def _dims(width: int) -> tuple[int, ...]:
    return tuple(width // factor for factor in (16, 8, 4, 2, 1))


def _matryoshka(config, arg) -> None:
    _sized(config, arg, {})
    config.losses.main.options.dims = _dims(config.model.towers.text.options.width)


def _matryoshka_2d(config, arg) -> None:
    _, width = _layered(config, arg)
    config.losses.main.options.dims = _dims(width)


def _starbucks(config, arg) -> None:
    layers, width = _layered(config, arg)
    config.losses.main.options.sizes = ((layers // 3, width // 8), (2 * layers // 3, width // 2), (layers, width))


def _gist(config, arg) -> None:
    if not arg.path:
        guide = dict(name="bert", options=dict(vocab_size=config.model.towers.text.options.vocab_size, width=32, layers=1, heads=2))
    else:
        config.data.global_batch = 128  # the guide is most of the work
        config.data.tokenizer = dict(name="hf", options=dict(path=arg.path))
        config.model.towers.text.options.vocab_size = 30_522
        guide = dict(name="bert", options={}, init=dict(format="sentence_transformers", path=arg.path, keep=()))
    config.model.towers.guide, config.model.companions = guide, ("guide",)
    for view in ("query", "passage"):
        config.data.copies[f"{view}_guide"], config.model.views[f"{view}_guide"] = view, "guide"
        config.data.transforms[f"{view}_guide"] = config.data.transforms[view]
    inputs = PAIR | dict(zq_guide="z_query_guide", zp_guide="z_passage_guide", id="id")
    config.losses.main = dict(name="gist", inputs=inputs, weight=1.0, options={})


def _scores(config, arg) -> None:
    options = dict(files=(arg.path,), numbers=("label", "teacher"))
    config.data.sources.main = dict(name="pairs", weight=1.0, options=options)
    # A dot head: vectors are what the evaluation searches by.
    config.model.heads.pair = dict(name="pair_score", inputs=dict(one="z_query", two="z_passage"), options=dict(kind="dot"))
    config.losses.main = dict(name="score_distill", inputs=dict(score="pair_score"), weight=1.0, options=dict(share=0.5))


METHODS = {
    "gist": _gist,
    "matryoshka": _matryoshka,
    "matryoshka_2d": _matryoshka_2d,
    "scores": _scores,
    "simcse": _simcse,
    "starbucks": _starbucks,
    "whitened": _whitened,
}
