"""Hugging Face's decoders as encoders: Qwen2, Qwen3, Llama, Mistral, without the language model's head.

Names as transformers writes them.
"""

from collections.abc import Mapping
from typing import Any

from core.config import ConfigError
from interop import mapping, names
from interop.imported import section
from interop.mapping import Rule, linear, norm, rule

PREFIXES = ("", "model.", "0.auto_model.", "0.model.", "auto_model.")
IGNORED = (r"^lm_head\.", r"^score\.", r"rotary_emb\.inv_freq$")

COMMON = dict(
    hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=None, head_dim=None, hidden_act="silu",
    rms_norm_eps=1e-6, rope_theta=10_000.0, rope_scaling=None, rope_parameters=None, sliding_window=None,
    attention_dropout=0.0,
)  # fmt: skip
QWEN = COMMON | dict(vocab_size=151936, intermediate_size=22016, max_position_embeddings=32768, num_key_value_heads=32)
DEFAULTS = {
    "llama": COMMON | dict(vocab_size=32000, intermediate_size=11008, max_position_embeddings=2048),
    "mistral": COMMON
    | dict(vocab_size=32000, intermediate_size=14336, max_position_embeddings=131072, num_key_value_heads=8, sliding_window=4096),
    "qwen2": QWEN,
    "qwen3": QWEN | dict(head_dim=128),
}
MODEL_TYPES = tuple(DEFAULTS)
ABSENT = dict(attention_bias=False, mlp_bias=False, use_sliding_window=False, partial_rotary_factor=1.0)  # what a tower does not have
# Our options of a scaling by their keys; the name is the same.
SCALINGS = {
    "linear": dict(factor="factor"),
    "llama3": dict(
        factor="factor", low_freq_factor="low_freq_factor", high_freq_factor="high_freq_factor",
        original_max_position_embeddings="original_length",
    ),
    "yarn": dict(
        factor="factor", original_max_position_embeddings="original_length", beta_fast="beta_fast", beta_slow="beta_slow",
        attention_factor="attention_factor", truncate="truncate",
    ),
}  # fmt: skip


