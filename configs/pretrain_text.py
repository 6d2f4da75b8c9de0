"""Finds a function by its docstring after pretraining on unlabelled texts: two stages, from random init, no download.

    python -m launch.train --config=configs/pretrain_text.py:pretrain,objective=retromae --workdir=runs/first
    python -m launch.train --config=configs/pretrain_text.py:contrast,first=runs/first --workdir=runs/second

The first stage reads docstrings and function bodies as single texts and learns one objective: `mlm` (hidden tokens), `retromae` (and the
text from its vector), `dupmae` (and its bag of words) or `ict` (a sentence or line finds the rest of its text). The second one starts its
tower from there, with the same token ids, and learns from pairs, one function in `every`. Heads stay behind. What the released code of
RetroMAE does otherwise: BERT to start from, texts of 512 tokens, the first token's vector (`sentence=cls`, in
both stages), a rate of 1e-4.
"""

from ml_collections import ConfigDict

from configs import common

CHOICES = dict(stage=("pretrain", "contrast"), objective=("mlm", "retromae", "dupmae", "ict"), sentence=("mean", "cls"))
WORDS, LENGTH, QUERY = 4096, 64, 32
TOWER = "towers_text/"


def get_config(arg: str = "") -> ConfigDict:
    arg = common.parse_arg(arg, stage="pretrain", objective="retromae", first="runs/first", every=10, sentence="mean", smoke=False)
    for name, offered in CHOICES.items():
        if arg[name] not in offered:
            raise ValueError(f"the config's argument {name}={arg[name]!r} must be one of: {', '.join(offered)}.")
    config = common.base()
    config.data.global_batch = 16 if arg.smoke else 64
    config.data.tokenizer = dict(name="bpe", options=dict(vocab_size=WORDS))
    # A row more than the tokenizer has: the hidden token.
    options = dict(vocab_size=WORDS + 1, length=LENGTH, width=128, layers=1, heads=4, pooling=arg.sentence, norm_eps=1e-6, dropout=0.1)
    config.model.towers = dict(text=dict(name="bert", options=options))
    config.model.temperature_init = 0.05
    if arg.stage == "contrast":
        _pairs(config, arg)
    elif arg.objective == "ict":
        _inverse_cloze(config, arg)
    else:
        _tokens(config, arg)
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup_steps = 20
    config.train.steps = 10 if arg.smoke else dict(pretrain=2000, contrast=300)[arg.stage]
    config.checkpoint.every_steps = config.train.steps if arg.smoke else 100
    return config.lock()


def _tokens(config: ConfigDict, arg: ConfigDict) -> None:
    """Objectives on the tokens of single texts."""
    config.data.sources = {kind: _texts((kind,), arg) for kind in (("docstring",) if arg.smoke else ("docstring", "body"))}
    config.data.transforms = dict(text=dict(name="mask_tokens", options=dict(length=LENGTH, mask_id=WORDS, share=0.3)))
    config.model.views = dict(text="text")
    table = dict(tokens="tokens_text", table=f"{TOWER}token_embedding")
    states = lambda name: dict(states=f"head_{name}", table="head_table", bias="head_bias")
    loss = lambda name, weight, **inputs: dict(name=name, inputs=inputs, weight=weight, options={})
    if arg.objective == "mlm":
        config.model.heads.head = dict(name="masked_language", inputs=table, options=dict(norm_eps=1e-6))
        config.losses.hidden = loss("masked_language", 1.0, **states("states"), target="text_target")
        return
    rows = dict(ids="text", own="text_own", mask="text_mask", key="key", places=f"{TOWER}position_embedding")
    rows |= dict(types=f"{TOWER}type_embedding", scale=f"{TOWER}norm_embedding/scale", bias=f"{TOWER}norm_embedding/bias")
    config.model.heads.head = dict(name="retromae", inputs=table | rows, options=dict(heads=4, sentence=arg.sentence, norm_eps=1e-6))
    config.losses.hidden = loss("masked_language", 1.0, **states("encoder"), target="text_target")
    config.losses.decoder = loss("masked_language", 1.0, **states("decoder"), target="text_own")
    if arg.objective == "dupmae":
        config.losses.words = loss("bag_of_words", 0.1, **states("encoder"), own="text_own")


def _inverse_cloze(config: ConfigDict, arg: ConfigDict) -> None:
    """Sentences of docstrings and lines of bodies find the rest."""
    units = dict(docstring="sentence") if arg.smoke else dict(docstring="sentence", body="line")
    config.data.sources = {kind: _texts((kind,), arg) | dict(inverse_cloze=dict(unit=unit)) for kind, unit in units.items()}
    _sides(config)


def _pairs(config: ConfigDict, arg: ConfigDict) -> None:
    """The second stage."""
    config.data.sources = dict(main=dict(name="docstrings", weight=1.0, options=dict(every=arg.every)))
    config.data.tokenizer = dict(name="saved", options=dict(path=f"{arg.first}/tokenizer"))
    config.model.towers.text.init = dict(format="tandem", path=arg.first, keep=())
    _sides(config)
    data = dict(name="docstrings", options=dict(split="test"))
    config.evals.held_out = dict(name="ranking", every_steps=100, data=data, options=dict(controls=("bm25",)))


def _sides(config: ConfigDict) -> None:
    tokens = lambda most: dict(name="tokenize", options=dict(length=most))
    config.data.transforms = dict(query=tokens(QUERY), passage=tokens(LENGTH))
    config.model.views = dict(query="text", passage="text")
    inputs = dict(zq="z_query", zp="z_passage", id="id")
    config.losses.main = dict(name="infonce", inputs=inputs, weight=1.0, options=dict(symmetric=True))


def _texts(kinds: tuple[str, ...], arg: ConfigDict) -> dict:
    return dict(name="library", weight=1.0, options=dict(kinds=kinds, split="test" if arg.smoke else "train"))
