"""Hugging Face's Siglip2Model (NaFlex): images of any shape, whose patches enter one by one through a linear layer.

Source: Tschannen et al. 2025 (arXiv:2502.14786); names as transformers writes them.
"""

import math
from collections.abc import Mapping
from typing import Any

from core.config import ConfigError
from interop import hf_clip, hf_siglip, mapping, names
from interop.mapping import Rule

MODEL_TYPES = ("siglip2",)
PREFIXES, IGNORED = hf_siglip.PREFIXES, hf_siglip.IGNORED
ARCHITECTURE = "Siglip2Model"

VISION = hf_siglip.SHARED | dict(hidden_size=768, num_channels=3, num_patches=256, patch_size=16, vision_use_head=True)


def model(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config.model` of a config.json.

    Raises:
        ConfigError: a vision tower without its attention head, or a table of positions whose grid is no square.
    """
    return hf_siglip.with_image("naflex", config, VISION, _sizes)


def _sizes(theirs: Mapping[str, Any]) -> dict[str, Any]:
    grid = math.isqrt(theirs["num_patches"])
    if grid * grid != theirs["num_patches"]:
        raise ConfigError(f"config.json states vision_config.num_patches {theirs['num_patches']}, which is no square grid.")
    patch = names.side(theirs["patch_size"], "vision_config.patch_size")
    return hf_clip.block_options(theirs) | dict(grid=grid, patch_size=patch, channels=theirs["num_channels"])


def rules(model: Mapping[str, Any]) -> list[Rule]:
    """SigLIP's table, with the linear patch embedding."""
    return hf_siglip.rules(model, mapping.PATCHES)


def config(model: Mapping[str, Any]) -> dict[str, Any]:
    """config.json of a model.

    Raises:
        ConfigError: options that Siglip2Model does not have; names them.
    """
    image = names.options(model, "naflex")
    names.require(image, dict(pooling="attention", embed_dim=0), ARCHITECTURE)
    sizes = {"num_patches": image["grid"] ** 2, "patch_size": image["patch_size"], "num_channels": image["channels"]}
    return hf_siglip.stated("siglip2", ARCHITECTURE, hf_clip.block_config(image) | sizes, names.options(model, "text"))
