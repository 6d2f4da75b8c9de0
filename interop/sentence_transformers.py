"""sentence-transformers folders: `modules.json` with Transformer, Pooling, Dense and Normalize, in the legacy form and as 6.2 writes it.

Vectors here always have length one, with a Normalize module or without.
"""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

from core.config import ConfigError
from core.workdir import read_json, write_json
from interop import hf, inputs, mapping, tensors
from interop.imported import Imported, assemble

MODULES, SETTINGS, LENGTHS = "modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"
# Our pooling to the legacy flag, without `pooling_mode_`, and to the word that 6.2 writes.
POOLINGS = {
    "cls": ("cls_token", "cls"), "mean": ("mean_tokens", "mean"), "max": ("max_tokens", "max"),
    "mean_sqrt_length": ("mean_sqrt_len_tokens", "mean_sqrt_len_tokens"), "weighted_mean": ("weightedmean_tokens", "weightedmean"),
    "last": ("lasttoken", "lasttoken"),
}  # fmt: skip
ACTIVATIONS = {
    "": "torch.nn.modules.linear.Identity", "tanh": "torch.nn.modules.activation.Tanh", "gelu": "torch.nn.modules.activation.GELU",
    "relu": "torch.nn.modules.activation.ReLU", "silu": "torch.nn.modules.activation.SiLU",
}  # fmt: skip
VERSIONS = {"sentence_transformers": "2.0.0", "transformers": "4.6.1", "pytorch": "1.8.1"}  # whose form a new folder has
VIEWS = {"query": ("query",), "passage": ("passage", "document", "corpus")}  # our views, and the names of prompts for them


def claims(path: pathlib.Path) -> bool:
    """Whether a path looks like this format."""
    return (path / MODULES).exists()


def read(path: str | os.PathLike) -> Imported:
    """The encoder in a folder.

    Raises:
        FileNotFoundError: a file that `modules.json` names is missing.
        ConfigError: a module of another kind or in another place, or weights that do not fit their config.
    """
    path = pathlib.Path(path)
    parts = _modules(path)
    root = path / parts["Transformer"]
    made = model(path)
    if len(made["towers"]) > 1:
        return hf.read(root)
    settings, pooling = _settings(path), read_json(path / parts["Pooling"] / "config.json")
    family = hf.choose(hf.read_config(root), root)
    found = tensors.read(root)
    rules = mapping.fit_names(family.rules(made), found, family.PREFIXES)
    if "Dense" in parts:
        (label,) = made["towers"]
        found |= {f"{parts['Dense']}/{name}": array for name, array in tensors.read(path / parts["Dense"]).items()}
        rules += dense_rules(label, f"{parts['Dense']}/", made["towers"][label]["options"]["projection_bias"])
    prompts = _view_prompts(settings, made["views"])
    return assemble(
        made, rules, found, str(tensors.find(root)), ignored=family.IGNORED,
        tokenizer=inputs.tokenizer(path, made),
        transforms=inputs.transforms(made, _length(path, root), prompts, pooling.get("include_prompt", True)),
        prompts=settings["prompts"], truncate_dim=settings["truncate_dim"],
    )  # fmt: skip


def model(path: str | os.PathLike) -> dict[str, Any]:
    """The `config.model` of a folder, without its weights."""
    path = pathlib.Path(path)
    parts = _modules(path)
    made = hf.model(path / parts["Transformer"])
    if len(made["towers"]) > 1:
        return made
    if "Pooling" not in parts:
        raise ConfigError(f"{path / MODULES} lists no Pooling; a Transformer alone yields tokens, no embedding.")
    ((label, entry),) = made["towers"].items()
    entry["options"] |= {"pooling": _pooling(path / parts["Pooling"] / "config.json")}
    if "Dense" in parts:
        entry["options"] |= _dense_options(path / parts["Dense"] / "config.json")
    made["views"] |= {view: label for view in _view_prompts(_settings(path), ("query", "passage"))}
    return made


def dense_rules(label: str, prefix: str, bias: bool) -> list[mapping.Rule]:
    """The table of a Dense module, our projection."""
    return mapping.linear(f"towers_{label}/projection", f"{prefix}linear", bias=bias)


def _modules(path: pathlib.Path) -> dict[str, str]:
    """Folder of each module by its kind.

    Raises:
        ConfigError: other modules, or these in another order.
    """
    listed = read_json(path / MODULES)
    if not isinstance(listed, list) or not all(isinstance(entry, dict) and {"type", "path"} <= set(entry) for entry in listed):
        raise ConfigError(f"{path / MODULES} is no list of modules, each with a type and a path; get the file anew.")
    found = [(entry["type"].rsplit(".", 1)[-1], entry["path"]) for entry in listed]
    kinds = [kind for kind, _ in found]
    if kinds[:1] == ["CLIPModel"]:
        return {"Transformer": found[0][1]}
    known = [kind for kind in ("Transformer", "Pooling", "Dense", "Normalize") if kind in kinds]
    if kinds != known or "Transformer" not in kinds:
        raise ConfigError(
            f"{path / MODULES} lists {', '.join(kinds) or 'nothing'}; only Transformer, Pooling, at most one Dense and Normalize, in this "
            "order, can be read."
        )
    return dict(found)


def _settings(path: pathlib.Path) -> dict[str, Any]:
    stated = read_json(path / SETTINGS) if (path / SETTINGS).exists() else {}
    return {"prompts": {}, "default_prompt_name": None, "truncate_dim": None} | stated


