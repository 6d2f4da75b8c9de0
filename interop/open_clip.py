"""open_clip folders: `open_clip_config.json` beside safetensors, with open_clip's own towers or timm's SigLIP vision towers.

Source: https://github.com/mlfoundations/open_clip, names as its 3.3 writes them; keys that change what a tower computes and have no
counterpart here are refused.
"""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

from core.config import ConfigError
from core.workdir import read_json
from interop import hf_clip, inputs, mapping, names, tensors, timm
from interop.imported import Imported, assemble, section
from interop.mapping import Rule, linear, norm, rule

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
PREFIXES = ("", "module.")
IGNORED = (r"(^|\.)attn_mask$",)

TEXT = dict(
    context_length=77, vocab_size=49408, width=512, heads=8, layers=12, mlp_ratio=4.0, eos_id=2, no_causal_mask=False, pool_type="argmax",
    proj_type="linear", proj_bias=False, act_kwargs=None, norm_kwargs=None,
)  # fmt: skip
VISION = dict(
    layers=12, width=768, head_width=64, mlp_ratio=4.0, patch_size=16, image_size=224, no_ln_pre=False, act_kwargs=None, norm_kwargs=None
)
# Keys that may only have these values; where or how a tokenizer is found, dropout and the like change nothing that is computed.
FIXED = dict(
    ls_init_value=None, attentional_pool=False, pos_embed_type="learnable", embed_cls=False, block_type=None, qk_norm=False,
    scaled_cosine_attn=False, scale_heads=False, scale_attn_inner=False, scale_attn=False, scale_fc=False, hf_model_name=None,
)  # fmt: skip
RESIZE_MODES = {"shortest": {"crop": True, "centre": "round"}, "squash": {}}
POOLINGS = {"argmax": ("eos", -1), "eos": ("eos", None), "last": ("last", None), "first": ("cls", None)}


def claims(path: pathlib.Path) -> bool:
    """Whether a path looks like this format."""
    return (path if path.is_dir() else path.parent).joinpath(CONFIG).exists() and (path.is_dir() or path.suffix == ".safetensors")


def read(path: str | os.PathLike) -> Imported:
    """The two towers in a folder, or in a file beside its `open_clip_config.json`.

    Raises:
        FileNotFoundError: no config or no weights.
        ConfigError: an architecture that has no counterpart here, or weights that do not fit the config.
    """
    path = pathlib.Path(path)
    made, found = model(path), tensors.read(path)
    custom = bool(read_config(path)["model_cfg"].get("custom_text"))
    table = mapping.fit_names(rules(made, custom), found, PREFIXES)
    folder = path if path.is_dir() else path.parent
    ready = dict(tokenizer=inputs.tokenizer(folder, made), transforms=inputs.transforms(made, images=_images(path)))
    return assemble(made, table, found, str(tensors.find(path)), ignored=IGNORED, **ready)


def model(path: str | os.PathLike) -> dict[str, Any]:
    """The `config.model` of a folder, from its config alone."""
    config = {"preprocess_cfg": {}} | read_config(pathlib.Path(path))
    theirs, preprocess = config["model_cfg"], config["preprocess_cfg"]
    text, vision = TEXT | theirs["text_cfg"], VISION | theirs["vision_cfg"]
    for key, given in (("text_cfg", text), ("vision_cfg", vision)):
        _refuse(given, FIXED, key)
    quick = bool(theirs.get("quick_gelu"))
    pixels = dict(pixel_mean=tuple(preprocess.get("mean", hf_clip.MEAN)), pixel_std=tuple(preprocess.get("std", hf_clip.STD)))
    own = vision.get("timm_model_name") is None
    image = _image_options(vision, quick) | dict(embed_dim=theirs["embed_dim"]) if own else timm.options(vision)
    towers = {"image": ("vit", image | pixels), "text": ("text", _text_options(text, quick, theirs["embed_dim"]))}
    bias = theirs.get("init_logit_bias")
    return section(towers, logit_bias_init=None if bias is None else float(bias))


def read_config(path: pathlib.Path) -> dict[str, Any]:
    """The content of `open_clip_config.json`.

    Raises:
        FileNotFoundError: none there.
    """
    file = (path if path.is_dir() else path.parent) / CONFIG
    if not file.exists():
        raise FileNotFoundError(f"{file} does not exist; a state dict alone does not say how many heads its layers have.")
    return read_json(file)


def _images(path: pathlib.Path) -> dict[str, Any]:
    """What the config says of images, in the words of the transform `resize`; open_clip cuts their middle by torchvision."""
    stated = ({"preprocess_cfg": {}} | read_config(path))["preprocess_cfg"]
    mode = stated.get("resize_mode") or "shortest"
    if mode not in RESIZE_MODES:
        raise ConfigError(f"{CONFIG} states preprocess_cfg.resize_mode {mode!r}; known ones are: {', '.join(RESIZE_MODES)}.")
    return RESIZE_MODES[mode] | ({"kernel": "bilinear"} if stated.get("interpolation") == "bilinear" else {})


