"""Files of weights: every form that is read, and pickles, which are not."""

import json
import pickle

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open

import interop
from core.config import ConfigError
from interop import tensors
from tests.interop import toys

ARRAYS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.float16([1.5]),
    "c": ml_dtypes.bfloat16(np.ones((2, 2))),
    "s": np.float32(3),
}


def same(found):
    assert set(found) == set(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(np.asarray(found[name], np.float32), np.asarray(array, np.float32))


def test_one_file_and_a_folder(tmp_path):
    tensors.write(tmp_path / "model.safetensors", ARRAYS)
    same(tensors.read(tmp_path / "model.safetensors"))
    same(tensors.read(tmp_path))
    with safe_open(tmp_path / "model.safetensors", "numpy") as file:
        assert file.metadata() == {"format": "pt"}


def test_shards(tmp_path):
    names = list(ARRAYS)
    for i, part in enumerate((names[:2], names[2:])):
        tensors.write(tmp_path / f"model-{i}.safetensors", {name: ARRAYS[name] for name in part})
    index = {"weight_map": {name: f"model-{names.index(name) // 2}.safetensors" for name in names}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    same(tensors.read(tmp_path))
    index["weight_map"]["d"] = "model-0.safetensors"
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ConfigError, match="disagree on d"):
        tensors.read(tmp_path)
    for missing in ("model-9.safetensors", "../model-0.safetensors"):
        index["weight_map"]["d"] = missing
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(ConfigError, match=f"names the shard {missing}, which .* lacks"):
            tensors.read(tmp_path)


def test_npz_with_bfloat16(tmp_path):
    np.savez(tmp_path / "weights.npz", **ARRAYS)
    same(tensors.read(tmp_path / "weights.npz"))


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was opened",))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "epoch_1.pth", "model.pkl", "weights.ckpt"])
def test_pickles_are_refused_unopened(name, tmp_path):
    (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
    for path in (tmp_path / name, tmp_path):
        with pytest.raises(ConfigError, match=f"{name} is a pickle.* never opened here; get model.safetensors"):
            tensors.read(path)


def test_a_folder_with_a_pickle_alone_is_refused_by_every_reader(tmp_path):
    (toys.folder("bert", tmp_path) / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ConfigError, match="is a pickle"):
        interop.read(tmp_path)


def test_pickled_objects_inside_npz_are_refused(tmp_path):
    np.savez(tmp_path / "weights.npz", a=np.array([Bomb()], dtype=object))
    with pytest.raises(ConfigError, match="pickled objects inside are never opened"):
        tensors.read(tmp_path / "weights.npz")


def test_other_mistakes(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        tensors.read(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match="holds no model.safetensors"):
        tensors.read(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(ConfigError, match="neither .safetensors nor .npz"):
        tensors.read(tmp_path / "model.onnx")
    tensors.write(tmp_path / "model.safetensors", ARRAYS)
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:-4])
    with pytest.raises(ConfigError, match="no complete safetensors file"):
        tensors.read(tmp_path)
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(ConfigError, match="no npz"):
        tensors.read(tmp_path / "cut.npz")
