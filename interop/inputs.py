"""How a folder of another library prepares texts and images: its tokenizer, lengths, sizes and pixel statistics."""

import pathlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from core.config import ConfigError, options_of, plain
from core.workdir import read_json
from input_pipeline import tokenize
from input_pipeline.transforms import TRANSFORMS

KERNELS = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers, which preprocessors state
ENDLESS = 1_000_000  # a stated length from here on means that nobody stated one


def tokenizer(folder: pathlib.Path, model: Mapping[str, Any]):
    """The tokenizer in a folder, or None where there is none.

    Raises:
        ConfigError: its files cannot be read, it has more tokens than the table of a tower, or it ends texts with another token than
            the tower reads.
    """
    try:
        found = tokenize.load_folder(folder)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, AttributeError, KeyError) as error:  # files of others hold anything
        raise ConfigError(f"the tokenizer in {folder} cannot be read: {error}") from error
    for label, options in texts(model).items():
        if found.vocab_size > options["vocab_size"]:
            raise ConfigError(
                f"the tokenizer in {folder} has {found.vocab_size} tokens, but config.json states a vocab_size of {options['vocab_size']} "
                f"for {label}; the files belong to different models."
            )
        if options["pooling"] == "eos" and options["eos_id"] not in (-1, found.eos_id):
            raise ConfigError(
                f"the tokenizer in {folder} ends texts with {found.eos_id}, but config.json states an eos_token_id of "
                f"{options['eos_id']}; the files belong to different models."
            )
    return found


def texts(model: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Options of the towers that read texts, by label."""
    return {label: entry["options"] for label, entry in model["towers"].items() if "vocab_size" in entry["options"]}


def stated_length(folder: pathlib.Path) -> int | None:
    """Tokens that the tokenizer's files allow, or None."""
    file = folder / "tokenizer_config.json"
    found = read_json(file).get("model_max_length") if file.exists() else None
    return int(found) if found is not None and found < ENDLESS else None


def transforms(
    model: Mapping[str, Any],
    length: int | None = None,
    prompts: Mapping[str, str] | None = None,
    pool_prompt: bool = True,
    images: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """`config.data.transforms`: texts are cut to the tower's length or a smaller stated one, images brought to the tower's size, or cut
    into as many patches as its table has places, where nothing else is stated.

    Args:
        model: a `config.model`.
        length: tokens at most, as the files state it.
        prompts: by view.
        pool_prompt: whether a prompt's own tokens are pooled.
        images: further options of their transform, see `stated_images`.
    """
    made = {}
    for view, label in model["views"].items():
        options = model["towers"][label]["options"]
        if label not in texts(model):
            made[view] = _of_images(options, images)
            continue
        # A tower that reads padding must always get as much of it as in training.
        padded = "attend_padding" in options and options["attend_padding"]
        tokens = options["length"] if padded else min(options["length"], length or options["length"])
        prompt = (prompts or {}).get(view, "")
        said = {"prompt": prompt, "pool_prompt": pool_prompt} if prompt else {}
        made[view] = {"name": "tokenize", "options": {"length": tokens} | said}
    return made


def _of_images(options: Mapping[str, Any], stated: Mapping[str, Any]) -> dict[str, Any]:
    if "image_size" in options:
        return {"name": "resize", "options": {"height": options["image_size"], "width": options["image_size"], **stated}}
    cut = {"patch": options["patch_size"], "budget": options["grid"] ** 2, "channels": options["channels"]}
    return {"name": "patches", "options": cut | dict(stated)}


def with_pixels(model: Mapping[str, Any], folder: pathlib.Path) -> dict[str, Any]:
    """The model with the pixel statistics that the folder states, if it states them."""
    model, stated = plain(model), preparation(folder)
    for entry in model["towers"].values():
        if "pixel_mean" in entry["options"] and "image_mean" in stated and "image_std" in stated:
            entry["options"] |= {"pixel_mean": list(stated["image_mean"]), "pixel_std": list(stated["image_std"])}
    return model


def preparation(folder: pathlib.Path) -> dict[str, Any]:
    """What `preprocessor_config.json`, or the newer `processor_config.json`, says of images; empty where neither is there."""
    file = next((folder / name for name in ("preprocessor_config.json", "processor_config.json") if (folder / name).exists()), None)
    stated = {} if file is None else read_json(file)
    return stated.get("image_processor", stated)


def stated_images(folder: pathlib.Path, crops: bool = False) -> dict[str, Any]:
    """Options of the transform of images that the folder states, beside sizes.

    Args:
        folder: with or without such a file.
        crops: whether the family's images lose what stands over, where the folder does not say; one that is brought to a height and a
            width has nothing to lose.

    Raises:
        ConfigError: another kernel than the transforms have.
    """
    stated = preparation(folder)
    crop = stated.get("do_center_crop", crops) and not (isinstance(stated.get("size"), dict) and "height" in stated["size"])
    made = {"crop": True} if crop else {}
    if "resample" in stated:
        if stated["resample"] not in KERNELS:
            raise ConfigError(f"{folder} states a resample of {stated['resample']!r} for images; known ones are: {KERNELS}.")
        made |= {"kernel": KERNELS[stated["resample"]]}
    return made | ({"budget": stated["max_num_patches"]} if "max_num_patches" in stated else {})


def how_images(model: Mapping[str, Any], stated: Mapping[str, Any]) -> dict[str, Any]:
    """All options that decide what a model sees of an image, by the stated transform of its images; else by what `transforms` makes."""
    known = [*stated.values(), *transforms(model).values()]
    found = next(t for t in known if t["name"] in ("patches", "random_crop", "resize"))
    every = options_of(TRANSFORMS[found["name"]]) | dict(found["options"])
    return {name: every[name] for name in ("crop", "kernel", "centre", "budget") if name in every}
