"""A benchmark of MTEB as a suite: MTEB loads the data and scores, and its scores stand in the same table.

Leaves the model's protocol to `mteb.py`.
"""

import importlib.metadata
import logging
import pathlib
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

import retrieval
from core.config import ConfigError, check_section
from core.workdir import write_json
from evals import encoders, results, suite
from evals import mteb as adapter

log = logging.getLogger(__name__)


def tasks(section) -> list[Any]:
    """MTEB's task objects of a suite's `mteb` section: those of a benchmark, or those named.

    Raises:
        ImportError: mteb is not installed.
        ConfigError: a benchmark or a task that it does not know.
    """
    check_section(section, ("benchmark", "tasks", "batch"), "suite.mteb")
    import mteb

    try:
        return list(mteb.get_benchmark(section.benchmark).tasks if section.benchmark else mteb.get_tasks(tasks=list(section.tasks)))
    except (KeyError, ValueError) as error:
        raise ConfigError(f"suite.mteb: MTEB knows no {section.benchmark or ', '.join(section.tasks)}: {error}") from error


def described(config, found: Sequence[Any]) -> ConfigDict:
    """The suite's config with an entry for each task, in the words of MTEB's metadata."""
    made = config.copy_and_resolve_references()
    with made.unlocked():
        made.tasks = {
            _label(task): dict(
                type=str(task.metadata.type), name="mteb", source=task.metadata.reference or "not stated",
                licence=str(task.metadata.license or "not stated"), protocol=f"MTEB {importlib.metadata.version('mteb')}",
            )
            for task in found
        }  # fmt: skip
    return made


def _label(task: Any) -> str:
    return task.metadata.name.replace(".", "_")  # configs take no points in keys


def run(name: str, encoder: retrieval.Encoder, found: Sequence[Any], output: pathlib.Path, *, batch: int = 32) -> list[pathlib.Path]:
    """Evaluates a model on tasks of MTEB, whose own files in `<output>/<name>/mteb` let it go on where it was stopped.

    Args:
        name: of the model, a folder in `output`.
        encoder: the model.
        found: task objects.
        output: the suite's folder of results.
        batch: inputs that MTEB hands over at once.

    Returns:
        The result files written.

    Raises:
        ConfigError: the folder holds results of another model of that name.
    """
    import mteb

    made_by = encoders.of_model(encoder).made_by
    suite.claim(output / name, made_by)
    model, cache = adapter.MtebEncoder(encoder, f"{adapter.ORGANISATION}/{name}"), mteb.cache.ResultCache(output / name / "mteb")
    written = []
    for task in found:
        done = mteb.evaluate(model, task, cache=cache, encode_kwargs={"batch_size": batch}, co2_tracker=False).task_results
        path = output / name / f"{_label(task)}.json"
        write_json(path, _result(task, done[0], made_by))
        written.append(path)
        log.info("%s %s: %s = %.4f", name, _label(task), task.metadata.main_score, done[0].get_score())
    return written


def _result(task: Any, found: Any, made_by: dict) -> dict[str, Any]:
    """In the form of `results.write`: the main score over all splits and languages, and of each of them."""
    primary = {"name": task.metadata.main_score, "value": float(found.get_score())}
    each = {
        f"{split}/{one['hf_subset']}/{task.metadata.main_score}": float(one["main_score"])
        for split, some in found.scores.items()
        for one in some
    }
    data = {"name": task.metadata.name, "options": {"revision": task.metadata.dataset["revision"]}}
    return {
        "evaluator": "mteb",
        "label": _label(task),
        "step": made_by["step"],
        "primary": primary,
        "metrics": {primary["name"]: primary["value"]} | each,
        "settings": {"data": data, "cut": None, "options": {}, "inputs": {}, **made_by, "versions": results.versions("mteb")},
        "count": len(each),
        "items": None,
        "seconds": round(float(found.evaluation_time or 0), 3),
    }
