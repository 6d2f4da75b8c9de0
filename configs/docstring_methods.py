"""Functions and their docstrings with objectives that need more than pairs: batch statistics, a guide, a teacher.

    python -m launch.train --config=configs/docstring_methods.py:method=whitened --workdir=runs/whitened

`whitened`: WhitenedCSE on the bodies of functions alone, three passes with dropout and shuffled groups of channels whitened in a head.
`gist`: pairs, and a frozen guide that says which candidates are no negatives; `path` is the folder of a sentence-transformers model of
BERT's kind, whose tokenizer the student shares. `scores`: a student of a cross-encoder; `path` is a file whose rows have `query`,
`positive`, `label` (0 or 1) and `teacher` (the cross-encoder's score). With `smoke` and no path, a toy guide starts at random.

What comes of them: `python -m launch.claim S128`, `S037`, `S103`.
"""

from ml_collections import ConfigDict

from configs import common

METHODS = ("whitened", "gist", "scores")


def get_config(arg: str = "") -> ConfigDict:
    arg = common.parse_arg(arg, method="whitened", path="", smoke=False)
    if arg.method not in METHODS:
        raise ValueError(f"the config's argument method={arg.method!r} must be one of: {', '.join(METHODS)}.")
    config = common.base()
    length, width, vocab_size = 96, 256, 512 if arg.smoke else 4096
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
    {"whitened": _whitened, "gist": _gist, "scores": _scores}[arg.method](config, arg)
    return config.lock()


def _whitened(config, arg) -> None:
    for view in ("two", "three"):
        config.data.copies[view], config.data.transforms[view] = "passage", config.data.transforms.passage
        config.model.views[view] = "text"
        inputs = dict(zq="cse_one", zp=f"cse_{view}", id="id")
        config.losses[view] = dict(name="infonce", inputs=inputs, weight=1.0, options=dict(symmetric=False))
    inputs = dict(one="z_passage", two="z_two", three="z_three", key="key")
    # Eight channels each: the paper has 128 groups of six.
    config.model.heads.cse = dict(name="shuffled_whitening", inputs=inputs, options=dict(groups=32))
    config.optimizer.freeze = ("^log_logit_scale$",)


def _gist(config, arg) -> None:
    if arg.smoke and not arg.path:
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
    inputs = dict(zq="z_query", zp="z_passage", zq_guide="z_query_guide", zp_guide="z_passage_guide", id="id")
    config.losses.main = dict(name="gist", inputs=inputs, weight=1.0, options={})


def _scores(config, arg) -> None:
    options = dict(files=(arg.path,), numbers=("label", "teacher"))
    config.data.sources.main = dict(name="pairs", weight=1.0, options=options)
    # A dot head: vectors are what the evaluation searches by.
    config.model.heads.pair = dict(name="pair_score", inputs=dict(one="z_query", two="z_passage"), options=dict(kind="dot"))
    config.losses.main = dict(name="score_distill", inputs=dict(score="pair_score"), weight=1.0, options=dict(share=0.5))
