"""Writes a model as a folder that another library opens offline, and refuses one that does not give the same vectors back.

Each format goes through the tables that read it. A folder appears whole, under its final name, only after it was read back.
"""

import dataclasses
import logging
import math
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from core.config import ConfigError, choose, plain
from core.paths import by_path, from_paths
from core.workdir import write_json
from interop import golden, hf, hf_bert, hf_clip, hf_decoder, hf_modernbert, hf_siglip, hf_siglip2, inputs, mapping, open_clip, tensors
from interop import sentence_transformers as st
from interop.imported import Imported, assemble, section
from interop.swap_ids import swapped
from models import cut

log = logging.getLogger(__name__)
LABELS = {"naflex": "image", "resnet": "image", "vit": "image"}  # what the tables call a tower of a kind; all others read text
TEXT_FAMILIES = {"bert": hf_bert, "decoder": hf_decoder, "modernbert": hf_modernbert}
FREE = ("log_logit_scale", "logit_bias")  # that text formats do not hold


def write(source: Imported, output: pathlib.Path, format: str, *, truncate_dim: int | None = None, card: str = "") -> None:
    """Writes a folder.

    Args:
        source: the model.
        output: the folder; it may not exist, or must be empty.
        format: a name in `EXPORTS`.
        truncate_dim: leading values of a vector that are kept: sentence-transformers is told so, for others the projections are cut.
        card: README.md.

    Raises:
        ConfigError: a folder that is in use, a model that the format cannot hold, or vectors that differ after reading back.
    """
    make = choose(EXPORTS, format, "--format")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigError(f"{output} exists already; give an --output that does not.")
    if truncate_dim is not None and format != "sentence_transformers":
        narrow, params = cut.to_dim(source.model, source.params, truncate_dim)
        source = dataclasses.replace(source, model=narrow, params=params)
    adapted = [label for label, entry in source.model["towers"].items() if entry["options"].get("bottleneck", 0)]
    if adapted:
        raise ConfigError(
            f"towers {', '.join(adapted)} have a bottleneck adapter in each block, which no matrix takes in and no format has a place for; "
            "a run leaves Tandem with low-rank adapters (config.model.adapters) or without any."
        )
    source = _relabelled(source)
    written = _renumbered(source) if format == "hf_clip" else source
    output.parent.mkdir(parents=True, exist_ok=True)
    folder = pathlib.Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}."))
    try:
        back = make(written, folder, truncate_dim)
        # open_clip joins the lines of a text before any tokenizer sees them.
        texts = golden.TEXTS[:-1] if format == "open_clip" else golden.TEXTS
        made = golden.vectors(source, texts)
        if written is not source:
            made["ids"], made["mask"] = written.tokenizer(texts, golden.length(written))
        golden.check(back(folder), made)
        np.savez(folder / "golden.npz", **made)
        (folder / "README.md").write_text(card, encoding="utf-8")
        folder.chmod(0o755)
        if output.exists():
            output.rmdir()
        folder.rename(output)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _relabelled(source: Imported) -> Imported:
    """The model with the labels `image` and `text` that the tables use; each at most once."""
    model = plain(source.model)
    labels = {label: LABELS.get(entry["name"], "text") for label, entry in model["towers"].items()}
    if len(set(labels.values())) < len(labels):
        kinds = {label: entry["name"] for label, entry in model["towers"].items()}
        raise ConfigError(f"a folder holds one tower for texts and one for images, but this model has {kinds}; export a part with --tower.")
    towers = {labels[label]: {"name": entry["name"], "options": entry["options"]} for label, entry in model["towers"].items()}
    views = {view: labels[label] for view, label in model["views"].items()}
    params = {}
    for path, array in by_path(source.params).items():
        top, *rest = path.split("/")
        label = top.removeprefix("towers_")
        params["/".join([f"towers_{labels[label]}" if label in labels else top, *rest])] = np.asarray(array, np.float32)
    scale = dict(temperature_init=math.exp(-float(params["log_logit_scale"])))
    scale |= dict(logit_bias_init=float(params["logit_bias"]) if "logit_bias" in params else None)
    made = section({label: (entry["name"], entry["options"]) for label, entry in towers.items()}, views, **scale)
    return Imported(made, from_paths(params), source.tokenizer, source.transforms, (), source.prompts)


