"""The eval job: reads committed checkpoints of a workdir, writes one JSON file per evaluator and step, and nothing else of the run.

Its own process on its own mesh; may run beside training, after it, twice at once, or again after a kill: a result that is there is
never computed again.
"""

import contextlib
import logging
import os
import pathlib
import time
from collections.abc import Mapping, Sequence

from ml_collections import ConfigDict

import retrieval
from core.checkpoint import committed_steps
from core.config import ConfigError, check_section, choose, plain
from core.events import Events
from core.storage import as_path, is_remote, spooled
from core.workdir import read_json
from evals import best, encoders, results
from evals.evaluation import Evaluation
from interop.tandem import is_run
from models import cut, dual

log = logging.getLogger(__name__)
SIZE = ("layers", "truncate_dim")  # of the model, where an entry cuts it


def check(config) -> None:
    """Refuses a config whose evals could not run; builds nothing.

    Raises:
        ConfigError: unknown evaluator, source, key or option.
    """
    for label, entry in config.evals.items():
        _check_entry(entry, f"config.evals.{label}", optional=("goal", "cut", "size"))
        if "size" in entry and "layers" in entry.size:
            _check_layers(config.model, plain(entry.size)["layers"], f"config.evals.{label}.size.layers")
    best.check(config)


def _check_entry(entry, key: str, optional: Sequence[str]) -> None:
    check_section(entry, ("name", "every_steps", "data", "options", "goal", "cut", "size"), key, optional=optional)
    if "size" in entry:
        check_section(entry.size, SIZE, f"{key}.size", optional=SIZE)
    results.check(entry, key)


def _check_layers(model, layers: int | Mapping[str, int], key: str) -> None:
    try:
        cut.to_layers(plain(dual.alone(model)), {}, layers)
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from error


def run(
    workdir: pathlib.Path, *, follow: bool = False, step: int | None = None, only: Sequence[str] = (),
    poll_seconds: float | None = None, timeout_seconds: float = 3600.0,
) -> list[pathlib.Path]:  # fmt: skip
    """Evaluates what is committed and not yet evaluated.

    Args:
        workdir: of a training run.
        follow: go on with each new checkpoint until training has written `done.json`; waits for a run that has not begun.
        step: only this checkpoint.
        only: labels of `config.evals`; empty means all.
        poll_seconds: between looks at the folder; by default 1, and 10 at an object store, which counts each.
        timeout_seconds: how long `follow` waits for a first or next checkpoint.

    Returns:
        The result files written.

    Raises:
        FileNotFoundError: without `follow`, no run or no committed checkpoint there; or the asked step is missing.
        TimeoutError: nothing new came in time.
    """
    written, waited = [], time.monotonic()
    pause = poll_seconds or (10.0 if is_remote(workdir) else 1.0)
    _track_earlier(workdir)
    while True:
        finished = (workdir / "done.json").exists()  # looked at before the steps: what it closes is then already committed
        steps = committed_steps(workdir / "checkpoints") if (workdir / "config.json").exists() else []
        if not follow and not steps:
            raise FileNotFoundError(
                f"{workdir} holds no committed checkpoint; give the --workdir of a run that has saved one, or pass --follow to wait."
            )
        if step is not None and not follow and step not in steps:
            raise FileNotFoundError(f"{workdir} has no committed checkpoint of step {step}; there are: {steps}.")
        todo = _pending(
            workdir, [s for s in steps if step in (None, s)], only, final=max(steps, default=0) if finished or not follow else None
        )
        for number, labels in todo:
            written += evaluate_step(workdir, number, labels)
            waited = time.monotonic()
        if not follow or (finished and not todo):
            return written
        if not todo:
            if time.monotonic() - waited > timeout_seconds:
                raise TimeoutError(f"no new checkpoint in {workdir} for {timeout_seconds:.0f} s; is training still running?")
            time.sleep(pause)


def _track_earlier(workdir) -> None:
    """Looks at results that are there: a job may have been killed between writing one and comparing it with the best."""
    if (workdir / "config.json").exists():
        config = ConfigDict(read_json(workdir / "config.json"))
        for step in committed_steps(workdir / "checkpoints"):
            best.track(workdir, config, step)