def _refuse(given: Mapping[str, Any], fixed: Mapping[str, Any], key: str) -> None:
    other = [f"{key}.{name} = {given[name]!r}" for name in fixed if name in given and given[name] not in (fixed[name], "default")]
    if other:
        raise ConfigError(f"{CONFIG} states {', '.join(other)}; towers of that kind cannot be read.")


def _shared(theirs: Mapping[str, Any], quick: bool) -> dict[str, Any]:
    tanh = (theirs["act_kwargs"] or {}).get("approximate") == "tanh"
    eps = (theirs["norm_kwargs"] or {}).get("eps", 1e-5)
    activation = "quick_gelu" if quick else "gelu_tanh" if tanh else "gelu"
    return dict(width=theirs["width"], layers=theirs["layers"], mlp_ratio=float(theirs["mlp_ratio"]), activation=activation, norm_eps=eps)


def _image_options(theirs: Mapping[str, Any], quick: bool) -> dict[str, Any]:
    if not isinstance(theirs["layers"], int):
        raise ConfigError(f"{CONFIG} states vision_cfg.layers {theirs['layers']!r}: a ResNet, which cannot be read.")
    _refuse(theirs, dict(pool_type="tok"), "vision_cfg")
    size, patch = (names.side(theirs[key], f"vision_cfg.{key}") for key in ("image_size", "patch_size"))
    return _shared(theirs, quick) | dict(
        image_size=size, patch_size=patch, channels=3, drop_edge=size % patch > 0, heads=theirs["width"] // theirs["head_width"],
        pooling="cls", class_position=True, pre_norm=not theirs["no_ln_pre"], patch_bias=False,
    )  # fmt: skip


def _text_options(theirs: Mapping[str, Any], quick: bool, embed_dim: int) -> dict[str, Any]:
    if theirs["pool_type"] not in POOLINGS:
        raise ConfigError(f"{CONFIG} states text_cfg.pool_type {theirs['pool_type']!r}; readable ones are: {', '.join(POOLINGS)}.")
    pooling, eos = POOLINGS[theirs["pool_type"]]
    return _shared(theirs, quick) | dict(
        vocab_size=theirs["vocab_size"], length=theirs["context_length"], heads=theirs["heads"], causal=not theirs["no_causal_mask"],
        pooling=pooling, eos_id=theirs["eos_id"] if eos is None else eos, attend_padding=theirs["no_causal_mask"] or pooling == "last",
        embed_dim=0 if theirs["proj_type"] == "none" else embed_dim, projection_bias=theirs["proj_bias"],
    )  # fmt: skip


def rules(model: Mapping[str, Any], custom_text: bool) -> list[Rule]:
    """The table; `custom_text` models keep their text tower under `text.`."""
    image, text = (model["towers"][label]["options"] for label in ("image", "text"))
    scale = [rule("log_logit_scale", "logit_scale")] + [rule("logit_bias", "logit_bias")] * (model["logit_bias_init"] is not None)
    tower = timm.rules("towers_image", "visual.trunk", image) if image["pooling"] == "attention" else _image_rules(image)
    return scale + tower + _text_rules(text, "text." if custom_text else "")


def _image_rules(options: Mapping[str, Any]) -> list[Rule]:
    image = "towers_image"
    return [
        rule(f"{image}/class_token", "visual.class_embedding", mapping.FLAT, "vision_cfg.width"),
        rule(f"{image}/patch_kernel", "visual.conv1.weight", mapping.CONV, "vision_cfg.patch_size"),
        rule(f"{image}/position_embedding", "visual.positional_embedding", mapping.BATCHED, "vision_cfg.image_size"),
        *(norm(f"{image}/norm_embedding", "visual.ln_pre") if options["pre_norm"] else []),
        *_blocks(image, "visual.transformer", options["layers"], "vision_cfg"),
        *norm(f"{image}/norm", "visual.ln_post"),
        rule(f"{image}/projection/kernel", "visual.proj", key="embed_dim"),  # no Linear: already [in out]
    ]


def _text_rules(options: Mapping[str, Any], prefix: str) -> list[Rule]:
    text = "towers_text"
    if not options["embed_dim"]:
        projection = []
    elif options["projection_bias"]:
        projection = linear(f"{text}/projection", f"{prefix}text_projection", key="embed_dim")
    else:
        projection = [rule(f"{text}/projection/kernel", f"{prefix}text_projection", key="embed_dim")]
    return [
        rule(f"{text}/token_embedding", f"{prefix}token_embedding.weight", key="text_cfg.vocab_size"),
        rule(f"{text}/position_embedding", f"{prefix}positional_embedding", key="text_cfg.context_length"),
        *_blocks(text, f"{prefix}transformer", options["layers"], "text_cfg"),
        *norm(f"{text}/norm", f"{prefix}ln_final"),
        *projection,
    ]