def _renumbered(source: Imported) -> Imported:
    """The model with another id than 2 at the end of texts, which `CLIPModel` takes for its first release's and then reads the largest
    id instead. The end and the tokenizer's largest id change places, in the table and in the tokenizer.
    """
    towers = source.model["towers"]
    if "text" not in towers or "eos_id" not in towers["text"]["options"] or towers["text"]["options"]["eos_id"] != 2:
        return source
    if source.tokenizer is None:
        raise ConfigError("CLIPModel cannot have 2 as the id that ends a text, and without a tokenizer ids cannot change; use open_clip.")
    tokenizer = swapped(source.tokenizer, 2, source.tokenizer.vocab_size - 1)
    flat, path = by_path(source.params), "towers_text/token_embedding"
    table = np.array(flat[path])
    table[[2, tokenizer.eos_id]] = table[[tokenizer.eos_id, 2]]
    model = plain(source.model)
    model["towers"]["text"]["options"] |= {"eos_id": tokenizer.eos_id}
    return Imported(model, from_paths(flat | {path: table}), tokenizer, source.transforms, (), source.prompts)


def part(source: Imported, label: str) -> Imported:
    """One tower of a model, with the views that it reads.

    Raises:
        ConfigError: no such tower.
    """
    choose(source.model["towers"], label, "--tower")
    views = {view: tower for view, tower in source.model["views"].items() if tower == label}
    model = dict(source.model) | {"towers": {label: source.model["towers"][label]}, "views": views}
    params = {name: tree for name, tree in source.params.items() if not name.startswith("towers_") or name == f"towers_{label}"}
    return Imported(model, params, source.tokenizer, source.transforms, (), source.prompts)


def _hf(family) -> Callable:
    """Writes `config.json`, weights, tokenizer and pixel statistics of a family."""

    def make(source: Imported, folder: pathlib.Path, truncate_dim: None) -> Callable[[pathlib.Path], Imported]:
        model = source.model
        write_json(folder / "config.json", family.config(model))
        text_only = "image" not in model["towers"]
        params = {path: a for path, a in by_path(source.params).items() if not text_only or path not in FREE}
        tensors.write(folder / "model.safetensors", mapping.write(family.rules(model), params, "this model"))
        _write_inputs(source, folder)
        return (lambda path: _read_pooled(family, model, path)) if text_only else hf.read

    return make


def _read_pooled(family, model: Mapping[str, Any], path: pathlib.Path) -> Imported:
    """The folder read back; a bare encoder's folder does not say how its tokens are pooled."""
    made = hf.model(path)
    options = model["towers"]["text"]["options"]
    made["towers"]["text"]["options"] |= {name: options[name] for name in ("pooling", "pooling_options")}
    found = tensors.read(path)
    return assemble(made, family.rules(made), found, str(path), ignored=family.IGNORED, tokenizer=inputs.tokenizer(path, made))


def _open_clip(source: Imported, folder: pathlib.Path, truncate_dim: None) -> Callable[[pathlib.Path], Imported]:
    model, how = source.model, inputs.how_images(source.model, source.transforms)
    config = open_clip.config(model, how["crop"], how["kernel"])
    _warn_of_centre(how, "round")
    if source.tokenizer is not None:
        # open_clip looks for the files beside its config, whatever the name.
        config["model_cfg"]["text_cfg"] |= {"hf_tokenizer_name": "local"}
    write_json(folder / open_clip.CONFIG, config)
    rules = open_clip.rules(model, open_clip.custom_text(model))
    tensors.write(folder / open_clip.WEIGHTS, mapping.write(rules, by_path(source.params), "this model"))
    _write_inputs(source, folder, pixels=False)
    return open_clip.read


