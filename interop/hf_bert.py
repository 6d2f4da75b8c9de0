"""Hugging Face's BertModel and its kin: MiniLM, RoBERTa, XLM-R, MPNet, DistilBERT.

Source: Devlin et al. 2019 (arXiv:1810.04805) and followers; names as transformers writes them. The pooler is read only where
`pooling` is `pooler`, heads of other objectives never.
"""

from collections.abc import Mapping
from typing import Any

from core.config import ConfigError
from interop import mapping, names
from interop.imported import section
from interop.mapping import Rule, linear, norm, rule

PREFIXES = ("", "bert.", "roberta.", "mpnet.", "distilbert.", "model.", "0.auto_model.", "0.model.", "auto_model.")
IGNORED = (
    r"(^|\.)position_ids$",
    r"(^|\.)pooler\.",
    r"^cls\.",
    r"^lm_head\.",
    r"^vocab_(transform|layer_norm|projector)\.",
    r"^classifier\.",
)

BERT = dict(
    vocab_size=30522, hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072, hidden_act="gelu",
    max_position_embeddings=512, type_vocab_size=2, layer_norm_eps=1e-12, pad_token_id=0, position_embedding_type="absolute",
    relative_attention_num_buckets=32, is_decoder=False, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1,
)  # fmt: skip
ROBERTA = BERT | dict(vocab_size=50265, pad_token_id=1)
DEFAULTS = {
    "bert": BERT,
    "roberta": ROBERTA,
    "xlm-roberta": ROBERTA | dict(vocab_size=30522),
    "camembert": ROBERTA | dict(vocab_size=30522),
    "mpnet": BERT | dict(vocab_size=30527),
    "distilbert": BERT | dict(dim=768, n_layers=6, n_heads=12, hidden_dim=3072, activation="gelu", dropout=0.1, attention_dropout=0.1),
}
MODEL_TYPES = tuple(DEFAULTS)
# DistilBERT's words for what the others call so.
DISTIL = dict(
    hidden_size="dim", num_hidden_layers="n_layers", num_attention_heads="n_heads", intermediate_size="hidden_dim",
    hidden_act="activation", hidden_dropout_prob="dropout", attention_probs_dropout_prob="attention_dropout",
)  # fmt: skip
# What each architecture calls the parts of a layer.
NAMES = {
    "bert": dict(
        layer="encoder.layer", q="attention.self.query", k="attention.self.key", v="attention.self.value", out="attention.output.dense",
        norm_attention="attention.output.LayerNorm", fc_in="intermediate.dense", fc_out="output.dense", norm_mlp="output.LayerNorm",
    ),
    "mpnet": dict(
        layer="encoder.layer", q="attention.attn.q", k="attention.attn.k", v="attention.attn.v", out="attention.attn.o",
        norm_attention="attention.LayerNorm", fc_in="intermediate.dense", fc_out="output.dense", norm_mlp="output.LayerNorm",
    ),
    "distilbert": dict(
        layer="transformer.layer", q="attention.q_lin", k="attention.k_lin", v="attention.v_lin", out="attention.out_lin",
        norm_attention="sa_layer_norm", fc_in="ffn.lin1", fc_out="ffn.lin2", norm_mlp="output_layer_norm",
    ),
}  # fmt: skip


