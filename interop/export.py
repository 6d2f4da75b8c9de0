"""Writes a model as a folder that another library opens offline, and refuses one that does not give the same vectors back.

Each format goes through the tables that read it. A folder appears whole, under its final name, only after it was read back.
"""

import json
import logging
import math
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from core.config import ConfigError, choose, plain
from core.paths import by_path, from_paths
from core.workdir import write_json
from interop import hf, hf_bert, hf_clip, hf_decoder, hf_modernbert, hf_siglip, inputs, mapping, names, open_clip, tensors
from interop import sentence_transformers as st
from interop.imported import Imported, assemble, section
from models import dual
from models.layers import unit

log = logging.getLogger(__name__)

BOUND = 1e-5  # largest difference of a value of a unit vector, in float32
LABELS = {"vit": "image"}  # what the tables call a tower of a kind; all others read text
TEXT_FAMILIES = {"bert": hf_bert, "decoder": hf_decoder, "modernbert": hf_modernbert}
FREE = ("log_logit_scale", "logit_bias")  # that text formats do not hold
TEXTS = (
    "A photo of a cat.",
    "",
    "Zwölf Boxkämpfer jagen Viktor quer über den Sylter Deich — 北京, naïve café!",
    "def f(x):\n    return x ** 2\n",
)


def write(source: Imported, output: pathlib.Path, format: str, *, truncate_dim: int | None = None, card: str = "") -> None:
    """Writes a folder.

    Args:
        source: the model.
        output: the folder; it may not exist, or must be empty.
        format: a name in `EXPORTS`.
        truncate_dim: leading values that sentence-transformers is told to keep.
        card: README.md.

    Raises:
        ConfigError: a folder that is in use, a model that the format cannot hold, or vectors that differ after reading back.
    """
    make = choose(EXPORTS, format, "--format")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigError(f"{output} exists already; give an --output that does not.")
    if truncate_dim is not None and format != "sentence_transformers":
        raise ConfigError(f"--truncate_dim is told to sentence-transformers alone; leave it out for --format={format}.")
    source = _relabelled(source)
    output.parent.mkdir(parents=True, exist_ok=True)
    folder = pathlib.Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}."))
    try:
        back = make(source, folder, truncate_dim)
        golden = _golden(source)
        _check(source, back(folder), golden, folder)
        np.savez(folder / "golden.npz", **golden)
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
    model = source.model
    config = open_clip.config(model)
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
    st.write(folder, options, source, _length(source), truncate_dim)
    return st.read


EXPORTS = {
    "hf_bert": _hf(hf_bert),
    "hf_clip": _hf(hf_clip),
    "hf_decoder": _hf(hf_decoder),
    "hf_modernbert": _hf(hf_modernbert),
    "hf_siglip": _hf(hf_siglip),
    "open_clip": _open_clip,
    "sentence_transformers": _sentence_transformers,
}


def _length(source: Imported) -> int:
    """Tokens at most that texts had in training."""
    options = source.model["towers"]["text"]["options"]
    stated = [t["options"]["length"] for t in source.transforms.values() if t["name"] == "tokenize" and "length" in t["options"]]
    return min([options["length"], *stated[:1]])


def _write_inputs(source: Imported, folder: pathlib.Path, pixels: bool = True) -> None:
    """Files of the tokenizer and of the image preparation."""
    if source.tokenizer is not None and "text" in source.model["towers"]:
        padded = source.model["towers"]["text"]["options"].get("attend_padding", False)
        source.tokenizer.export_hf(folder, _length(source), fixed=padded)
    if pixels and "image" in source.model["towers"]:
        write_json(folder / "preprocessor_config.json", _preprocessor(names.options(source.model, "vit")))


def _preprocessor(options: Mapping[str, Any]) -> dict[str, Any]:
    """Images are brought to the size in one step, as the transform `resize` does, not cropped."""
    wide = lambda values: list(values) * (options["channels"] if len(values) == 1 else 1)
    kind = "SiglipImageProcessor" if options["pooling"] == "attention" else "CLIPImageProcessor"
    crop = {} if options["pooling"] == "attention" else {"do_center_crop": False}
    return {
        "image_processor_type": kind, "do_resize": True, "size": {"height": options["image_size"], "width": options["image_size"]},
        "resample": 3, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": wide(options["pixel_mean"]),
        "image_std": wide(options["pixel_std"]), "do_convert_rgb": options["channels"] == 3, **crop,
    }  # fmt: skip


def _golden(source: Imported) -> dict[str, np.ndarray]:
    """Inputs and the vectors that the source makes of them, for whoever opens the folder."""
    made, towers = {}, source.model["towers"]
    if "image" in towers:
        options = towers["image"]["options"]
        shape = (3, options["image_size"], options["image_size"], options["channels"])
        made["images"] = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        made["image_vectors"] = _encode(source, "image", made["images"])
    if "text" in towers:
        length = _length(source)
        if source.tokenizer is None:
            rows = np.random.default_rng(0).integers(1, towers["text"]["options"]["vocab_size"], (3, length))
            made["ids"], made["mask"] = rows.astype(np.int32), np.ones((3, length), bool)
        else:
            made["texts"] = np.array(TEXTS)
            made["ids"], made["mask"] = source.tokenizer(TEXTS, length)
        made["text_vectors"] = _encode(source, "text", made["ids"], made["mask"])
    return made


def _encode(source: Imported, label: str, x: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Unit vectors of a tower, in float32 whatever the model computes in."""
    entry = source.model["towers"][label]
    tower = dual.build(ConfigDict({**section({label: (entry["name"], entry["options"] | {"dtype": "float32"})})})).towers[label]
    run = jax.jit(lambda params, x, mask: unit(tower.apply({"params": params}, x, mask)["embedding"]))
    return np.asarray(run(source.params[f"towers_{label}"], x, mask))


def _check(source: Imported, back: Imported, golden: Mapping[str, np.ndarray], folder: pathlib.Path) -> None:
    """Refuses a folder that reads texts as other ids, or gives other vectors, than the source."""
    found = {}
    if "texts" in golden:
        ids, mask = back.tokenizer(list(golden["texts"]), golden["ids"].shape[1])
        kept = np.where(golden["mask"], golden["ids"], 0)
        if not np.array_equal(mask, golden["mask"]) or not np.array_equal(np.where(mask, ids, 0), kept):
            raise ConfigError("the tokenizer in the new folder reads the golden texts as other ids; nothing was exported.")
        found["text"] = np.abs(_encode(back, "text", ids, mask) - golden["text_vectors"]).max()
    elif "ids" in golden:
        found["text"] = np.abs(_encode(back, "text", golden["ids"], golden["mask"]) - golden["text_vectors"]).max()
    if "images" in golden:
        found["image"] = np.abs(_encode(back, "image", golden["images"]) - golden["image_vectors"]).max()
    log.info("read back: %s", ", ".join(f"{label} vectors differ by at most {value:.1e}" for label, value in found.items()))
    if not all(value <= BOUND for value in found.values()):  # NaN is not
        raise ConfigError(f"vectors of the new folder differ from the source's by {json.dumps({k: float(v) for k, v in found.items()})}, "
                          f"more than {BOUND}; nothing was exported.")  # fmt: skip