def _view_prompts(settings: Mapping[str, Any], views) -> dict[str, str]:
    """Prompt of each view: by its name, or the default for texts of no kind; empty ones are left out."""
    prompts, default = settings["prompts"], settings["default_prompt_name"]
    named = {"text": default and prompts[default]}
    named |= {view: next((prompts[name] for name in names if name in prompts), None) for view, names in VIEWS.items()}
    return {view: named[view] for view in views if named.get(view)}


def _pooling(file: pathlib.Path) -> str:
    stated = read_json(file)
    if "pooling_mode" in stated:
        words = stated["pooling_mode"] if isinstance(stated["pooling_mode"], list) else [stated["pooling_mode"]]
        found = [ours for ours, (_, word) in POOLINGS.items() if word in words]
    else:
        words = [name for name, value in stated.items() if name.startswith("pooling_mode_") and value]
        found = [ours for ours, (flag, _) in POOLINGS.items() if f"pooling_mode_{flag}" in words]
    if len(found) != 1 or len(words) != 1:
        raise ConfigError(f"{file} states {', '.join(words) or 'no pooling'}; one of {', '.join(POOLINGS)} is needed.")
    return found[0]


def _dense_options(file: pathlib.Path) -> dict[str, Any]:
    stated = read_json(file)
    if missing := sorted({"activation_function", "bias", "out_features"} - set(stated)):
        raise ConfigError(f"{file} does not state {', '.join(missing)}; get the file anew.")
    name = stated["activation_function"]
    found = [ours for ours, theirs in ACTIVATIONS.items() if theirs.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]]
    if not found:
        raise ConfigError(f"{file} states the activation_function {name!r}; known ones are: {', '.join(ACTIVATIONS.values())}.")
    return {"embed_dim": stated["out_features"], "projection_bias": stated["bias"], "projection_activation": found[0]}


def _length(path: pathlib.Path, root: pathlib.Path) -> int | None:
    """The smaller of what sentence-transformers and the tokenizer state."""
    stated = read_json(root / LENGTHS).get("max_seq_length") if (root / LENGTHS).exists() else None
    return stated or inputs.stated_length(root)


def write(
    folder: pathlib.Path, options: Mapping[str, Any], source: Imported, *, length: int, truncate_dim: int | None,
    load_options: Mapping[str, Any],
) -> None:  # fmt: skip
    """Everything but the transformer itself, in the legacy form.

    Args:
        folder: gets the files.
        options: of the text tower.
        source: whose prompts and projection go along.
        length: tokens at most.
        truncate_dim: leading values to keep, or None.
        load_options: what transformers must be told to build the transformer.

    Raises:
        ConfigError: a pooling that the library does not have, or more values than there are.
    """
    if options["pooling"] not in POOLINGS:
        raise ConfigError(f"sentence-transformers cannot pool by {options['pooling']!r}; it has: {', '.join(POOLINGS)}.")
    if options["projection_activation"] not in ACTIVATIONS:
        known = ", ".join(name for name in ACTIVATIONS if name)
        raise ConfigError(f"sentence-transformers has no {options['projection_activation']!r} after a Dense; it has: {known}.")
    dim = options["embed_dim"] or options["width"]
    if truncate_dim is not None and not 1 <= truncate_dim <= dim:
        raise ConfigError(f"--truncate_dim is {truncate_dim}, but vectors have {dim} values; choose 1 to {dim}.")
    kinds = [("Transformer", ""), ("Pooling", "1_Pooling"), *([("Dense", "2_Dense")] if options["embed_dim"] else [])]
    kinds.append(("Normalize", f"{len(kinds)}_Normalize"))
    listed = [{"idx": i, "name": str(i), "path": at, "type": f"sentence_transformers.models.{kind}"} for i, (kind, at) in enumerate(kinds)]
    write_json(folder / MODULES, listed)
    prompts = _export_prompts(source)
    settings = {
        "__version__": VERSIONS, "prompts": prompts, "default_prompt_name": "text" if "text" in prompts else None,
        "similarity_fn_name": "cosine",
    }  # fmt: skip
    write_json(folder / SETTINGS, settings | ({} if truncate_dim is None else {"truncate_dim": truncate_dim}))
    lengths = {"max_seq_length": length, "do_lower_case": False}  # the tokenizer's own files say what it folds
    write_json(folder / LENGTHS, lengths | ({"model_args": dict(load_options)} if load_options else {}))
    pools_prompt = all(t["options"].get("pool_prompt", True) for t in source.transforms.values())
    flags = {f"pooling_mode_{flag}": options["pooling"] == ours for ours, (flag, _) in POOLINGS.items()}
    pooling = {"word_embedding_dimension": options["width"], **flags, "include_prompt": pools_prompt}
    write_json(folder / "1_Pooling" / "config.json", pooling)
    if options["embed_dim"]:
        _write_dense(folder / "2_Dense", options, source)


def _export_prompts(source: Imported) -> dict[str, str]:
    """Prompts by name: those that came along, and each view's own under the names that the library looks for."""
    own = {view: t["options"]["prompt"] for view, t in source.transforms.items() if t["options"].get("prompt")}
    named = {"document" if view == "passage" else view: text for view, text in own.items()}
    return dict(source.prompts) | named


def _write_dense(folder: pathlib.Path, options: Mapping[str, Any], source: Imported) -> None:
    theirs = dict(
        in_features=options["width"], out_features=options["embed_dim"], bias=options["projection_bias"],
        activation_function=ACTIVATIONS[options["projection_activation"]],
    )  # fmt: skip
    write_json(folder / "config.json", theirs)
    params = {f"towers_text/projection/{name}": array for name, array in source.params["towers_text"]["projection"].items()}
    tensors.write(
        folder / "model.safetensors", mapping.write(dense_rules("text", "", options["projection_bias"]), params, "the projection")
    )
