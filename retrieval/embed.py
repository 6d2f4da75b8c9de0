"""A run's checkpoint as an encoder of raw values: texts and images in, unit vectors out."""

import hashlib
import pathlib
from collections.abc import Sequence
from functools import partial

import flax.linen as nn
import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from core import mesh as meshes
from core.checkpoint import committed_steps, restore
from core.paths import by_path, from_paths, matches
from core.workdir import read_json
from input_pipeline import tokenize
from input_pipeline.image import resize
from input_pipeline.transforms import bind_transforms, stack
from models import dual


class Encoder:
    """A trained model with its tokenizer, on a mesh of its own.

    `logit_scale` and `logit_bias` (None for a model without) are the learned ones; `step` is the checkpoint's.
    """

    def __init__(self, config, params, tokenizer, mesh, step: int, weights: str):
        self.config, self.step, self.weights, self._tokenizer, self._mesh = config, step, weights, tokenizer, mesh
        self._model = dual.build(config.model, tokenizer.vocab_size if tokenizer else None)
        self._params, self._transforms = params, bind_transforms(config.data.transforms)
        self.logit_scale = float(np.exp(params["log_logit_scale"]))
        self.logit_bias = float(params["logit_bias"]) if "logit_bias" in params else None
        self._compiled = {view: jax.jit(partial(self._apply, view)) for view in self.views}

    @property
    def views(self) -> tuple[str, ...]:
        """Views by name: `image`, `text`, ..."""
        return tuple(self.config.model.views)

    def encode(self, values: Sequence | str, view: str | None = None, batch: int = 256) -> np.ndarray:
        """Unit vectors of texts or images.

        Args:
            values: strings; or images as uint8 arrays [H W] or [H W C], Pillow images or paths of files.
            view: which tower; by default the first that reads what was given.
            batch: rows encoded at once, rounded up to the mesh; the last rows are padded to it and cut off again.

        Returns:
            float32 [N d], rows of length one; [d] for a single string.

        Raises:
            ValueError: no view reads such values, or an unknown view.
        """
        if isinstance(values, str):
            return self.encode([values], view, batch)[0]
        view = self._view_for(values) if view is None else view
        if view not in self.views:
            raise ValueError(f"no view {view!r}; this model has {', '.join(self.views)}.")
        parts = meshes.shards(self._mesh)
        batch = -(-batch // parts) * parts
        rows = [self._rows(view, values[start : start + batch], batch) for start in range(0, len(values), batch)]
        return np.concatenate(rows) if rows else np.zeros((0, self._tower(view).output_dim), np.float32)

    def fingerprint(self) -> str:
        """16 hex digits that change with any parameter."""
        digest = hashlib.sha256()
        for path, leaf in sorted(by_path(self._params).items()):
            digest.update(path.encode() + np.asarray(leaf).tobytes())
        return digest.hexdigest()[:16]

    def _rows(self, view: str, values: Sequence, batch: int) -> np.ndarray:
        arrays = [np.concatenate([a, np.zeros((batch - len(a), *a.shape[1:]), a.dtype)]) for a in self._arrays(view, values)]
        with jax.set_mesh(self._mesh):
            placed = jax.device_put(arrays, meshes.batch_sharding(self._mesh))
            return np.asarray(self._compiled[view](self._params, *placed), np.float32)[: len(values)]

    def _apply(self, view: str, params, x, mask=None):
        return self._model.apply({"params": params}, view, x, mask, method="encode")["embedding"]

    def _tower(self, view: str) -> nn.Module:
        return self._model.towers[self.config.model.views[view]]

    def _reads_text(self, view: str) -> bool:
        return hasattr(self._tower(view), "vocab_size")

    def _view_for(self, values: Sequence) -> str:
        is_text = (
            len(values) > 0 and isinstance(values[0], str) and pathlib.Path(values[0]).suffix.lower() not in Image.registered_extensions()
        )
        found = [view for view in self.views if self._reads_text(view) == is_text]
        if not found:
            raise ValueError(f"no tower reads {'text' if is_text else 'images'}; this model has the views {', '.join(self.views)}.")
        return found[0]

    def _arrays(self, view: str, values: Sequence) -> tuple[np.ndarray, ...]:
        """The view's arrays as training makes them, without anything random: what it is, and its mask if it has one."""
        if not self._reads_text(view):
            tower = self._tower(view)
            values = [as_image(value, tower.image_size, tower.channels) for value in values]
        arrays = self._transforms.get(view, stack)(list(values), None, self._tokenizer)
        return tuple(arrays[suffix] for suffix in ("", "_mask") if suffix in arrays)


def as_image(value, size: int, channels: int) -> np.ndarray:
    """uint8 [size size channels] from a uint8 array, a Pillow image or a file; converted and resized where it differs.

    Raises:
        ValueError: an array that is not a uint8 image.
    """
    if isinstance(value, (str, pathlib.Path)):
        with Image.open(value) as file:
            file.load()
            value = file
    if not isinstance(value, Image.Image):
        value = np.asarray(value)
        if value.dtype != np.uint8 or value.ndim not in (2, 3) or (value.ndim == 3 and value.shape[2] not in (1, 3, 4)):
            raise ValueError(f"an image must be uint8 [H W] or [H W C] with C of 1, 3 or 4, not {value.dtype} {value.shape}.")
        value = Image.fromarray(value[..., 0] if value.ndim == 3 and value.shape[2] == 1 else value)
    array = np.asarray(value.convert("L" if channels == 1 else "RGB")).reshape(value.height, value.width, channels)
    return array if array.shape[:2] == (size, size) else resize(array, size, size)


def load(workdir, step: int | None = None, *, weights: str | None = None, mesh: jax.sharding.Mesh | None = None) -> Encoder:
    """The encoder of a run.

    Args:
        workdir: of the run.
        step: which checkpoint; the last committed one by default.
        weights: `params` or `ema`; by default the averages where the run keeps them.
        mesh: other devices than all of them on the data axis.

    Raises:
        FileNotFoundError: no run there, no committed checkpoint, or not the asked one.
    """
    workdir = pathlib.Path(workdir)
    if not (workdir / "config.json").exists():
        raise FileNotFoundError(f"{workdir} holds no config.json; give the --workdir of a training run.")
    config = ConfigDict(read_json(workdir / "config.json"))
    steps = committed_steps(workdir / "checkpoints")
    if not steps or (step is not None and step not in steps):
        raise FileNotFoundError(
            f"{workdir} has no committed checkpoint{'' if step is None else f' of step {step}'}; there are: {steps or 'none'}."
        )
    step = steps[-1] if step is None else step
    mesh = meshes.make() if mesh is None else mesh
    tokenizer = tokenize.load(workdir / "tokenizer") if (workdir / "tokenizer").is_dir() else None
    weights = weights or ("params" if config.optimizer.ema_decay is None else "ema")
    params = _restore(config, workdir / "checkpoints", step, weights, mesh, tokenizer)
    return Encoder(config, params, tokenizer, mesh, step, weights)


def _restore(config, folder: pathlib.Path, step: int, weights: str, mesh, tokenizer):
    """Parameters alone, whole on every device; an average holds only trainable leaves, so it is laid over the parameters."""
    model = dual.build(config.model, tokenizer.vocab_size if tokenizer else None)
    example = {}
    for view, label in config.model.views.items():
        tower = model.towers[label]
        text = hasattr(tower, "vocab_size")
        example[view] = np.zeros((1, 2), np.int32) if text else np.zeros((1, tower.image_size, tower.image_size, tower.channels), np.uint8)
    shapes = nn.unbox(jax.eval_shape(partial(model.init, jax.random.key(0)), example))["params"]
    like = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=meshes.replicated(mesh)), shapes)
    if weights == "params":
        return restore(folder, step, "params", like)
    trainable = {path: leaf for path, leaf in by_path(like).items() if not matches(path, config.optimizer.freeze)}
    averaged = restore(folder, step, "ema", trainable)
    return from_paths(by_path(restore(folder, step, "params", like)) | averaged) if config.optimizer.freeze else from_paths(averaged)