def _blocks(ours: str, theirs: str, layers: int, key: str) -> list[Rule]:
    return [r for i in range(layers) for r in _block(f"{ours}/blocks/block_{i}", f"{theirs}.resblocks.{i}", f"{key}.layers")]


def _block(ours: str, theirs: str, key: str) -> list[Rule]:
    return [
        *norm(f"{ours}/norm_attention", f"{theirs}.ln_1", key=key),
        rule(f"{ours}/attention/qkv_kernel", f"{theirs}.attn.in_proj_weight", mapping.PACKED_QKV, key),
        rule(f"{ours}/attention/qkv_bias", f"{theirs}.attn.in_proj_bias", mapping.FLAT, key),
        *linear(f"{ours}/attention/out", f"{theirs}.attn.out_proj", key=key),
        *norm(f"{ours}/norm_mlp", f"{theirs}.ln_2", key=key),
        *linear(f"{ours}/mlp/fc_in", f"{theirs}.mlp.c_fc", key=key),
        *linear(f"{ours}/mlp/fc_out", f"{theirs}.mlp.c_proj", key=key),
    ]


def config(model: Mapping[str, Any], crop: bool = False, kernel: str = "bicubic") -> dict[str, Any]:
    """`open_clip_config.json` of a model.

    Args:
        model: a `config.model`.
        crop: whether its images were cropped, or stretched.
        kernel: by which they were resized.

    Raises:
        ConfigError: options that open_clip does not have; names them.
    """
    image, text = names.options(model, "vit"), names.options(model, "text")
    attends = dict(attend_padding=True) if not text["causal"] or text["pooling"] == "last" else {}
    names.require(text, attends, "open_clip")
    embed_dim = image["embed_dim"] or image["width"]
    made = {"embed_dim": embed_dim, "vision_cfg": _vision_cfg(image), "text_cfg": _text_cfg(text)}
    if custom_text(model):
        made |= {"custom_text": True}
    if model["logit_bias_init"] is not None:
        made |= {"init_logit_bias": model["logit_bias_init"]}
    quick = {text["activation"], image["activation"]} == {"quick_gelu"}
    if "quick_gelu" in (text["activation"], image["activation"]) and not quick:
        raise ConfigError("open_clip's quick_gelu holds for both towers, but here one has it; choose another --format.")
    three = lambda values: list(values) * (3 if len(values) == 1 else 1)
    preprocess = {
        "mean": three(image["pixel_mean"]), "std": three(image["pixel_std"]), "interpolation": kernel,
        "resize_mode": "shortest" if crop else "squash",
    }  # fmt: skip
    return {"model_cfg": made | ({"quick_gelu": True} if quick else {}), "preprocess_cfg": preprocess}


def custom_text(model: Mapping[str, Any]) -> bool:
    """Whether open_clip needs its class with a text tower of its own: the plain one has a bare projection and reads the largest id."""
    text, image = names.options(model, "text"), names.options(model, "vit")
    plain = dict(causal=True, pooling="eos", eos_id=-1, projection_bias=False)
    return image["pooling"] == "attention" or any(text[name] != value for name, value in plain.items())


def _shared_cfg(options: Mapping[str, Any]) -> dict[str, Any]:
    made = {key: options[key] for key in ("width", "layers", "mlp_ratio")}
    if options["norm_eps"] != 1e-5:
        made |= {"norm_kwargs": {"eps": options["norm_eps"]}}
    return made | ({"act_kwargs": {"approximate": "tanh"}} if options["activation"] == "gelu_tanh" else {})


def _vision_cfg(options: Mapping[str, Any]) -> dict[str, Any]:
    if options["pooling"] == "attention":
        return timm.vision_cfg(options)
    names.require(options, dict(pooling="cls", posemb="learn", class_position=True, patch_bias=False, channels=3), "open_clip")
    return _shared_cfg(options) | {
        "image_size": options["image_size"], "patch_size": options["patch_size"], "head_width": options["width"] // options["heads"],
        "no_ln_pre": not options["pre_norm"],
    }  # fmt: skip


def _text_cfg(options: Mapping[str, Any]) -> dict[str, Any]:
    kinds = {pooling: name for name, (pooling, _) in POOLINGS.items()}
    if options["pooling"] not in kinds:
        raise ConfigError(f"open_clip cannot pool by {options['pooling']!r}; it has: {', '.join(sorted(kinds))}.")
    kind = "argmax" if options["pooling"] == "eos" and options["eos_id"] < 0 else kinds[options["pooling"]]
    return _shared_cfg(options) | {
        "context_length": options["length"], "vocab_size": options["vocab_size"], "heads": options["heads"], "pool_type": kind,
        "no_causal_mask": not options["causal"], "proj_bias": options["projection_bias"],
        **({"eos_id": options["eos_id"]} if kind == "eos" else {}),
        **({} if options["embed_dim"] else {"proj_type": "none"}),
    }  # fmt: skip
