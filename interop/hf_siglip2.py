"""Hugging Face's Siglip2Model (NaFlex) at the square grid of its position table: patches enter one by one through a linear layer.

Images of other shapes, which the library interpolates the table for, are not read: they are brought to the square first.
"""

import math
from collections.abc import Mapping
from typing import Any

from core.config import ConfigError
from interop import hf_siglip, mapping, names
from interop.mapping import Rule

MODEL_TYPES = ("siglip2",)
PREFIXES, IGNORED = hf_siglip.PREFIXES, hf_siglip.IGNORED
MEAN, STD = hf_siglip.MEAN, hf_siglip.STD
VISION = dict(num_patches=256, patch_size=16)


def model(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config.model` of a config.json.

    Raises:
        ConfigError: a table whose grid is no square.
    """
    vision = names.filled(config, VISION, "vision_config")
    side = math.isqrt(vision["num_patches"])
    if side * side != vision["num_patches"]:
        raise ConfigError(f"config.json states vision_config.num_patches {vision['num_patches']}, which is no square grid.")
    patch = names.side(vision["patch_size"], "vision_config.patch_size")
    return hf_siglip.model(dict(config) | {"vision_config": vision | {"image_size": side * patch}})


def rules(model: Mapping[str, Any]) -> list[Rule]:
    """SigLIP's table, with the linear patch embedding."""
    return hf_siglip.rules(model, mapping.PATCHES)


def config(model: Mapping[str, Any]) -> dict[str, Any]:
    """config.json of a model."""
    made = hf_siglip.config(model)
    vision = made["vision_config"]
    side = vision.pop("image_size") // vision["patch_size"]
    text = made["text_config"] | {"model_type": "siglip2_text_model"}
    vision = vision | {"model_type": "siglip2_vision_model", "num_patches": side * side}
    return made | {"architectures": ["Siglip2Model"], "model_type": "siglip2", "text_config": text, "vision_config": vision}
