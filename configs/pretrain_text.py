"""Finds a function by its docstring after pretraining on unlabelled texts: two stages, from random init, no download.

    python -m launch.train --config=configs/pretrain_text.py:pretrain,objective=retromae --workdir=runs/first
    python -m launch.train --config=configs/pretrain_text.py:contrast,first=runs/first --workdir=runs/second

The first stage reads docstrings and function bodies as single texts and learns one objective: `mlm` (hidden tokens), `retromae` (and the
text from its vector), `dupmae` (and its bag of words), `smae` (both of the first at three sizes of a deeper tower, as Starbucks does) or
`ict` (a sentence or line finds the rest of its text). The second one starts its tower from there, with the same token ids, and learns from
pairs, one function in `every`; after `smae` (`contrast,objective=smae`) with the loss of Starbucks, at the same sizes. Heads stay behind.
What the released code of RetroMAE does otherwise: BERT to start from, texts of 512 tokens, whole words hidden, the first token's vector
(`sentence=cls`, in both stages), batches of 256, a rate of 1e-4 after a warm-up of a tenth of the steps, a weight decay of 0.01. That of
Starbucks hides whole words too. Chosen here for `ict`: one tower for both sides, cosines over 0.05 in both directions.
"""

from ml_collections import ConfigDict

from configs import common