def _sentence_transformers(source: Imported, folder: pathlib.Path, truncate_dim: int | None) -> Callable[[pathlib.Path], Imported]:
    """The legacy form, which old and new releases load."""
    model = source.model
    kinds = {label: entry["name"] for label, entry in model["towers"].items()}
    if set(kinds) != {"text"} or kinds["text"] not in TEXT_FAMILIES:
        raise ConfigError(
            f"a sentence-transformers folder holds one tower of {', '.join(TEXT_FAMILIES)}, but this model has {kinds}; "
            "it opens image-text models as --format=hf_clip writes them, and one tower is exported with --tower."
        )
    family, options = TEXT_FAMILIES[kinds["text"]], model["towers"]["text"]["options"]
    params = {path: a for path, a in by_path(source.params).items() if path not in FREE and "/projection/" not in path}
    write_json(folder / "config.json", family.config(model))
    tensors.write(folder / "model.safetensors", mapping.write(family.rules(model), params, "this model"))
    _write_inputs(source, folder)
    told = family.load_options(model) if hasattr(family, "load_options") else {}
    st.write(folder, options, source, length=golden.length(source), truncate_dim=truncate_dim, load_options=told)
    return st.read


EXPORTS = {
    "hf_bert": _hf(hf_bert),
    "hf_clip": _hf(hf_clip),
    "hf_decoder": _hf(hf_decoder),
    "hf_modernbert": _hf(hf_modernbert),
    "hf_siglip": _hf(hf_siglip),
    "hf_siglip2": _hf(hf_siglip2),
    "open_clip": _open_clip,
    "sentence_transformers": _sentence_transformers,
}


def _write_inputs(source: Imported, folder: pathlib.Path, pixels: bool = True) -> None:
    """Files of the tokenizer and of the image preparation."""
    if source.tokenizer is not None and "text" in source.model["towers"]:
        padded = source.model["towers"]["text"]["options"].get("attend_padding", False)
        source.tokenizer.export_hf(folder, golden.length(source), fixed=padded)
    if pixels and "image" in source.model["towers"]:
        options, how = source.model["towers"]["image"]["options"], inputs.how_images(source.model, source.transforms)
        made = _preprocessor(options, how) if "image_size" in options else _naflex_preprocessor(options, how)
        write_json(folder / "preprocessor_config.json", made)


def _preprocessor(options: Mapping[str, Any], how: Mapping[str, Any]) -> dict[str, Any]:
    """The library's words for the transform `resize`."""
    side, crop = options["image_size"], how["crop"]
    _warn_of_centre(how, "floor")
    clip = crop or options["pooling"] != "attention"
    whole = {"height": side, "width": side}
    cut = {"do_center_crop": crop, "crop_size": whole} if clip else {}
    size = {"size": {"shortest_edge": side} if crop else whole}
    return {"image_processor_type": "CLIPImageProcessor" if clip else "SiglipImageProcessor", **size, **_pixels(options, how), **cut}


def _naflex_preprocessor(options: Mapping[str, Any], how: Mapping[str, Any]) -> dict[str, Any]:
    """The library's words for the transform `patches`."""
    cut = {"patch_size": options["patch_size"], "max_num_patches": how["budget"]}
    return {"image_processor_type": "Siglip2ImageProcessor", **cut, **_pixels(options, how)}


def _pixels(options: Mapping[str, Any], how: Mapping[str, Any]) -> dict[str, Any]:
    wide = lambda values: list(values) * (options["channels"] if len(values) == 1 else 1)
    numbers = {kernel: number for number, kernel in inputs.KERNELS.items()}
    return {
        "do_resize": True, "resample": numbers[how["kernel"]], "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
        "image_mean": wide(options["pixel_mean"]), "image_std": wide(options["pixel_std"]), "do_convert_rgb": options["channels"] == 3,
    }  # fmt: skip


def _warn_of_centre(how: Mapping[str, Any], theirs: str) -> None:
    if how["crop"] and how["centre"] != theirs:
        log.warning(
            "images were cut with centre=%r, but the other library does %r, for which no file has a word: where an odd number of pixels "
            "stands over, it sees the image one pixel aside", how["centre"], theirs,
        )  # fmt: skip
