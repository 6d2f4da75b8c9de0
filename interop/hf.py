"""Hugging Face folders: `config.json`, safetensors and tokenizer files. Dispatches on `model_type`.

A family is a module with

- `MODEL_TYPES`: the `model_type`s it reads;
- `model(config) -> dict`: a complete `config.model` from the content of config.json;
- `rules(model) -> list[Rule]`: our paths and their names, without a wrapper's prefix, for that model;
- `PREFIXES`: what may stand before the names of a file; `IGNORED`: patterns of tensors that are no part of an encoder;
- `config(model) -> dict`: config.json of a model, for export;
- `load_options(model) -> dict`, if it is there: what transformers must be told beside config.json to build the model;
- `CROPS`, if it is there: whether its images are cropped where the folder does not say.
"""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

from core.config import ConfigError
from core.workdir import read_json
from interop import hf_bert, hf_clip, hf_decoder, hf_modernbert, hf_siglip, hf_siglip2, inputs, mapping, tensors
from interop.imported import Imported, assemble

MODULES = (hf_bert, hf_clip, hf_decoder, hf_modernbert, hf_siglip, hf_siglip2)
FAMILIES = {name: module for module in MODULES for name in module.MODEL_TYPES}


def claims(path: pathlib.Path) -> bool:
    """Whether a path looks like this format: open_clip's folders may hold a config.json too, but then other weights."""
    has = lambda name: (path / name).exists()
    return has("config.json") and (not has("open_clip_config.json") or has("model.safetensors") or has(tensors.INDEX))


def read(path: str | os.PathLike) -> Imported:
    """The encoder in a folder.

    Raises:
        FileNotFoundError: no config.json or no weights.
        ConfigError: an architecture outside `FAMILIES`, or weights or a tokenizer that do not fit the config.
    """
    path = pathlib.Path(path)
    family, made, found = choose(read_config(path), path), model(path), tensors.read(path)
    rules = mapping.fit_names(family.rules(made), found, family.PREFIXES)
    tokenizer = inputs.tokenizer(path, made)
    source = str(tensors.find(path))
    images = inputs.stated_images(path, getattr(family, "CROPS", False))
    prepared = inputs.transforms(made, inputs.stated_length(path), images=images)
    return assemble(made, rules, found, source, ignored=family.IGNORED, tokenizer=tokenizer, transforms=prepared)


def model(path: str | os.PathLike) -> dict[str, Any]:
    """The `config.model` of a folder, without its weights.

    Raises:
        ConfigError: an architecture outside `FAMILIES`, or values in config.json that no model has.
    """
    path = pathlib.Path(path)
    config = read_config(path)
    try:
        made = choose(config, path).model(config)
    except (TypeError, AttributeError, KeyError, ZeroDivisionError) as error:
        raise ConfigError(f"{path / 'config.json'} holds a value of another kind than its key has ({error}); get the file anew.") from error
    return inputs.with_pixels(made, path)


def read_config(path: pathlib.Path) -> dict[str, Any]:
    """config.json of a folder.

    Raises:
        FileNotFoundError: none there.
        ConfigError: something else than keys and values.
    """
    if not (path / "config.json").exists():
        raise FileNotFoundError(f"{path} holds no config.json; give the folder of a Hugging Face model.")
    found = read_json(path / "config.json")
    if not isinstance(found, dict):
        raise ConfigError(f"{path / 'config.json'} holds no keys with values; get the file anew.")
    return found


def choose(config: Mapping[str, Any], path: pathlib.Path):
    """The family of a config.json.

    Raises:
        ConfigError: another architecture; lists those there are.
    """
    found = config["model_type"] if "model_type" in config else None
    if found not in FAMILIES:
        raise ConfigError(f"{path / 'config.json'} states model_type {found!r}; readable ones are: {', '.join(sorted(FAMILIES))}.")
    return FAMILIES[found]
