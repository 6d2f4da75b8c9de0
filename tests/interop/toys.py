"""Models of each family at toy size, with random parameters, and the folders that hold them."""

import numpy as np

from core.paths import from_paths
from core.workdir import write_json
from interop import hf, mapping, open_clip, tensors
from interop.imported import Imported, section, shapes

SIZES = dict(width=8, layers=2, heads=2, mlp_ratio=1.5)
IMAGE = SIZES | dict(image_size=8, patch_size=4)
TEXT = SIZES | dict(vocab_size=20, length=6)
PIXELS = dict(pixel_mean=(0.4, 0.5, 0.6), pixel_std=(0.2, 0.3, 0.4))
CLIP_IMAGE = IMAGE | dict(
    embed_dim=4, pooling="cls", class_position=True, pre_norm=True, patch_bias=False, norm_eps=1e-5, activation="quick_gelu", **PIXELS
)
CLIP_TEXT = TEXT | dict(embed_dim=4, activation="quick_gelu", eos_id=-1)
SIGLIP_IMAGE = IMAGE | dict(embed_dim=0, pooling="attention")
SIGLIP_TEXT = TEXT | dict(
    embed_dim=8, projection_bias=True, causal=False, pooling="last", attend_padding=True, norm_eps=1e-6, activation="gelu_tanh"
)
TOWERS = {
    "clip": dict(image=("vit", CLIP_IMAGE), text=("text", CLIP_TEXT)),
    "siglip": dict(image=("vit", SIGLIP_IMAGE), text=("text", SIGLIP_TEXT)),
    "siglip2": dict(image=("naflex", SIZES | dict(grid=2, patch_size=4, embed_dim=0, pooling="attention")), text=("text", SIGLIP_TEXT)),
    "bert": dict(text=("bert", TEXT)),
    "roberta": dict(text=("bert", TEXT | dict(position_offset=2, token_types=1, norm_eps=1e-5))),
    "mpnet": dict(text=("bert", TEXT | dict(position_offset=2, token_types=0, relative_buckets=32))),
    "distilbert": dict(text=("bert", TEXT | dict(token_types=0))),
    "modernbert": dict(text=("modernbert", TEXT | dict(global_every=2))),
    "llama": dict(text=("decoder", TEXT | dict(kv_heads=1, head_dim=4))),
}


def model(name):
    """A complete `config.model`."""
    scale = dict(logit_bias_init=-10.0, temperature_init=0.1) if name.startswith("siglip") else {}
    return section(TOWERS[name], **scale)


def params(model, seed=0):
    """Random parameters by path."""
    rng = np.random.default_rng(seed)
    return {path: rng.standard_normal(shape).astype(np.float32) for path, shape in shapes(model).items()}


def imported(name, **changes):
    """A model as a reader would return it, without a tokenizer."""
    made = model(name)
    for label, options in changes.items():
        made["towers"][label]["options"] |= options
    return Imported(made, from_paths(params(made)), None, {}, (), {})


def folder(name, path, seed=0):
    """A Hugging Face folder of the family, with these parameters."""
    made, family = model(name), hf.FAMILIES[name]
    path.mkdir(parents=True, exist_ok=True)
    write_json(path / "config.json", family.config(made))
    values = params(made, seed)
    rules = family.rules(made)
    ruled = {p for r in rules for p in r.ours}
    tensors.write(path / "model.safetensors", mapping.write(rules, {p: a for p, a in values.items() if p in ruled}, "toy"))
    return path


def open_clip_folder(path):
    """The CLIP in open_clip's form."""
    made = model("clip")
    path.mkdir(parents=True, exist_ok=True)
    write_json(path / open_clip.CONFIG, open_clip.config(made))
    tensors.write(path / open_clip.WEIGHTS, mapping.write(open_clip.rules(made, False), params(made), "toy"))
    return path
