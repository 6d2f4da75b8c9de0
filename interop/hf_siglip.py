"""Hugging Face's SiglipModel: SigLIP, and SigLIP 2 of fixed resolution. Padding is read like any token; the head probes all patches.

Source: Zhai et al. 2023 (arXiv:2303.15343), Tschannen et al. 2025 (arXiv:2502.14786); names as transformers writes them.
"""

from collections.abc import Callable, Mapping
from typing import Any

from core.config import ConfigError
from interop import hf_clip, mapping, names
from interop.imported import section
from interop.mapping import Rule, Transform, linear, norm, rule

MODEL_TYPES = ("siglip",)
PREFIXES = ("", "siglip.", "siglip2.", "model.", "0.model.", "0.auto_model.")
IGNORED = (r"(^|\.)position_ids$",)
ARCHITECTURE = "SiglipModel"

SHARED = dict(
    intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, hidden_act="gelu_pytorch_tanh", layer_norm_eps=1e-6,
    attention_dropout=0.0,
)  # fmt: skip
TEXT = SHARED | dict(vocab_size=32000, hidden_size=768, max_position_embeddings=64, projection_size=None)
VISION = SHARED | dict(hidden_size=768, num_channels=3, image_size=224, patch_size=16, vision_use_head=True)
MEAN = STD = (0.5,)


def model(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config.model` of a config.json.

    Raises:
        ConfigError: a vision tower without its attention head.
    """
    return with_image("vit", config, VISION, hf_clip.image_options)


def with_image(name: str, config: Mapping[str, Any], defaults: Mapping[str, Any], sizes: Callable[[Mapping], dict]) -> dict[str, Any]:
    """`config.model` with an image tower of a kind.

    Args:
        name: of the tower.
        config: of the folder.
        defaults: of its section `vision_config`.
        sizes: from that section to the tower's options.

    Raises:
        ConfigError: a vision tower without its attention head.
    """
    text, vision = names.filled(config, TEXT, "text_config"), names.filled(config, defaults, "vision_config")
    if not vision["vision_use_head"]:
        raise ConfigError("config.json states vision_config.vision_use_head false: such a tower yields patches, no embedding.")
    towers = {
        "image": (name, sizes(vision) | dict(embed_dim=0, pooling="attention", pixel_mean=MEAN, pixel_std=STD)),
        "text": ("text", hf_clip.text_options(text) | dict(
            embed_dim=text["projection_size"] or text["hidden_size"], projection_bias=True, causal=False, pooling="last",
            attend_padding=True,
        )),
    }  # fmt: skip
    return section(towers, temperature_init=0.1, logit_bias_init=-10.0)


def rules(model: Mapping[str, Any], patches: Transform = mapping.CONV) -> list[Rule]:
    """The table of a SiglipModel."""
    image, text = "towers_image", "towers_text"
    embeddings, count = "vision_model.embeddings", model["towers"]["image"]["options"]["layers"]
    return [
        rule("log_logit_scale", "logit_scale", mapping.SCALAR),
        rule("logit_bias", "logit_bias", mapping.SCALAR),
        rule(f"{image}/patch_kernel", f"{embeddings}.patch_embedding.weight", patches, "vision_config.patch_size"),
        rule(f"{image}/patch_bias", f"{embeddings}.patch_embedding.bias", key="vision_config.hidden_size"),
        rule(f"{image}/position_embedding", f"{embeddings}.position_embedding.weight", mapping.BATCHED, "vision_config.image_size"),
        *hf_clip.blocks(image, "vision_model", count, "vision_config"),
        *norm(f"{image}/norm", "vision_model.post_layernorm"),
        *head(f"{image}/pool", "vision_model.head"),
        *hf_clip.text_rules(model),
        *linear(f"{text}/projection", "text_model.head", key="text_config.projection_size"),
    ]


def head(ours: str, theirs: str) -> list[Rule]:
    """A learned probe that attends to all patches; torch packs the three projections."""
    parts = lambda ending: [f"{ours}/{part}/{ending}" for part in ("query", "key", "value")]
    return [
        rule(f"{ours}/probe", f"{theirs}.probe"),
        rule(parts("kernel"), f"{theirs}.attention.in_proj_weight", mapping.PACKED),
        rule(parts("bias"), f"{theirs}.attention.in_proj_bias", mapping.PACKED_BIAS),
        *linear(f"{ours}/out", f"{theirs}.attention.out_proj"),
        *norm(f"{ours}/norm", f"{theirs}.layernorm"),
        *linear(f"{ours}/mlp/fc_in", f"{theirs}.mlp.fc1", key="vision_config.intermediate_size"),
        *linear(f"{ours}/mlp/fc_out", f"{theirs}.mlp.fc2", key="vision_config.intermediate_size"),
    ]


def config(model: Mapping[str, Any]) -> dict[str, Any]:
    """config.json of a model.

    Raises:
        ConfigError: options that SiglipModel does not have; names them.
    """
    image = names.options(model, "vit")
    wanted = dict(pooling="attention", posemb="learn", class_position=False, pre_norm=False, patch_bias=True, embed_dim=0)
    names.require(image, wanted, ARCHITECTURE)
    return stated("siglip", ARCHITECTURE, hf_clip.vision_config(image), names.options(model, "text"))


def stated(kind: str, architecture: str, vision: Mapping[str, Any], text: Mapping[str, Any]) -> dict[str, Any]:
    """config.json of a family: its `model_type`, class, section `vision_config` and the options of the text tower.

    Raises:
        ConfigError: options of the text tower that the class does not have; names them.
    """
    names.require(text, dict(causal=False, pooling="last", attend_padding=True, projection_bias=True), architecture)
    return {
        "architectures": [architecture],
        "model_type": kind,
        "text_config": hf_clip.text_config(text) | {"model_type": f"{kind}_text_model", "projection_size": text["embed_dim"]},
        "vision_config": dict(vision) | {"model_type": f"{kind}_vision_model", "vision_use_head": True},
        "dtype": "float32",
    }
