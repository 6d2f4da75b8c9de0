"""Hugging Face's CLIPModel: causal text tower, vision tower with a class token, linear projections without bias.

Source: Radford et al. 2021 (arXiv:2103.00020); names as transformers writes them.
"""

import math
from collections.abc import Mapping
from typing import Any

from interop import mapping, names
from interop.imported import section
from interop.mapping import Rule, linear, norm, rule

MODEL_TYPES = ("clip",)
PREFIXES = ("", "clip.", "model.", "0.model.", "0.auto_model.")
IGNORED = (r"(^|\.)position_ids$",)
ARCHITECTURE = "CLIPModel"
CROPS = True  # unless the folder says otherwise

TEXT = dict(
    vocab_size=49408, hidden_size=512, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=8, max_position_embeddings=77,
    hidden_act="quick_gelu", layer_norm_eps=1e-5, attention_dropout=0.0, eos_token_id=49407,
)  # fmt: skip
VISION = dict(
    hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, num_channels=3, image_size=224, patch_size=32,
    hidden_act="quick_gelu", layer_norm_eps=1e-5, attention_dropout=0.0,
)  # fmt: skip
TOP = dict(projection_dim=512, logit_scale_init_value=2.6592)
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def model(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config.model` of a config.json."""
    top, text, vision = TOP | dict(config), names.filled(config, TEXT, "text_config"), names.filled(config, VISION, "vision_config")
    # Files older than the fix of their tokenizer's id say 2, and mean the largest id of a row.
    eos = -1 if text["eos_token_id"] == 2 else text["eos_token_id"]
    towers = {
        "image": ("vit", image_options(vision) | dict(
            embed_dim=top["projection_dim"], pooling="cls", class_position=True, pre_norm=True, patch_bias=False,
            pixel_mean=MEAN, pixel_std=STD,
        )),
        "text": ("text", text_options(text) | dict(embed_dim=top["projection_dim"], causal=True, pooling="eos", eos_id=eos)),
    }  # fmt: skip
    return section(towers, temperature_init=math.exp(-top["logit_scale_init_value"]))


def block_options(theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Options that all towers share."""
    width = theirs["hidden_size"]
    return dict(
        width=width, layers=theirs["num_hidden_layers"], heads=theirs["num_attention_heads"],
        mlp_ratio=names.ratio(theirs["intermediate_size"], width), activation=names.activation(theirs["hidden_act"]),
        norm_eps=theirs["layer_norm_eps"], attention_dropout=theirs["attention_dropout"],
    )  # fmt: skip


def text_options(theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes of a text tower."""
    return block_options(theirs) | dict(vocab_size=theirs["vocab_size"], length=theirs["max_position_embeddings"])


def image_options(theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes of a vision tower."""
    size, patch = (names.side(theirs[key], f"vision_config.{key}") for key in ("image_size", "patch_size"))
    return block_options(theirs) | dict(image_size=size, patch_size=patch, channels=theirs["num_channels"], drop_edge=size % patch > 0)


def rules(model: Mapping[str, Any]) -> list[Rule]:
    """The table of a CLIPModel."""
    image, text = "towers_image", "towers_text"
    embeddings = "vision_model.embeddings"
    return [
        rule("log_logit_scale", "logit_scale"),
        rule(f"{image}/class_token", f"{embeddings}.class_embedding", mapping.FLAT, "vision_config.hidden_size"),
        rule(f"{image}/patch_kernel", f"{embeddings}.patch_embedding.weight", mapping.CONV, "vision_config.patch_size"),
        rule(f"{image}/position_embedding", f"{embeddings}.position_embedding.weight", mapping.BATCHED, "vision_config.image_size"),
        *norm(f"{image}/norm_embedding", "vision_model.pre_layrnorm"),
        *blocks(image, "vision_model", model["towers"]["image"]["options"]["layers"], "vision_config"),
        *norm(f"{image}/norm", "vision_model.post_layernorm"),
        *linear(f"{image}/projection", "visual_projection", bias=False, key="projection_dim"),
        *text_rules(model),
        *linear(f"{text}/projection", "text_projection", bias=False, key="projection_dim"),
    ]


def text_rules(model: Mapping[str, Any]) -> list[Rule]:
    """Tables, blocks and final norm of a text tower."""
    text, embeddings = "towers_text", "text_model.embeddings"
    return [
        rule(f"{text}/token_embedding", f"{embeddings}.token_embedding.weight", key="text_config.vocab_size"),
        rule(f"{text}/position_embedding", f"{embeddings}.position_embedding.weight", key="text_config.max_position_embeddings"),
        *blocks(text, "text_model", model["towers"]["text"]["options"]["layers"], "text_config"),
        *norm(f"{text}/norm", "text_model.final_layer_norm"),
    ]


def blocks(ours: str, theirs: str, layers: int, key: str) -> list[Rule]:
    """Every layer of a tower."""
    return [r for i in range(layers) for r in block(f"{ours}/blocks/block_{i}", f"{theirs}.encoder.layers.{i}", key)]


def block(ours: str, theirs: str, key: str) -> list[Rule]:
    """One layer."""
    parts = lambda ending: [f"{theirs}.self_attn.{part}_proj.{ending}" for part in "qkv"]
    count, hidden = f"{key}.num_hidden_layers", f"{key}.intermediate_size"
    return [
        *norm(f"{ours}/norm_attention", f"{theirs}.layer_norm1", key=count),
        rule(f"{ours}/attention/qkv_kernel", parts("weight"), mapping.QKV, count),
        rule(f"{ours}/attention/qkv_bias", parts("bias"), mapping.QKV_BIAS, count),
        *linear(f"{ours}/attention/out", f"{theirs}.self_attn.out_proj", key=count),
        *norm(f"{ours}/norm_mlp", f"{theirs}.layer_norm2", key=count),
        *linear(f"{ours}/mlp/fc_in", f"{theirs}.mlp.fc1", key=hidden),
        *linear(f"{ours}/mlp/fc_out", f"{theirs}.mlp.fc2", key=hidden),
    ]


def config(model: Mapping[str, Any]) -> dict[str, Any]:
    """config.json of a model.

    Raises:
        ConfigError: options that CLIPModel does not have; names them.
    """
    image, text = names.options(model, "vit"), names.options(model, "text")
    names.require(image, dict(pooling="cls", posemb="learn", class_position=True, pre_norm=True, patch_bias=False), ARCHITECTURE)
    names.require(text, dict(causal=True, pooling="eos", projection_bias=False), ARCHITECTURE)
    eos = 2 if text["eos_id"] < 0 else text["eos_id"]
    return {
        "architectures": [ARCHITECTURE],
        "model_type": "clip",
        "projection_dim": image["embed_dim"],
        "logit_scale_init_value": -math.log(model["temperature_init"]),
        "text_config": text_config(text) | {"model_type": "clip_text_model", "projection_dim": image["embed_dim"], "eos_token_id": eos},
        "vision_config": vision_config(image) | {"model_type": "clip_vision_model", "projection_dim": image["embed_dim"]},
        "dtype": "float32",
    }


def text_config(options: Mapping[str, Any]) -> dict[str, Any]:
    """The section `text_config`."""
    return block_config(options) | {"vocab_size": options["vocab_size"], "max_position_embeddings": options["length"]}


def vision_config(options: Mapping[str, Any]) -> dict[str, Any]:
    """The section `vision_config`."""
    return block_config(options) | {
        "image_size": options["image_size"],
        "patch_size": options["patch_size"],
        "num_channels": options["channels"],
    }


def block_config(options: Mapping[str, Any]) -> dict[str, Any]:
    """Keys that all sections share."""
    return {
        "hidden_size": options["width"],
        "intermediate_size": int(options["width"] * options["mlp_ratio"]),
        "num_hidden_layers": options["layers"],
        "num_attention_heads": options["heads"],
        "hidden_act": names.THEIR_ACTIVATIONS[options["activation"]],
        "layer_norm_eps": options["norm_eps"],
        "attention_dropout": options["attention_dropout"],
    }
