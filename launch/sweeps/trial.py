"""One trial: training and evaluation in processes of their own, in a normal workdir for each seed.

A trial is a generator, so that one thread runs several side by side; it gives way while a process runs.
"""

import pathlib
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import NamedTuple

from etils import epath

from core import storage
from core.config import choose
from core.workdir import read_json
from launch import children, process
from launch.sweeps import backends, space

LOG = "trial.log"
LOOK_SECONDS, LOOK_AT_STORE_SECONDS = 1.0, 15.0  # between looks at the results of a trial that may be ended early
DONE, PRUNED, FAILED, STOPPED = "done", "pruned", "failed", "stopped"


class Outcome(NamedTuple):
    """How a trial ended. `code` is of the trainer where it failed."""

    how: str
    value: float | None = None
    note: str = ""
    code: int = 0


class Plan(NamedTuple):
    """What all trials of a sweep share."""

    sweep: object
    config: str  # path.py:arg
    fixed: Sequence[str]  # overrides that all trials get
    folder: pathlib.Path  # of the sweep
    trials: pathlib.Path | epath.Path  # folder of their workdirs
    prunes: bool
    restarts: int  # of a trainer that crashed, from its last checkpoint
    backend: backends.Backend


Run = Generator[None, None, Outcome]


def folders(plan: Plan, number: int) -> dict[int, pathlib.Path | epath.Path]:
    """The workdir of each seed."""
    return {seed: plan.trials / name for seed, name in _names(plan, number).items()}


def log_file(plan: Plan, number: int, seed: int) -> pathlib.Path:
    """What the processes of a seed say, on this machine wherever their workdir is."""
    return plan.folder / "trials" / _names(plan, number)[seed] / LOG


def _names(plan: Plan, number: int) -> dict[int, str]:
    seeds = space.seeds(plan.sweep)
    return {seed: f"{number:04d}" if len(seeds) == 1 else f"{number:04d}/seed_{seed}" for seed in seeds}


def command(plan: Plan, values: space.Values, seed: int, workdir) -> list[str]:
    """What trains one seed of a trial."""
    arguments = space.words(plan.sweep, plan.config, plan.fixed, values, seed)
    return ["python", "-m", "launch.train", *arguments, f"--workdir={workdir}"]


def commands(plan: Plan, number: int, values: space.Values) -> list[tuple[list[str], pathlib.Path]]:
    """What trains the seeds of a trial, and their logs."""
    return [(command(plan, values, seed, workdir), log_file(plan, number, seed)) for seed, workdir in folders(plan, number).items()]


def run(
    plan: Plan, number: int, values: space.Values, report: Callable[[float, int], bool], stop: children.Stop, environment: Mapping[str, str]
) -> Run:
    """Trains and evaluates every seed, one after the other; goes on where an earlier start was killed.

    Args:
        plan: of the sweep.
        number: of the trial.
        values: by label of the space.
        report: told (value, step) of each evaluation of the first seed; whether the trial should end.
        stop: a wish of the user's; the trial then saves and leaves.
        environment: variables of the slot in which it runs.
    """
    found, first = [], space.seeds(plan.sweep)[0]
    for seed, workdir in folders(plan, number).items():
        told, log = report if plan.prunes and seed == first else None, log_file(plan, number, seed)
        log.parent.mkdir(parents=True, exist_ok=True)
        words = command(plan, values, seed, workdir)
        outcome = yield from _one(plan, words, workdir, log, told, stop, environment)
        if outcome.how != DONE:
            if plan.backend.ahead:
                plan.backend.ahead.withdraw(words for words, _ in commands(plan, number, values))  # of the seeds after it
            return outcome
        found.append(outcome.value)
    return Outcome(DONE, sum(found) / len(found))


