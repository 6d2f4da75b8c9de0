"""big_vision's two-tower `.npz` (SigLIP and its like): flat names `img/...`, `txt/...`, `t`, `b`, with or without `params/`.

All sizes are those of the arrays. Layers may be stacked ("scanned") under one name; they are taken apart first.

Source: https://github.com/google-research/big_vision; GELU is Flax's tanh form.
"""

import dataclasses
import math
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from core.config import ConfigError
from interop import inputs, mapping, names, tensors
from interop.imported import Imported, assemble, section
from interop.mapping import Rule, Transform, one, rule

PREFIXES = ("", "params/")
SCANNED = "/encoderblock/"
TEXT_POSITIONS = one(lambda a, shape: a[0], lambda a: a[None])
# [D H Dh] for each of query, key and value.
QKV = Transform(
    lambda theirs, shapes: [np.stack(theirs, axis=1)], lambda ours: [np.ascontiguousarray(ours[0][:, i]) for i in range(3)]
)  # fmt: skip
QKV_BIAS = Transform(lambda theirs, shapes: [np.stack(theirs)], lambda ours: list(ours[0]))


def claims(path: pathlib.Path) -> bool:
    """Whether a path looks like this format."""
    return path.suffix == ".npz"


def read(path: str | os.PathLike) -> Imported:
    """The two towers in a file.

    Raises:
        FileNotFoundError: no such file.
        ConfigError: another architecture, or arrays left over on either side.
    """
    path = pathlib.Path(path)
    found, stacked = _unstacked(tensors.read(path))
    made = _model(found, str(path))
    table = mapping.fit_names(rules(made), found, PREFIXES)
    imported = assemble(made, table, found, str(path), transforms=inputs.transforms(made))
    return dataclasses.replace(imported, used=tuple(dict.fromkeys(stacked.get(name, name) for name in imported.used)))


def model(path: str | os.PathLike) -> dict[str, Any]:
    """The `config.model` of a file."""
    return _model(_unstacked(tensors.read(path))[0], str(path))


