"""Opens what holds a model: the workdir of a run, or a folder or file of another library."""

import pathlib
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

import interop
from core import mesh as meshes
from core.config import ConfigError
from core.storage import as_path
from interop import tandem
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
    if tandem.is_run(path) and format in (None, "tandem"):
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


def _of_import(path: pathlib.Path, format: str | None, mesh, options) -> Encoder:
    found = interop.read(path, format)
    config = ConfigDict(dict(model=found.model, data=dict(transforms=found.transforms, tokenizer=None), losses={}, evals={}))
    params = jax.device_put(found.params, meshes.replicated(mesh))
    options |= {} if options["truncate_dim"] else {"truncate_dim": found.truncate_dim}
    return Encoder(config, params, found.tokenizer, mesh, 0, "params", prompts=found.prompts, **options)


def _of_run(workdir: pathlib.Path, step: int | None, weights: str | None, mesh, options) -> Encoder:
    config, params, tokenizer, step, weights = tandem.load(workdir, step, weights, meshes.replicated(mesh))
    return Encoder(config, params, tokenizer, mesh, step, weights, **options)
