"""One evaluation: what its score depends on, and the file it becomes.

The eval job of a run (`job.py`) and suites over any models (`suite.py`) measure and write through here, so that their numbers compare.
"""

import importlib.metadata
import inspect
import math
import pathlib
import time
from collections import ChainMap
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from core import storage
from core.config import ConfigError, bind, check_section, choose, options_of, plain
from core.workdir import read_json, write_json
from evals import EVALUATORS
from evals.cut import Cut
from evals.encoders import Encoders, Listening
from evals.evaluation import Evaluation
from input_pipeline import EVAL_SETS, SOURCES, files
from input_pipeline.batching import make_source

DATA = ChainMap(SOURCES, EVAL_SETS)  # what an evaluation may read
PACKAGES = ("jax", "jaxlib", "flax", "numpy", "scipy", "scikit-learn", "pillow", "tokenizers", "sentencepiece", "bm25s")


class NoData(ConfigError):
    """A set that is not on this machine."""


def check(entry, key: str) -> None:
    """Refuses an evaluator, data or options that do not exist.

    Raises:
        ConfigError: names the key.
    """
    bind(choose(EVALUATORS, entry.name, f"{key}.name"), entry.options, f"{key}.options")
    check_section(entry.data, ("name", "options", "prompts"), f"{key}.data", optional=("prompts",))
    bind(choose(DATA, entry.data.name, f"{key}.data.name"), entry.data.options, f"{key}.data.options")
    if "prompts" in entry.data and entry.data.name in EVAL_SETS:
        raise ConfigError(f"{key}.data.prompts: {entry.data.name} takes none; set config.data.transforms.<view>.options.prompt.")
    if "cut" in entry:
        bind(Cut, entry.cut, f"{key}.cut")


def measure(encode: Encoders, entry: Mapping, key: str) -> tuple[Evaluation, dict[str, Any], float]:
    """Runs the evaluator of an entry.

    Args:
        encode: the model.
        entry: `name`, `data` and `options`, and `cut` where only a part of the data is used.
        key: its path, for example `config.evals.unseen`.

    Returns:
        What it found, the settings that this depends on, and the seconds it took.

    Raises:
        ConfigError: an entry that does not fit the code, or data that is not there.
        NoData: no folder where it says.
        NoView: the model cannot read the data.
    """
    start, heard = time.monotonic(), {}
    evaluator = bind(choose(EVALUATORS, entry.name, f"{key}.name"), entry.options, f"{key}.options")
    data = _open(entry, key)
    data = bind(Cut, entry.cut, f"{key}.cut")(data) if "cut" in entry else data
    evaluation = evaluator(Listening(encode, heard), data)
    return evaluation, settings(encode, entry, heard), time.monotonic() - start


def _open(entry: Mapping, key: str) -> Any:
    folder = entry.data.options.path if "path" in entry.data.options else None
    if folder is not None and not files.exists(folder):
        raise NoData(f"{key}.data.options.path: there is no {folder}; set it to the folder of the set.")
    return make_source(entry.data, f"{key}.data", DATA)


def settings(encode: Encoders, entry: Mapping, heard: Mapping[str, Any]) -> dict[str, Any]:
    """All that a score depends on: task, data, inputs as they came, model, how it reads, precision, versions, conventions."""
    evaluator = EVALUATORS[entry.name]
    return {
        "data": plain(entry.data),
        "cut": plain(entry.cut) if "cut" in entry else None,
        "options": plain(options_of(evaluator) | plain(entry.options)),
        "inputs": dict(heard),
        **encode.made_by,
        "versions": versions(),
        "conventions": conventions(evaluator),
    }


def conventions(evaluator: Callable) -> list[str]:
    """The sentences of an evaluator's docstring that say which rules it follows: the first one, and those from `Source:` on."""
    text = inspect.getdoc(evaluator) or ""
    source = text.partition("\nSource:")[2]
    found = [text.partition("\n")[0], *([" ".join(source.split())] if source else [])]
    return [*found, "scores are taken in float64 and rounded to float32"]


def versions(*more: str) -> dict[str, str | None]:
    """Of what scores depend on, and of `more` packages; None for one that is not installed."""
    return {name: _version(name) for name in (*PACKAGES, *more)}


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def write(path: pathlib.Path, label: str, step: int, entry: Mapping, evaluation: Evaluation, found: Mapping, seconds: float) -> dict:
    """Writes the arrays of an evaluation beside `path`, and then `path` itself, which marks it as done.

    Returns:
        What the file holds.
    """
    metrics = {name: value if math.isfinite(value) else None for name, value in evaluation.metrics.items()}  # JSON knows no NaN
    _write_arrays(path.with_suffix(".npz"), evaluation.gallery)
    if evaluation.items is not None:
        _write_arrays(path.with_suffix(".items.npz"), {"items": evaluation.items})
    result = {
        "evaluator": entry.name,
        "label": label,
        "step": step,
        "primary": {"name": evaluation.primary, "value": metrics[evaluation.primary]},
        "metrics": metrics,
        "settings": found,
        "count": evaluation.count,
        "items": None if evaluation.items is None else {"statistic": evaluation.statistic, "count": len(evaluation.items)},
        "seconds": round(seconds, 3),
    }
    write_json(path, result)
    return result


def read(path: pathlib.Path) -> Evaluation:
    """What `write` has written.

    Raises:
        FileNotFoundError: no such file.
    """
    result = read_json(path)
    metrics = {name: math.nan if value is None else value for name, value in result["metrics"].items()}
    items = {} if result["items"] is None else _read_arrays(path.with_suffix(".items.npz")) | {"statistic": result["items"]["statistic"]}
    return Evaluation(result["primary"]["name"], metrics, result["count"], _read_arrays(path.with_suffix(".npz")), **items)


def _read_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Arrays by name; none where an evaluation kept none."""
    if not path.exists():
        return {}
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


def _write_arrays(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    if arrays:
        with storage.written_whole(path) as file:  # two jobs may write the same result
            np.savez_compressed(file, **arrays)