def _unstacked(found: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Layers of stacked arrays under names of their own, and which name each came from."""
    made, origin = {}, {}
    for name, array in found.items():
        if SCANNED not in name:
            made[name] = array
            continue
        for i, layer in enumerate(array):
            own = name.replace(SCANNED, f"/encoderblock_{i}/")
            made[own], origin[own] = layer, name
    return made, origin


def _model(found: Mapping[str, np.ndarray], source: str) -> dict[str, Any]:
    shapes = {name.removeprefix("params/"): array.shape for name, array in found.items()}
    needed = ("img/embedding/kernel", "img/pos_embedding", "img/MAPHead_0/probe", "txt/Embed_0/embedding", "txt/pos_embedding", "t")
    if missing := [name for name in needed if name not in shapes]:
        raise ConfigError(
            f"{source} lacks {', '.join(missing)}, so it is no two-tower model with an attention head; it holds, for example, "
            f"{', '.join(sorted(shapes)[:3])}."
        )
    patch, _, channels, _ = shapes["img/embedding/kernel"]
    patches, (vocab_size, _) = shapes["img/pos_embedding"][1], shapes["txt/Embed_0/embedding"]
    side = math.isqrt(patches)
    if side * side != patches:
        raise ConfigError(f"{source} has a position table of {patches} patches, which is no square grid.")
    image = dict(
        image_size=side * patch, patch_size=patch, channels=channels, embed_dim=0, pooling="attention", pixel_mean=(0.5,), pixel_std=(0.5,)
    )
    head = shapes.get("txt/head/kernel")
    text = dict(
        vocab_size=vocab_size, length=shapes["txt/pos_embedding"][1], embed_dim=head[1] if head else 0, projection_bias=bool(head),
        causal=False, pooling="last", attend_padding=True,
    )  # fmt: skip
    towers = {
        "image": ("vit", image | _blocks_options(shapes, "img/Transformer", source)),
        "text": ("text", text | _blocks_options(shapes, "txt/Encoder_0", source)),
    }
    return section(towers, temperature_init=0.1, logit_bias_init=-10.0 if "b" in shapes else None)


def _blocks_options(shapes: Mapping[str, tuple[int, ...]], prefix: str, source: str) -> dict[str, Any]:
    pattern = re.compile(re.escape(prefix) + r"/encoderblock_(\d+)/")
    indices = [int(m[1]) for name in shapes if (m := pattern.match(name))]
    query, hidden = (f"{prefix}/encoderblock_0/{part}/kernel" for part in ("MultiHeadDotProductAttention_0/query", "MlpBlock_0/Dense_0"))
    if query not in shapes or hidden not in shapes:
        raise ConfigError(f"{source} lacks {query} or {hidden}; it may be of another architecture.")
    width, heads, _ = shapes[query]
    return dict(
        width=width, layers=max(indices) + 1, heads=heads, mlp_ratio=names.ratio(shapes[hidden][1], width), activation="gelu_tanh",
        norm_eps=1e-6,
    )  # fmt: skip


def rules(model: Mapping[str, Any]) -> list[Rule]:
    """The table of a two-tower model."""
    image, text = (model["towers"][label]["options"] for label in ("image", "text"))
    ours, theirs = "towers_image", "img"
    return [
        rule("log_logit_scale", "t", mapping.SCALAR),
        *([rule("logit_bias", "b", mapping.SCALAR)] if model["logit_bias_init"] is not None else []),
        rule(f"{ours}/patch_kernel", f"{theirs}/embedding/kernel"),
        rule(f"{ours}/patch_bias", f"{theirs}/embedding/bias"),
        rule(f"{ours}/position_embedding", f"{theirs}/pos_embedding"),
        *_blocks(ours, f"{theirs}/Transformer", image),
        rule(f"{ours}/pool/probe", f"{theirs}/MAPHead_0/probe"),
        *_attention_head(f"{ours}/pool", f"{theirs}/MAPHead_0", image["heads"]),
        rule("towers_text/token_embedding", "txt/Embed_0/embedding"),
        rule("towers_text/position_embedding", "txt/pos_embedding", TEXT_POSITIONS),
        *_blocks("towers_text", "txt/Encoder_0", text),
        *(_same("towers_text/projection", "txt/head", ("kernel", "bias")) if text["embed_dim"] else []),
    ]


def _same(ours: str, theirs: str, parts: Sequence[str]) -> list[Rule]:
    return [rule(f"{ours}/{part}", f"{theirs}/{part}") for part in parts]


def _blocks(ours: str, theirs: str, options: Mapping[str, Any]) -> list[Rule]:
    layers = [(f"{ours}/blocks/block_{i}", f"{theirs}/encoderblock_{i}") for i in range(options["layers"])]
    made = [r for pair in layers for r in _block(*pair, options["heads"])]
    return made + _same(f"{ours}/norm", f"{theirs}/encoder_norm", ("scale", "bias"))


def _block(ours: str, theirs: str, heads: int) -> list[Rule]:
    attention = f"{theirs}/MultiHeadDotProductAttention_0"
    parts = lambda ending: [f"{attention}/{part}/{ending}" for part in ("query", "key", "value")]
    return [
        *_same(f"{ours}/norm_attention", f"{theirs}/LayerNorm_0", ("scale", "bias")),
        rule(f"{ours}/attention/qkv_kernel", parts("kernel"), QKV),
        rule(f"{ours}/attention/qkv_bias", parts("bias"), QKV_BIAS),
        rule(f"{ours}/attention/out/kernel", f"{attention}/out/kernel", _out(heads)),
        rule(f"{ours}/attention/out/bias", f"{attention}/out/bias"),
        *_same(f"{ours}/norm_mlp", f"{theirs}/LayerNorm_1", ("scale", "bias")),
        *_mlp(f"{ours}/mlp", f"{theirs}/MlpBlock_0"),
    ]


def _mlp(ours: str, theirs: str) -> list[Rule]:
    layers = (("fc_in", "Dense_0"), ("fc_out", "Dense_1"))
    return [r for own, their in layers for r in _same(f"{ours}/{own}", f"{theirs}/{their}", ("kernel", "bias"))]


def _attention_head(ours: str, theirs: str, heads: int) -> list[Rule]:
    attention = f"{theirs}/MultiHeadDotProductAttention_0"
    split = one(lambda a, shape: a.reshape(shape), lambda a: a.reshape(*a.shape[:-1], heads, -1))  # [D H Dh] or [H Dh]
    parts = [(part, ending) for part in ("query", "key", "value") for ending in ("kernel", "bias")]
    return [
        *[rule(f"{ours}/{part}/{ending}", f"{attention}/{part}/{ending}", split) for part, ending in parts],
        rule(f"{ours}/out/kernel", f"{attention}/out/kernel", _out(heads)),
        rule(f"{ours}/out/bias", f"{attention}/out/bias"),
        *_same(f"{ours}/norm", f"{theirs}/LayerNorm_0", ("scale", "bias")),
        *_mlp(f"{ours}/mlp", f"{theirs}/MlpBlock_0"),
    ]


def _out(heads: int) -> Transform:
    """[H Dh D] to [D D]."""
    return one(lambda a, shape: a.reshape(shape), lambda a: a.reshape(heads, -1, a.shape[-1]))