CHOICES = dict(stage=("pretrain", "contrast"), objective=("mlm", "retromae", "dupmae", "smae", "ict"), sentence=("mean", "cls"))
WORDS, LENGTH, QUERY = 4096, 64, 32
WIDTH = 128
SIZES = ((1, WIDTH // 4), (2, WIDTH // 2), (3, WIDTH))  # of `smae`: layers and values
TOWER = "towers_text/"
TABLE = dict(  # embeddings of the tower that its head has too
    table=f"{TOWER}token_embedding", places=f"{TOWER}position_embedding", types=f"{TOWER}type_embedding",
    scale=f"{TOWER}norm_embedding/scale", bias=f"{TOWER}norm_embedding/bias",
)  # fmt: skip


def get_config(arg: str = "") -> ConfigDict:
    arg = common.parse_arg(arg, stage="pretrain", objective="retromae", first="runs/first", every=10, sentence="mean", smoke=False)
    for name, offered in CHOICES.items():
        if arg[name] not in offered:
            raise ValueError(f"the config's argument {name}={arg[name]!r} must be one of: {', '.join(offered)}.")
    config = common.base()
    config.data.global_batch = 16 if arg.smoke else 64
    config.data.tokenizer = dict(name="bpe", options=dict(vocab_size=WORDS))
    # A row more than the tokenizer has: the hidden token.
    layers = SIZES[-1][0] if arg.objective == "smae" else 1
    options = dict(vocab_size=WORDS + 1, length=LENGTH, width=WIDTH, layers=layers, heads=4, norm_eps=1e-6, dropout=0.1)
    options["pooling"] = arg.sentence
    config.model.towers = dict(text=dict(name="bert", options=options))
    config.model.temperature_init = 0.05
    if arg.stage == "contrast":
        _pairs(config, arg)
    elif arg.objective == "ict":
        _inverse_cloze(config, arg)
    elif arg.objective == "smae":
        _sizes(config, arg)
    else:
        _tokens(config, arg)
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup_steps = 20
    config.train.steps = 10 if arg.smoke else dict(pretrain=2000, contrast=300)[arg.stage]
    config.checkpoint.every_steps = config.train.steps if arg.smoke else 100
    return config.lock()


def _tokens(config: ConfigDict, arg: ConfigDict) -> None:
    """Objectives on the tokens of single texts."""
    _single_texts(config, arg, share=0.3)
    table = dict(tokens="tokens_text", table=TABLE["table"])
    if arg.objective == "mlm":
        config.model.heads.head = dict(name="masked_language", inputs=table, options=dict(norm_eps=1e-6))
        config.losses.hidden = _loss("masked_language", 1.0, "states", target="text_target")
        return
    rows = TABLE | dict(tokens="tokens_text", ids="text", own="text_own", mask="text_mask", key="key")
    config.model.heads.head = dict(name="retromae", inputs=rows, options=dict(heads=4, sentence=arg.sentence, norm_eps=1e-6))
    config.losses.hidden = _loss("masked_language", 1.0, "encoder", target="text_target")
    config.losses.decoder = _loss("masked_language", 1.0, "decoder", target="text_own")
    if arg.objective == "dupmae":
        config.losses.words = _loss("bag_of_words", 0.1, "encoder", own="text_own")


def _sizes(config: ConfigDict, arg: ConfigDict) -> None:
    """Hidden tokens and a decoder at each size; the decoder reads a copy of the text of which twice as much is hidden."""
    _single_texts(config, arg, share=0.2)
    config.data.copies.emptier = "text"
    config.data.transforms.emptier = dict(name="mask_tokens", options=dict(length=LENGTH, mask_id=WORDS, share=0.4))
    inputs, options = TABLE | dict(layers="layers_text", ids="emptier", mask="text_mask"), dict(heads=4, norm_eps=1e-6)
    config.model.heads.head = dict(name="starbucks_mae", inputs=inputs, options=options | dict(sizes=SIZES, sentence=arg.sentence))
    for layer, m in SIZES:
        for side, target in (("encoder", "text_target"), ("decoder", "emptier_target")):
            config.losses[f"{side}_{layer}"] = _loss("masked_language", 1 / (2 * len(SIZES)), f"{side}_{layer}x{m}", target=target)


def _single_texts(config: ConfigDict, arg: ConfigDict, share: float) -> None:
    """Docstrings and bodies, a share of whose tokens is hidden from the tower."""
    config.data.sources = {kind: _texts((kind,), arg) for kind in (("docstring",) if arg.smoke else ("docstring", "body"))}
    config.data.transforms = dict(text=dict(name="mask_tokens", options=dict(length=LENGTH, mask_id=WORDS, share=share)))
    config.model.views = dict(text="text")


def _loss(name: str, weight: float, states: str, **inputs: str) -> dict:
    return dict(name=name, inputs=dict(states=f"head_{states}", table="head_table", bias="head_bias") | inputs, weight=weight, options={})


def _inverse_cloze(config: ConfigDict, arg: ConfigDict) -> None:
    """Sentences of docstrings and lines of bodies find the rest."""
    units = dict(docstring="sentence") if arg.smoke else dict(docstring="sentence", body="line")
    config.data.sources = {kind: _texts((kind,), arg) | dict(inverse_cloze=dict(unit=unit)) for kind, unit in units.items()}
    _sides(config, arg)


def _pairs(config: ConfigDict, arg: ConfigDict) -> None:
    """The second stage."""
    config.data.sources = dict(main=dict(name="docstrings", weight=1.0, options=dict(every=arg.every)))
    config.data.tokenizer = dict(name="saved", options=dict(path=f"{arg.first}/tokenizer"))
    config.model.towers.text.init = dict(format="tandem", path=arg.first, keep=())
    _sides(config, arg)
    data = dict(name="docstrings", options=dict(split="test"))
    config.evals.held_out = dict(name="ranking", every_steps=100, data=data, options=dict(controls=("bm25",)))


def _sides(config: ConfigDict, arg: ConfigDict) -> None:
    tokens = lambda most: dict(name="tokenize", options=dict(length=most))
    config.data.transforms = dict(query=tokens(QUERY), passage=tokens(LENGTH))
    config.model.views = dict(query="text", passage="text")
    pair, contrast = dict(zq="z_query", zp="z_passage"), dict(name="infonce", inputs=dict(id="id"), options=dict(symmetric=True))
    if arg.objective == "smae":
        states = dict(zq_layers="layers_pooled_query", zp_layers="layers_pooled_passage")
        config.losses.main = dict(name="starbucks", inputs=pair | states, weight=1.0, options=dict(loss=contrast, sizes=SIZES))
    else:
        config.losses.main = contrast | dict(inputs=pair | contrast["inputs"], weight=1.0)


def _texts(kinds: tuple[str, ...], arg: ConfigDict) -> dict:
    return dict(name="library", weight=1.0, options=dict(kinds=kinds, split="test" if arg.smoke else "train"))
