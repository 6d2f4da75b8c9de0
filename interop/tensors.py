"""Tensors by name from the files of other libraries: safetensors (also sharded) and npz. Pickles are refused, never opened."""

import json
import os
import pathlib
import zipfile
from collections.abc import Mapping

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from core.config import ConfigError

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib")
NAMES = ("model.safetensors", "open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")  # in the order they are looked for
INDEX = "model.safetensors.index.json"


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Every tensor of a file, or of the weights in a folder.

    Args:
        path: a `.safetensors`, `.safetensors.index.json` or `.npz` file, or a folder that holds one of the usual names.

    Raises:
        FileNotFoundError: nothing there.
        ConfigError: a pickle, a file cut short, or a shard that the index names and the folder lacks.
    """
    path = find(path)
    if path.name.endswith(".index.json"):
        return _read_shards(path)
    return _read_npz(path) if path.suffix == ".npz" else _read_safetensors(path)


def find(path: str | os.PathLike) -> pathlib.Path:
    """The file that holds the weights.

    Raises:
        FileNotFoundError: nothing there, or a folder without weights.
        ConfigError: only pickles there, or a file of another kind.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give a folder or file of weights.")
    if path.is_dir():
        return _find_in(path)
    if path.suffix in PICKLES:
        raise ConfigError(_pickle(path))
    if path.suffix not in (".safetensors", ".npz") and not path.name.endswith(".safetensors.index.json"):
        raise ConfigError(f"{path} is neither .safetensors nor .npz; give weights in one of these.")
    return path


def _find_in(folder: pathlib.Path) -> pathlib.Path:
    for name in (NAMES[0], INDEX, *NAMES[1:]):
        if (folder / name).exists():
            return folder / name
    found = sorted(folder.glob("*.safetensors")) + sorted(folder.glob("*.npz"))
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(f"{folder} holds several files of weights: {', '.join(p.name for p in found)}; give one of them as the path.")
    if pickles := [p for p in sorted(folder.iterdir()) if p.suffix in PICKLES]:
        raise ConfigError(_pickle(pickles[0]))
    raise FileNotFoundError(f"{folder} holds no {NAMES[0]} and no {INDEX}; is it the folder of a model?")


def _pickle(path: pathlib.Path) -> str:
    return (
        f"{path} is a pickle, which runs whatever code its author put in and is never opened here; get {NAMES[0]} of the same model "
        "(most hubs hold one), or convert it where you trust it: safetensors.torch.save_file(torch.load(file, weights_only=True), ...)."
    )


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise ConfigError(f"{path} is no complete safetensors file ({error}); download it again.") from error


def _read_shards(index: pathlib.Path) -> dict[str, np.ndarray]:
    weight_map: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    tensors = {}
    for name in sorted(set(weight_map.values())):
        # An index may not lead out of its folder.
        if pathlib.PurePath(name).name != name or not (index.parent / name).exists():
            raise ConfigError(f"{index} names the shard {name}, which {index.parent} lacks; download it too.")
        tensors |= _read_safetensors(find(index.parent / name))
    if sorted(tensors) != sorted(weight_map):
        odd = sorted(set(tensors) ^ set(weight_map))
        raise ConfigError(f"{index} and its shards disagree on {', '.join(odd[:5])}; they belong to different models.")
    return tensors


def _read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: _bfloat16(file[name]) for name in file.files}
    except (ValueError, zipfile.BadZipFile, EOFError) as error:
        raise ConfigError(f"{path} is no npz of plain arrays ({error}); pickled objects inside are never opened.") from error


def _bfloat16(array: np.ndarray) -> np.ndarray:
    """npz knows no bfloat16 and keeps its two bytes as they are."""
    if array.dtype.kind != "V" or array.dtype.itemsize != 2:
        return array
    return (array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


def write(path: str | os.PathLike, tensors: Mapping[str, np.ndarray]) -> None:
    """A safetensors file as torch's libraries expect it: they refuse one without this format name."""
    save_file({name: np.array(a, order="C") for name, a in tensors.items()}, path, metadata={"format": "pt"})
