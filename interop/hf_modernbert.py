"""Hugging Face's ModernBertModel. Source: Warner et al. 2024 (arXiv:2412.13663); names as transformers writes them."""

from collections.abc import Mapping
from typing import Any

from core.config import ConfigError
from interop import mapping, names
from interop.imported import section
from interop.mapping import Rule, linear, norm, rule

MODEL_TYPES = ("modernbert",)
PREFIXES = ("", "model.", "0.auto_model.", "0.model.", "auto_model.")
IGNORED = (r"^head\.", r"^decoder\.", r"^classifier\.")
ARCHITECTURE = "ModernBertModel"

DEFAULTS = dict(
    vocab_size=50368, hidden_size=768, intermediate_size=1152, num_hidden_layers=22, num_attention_heads=12, hidden_activation="gelu",
    max_position_embeddings=8192, norm_eps=1e-5, local_attention=128, global_attn_every_n_layers=3, layer_types=None, rope_parameters=None,
    global_rope_theta=160_000.0, local_rope_theta=10_000.0, attention_dropout=0.0,
)  # fmt: skip
ABSENT = dict(norm_bias=False, attention_bias=False, mlp_bias=False, rope_scaling=None)  # what a tower does not have


def model(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config.model` of a config.json.

    Raises:
        ConfigError: biases, scaled rotary positions, or global layers that do not come in even steps.
    """
    theirs = DEFAULTS | ABSENT | dict(config)
    names.absent(theirs, ABSENT)
    width = theirs["hidden_size"]
    options = dict(
        vocab_size=theirs["vocab_size"], length=theirs["max_position_embeddings"], width=width, layers=theirs["num_hidden_layers"],
        heads=theirs["num_attention_heads"], mlp_ratio=names.ratio(theirs["intermediate_size"], width),
        activation=names.activation(theirs["hidden_activation"]), norm_eps=theirs["norm_eps"],
        attention_dropout=theirs["attention_dropout"], window=theirs["local_attention"] // 2, global_every=_global_every(theirs),
        global_theta=_theta(theirs, "full_attention", "global_rope_theta"),
        local_theta=_theta(theirs, "sliding_attention", "local_rope_theta"),
    )  # fmt: skip
    return section({"text": ("modernbert", options)})


def _global_every(theirs: Mapping[str, Any]) -> int:
    kinds = theirs["layer_types"]
    if kinds is None:
        return theirs["global_attn_every_n_layers"]
    full = [i for i, kind in enumerate(kinds) if kind == "full_attention"]
    every = full[1] - full[0] if len(full) > 1 else len(kinds)
    if full != list(range(0, len(kinds), every)):
        raise ConfigError(f"config.json states layer_types {kinds}; global layers must be the first and every n-th after it.")
    return every


def _theta(theirs: Mapping[str, Any], kind: str, old: str) -> float:
    of_kinds = theirs["rope_parameters"] or {}
    stated = of_kinds[kind] if kind in of_kinds and of_kinds[kind] is not None else {}
    if "rope_type" in stated and stated["rope_type"] != "default":
        raise ConfigError(f"config.json states rope_type {stated['rope_type']!r} for {kind}; only 'default' can be read.")
    return float(stated["rope_theta"] if "rope_theta" in stated else theirs[old])


def rules(model: Mapping[str, Any]) -> list[Rule]:
    """The table of a ModernBertModel."""
    (text,) = [f"towers_{label}" for label, entry in model["towers"].items() if entry["name"] == "modernbert"]
    layers = names.options(model, "modernbert")["layers"]
    return [
        rule(f"{text}/token_embedding", "embeddings.tok_embeddings.weight", key="vocab_size"),
        *norm(f"{text}/norm_embedding", "embeddings.norm", bias=False),
        *[r for i in range(layers) for r in _block(f"{text}/blocks/block_{i}", f"layers.{i}", i == 0)],
        *norm(f"{text}/norm", "final_norm", bias=False),
    ]


def _block(ours: str, theirs: str, first: bool) -> list[Rule]:
    key = "num_hidden_layers"
    return [
        *([] if first else norm(f"{ours}/norm_attention", f"{theirs}.attn_norm", bias=False, key=key)),
        rule(f"{ours}/attention/qkv_kernel", f"{theirs}.attn.Wqkv.weight", mapping.PACKED_QKV, key),
        *linear(f"{ours}/attention/out", f"{theirs}.attn.Wo", bias=False, key=key),
        *norm(f"{ours}/norm_mlp", f"{theirs}.mlp_norm", bias=False, key=key),
        rule(f"{ours}/mlp/gated_kernel", f"{theirs}.mlp.Wi.weight", mapping.PACKED_QKV, "intermediate_size"),
        *linear(f"{ours}/mlp/fc_out", f"{theirs}.mlp.Wo", bias=False, key="intermediate_size"),
    ]


def config(model: Mapping[str, Any]) -> dict[str, Any]:
    """config.json of a model."""
    options = names.options(model, "modernbert")
    kinds = ["sliding_attention" if i % options["global_every"] else "full_attention" for i in range(options["layers"])]
    theta = lambda value: {"rope_type": "default", "rope_theta": value}
    return {
        "architectures": [ARCHITECTURE],
        "model_type": "modernbert",
        "vocab_size": options["vocab_size"],
        "max_position_embeddings": options["length"],
        "hidden_size": options["width"],
        "num_hidden_layers": options["layers"],
        "num_attention_heads": options["heads"],
        "intermediate_size": round(options["width"] * options["mlp_ratio"]),
        "hidden_activation": names.THEIR_ACTIVATIONS[options["activation"]],
        "norm_eps": options["norm_eps"],
        "attention_dropout": options["attention_dropout"],
        "pad_token_id": None,  # the library's default lies outside small vocabularies; the tokenizer knows its own
        "local_attention": 2 * options["window"],
        "layer_types": kinds,
        # Both spellings: libraries before version 5 know only the second.
        "rope_parameters": {"full_attention": theta(options["global_theta"]), "sliding_attention": theta(options["local_theta"])},
        "global_attn_every_n_layers": options["global_every"],
        "global_rope_theta": options["global_theta"],
        "local_rope_theta": options["local_theta"],
        "dtype": "float32",
    }