def model(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config.model` of a config.json.

    Raises:
        ConfigError: positions of another kind, or a decoder.
    """
    kind = config["model_type"]
    theirs = DEFAULTS[kind] | dict(config)
    if kind == "distilbert":
        theirs |= {name: theirs[own] for name, own in DISTIL.items()} | dict(layer_norm_eps=1e-12)
    if theirs["position_embedding_type"] != "absolute" or theirs["is_decoder"]:
        raise ConfigError(
            f"config.json states position_embedding_type {theirs['position_embedding_type']!r} and is_decoder {theirs['is_decoder']!r}; "
            "only encoders with absolute positions can be read."
        )
    # These count positions from the one after padding's; MPNet always pads with 1.
    offset = {"bert": 0, "distilbert": 0, "mpnet": 2}.get(kind, theirs["pad_token_id"] + 1)
    width = theirs["hidden_size"]
    options = dict(
        vocab_size=theirs["vocab_size"], length=theirs["max_position_embeddings"] - offset, width=width,
        layers=theirs["num_hidden_layers"], heads=theirs["num_attention_heads"],
        mlp_ratio=names.ratio(theirs["intermediate_size"], width), activation=names.activation(theirs["hidden_act"]),
        dropout=theirs["hidden_dropout_prob"], attention_dropout=theirs["attention_probs_dropout_prob"],
        norm_eps=theirs["layer_norm_eps"], position_offset=offset,
        token_types=0 if kind in ("mpnet", "distilbert") else theirs["type_vocab_size"],
        relative_buckets=theirs["relative_attention_num_buckets"] if kind == "mpnet" else 0,
    )  # fmt: skip
    return section({"text": ("bert", options)})


def rules(model: Mapping[str, Any]) -> list[Rule]:
    """The table of the architecture that the options amount to."""
    (text,) = [f"towers_{label}" for label, entry in model["towers"].items() if entry["name"] == "bert"]
    options = names.options(model, "bert")
    kind = architecture(options)
    result = [
        rule(f"{text}/token_embedding", "embeddings.word_embeddings.weight", key="vocab_size"),
        rule(f"{text}/position_embedding", "embeddings.position_embeddings.weight", key="max_position_embeddings"),
        *norm(f"{text}/norm_embedding", "embeddings.LayerNorm"),
    ]
    if options["token_types"]:
        result.append(rule(f"{text}/type_embedding", "embeddings.token_type_embeddings.weight", key="type_vocab_size"))
    if options["relative_buckets"]:
        result.append(rule(f"{text}/relative_bias", "encoder.relative_attention_bias.weight", key="relative_attention_num_buckets"))
    if options["pooling"] == "pooler":
        result += linear(f"{text}/pool/dense", "pooler.dense")
    parts = NAMES["bert" if kind == "roberta" else kind]
    return result + [r for i in range(options["layers"]) for r in _block(f"{text}/blocks/block_{i}", parts, i)]


def architecture(options: Mapping[str, Any]) -> str:
    """Which of their architectures holds a tower: the first whose parts it has."""
    if options["relative_buckets"]:
        return "mpnet"
    if options["position_offset"]:
        return "roberta"
    return "bert" if options["token_types"] else "distilbert"


def load_options(model: Mapping[str, Any]) -> dict[str, Any]:
    """What a loader must be told of a model: that there is no pooler where none is read, or it would draw one at random and say so."""
    options = names.options(model, "bert")
    return {} if architecture(options) == "distilbert" or options["pooling"] == "pooler" else {"add_pooling_layer": False}


def _block(ours: str, parts: Mapping[str, str], index: int) -> list[Rule]:
    theirs = {part: f"{parts['layer']}.{index}.{name}" for part, name in parts.items()}
    qkv = lambda ending: [f"{theirs[part]}.{ending}" for part in "qkv"]
    layers, hidden = "num_hidden_layers", "intermediate_size"
    return [
        rule(f"{ours}/attention/qkv_kernel", qkv("weight"), mapping.QKV, layers),
        rule(f"{ours}/attention/qkv_bias", qkv("bias"), mapping.QKV_BIAS, layers),
        *linear(f"{ours}/attention/out", theirs["out"], key=layers),
        *norm(f"{ours}/norm_attention", theirs["norm_attention"], key=layers),
        *linear(f"{ours}/mlp/fc_in", theirs["fc_in"], key=hidden),
        *linear(f"{ours}/mlp/fc_out", theirs["fc_out"], key=hidden),
        *norm(f"{ours}/norm_mlp", theirs["norm_mlp"], key=layers),
    ]


def config(model: Mapping[str, Any]) -> dict[str, Any]:
    """config.json of a model.

    Raises:
        ConfigError: options that the architecture does not have; names them.
    """
    options = names.options(model, "bert")
    kind = architecture(options)
    title = {"bert": "BertModel", "roberta": "RobertaModel", "mpnet": "MPNetModel", "distilbert": "DistilBertModel"}[kind]
    fixed = {"mpnet": dict(position_offset=2, token_types=0), "distilbert": dict(norm_eps=1e-12)}
    names.require(options, fixed[kind] if kind in fixed else {}, title)
    common = dict(
        hidden_size=options["width"], num_hidden_layers=options["layers"], num_attention_heads=options["heads"],
        intermediate_size=round(options["width"] * options["mlp_ratio"]), hidden_act=names.THEIR_ACTIVATIONS[options["activation"]],
        hidden_dropout_prob=options["dropout"], attention_probs_dropout_prob=options["attention_dropout"],
    )  # fmt: skip
    own = {
        "bert": dict(type_vocab_size=options["token_types"], pad_token_id=0),
        "roberta": dict(type_vocab_size=options["token_types"], pad_token_id=options["position_offset"] - 1),
        "mpnet": dict(relative_attention_num_buckets=options["relative_buckets"], pad_token_id=1),
        "distilbert": {},
    }
    common = {DISTIL[name]: value for name, value in common.items()} if kind == "distilbert" else common
    return {
        "architectures": [title],
        "model_type": kind,
        "vocab_size": options["vocab_size"],
        "max_position_embeddings": options["length"] + options["position_offset"],
        "layer_norm_eps": options["norm_eps"],
        "dtype": "float32",
        **common,
        **own[kind],
    }
