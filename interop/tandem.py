"""Runs of Tandem itself: what a training left in its workdir, whole or as the start of another run's towers."""

import os
import pathlib
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from ml_collections import ConfigDict

from core.checkpoint import committed_steps, restore
from core.config import plain
from core.paths import by_path, from_paths, matches
from core.storage import as_path, spooled
from core.workdir import read_json
from input_pipeline import tokenize
from interop.imported import Imported, complete, example
from models import adapters, dual


class Stored(NamedTuple):
    """A checkpoint of a run as an encoder needs it: towers that only losses look at and heads are left out."""

    config: ConfigDict  # of the run; `model` without what was left out
    params: dict[str, Any]
    tokenizer: tokenize.Tokenizer | None
    step: int
    weights: str  # `params` or `ema`


def is_run(path: pathlib.Path) -> bool:
    """Whether a folder is the workdir of a run; other libraries write a config.json too."""
    if not (path / "config.json").is_file():
        return False
    found = read_json(path / "config.json")
    return isinstance(found, dict) and {"model", "data", "optimizer"} <= found.keys()


def claims(path: pathlib.Path) -> bool:
    """Whether a path is a workdir, or one of its checkpoints."""
    return is_run(place(path)[0])


def model(path: str | os.PathLike) -> dict[str, Any]:
    """The `config.model` of a run with all options of its towers, but for what only losses look at.

    Raises:
        FileNotFoundError: no run there.
    """
    return _complete(dual.alone(_config(place(path)[0]).model))


def read(path: str | os.PathLike) -> Imported:
    """The model in a workdir (its last committed checkpoint), or in `<workdir>/checkpoints/<step>`.

    Averages where the run keeps them; low-rank adapters are merged.

    Raises:
        FileNotFoundError: no run there, or no such committed checkpoint.
    """
    workdir, step = place(path)
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    found = load(workdir, step, None, here)
    params = jax.tree.map(np.asarray, found.params)
    made, prepared = _complete(found.config.model), plain(found.config.data.transforms)
    return Imported(made, params, found.tokenizer, prepared, tuple(by_path(params)), {})


def load(path: str | os.PathLike, step: int | None, weights: str | None, sharding: jax.sharding.Sharding) -> Stored:
    """A checkpoint of a run, every parameter laid out as `sharding` says.

    Args:
        path: the workdir.
        step: None takes the last committed one.
        weights: `params` or `ema`; None takes averages where the run keeps them.
        sharding: of all parameters.

    Raises:
        FileNotFoundError: no run there, or no such committed checkpoint.
    """
    workdir = as_path(path)
    config, steps = _config(workdir), committed_steps(workdir / "checkpoints")
    if not steps or (step is not None and step not in steps):
        raise FileNotFoundError(
            f"{workdir} has no committed checkpoint{'' if step is None else f' of step {step}'}; there are: {steps or 'none'}."
        )
    step = steps[-1] if step is None else step
    tokenizer = _tokenizer(workdir / "tokenizer")
    weights = weights or ("params" if config.optimizer.ema_decay is None else "ema")
    params = _restore(config, workdir / "checkpoints", step, weights, sharding, tokenizer)
    params = {name: leaves for name, leaves in params.items() if name.removeprefix("towers_") not in dual.companions(config.model)}
    with config.unlocked():
        config.model = dual.alone(config.model)
    return Stored(config, params, tokenizer, step, weights)


def place(path: str | os.PathLike) -> tuple[pathlib.Path, int | None]:
    """Workdir and step of a path to a workdir, of which no step is said, or to one of its checkpoints."""
    path = as_path(path)
    if path.parent.name == "checkpoints" and path.name.isdigit():
        return path.parent.parent, int(path.name)
    return path, None


def _config(workdir: pathlib.Path) -> ConfigDict:
    if not is_run(workdir):
        raise FileNotFoundError(f"{workdir} holds no config.json of a run; give the --workdir of a training run.")
    return ConfigDict(read_json(workdir / "config.json"))


def _complete(section: ConfigDict) -> dict[str, Any]:
    towers = {label: {"name": tower.name, "options": complete(tower.name, plain(tower.options))} for label, tower in section.towers.items()}
    scale = {name: section[name] for name in ("temperature_init", "logit_bias_init")}
    return {"towers": towers, "views": plain(section.views)} | scale


def _tokenizer(folder: pathlib.Path) -> tokenize.Tokenizer | None:
    if not folder.is_dir():
        return None
    with spooled(folder, ["*"]) as files:
        return tokenize.load(files)


def _restore(config, folder: pathlib.Path, step: int, weights: str, sharding, tokenizer):
    """Parameters alone, adapters added in; an average holds only trainable leaves and is laid over the rest."""
    built = dual.build(config.model, tokenizer.vocab_size if tokenizer else None)
    examples = {view: example(built.towers[label]) for view, label in config.model.views.items()}
    boxed = jax.eval_shape(partial(built.init, jax.random.key(0)), examples)["params"]
    adapted, frozen = adapters.make(config.model, boxed), adapters.frozen(config)
    like = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding), nn.unbox(boxed | adapted.boxed()))
    params = restore(folder, step, "params", like) if weights == "params" or frozen else {}
    if weights == "ema":
        trainable = {path: leaf for path, leaf in by_path(like).items() if not matches(path, frozen)}
        params = from_paths(by_path(params) | restore(folder, step, "ema", trainable))
    return adapted.merge(params)