def _one(plan: Plan, words, workdir, log, report, stop, environment) -> Run:
    label, final = plan.sweep.objective.evaluator, not space.at_best(plan.sweep)
    evaluate = ["python", "-m", "launch.evaluate", f"--workdir={workdir}", f"--evals={label}"]
    start = plan.backend.start
    with open(log, "a") as output:
        # Beside training only where results may end it; an accelerator is the trainer's alone.
        beside = [*evaluate, "--follow", "--nice=19"]
        follower = start(beside, environment | plan.backend.beside, output) if report else None
        try:
            for _ in range(plan.restarts + 1):
                code, pruned = yield from _train(start(words, environment, output), plan, workdir, report, stop)
                if code in (process.DONE, process.CONFIG_ERROR, process.BAD_LOSS) or pruned or stop.wanted:
                    break
            if pruned or stop.wanted:
                return Outcome(PRUNED if pruned else STOPPED, note=_last_step(plan, workdir))
            if code != process.DONE:
                return Outcome(FAILED, note=_why(code, log), code=code)
            last = [f"--step={read_json(workdir / 'done.json')['step']}"] if final else []
            evaluator, follower = follower or start([*evaluate, *last], environment, output), None
            code = yield from _wait(evaluator, stop)
        finally:
            if follower is not None:
                follower.kill()
                follower.wait()
    if stop.wanted:
        return Outcome(STOPPED)
    if code != process.DONE:
        return Outcome(FAILED, note=f"evaluation: {_why(code, log)}", code=code)
    if report is not None:
        _tell(plan, workdir, report)
    values = results(plan.sweep, workdir)
    if not values:
        return Outcome(FAILED, note=f"{plan.sweep.objective.metric} is undefined")
    best = max if space.maximize(plan.sweep) else min
    return Outcome(DONE, values[max(values)] if final else best(values.values()))


def _train(child, plan, workdir, report, stop) -> Generator[None, None, tuple[int, bool]]:
    """The trainer's code, and whether it was ended because others were better."""
    pruned, asked, looked = False, False, 0.0
    pause = LOOK_AT_STORE_SECONDS if storage.is_remote(workdir) else LOOK_SECONDS
    try:
        while child.poll() is None:
            if report is not None and not pruned and time.monotonic() - looked > pause:
                pruned, looked = _tell(plan, workdir, report), time.monotonic()
            if (stop.wanted or pruned) and not asked:
                child.terminate()  # it saves and leaves with 75
                asked = True
            if stop.forced:
                child.kill()
            yield
    finally:
        child.kill()
        child.wait()
    return child.returncode, pruned and child.returncode == process.STOPPED


def _wait(child, stop: children.Stop) -> Generator[None, None, int]:
    try:
        while child.poll() is None and not stop.wanted:
            yield
    finally:
        child.kill()
        child.wait()
    return child.returncode


def _tell(plan: Plan, workdir, report) -> bool:
    return any([report(value, step) for step, value in sorted(results(plan.sweep, workdir).items())])


def results(sweep, workdir) -> dict[int, float]:
    """The objective by step, from the eval files; undefined values are left out.

    Raises:
        ConfigError: an eval file has no such metric; lists those there are.
    """
    found = {}
    for path in workdir.glob(f"evals/[0-9]*/{sweep.objective.evaluator}.json"):
        value = choose(read_json(path)["metrics"], sweep.objective.metric, "sweep.objective.metric")
        if value is not None:
            found[int(path.parent.name)] = value
    return found


def _last_step(plan: Plan, workdir) -> str:
    return f"step {max(results(plan.sweep, workdir), default=0)}"


def _why(code: int, log: pathlib.Path) -> str:
    """The code, and the last line that the processes said."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f"code {code}: {lines[-1][-300:] if lines else 'nothing was said'}"


def age(workdir) -> float | None:
    """Seconds that a run took over all its starts, without the time between them, where it says so."""
    try:
        found = read_json(workdir / "goodput.json")
        return found["wall_seconds"] - found["seconds"]["down"]
    except (OSError, ValueError, KeyError):
        return None


def pause() -> None:
    """Between looks at the processes."""
    time.sleep(0.1)
