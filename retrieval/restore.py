"""Opens what holds a model: the workdir of a run, or a folder or file of another library."""

import pathlib
from collections.abc import Mapping, Sequence
from functools import partial

import flax.linen as nn
import jax
import numpy as np
from ml_collections import ConfigDict

import interop
from core import mesh as meshes
from core.checkpoint import committed_steps, restore
from core.config import ConfigError
from core.paths import by_path, from_paths, matches
from core.storage import as_path, spooled
from core.workdir import read_json
from input_pipeline import tokenize
from interop.imported import example
from models import adapters, dual
from retrieval.encoder import Encoder


def load(
    path, step: int | None = None, *, weights: str | None = None, mesh: jax.sharding.Mesh | None = None,
    layers: int | Mapping[str, int] | None = None, truncate_dim: int | None = None, dtype: str = "float32", format: str | None = None,
) -> Encoder:  # fmt: skip
    """The encoder of a run, or of a model that another library wrote.

    Args:
        path: the workdir of a run; or a folder or file that `interop.read` knows.
        step: which checkpoint of a run; the last committed one by default.
        weights: of a run, `params` or `ema`; by default the averages where the run keeps them.
        mesh: other devices than all of them on the data axis.
        layers: keep so many first layers of every tower, or by the label of a tower, for a model trained so that they end in embeddings
            (`losses/matryoshka_2d.py`, `losses/starbucks.py`).
        truncate_dim: keep so many leading values of each vector and bring it to length one again, for a model trained with Matryoshka
            losses; by default what a sentence-transformers folder says.
        dtype: `bfloat16` rounds the operands of products by a matrix and leaves the rest as it is: where the processor has bfloat16
            instructions, all-MiniLM-L6-v2 encodes 1.5 times as fast, at cosines of 0.99998 and more to its float32 vectors.
        format: of another library's model, a name in `interop.FORMATS`; by default what the path looks like.

    Raises:
        FileNotFoundError: no model there, no committed checkpoint, or not the asked one.
        ConfigError: a model that does not fit its weights, or options that do not fit the model.
    """
    path = as_path(path)
    mesh = meshes.make() if mesh is None else mesh
    if is_run(path) and format is None:
        whole = _of_run(path, step, weights, mesh, dict(truncate_dim=truncate_dim, dtype=dtype))
        return whole if layers is None else whole.smaller(layers=layers)
    if format is None and not any(reader.claims(path) for reader in interop.FORMATS.values()):
        known = ", ".join(interop.FORMATS)
        raise FileNotFoundError(
            f"{path} holds no config.json; give the --workdir of a training run, or a model in one of the formats {known}."
        )
    if step is not None or weights is not None:
        raise ConfigError(f"{path} is no run of Tandem: it has one set of weights; leave out step and weights.")
    whole = _of_import(path, format, mesh, dict(truncate_dim=truncate_dim, dtype=dtype))
    return whole if layers is None else whole.smaller(layers=layers)


def embed(
    model: Encoder | str | pathlib.Path, values: Sequence | str, view: str | None = None, *,
    step: int | None = None, prompt: str | None = None,
) -> np.ndarray:  # fmt: skip
    """Unit vectors of texts or images.

    Args:
        model: the workdir of a run, or what another library wrote; for several calls an encoder (`load`), which reads and compiles once.
        values: strings; or images as uint8 arrays [H W] or [H W C], Pillow images or paths of files.
        view: which tower; by default the first that reads what was given.
        step: of a run, which committed checkpoint; the last by default.
        prompt: put before each text, in place of the view's own.

    Returns:
        float32 [N d], rows of length one; [d] for a single string.

    Raises:
        FileNotFoundError: no model there, or no such checkpoint.
        ConfigError: no view reads such values, or an unknown view.
    """
    encoder = model if isinstance(model, Encoder) else load(model, step)
    return encoder.encode(values, view, prompt=prompt)


def is_run(path: pathlib.Path) -> bool:
    """Whether a folder is the workdir of a run; other libraries write a config.json too."""
    if not (path / "config.json").is_file():
        return False
    found = read_json(path / "config.json")
    return isinstance(found, dict) and {"model", "data", "optimizer"} <= found.keys()


def _of_import(path: pathlib.Path, format: str | None, mesh, options) -> Encoder:
    found = interop.read(path, format)
    config = ConfigDict(dict(model=found.model, data=dict(transforms=found.transforms, tokenizer=None), losses={}, evals={}))
    params = jax.device_put(found.params, meshes.replicated(mesh))
    options |= {} if options["truncate_dim"] else {"truncate_dim": found.truncate_dim}
    return Encoder(config, params, found.tokenizer, mesh, 0, "params", prompts=found.prompts, **options)


def _of_run(workdir: pathlib.Path, step: int | None, weights: str | None, mesh, options) -> Encoder:
    config = ConfigDict(read_json(workdir / "config.json"))
    steps = committed_steps(workdir / "checkpoints")
    if not steps or (step is not None and step not in steps):
        raise FileNotFoundError(
            f"{workdir} has no committed checkpoint{'' if step is None else f' of step {step}'}; there are: {steps or 'none'}."
        )
    step = steps[-1] if step is None else step
    tokenizer = _tokenizer(workdir / "tokenizer")
    weights = weights or ("params" if config.optimizer.ema_decay is None else "ema")
    params = _restore(config, workdir / "checkpoints", step, weights, mesh, tokenizer)
    params = {name: leaves for name, leaves in params.items() if name.removeprefix("towers_") not in dual.companions(config.model)}
    with config.unlocked():
        config.model = dual.alone(config.model)
    return Encoder(config, params, tokenizer, mesh, step, weights, **options)


def _tokenizer(folder: pathlib.Path) -> tokenize.Tokenizer | None:
    if not folder.is_dir():
        return None
    with spooled(folder, ["*"]) as files:
        return tokenize.load(files)


def _restore(config, folder: pathlib.Path, step: int, weights: str, mesh, tokenizer):
    """Parameters alone, whole on every device, adapters added in; an average holds only trainable leaves and is laid over the rest."""
    model = dual.build(config.model, tokenizer.vocab_size if tokenizer else None)
    examples = {view: example(model.towers[label]) for view, label in config.model.views.items()}
    boxed = jax.eval_shape(partial(model.init, jax.random.key(0)), examples)["params"]
    adapted, frozen = adapters.make(config.model, boxed), adapters.frozen(config)
    like = jax.tree.map(
        lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=meshes.replicated(mesh)), nn.unbox(boxed | adapted.boxed())
    )
    params = restore(folder, step, "params", like) if weights == "params" or frozen else {}
    if weights == "ema":
        trainable = {path: leaf for path, leaf in by_path(like).items() if not matches(path, frozen)}
        params = from_paths(by_path(params) | restore(folder, step, "ema", trainable))
    return adapted.merge(params)
