"""timm's SigLIP vision towers, which open_clip builds by their name: `vit_base_patch16_siglip_224`.

The name alone decides its sizes and its activation.
"""

import re
from collections.abc import Mapping
from typing import Any

from core.config import ConfigError
from interop import mapping, names
from interop.mapping import Rule, linear, norm, rule

NAME = re.compile(r"vit_([a-z0-9]+)_patch(\d+)_siglip_(\d+)$")
# Width, layers, heads, hidden width of the MLP.
SIZES = {
    "base": (768, 12, 12, 3072), "large": (1024, 24, 16, 4096), "so400m": (1152, 27, 16, 4304), "giantopt": (1536, 40, 16, 6144),
}  # fmt: skip
IMAGES = {
    ("base", 16): (224, 256, 384, 512), ("base", 32): (256,), ("large", 16): (256, 384, 512), ("so400m", 14): (224, 378, 384),
    ("so400m", 16): (256, 384, 512), ("giantopt", 16): (256, 384),
}  # fmt: skip


def activation(size: str, patch: int, image: int) -> str:
    """The GELU that timm gives a tower; the early ones have the exact form, whatever their weights were trained with."""
    tanh = size == "giantopt" or (size, patch) in (("base", 32), ("so400m", 16)) or (size, image) == ("large", 512)
    return "gelu_tanh" if tanh else "gelu"


def options(vision: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the tower that a `vision_cfg` names.

    Raises:
        ConfigError: another timm tower, or another head.
    """
    name = vision["timm_model_name"]
    found = NAME.match(name)
    if not found or found[1] not in SIZES or vision.get("timm_pool") != "map" or vision.get("timm_proj") != "none":
        raise ConfigError(
            f"the vision tower is timm's {name!r} with pool {vision.get('timm_pool')!r} and projection {vision.get('timm_proj')!r}; "
            f"only vit_<{'|'.join(SIZES)}>_patch<n>_siglip_<n> with 'map' and 'none' can be read."
        )
    size, patch, image = found[1], int(found[2]), int(found[3])
    width, layers, heads, hidden = SIZES[size]
    return dict(
        image_size=image, patch_size=patch, channels=3, drop_edge=image % patch > 0, width=width, layers=layers, heads=heads,
        mlp_ratio=names.ratio(hidden, width), embed_dim=0, activation=activation(size, patch, image), pooling="attention", norm_eps=1e-6,
    )  # fmt: skip


def rules(ours: str, theirs: str, options: Mapping[str, Any]) -> list[Rule]:
    """The table of a vision tower with a head that probes its patches."""
    key = "vision_cfg.timm_model_name"
    return [
        rule(f"{ours}/patch_kernel", f"{theirs}.patch_embed.proj.weight", mapping.CONV, key),
        rule(f"{ours}/patch_bias", f"{theirs}.patch_embed.proj.bias", key=key),
        rule(f"{ours}/position_embedding", f"{theirs}.pos_embed", key=key),
        *[r for i in range(options["layers"]) for r in _block(f"{ours}/blocks/block_{i}", f"{theirs}.blocks.{i}", key)],
        *norm(f"{ours}/norm", f"{theirs}.norm"),
        *_head(f"{ours}/pool", f"{theirs}.attn_pool"),
    ]


def _block(ours: str, theirs: str, key: str) -> list[Rule]:
    return [
        *norm(f"{ours}/norm_attention", f"{theirs}.norm1", key=key),
        rule(f"{ours}/attention/qkv_kernel", f"{theirs}.attn.qkv.weight", mapping.PACKED_QKV, key),
        rule(f"{ours}/attention/qkv_bias", f"{theirs}.attn.qkv.bias", mapping.FLAT, key),
        *linear(f"{ours}/attention/out", f"{theirs}.attn.proj", key=key),
        *norm(f"{ours}/norm_mlp", f"{theirs}.norm2", key=key),
        *linear(f"{ours}/mlp/fc_in", f"{theirs}.mlp.fc1", key=key),
        *linear(f"{ours}/mlp/fc_out", f"{theirs}.mlp.fc2", key=key),
    ]


def _head(ours: str, theirs: str) -> list[Rule]:
    key_value = lambda ending: [f"{ours}/{part}/{ending}" for part in ("key", "value")]
    return [
        rule(f"{ours}/probe", f"{theirs}.latent"),
        *linear(f"{ours}/query", f"{theirs}.q"),
        rule(key_value("kernel"), f"{theirs}.kv.weight", mapping.PACKED),
        rule(key_value("bias"), f"{theirs}.kv.bias", mapping.PACKED_BIAS),
        *linear(f"{ours}/out", f"{theirs}.proj"),
        *norm(f"{ours}/norm", f"{theirs}.norm"),
        *linear(f"{ours}/mlp/fc_in", f"{theirs}.mlp.fc1"),
        *linear(f"{ours}/mlp/fc_out", f"{theirs}.mlp.fc2"),
    ]


def vision_cfg(options: Mapping[str, Any]) -> dict[str, Any]:
    """open_clip's `vision_cfg` of a tower.

    Raises:
        ConfigError: sizes or an activation that no name of timm stands for.
    """
    wanted = (options["width"], options["layers"], options["heads"], int(options["width"] * options["mlp_ratio"]))
    size = next((name for name, sizes in SIZES.items() if sizes == wanted), None)
    patch, image = options["patch_size"], options["image_size"]
    if size is None or image not in IMAGES.get((size, patch), ()):
        raise ConfigError(
            f"open_clip builds SigLIP vision towers by timm's name, and none has width, layers, heads, hidden width {wanted} with patches "
            f"of {patch} in images of {image}; choose another --format."
        )
    wanted = dict(
        embed_dim=0, posemb="learn", class_position=False, pre_norm=False, patch_bias=True, channels=3, norm_eps=1e-6,
        activation=activation(size, patch, image),
    )  # fmt: skip
    name = f"vit_{size}_patch{patch}_siglip_{image}"
    names.require(options, wanted, f"timm's {name}")
    return {"image_size": image, "timm_model_name": name, "timm_model_pretrained": False, "timm_pool": "map", "timm_proj": "none"}
