"""What a run's folder holds, read into values: the one reader of `metrics.jsonl`, `evals/` and galleries for reports.

Every part may be missing: a run that has just begun has no evaluations, a finished one may have lost its galleries.
"""

import dataclasses
import logging
import math
import pathlib
from typing import Any

import numpy as np

from core.logbook import read_lines
from core.storage import as_path
from core.workdir import read_json
from evals.evaluation import direction

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Run:
    """A workdir as values; what is missing is empty.

    Attributes:
        workdir: the folder.
        config: as `config.json` has it.
        environment: versions, machine and measured rates.
        lines: logged steps in order, each once.
        results: evaluation files by label, ordered by step; the one of `config.checkpoint.best` first, then as in the config.
        galleries: arrays of the newest gallery by label.
        items: of the last result by label, what its primary metric is made of; absent where nothing was kept.
    """

    workdir: pathlib.Path
    config: dict[str, Any]
    environment: dict[str, Any]
    lines: list[dict[str, Any]]
    results: dict[str, list[dict[str, Any]]]
    galleries: dict[str, dict[str, np.ndarray]]
    items: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def goal(self, label: str) -> float | None:
        """What `config.evals.<label>.goal` asks of the primary metric; None where nothing is asked."""
        return setting(self.config, "evals", label, "goal")

    def series(self, name: str) -> tuple[list[int], list[float]]:
        """Steps and values of a logged metric, where it is a number."""
        rows = [(line["step"], line[name]) for line in self.lines if line.get(name) is not None]
        return [step for step, _ in rows], [value for _, value in rows]


def setting(config: dict[str, Any], *path: str) -> Any:
    """A value of a stored config; None where a run that has only begun, or another version of Tandem, has written none."""
    found: Any = config
    for name in path:
        if not isinstance(found, dict) or name not in found:
            return None
        found = found[name]
    return found


def read_run(workdir) -> Run:
    """Reads a workdir.

    Raises:
        FileNotFoundError: nothing of a run is there.
    """
    workdir = as_path(workdir)
    config, environment = (_read_if_there(workdir / name) or {} for name in ("config.json", "environment.json"))
    lines = read_lines(workdir / "metrics.jsonl")
    deciding = (setting(config, "checkpoint", "best") or "").partition("/")[0]  # the evaluator that picks the best checkpoint comes first
    results = _results(workdir / "evals", [deciding, *(setting(config, "evals") or ())])
    if not (config or lines or results):
        raise FileNotFoundError(f"{workdir} holds no config.json, metrics.jsonl or evals/; give the --workdir of a training run.")
    places = {label: [workdir / "evals" / str(result["step"]) / label for result in found] for label, found in results.items()}
    return Run(workdir, config, environment, lines, results, *_arrays(places))


def read_runs(folder) -> list[Run]:
    """Reads a workdir, a suite's folder of results (a run for each model), or the folder of one model in it.

    Raises:
        FileNotFoundError: it is none of them.
    """
    return [_read_model(model) for model in models_of(folder)] or [read_run(folder)]


def models_of(folder) -> list[pathlib.Path]:
    """Folders of the models in a suite's folder of results, or the folder itself if it is one of them; none for a workdir."""
    folder = as_path(folder)
    return [folder] if (folder / "model.json").exists() else [path.parent for path in sorted(folder.glob("*/model.json"))]


def _read_model(folder: pathlib.Path) -> Run:
    """A suite's results of one model, which have no history."""
    found = [_read_if_there(path) for path in sorted(folder.glob("*.json"))]
    results = {result["label"]: [result] for result in found if result and {"label", "primary", "metrics"} <= result.keys()}
    suite = _read_if_there(folder.parent / "suite.json") or {"tasks": {}}
    order = {label: i for i, label in enumerate(suite["tasks"])}
    results = dict(sorted(results.items(), key=lambda pair: order.get(pair[0], len(order))))
    config = {"model": _read_if_there(folder / "model.json") or {}}
    return Run(folder, config, {}, [], results, *_arrays({label: [folder / label] for label in results}))


def _arrays(places: dict[str, list[pathlib.Path]]) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, np.ndarray]]:
    """The newest gallery and the last items by label, from the paths of its results without their endings."""
    galleries = {label: next((found for path in reversed(paths) if (found := _load(path, ".npz"))), {}) for label, paths in places.items()}
    items = {label: _load(paths[-1], ".items.npz") for label, paths in places.items()}
    return {label: arrays for label, arrays in galleries.items() if arrays}, {label: x["items"] for label, x in items.items() if x}


def best(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The result whose primary metric is best in that metric's own direction; the earliest among equals. Undefined is worst."""
    return max(results, key=lambda result: _signed(**result["primary"]))


def _signed(name: str, value: float | None) -> float:
    return -math.inf if value is None else (direction(name) or 1) * value


def main_metrics(result: dict[str, Any]) -> list[str]:
    """The metrics that a short table shows: the primary one first, no diagnostics and no pessimistic doubles."""
    primary, beside = result["primary"]["name"], controls(result)
    main = (name for name in result["metrics"] if direction(name) and not name.endswith("_pessimistic"))
    return [primary] + [name for name in main if name != primary and name.split("/")[0] not in beside]


def controls(result: dict[str, Any]) -> list[str]:
    """What a result measured beside the model on the same data: the first word of every `<control>/<primary metric>`."""
    primary = result["primary"]["name"]
    # `std/<primary>` is no control; it has no direction.
    return [name.split("/")[0] for name in result["metrics"] if "/" in name and name.split("/", 1)[1] == primary and direction(name)]


def is_share(name: str) -> bool:
    """Whether a metric is a fraction 0-1, which people read as a percentage."""
    return any(word in name for word in ("recall", "accuracy", "success", "tie_rate"))


def readable(name: str, value: float | None) -> str:
    """A metric's value with the digits that its kind deserves."""
    if value is None:
        return "–"
    if is_share(name):
        return f"{100 * value:.1f}%"
    if "rank" in name or name == "rsum":
        return f"{value:,.1f}"
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) >= 10 else f"{value:.3f}"


def _read_if_there(path: pathlib.Path) -> Any:
    try:
        return read_json(path)
    except FileNotFoundError:
        return None
    except ValueError as error:  # one broken file must not hide the others
        log.warning("%s", error)
        return None


def _results(folder: pathlib.Path, order: list[str]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*/*.json")):
        if path.parent.name.isdigit() and (result := _read_if_there(path)):
            found.setdefault(result["label"], []).append(result)
    labels = sorted(found, key=lambda label: (order.index(label) if label in order else len(order), label))
    return {label: sorted(found[label], key=lambda result: result["step"]) for label in labels}


def _load(path: pathlib.Path, ending: str) -> dict[str, np.ndarray]:
    path = path.with_name(path.name + ending)
    if not path.exists():
        return {}
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)