def model(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config.model` of a config.json.

    Raises:
        ConfigError: biases, windows in some layers only, or rotary positions scaled in a way that no tower knows.
    """
    kind = config["model_type"]
    theirs = DEFAULTS[kind] | ABSENT | dict(config)
    names.absent(theirs, ABSENT)
    width, heads = theirs["hidden_size"], theirs["num_attention_heads"]
    theta, scaling = _rope(theirs)
    options = dict(
        vocab_size=theirs["vocab_size"], length=theirs["max_position_embeddings"], width=width, layers=theirs["num_hidden_layers"],
        heads=heads, kv_heads=theirs["num_key_value_heads"] or heads, head_dim=theirs["head_dim"] or width // heads,
        mlp_ratio=names.ratio(theirs["intermediate_size"], width), activation=names.activation(theirs["hidden_act"]),
        attention_dropout=theirs["attention_dropout"], norm_eps=theirs["rms_norm_eps"], qk_norm=kind == "qwen3", qkv_bias=kind == "qwen2",
        # Their window counts the token itself.
        window=theirs["sliding_window"] - 1 if kind == "mistral" and theirs["sliding_window"] else 0,
        rope_theta=theta, rope_scaling=scaling,
    )  # fmt: skip
    return section({"text": ("decoder", options)})


def _rope(theirs: Mapping[str, Any]) -> tuple[float, dict[str, Any]]:
    """Base and scaling, from the present spelling or that of files before version 5."""
    stated = dict(theirs["rope_parameters"] or theirs["rope_scaling"] or {})
    theta = stated.pop("rope_theta") if stated.get("rope_theta") is not None else theirs["rope_theta"]
    old = stated.pop("type") if "type" in stated else "default"
    kind = stated.pop("rope_type") if "rope_type" in stated else old
    if kind == "default":
        return float(theta), {}
    if kind not in SCALINGS:
        raise ConfigError(f"config.json states rope_type {kind!r}; readable ones are: default, {', '.join(sorted(SCALINGS))}.")
    known, given = SCALINGS[kind], {name: value for name, value in stated.items() if value is not None and name != "rope_theta"}
    if unknown := sorted(set(given) - set(known)):
        raise ConfigError(f"config.json states {', '.join(unknown)} for rope_type {kind!r}; readable: {', '.join(sorted(known))}.")
    if "original_max_position_embeddings" in known:
        given = {"original_max_position_embeddings": theirs["max_position_embeddings"]} | given
    return float(theta), dict(name=kind, options={known[name]: value for name, value in given.items()})


def rules(model: Mapping[str, Any]) -> list[Rule]:
    """The table of a decoder without its head."""
    (text,) = [f"towers_{label}" for label, entry in model["towers"].items() if entry["name"] == "decoder"]
    options = names.options(model, "decoder")
    return [
        rule(f"{text}/token_embedding", "embed_tokens.weight", key="vocab_size"),
        *[r for i in range(options["layers"]) for r in _block(f"{text}/blocks/block_{i}", f"layers.{i}", options)],
        *norm(f"{text}/norm", "norm", bias=False),
    ]


def _block(ours: str, theirs: str, options: Mapping[str, Any]) -> list[Rule]:
    layers, hidden, heads = "num_hidden_layers", "intermediate_size", "num_key_value_heads"
    attention = f"{theirs}.self_attn"
    result = [
        *norm(f"{ours}/norm_attention", f"{theirs}.input_layernorm", bias=False, key=layers),
        rule(f"{ours}/attention/q_kernel", f"{attention}.q_proj.weight", mapping.PACKED_QKV, "num_attention_heads"),
        rule(f"{ours}/attention/kv_kernel", [f"{attention}.{part}_proj.weight" for part in "kv"], mapping.QKV, heads),
        *linear(f"{ours}/attention/out", f"{attention}.o_proj", bias=False, key=layers),
        *norm(f"{ours}/norm_mlp", f"{theirs}.post_attention_layernorm", bias=False, key=layers),
        rule(f"{ours}/mlp/gated_kernel", [f"{theirs}.mlp.{part}_proj.weight" for part in ("gate", "up")], mapping.QKV, hidden),
        *linear(f"{ours}/mlp/fc_out", f"{theirs}.mlp.down_proj", bias=False, key=hidden),
    ]
    if options["qkv_bias"]:
        result.append(rule(f"{ours}/attention/q_bias", f"{attention}.q_proj.bias", mapping.FLAT))
        result.append(rule(f"{ours}/attention/kv_bias", [f"{attention}.{part}_proj.bias" for part in "kv"], mapping.QKV_BIAS))
    if options["qk_norm"]:
        result += norm(f"{ours}/attention/query_norm", f"{attention}.q_norm", bias=False)
        result += norm(f"{ours}/attention/key_norm", f"{attention}.k_norm", bias=False)
    return result


def config(model: Mapping[str, Any]) -> dict[str, Any]:
    """config.json of a model.

    Raises:
        ConfigError: options that none of the architectures has together; names them.
    """
    options = names.options(model, "decoder")
    kind, title = next(
        found
        for has, found in (
            (options["qk_norm"], ("qwen3", "Qwen3Model")),
            (options["qkv_bias"], ("qwen2", "Qwen2Model")),
            (options["window"], ("mistral", "MistralModel")),
            (True, ("llama", "LlamaModel")),
        )
        if has
    )
    needs = dict(causal=True) | (dict(qkv_bias=False) if kind == "qwen3" else {}) | (dict(window=0) if kind != "mistral" else {})
    names.require(options, needs, title)
    return {
        "architectures": [title],
        "model_type": kind,
        "vocab_size": options["vocab_size"],
        "max_position_embeddings": options["length"],
        "hidden_size": options["width"],
        "num_hidden_layers": options["layers"],
        "num_attention_heads": options["heads"],
        "num_key_value_heads": options["kv_heads"] or options["heads"],
        "head_dim": options["head_dim"] or options["width"] // options["heads"],
        "intermediate_size": round(options["width"] * options["mlp_ratio"]),
        "hidden_act": names.THEIR_ACTIVATIONS[options["activation"]],
        "rms_norm_eps": options["norm_eps"],
        "attention_dropout": options["attention_dropout"],
        "rope_parameters": {"rope_theta": options["rope_theta"], **_scaling(options["rope_scaling"])},
        "rope_theta": options["rope_theta"],
        "rope_scaling": _scaling(options["rope_scaling"]) if options["rope_scaling"] else None,
        "sliding_window": options["window"] + 1 if options["window"] else None,
        "dtype": "float32",
    }


def _scaling(ours: Mapping[str, Any]) -> dict[str, Any]:
    if not ours:
        return {"rope_type": "default"}
    if ours["name"] not in SCALINGS:
        raise ConfigError(f"no released decoder scales rotary positions by {ours['name']!r}; choose another --format.")
    theirs = {own: name for name, own in SCALINGS[ours["name"]].items()}
    return {"rope_type": ours["name"]} | {theirs[name]: value for name, value in ours["options"].items()}
