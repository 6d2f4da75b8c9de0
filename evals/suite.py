"""Suites: lists of tasks that any models go through, and one table of how they did.

A suite is a config (`configs/suites/*.py`) with `name`, `bootstrap` (options of `statistics.interval`), `references` (of
`encoders.REFERENCES`: models whose scores show what ties and chance are worth) and `tasks.<label>`, each with

    type      one of TYPES, whose mean the table gives
    name, data, options   as in `config.evals.<label>`: the evaluator, what it reads, its options
    cut       optional, options of `cut.Cut`: a part of the data
    source, licence, protocol   whose data it is, what one may do with it, and which published procedure the score follows

The folder of results holds `<model>/model.json` (what its vectors depend on), `<model>/<task>.json` with `.npz` and `.items.npz` beside
it, each as the eval job of a run writes it, and what is made of them all, `table.md` and `suite.json`:

    suite, bootstrap, references
    tasks.<label>     type, metric, better ("higher" or "lower"), count, items, source, licence, protocol, cut,
                      controls {name: score} (of models that are no models: BM25, bag of words)
    models.<name>     fingerprint, weights, reference (true for the standing ones),
                      scores {label: number, or null where it is undefined}, intervals {label: [low, high]}, missing {label: why},
                      types {type: mean}, mean (over tasks), mean_of_types, of (how many tasks the means are over),
                      borda (points), place; the last two only for those that are no references
    pairs[]           first, second, test, tasks {label: {difference (second less first), interval [low, high], p, p_holm}}

Models are compared with each other over all that the folder holds, whenever they were evaluated.
"""

import logging
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from core.config import ConfigError, check_section, choose, differences, options_of, plain
from core.workdir import read_json, write_json
from evals import EVALUATORS, results
from evals.encoders import REFERENCES, Encoders, NoView

log = logging.getLogger(__name__)

TYPES = (
    "bitext", "candidates", "classification", "clustering", "compositional", "image_text_retrieval", "long_text", "noise",
    "pair_classification", "reranking", "retrieval", "sts", "zeroshot",
)  # fmt: skip
TASK = ("type", "name", "data", "options", "cut", "source", "licence", "protocol")
IDENTITY = ("fingerprint", "weights", "step", "views", "prompts")  # of a model; on which machine it runs is none of it


def check(config) -> None:
    """Refuses a suite that could not run; builds nothing.

    Raises:
        ConfigError: an unknown type, evaluator, set, key or option, or a task without a source, licence or protocol.
    """
    check_section(config, ("name", "bootstrap", "references", "tasks", "mteb"), "suite", optional=("mteb",))
    check_section(config.bootstrap, ("number", "seed", "level"), "suite.bootstrap")
    for name in config.references:
        choose(REFERENCES, name, "suite.references")
    for label, task in config.tasks.items():
        key = f"suite.tasks.{label}"
        check_section(task, TASK, key, optional=("cut",))
        results.check(task, key)
        if task.type not in TYPES:
            raise ConfigError(f"{key}.type is {task.type!r}, which is not among: {', '.join(TYPES)}.")
        for name in ("source", "licence", "protocol"):
            if not task[name]:
                raise ConfigError(f"{key}.{name} is empty; say whose data it is, what one may do with it, and how it is scored.")


def run(config, name: str, encode: Encoders, output: pathlib.Path, only: Sequence[str] = ()) -> list[pathlib.Path]:
    """Evaluates a model on what is missing of a suite; started again after a kill, it goes on with the next task.

    Args:
        config: of the suite.
        name: of the model, a folder in `output`.
        encode: the model.
        output: the suite's folder of results.
        only: labels of tasks; empty means all.

    Returns:
        The result files written.

    Raises:
        ConfigError: the folder holds results of another model of that name, or an unknown label.
    """
    for label in only:
        choose(config.tasks, label, "--evals")
    claim(output / name, encode.made_by)
    written, missing = [], {}
    for label, task in config.tasks.items():
        path = output / name / f"{label}.json"
        if (only and label not in only) or _is_done(path, task):
            continue
        try:
            evaluation, found, seconds = results.measure(encode, task, f"suite.tasks.{label}")
        except (NoView, results.NoData) as error:
            log.warning("%s is left out for %s: %s", label, name, error)
            missing[label] = str(error)
            continue
        results.write(path, label, encode.made_by.get("step", 0), task, evaluation, found, seconds)
        written.append(path)
        log.info("%s %s: %s = %.4f (%.1f s)", name, label, evaluation.primary, evaluation.metrics[evaluation.primary], seconds)
    path = output / name / "missing.json"
    write_json(path, read_json(path) | missing)
    return written


def claim(folder: pathlib.Path, made_by: Mapping[str, Any]) -> None:
    """Begins a model's folder, or takes up the one it began before: another model's results would make one row of two models.

    Args:
        folder: of the model.
        made_by: what its vectors depend on.

    Raises:
        ConfigError: the folder is another model's.
    """
    path = folder / "model.json"
    own = lambda made_by: {key: made_by[key] for key in IDENTITY if key in made_by}
    if path.exists() and (found := differences(own(read_json(path)), own(made_by), folder.name)):
        raise ConfigError(
            f"{folder} holds results of another model: {'; '.join(found[:4])}. Give this one a name, --model=NAME=FOLDER, "
            "or choose another --output."
        )
    write_json(path, made_by)
    if not (folder / "missing.json").exists():
        write_json(folder / "missing.json", {})


def _is_done(path: pathlib.Path, task) -> bool:
    """Whether a result is there that the same entry made; one of a changed entry is made again."""
    if not path.exists():
        return False
    found, asked = read_json(path), _asked(task)
    changed = [key for key, value in asked.items() if found["settings"].get(key) != value]
    if changed or found["evaluator"] != task.name:
        log.info("%s was made with other settings (%s) and is made again", path, ", ".join(changed) or "evaluator")
        return False
    return True


def _asked(task) -> dict[str, Any]:
    found = {"data": plain(task.data), "options": plain(options_of(EVALUATORS[task.name]) | plain(task.options))}
    return found | {"cut": plain(task.cut) if "cut" in task else None}


def references(config, output: pathlib.Path, only: Sequence[str] = ()) -> None:
    """Evaluates the standing references, which are models like others but stand outside the ranking."""
    for name in config.references:
        run(config, name, REFERENCES[name](), output, only)


def named(models: Sequence[str]) -> dict[str, pathlib.Path]:
    """Folders of models by name: `NAME=FOLDER`, or `FOLDER`, whose own name it then is.

    Raises:
        ConfigError: two of one name, or a name that is no folder's or a reference's.
    """
    found: dict[str, pathlib.Path] = {}
    for given in models:
        name, equals, path = given.partition("=")
        path = pathlib.Path(path if equals else given)
        name = name if equals else path.resolve().name
        if name in found or name in REFERENCES or not name or "/" in name:
            taken = ", ".join([*found, *REFERENCES])
            raise ConfigError(
                f"{name!r} does not name {path} in the table; give it one without slashes, NAME={path}, and none of: {taken}."
            )
        found[name] = path
    return found