def _pending(workdir, steps: Sequence[int], only: Sequence[str], final: int | None) -> list[tuple[int, list[str]]]:
    """Steps with the labels still to run on each; the final step runs them all."""
    if not steps:
        return []
    config = ConfigDict(read_json(workdir / "config.json"))
    for label in only:
        choose(config.evals, label, "--evals")
    wanted = only or list(config.evals)
    due = lambda step, label: step == final or step % config.evals[label].every_steps == 0
    todo = [(step, [x for x in wanted if due(step, x) and not result_file(workdir, step, x).exists()]) for step in steps]
    return [(step, labels) for step, labels in todo if labels]


def result_file(workdir: pathlib.Path, step: int, label: str) -> pathlib.Path:
    """Where a result lies."""
    return workdir / "evals" / str(step) / f"{label}.json"


def evaluate_step(workdir: pathlib.Path, step: int, labels: Sequence[str]) -> list[pathlib.Path]:
    """Runs evaluators on one checkpoint; a checkpoint that retention deleted meanwhile is skipped with a line."""
    try:
        encoder = retrieval.load(workdir, step)
    except (FileNotFoundError, ValueError) as error:
        if step in committed_steps(workdir / "checkpoints"):
            raise
        log.warning("checkpoint %d is gone before it was evaluated (%s); raise config.checkpoint.keep_last", step, error)
        return []
    written, encode = [], encoders.of_model(encoder)
    for label in labels:
        entry, path = encoder.config.evals[label], result_file(workdir, step, label)
        read_by = encoders.of_model(encoder.smaller(**plain(entry.size))) if "size" in entry else encode
        evaluation, found, seconds = results.measure(read_by, entry, f"config.evals.{label}")
        results.write(path, label, step, entry, evaluation, found, seconds)
        # Files are named by the second: two of one second would be one, and hold what came last.
        own = f".{step}.{label}.{os.getpid()}"
        with spooled(workdir / "tensorboard" / "eval") as folder, contextlib.closing(Events(folder, suffix=own)) as events:
            events.write(step, {f"eval/{label}/{name}": value for name, value in evaluation.metrics.items()})
        written.append(path)
        log.info("step %d %s: %s = %.4f (%.1f s)", step, label, evaluation.primary, evaluation.metrics[evaluation.primary], seconds)
    best.track(workdir, encoder.config, step)
    return written


def evaluate(
    model: retrieval.Encoder | str | pathlib.Path, evals: Sequence[str] | Mapping[str, Mapping] = (), *, step: int | None = None
) -> dict[str, Evaluation]:
    """What evaluations find, by label: those of a run's own config, or any of any model.

    Args:
        model: the workdir of a run; or an encoder (`retrieval.load`), or what another library wrote.
        evals: labels of the run's `config.evals`, all of them by default: measured once, and kept in its folder like the eval job's.
            Or entries like those of `config.evals` by label: measured anew each time, and kept nowhere.
        step: of a run, which committed checkpoint; the last by default.

    Raises:
        FileNotFoundError: no model there, no committed checkpoint, or not the asked one.
        ConfigError: an unknown label, an entry that does not fit the code, or labels for what is no run.
    """
    encoder = model if isinstance(model, retrieval.Encoder) else None
    if isinstance(evals, Mapping):
        entries = {label: ConfigDict(entry) for label, entry in evals.items()}
        for label, entry in entries.items():
            _check_entry(entry, f"evals.{label}", optional=("every_steps", "goal", "cut", "size"))
        encoder = encoder or retrieval.load(model, step)
        encode = encoders.of_model(encoder)
        sized = lambda entry: encoders.of_model(encoder.smaller(**plain(entry.size))) if "size" in entry else encode
        return {label: results.measure(sized(entry), entry, f"evals.{label}")[0] for label, entry in entries.items()}
    if encoder is not None or not is_run(as_path(model)):
        raise ConfigError("only the folder of a run has evaluations of its own; give evals={label: entry}, entries as in config.evals.")
    workdir = as_path(model)
    config, steps = ConfigDict(read_json(workdir / "config.json")), committed_steps(workdir / "checkpoints")
    if not steps or step not in (None, *steps):
        raise FileNotFoundError(f"{workdir} has no committed checkpoint{'' if step is None else f' of step {step}'}; there are: {steps}.")
    step = steps[-1] if step is None else step
    for label in evals:
        choose(config.evals, label, "evals")
    files = {label: result_file(workdir, step, label) for label in evals or config.evals}
    if todo := [label for label, path in files.items() if not path.exists()]:
        evaluate_step(workdir, step, todo)
    return {label: results.read(path) for label, path in files.items()}
