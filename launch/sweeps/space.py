"""What a sweep file says: objective, search, space, constraints, seeds; checked before anything starts."""

import ast
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from core.config import ConfigError, bind, check_keys, check_section, choose, plain
from launch import overrides

Values = dict[str, Any]  # of one trial, by label of the space

_KINDS = (str, int, float, bool, type(None))
# What a constraint may be made of: comparisons and arithmetic of labels and constants, and no calls.
_ALLOWED = (
    ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt,
    ast.GtE, ast.In, ast.NotIn, ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Name, ast.Load, ast.Constant,
    ast.Tuple,
)  # fmt: skip


def check(sweep, config: str, fixed: Sequence[str]) -> None:
    """Refuses a sweep file that could not run on a config; starts nothing.

    Args:
        sweep: what `get_config` of the sweep file returned.
        config: `path.py:arg` of the config.
        fixed: overrides that all trials get.

    Raises:
        ConfigError: names the key of the sweep, or of the config.
    """
    sections = ("objective", "search", "pruner", "seeds", "constraints", "space")
    check_section(sweep, sections, "sweep", optional=("pruner", "seeds", "constraints"))
    check_section(sweep.objective, ("evaluator", "metric", "direction", "at"), "sweep.objective", optional=("direction", "at"))
    made = overrides.load(config)
    choose(made.evals, sweep.objective.evaluator, "sweep.objective.evaluator")
    for name, choices in (("direction", ("maximize", "minimize")), ("at", ("last", "best"))):
        if name in sweep.objective:
            choose(dict.fromkeys(choices), sweep.objective[name], f"sweep.objective.{name}")
    maximize(sweep)
    if not sweep.space:
        raise ConfigError("sweep.space is empty; give it an entry such as rate=dict(key='config.optimizer.learning_rate', values=(...)).")
    for label, entry in sweep.space.items():
        _check_entry(label, entry)
    for text in constraints(sweep):
        _parse(text, sweep.space)
    if not seeds(sweep):
        raise ConfigError("sweep.seeds is empty; set it to (0, 1), or leave it out.")
    for values in _corners(sweep.space):
        overrides.check(["", *words(sweep, config, fixed, values, seeds(sweep)[0])])


def maximize(sweep) -> bool:
    """Whether larger is better: as the sweep says, or as the metric's name does."""
    from evals.evaluation import direction

    if "direction" in sweep.objective:
        return sweep.objective.direction == "maximize"
    sign = direction(sweep.objective.metric)
    if sign == 0:
        raise ConfigError(f"{sweep.objective.metric} is neither good nor bad; set sweep.objective.direction to 'maximize' or 'minimize'.")
    return sign > 0


def at_best(sweep) -> bool:
    """Whether a trial counts by its best evaluation, not by its last."""
    return "at" in sweep.objective and sweep.objective.at == "best"


def seeds(sweep) -> tuple[int | None, ...]:
    """The values of `config.seed` that each trial runs with; None alone keeps the config's."""
    return tuple(sweep.seeds) if "seeds" in sweep else (None,)


def constraints(sweep) -> tuple[str, ...]:
    """What the values of a trial must fulfil, as text."""
    return tuple(sweep.constraints) if "constraints" in sweep else ()


def _check_entry(label: str, entry) -> None:
    key = f"sweep.space.{label}"
    if not label.isidentifier():
        raise ConfigError(f"{key}: a label is a name, as constraints need it.")
    check_keys(entry, ("key", "values", "low", "high", "log", "step"), key)
    if "key" not in entry or entry.key.split(".")[0] not in ("config", "arg") or "." not in entry.key:
        raise ConfigError(f"{key}.key must name what changes, as config.optimizer.learning_rate or arg.loss (the config's argument).")
    if "values" in entry:
        check_keys(entry, ("key", "values"), key)
        if not entry["values"]:
            raise ConfigError(f"{key}.values is empty: the space holds nothing; list at least one value.")
        for value in entry["values"]:
            if not isinstance(value, _KINDS):
                raise ConfigError(f"{key}.values holds {value!r}, a {type(value).__name__}; write it as text, {str(value)!r}.")
        return
    check_section(entry, ("key", "low", "high", "log", "step"), key, optional=("log", "step"))
    if not entry.low <= entry.high:
        raise ConfigError(f"{key} goes from {entry.low} to {entry.high}: the space holds nothing; set low below high.")
    if "log" in entry and entry.log and (entry.low <= 0 or "step" in entry):
        raise ConfigError(f"{key}.log needs low above 0 and no step.")


def _corners(space) -> list[Values]:
    """Values of a few trials in which every choice occurs: enough to find a wrong key."""
    sides = {label: list(entry["values"]) if "values" in entry else [entry.low, entry.high] for label, entry in space.items()}
    return [{label: side[i % len(side)] for label, side in sides.items()} for i in range(max(map(len, sides.values())))]


def words(sweep, config: str, fixed: Sequence[str], values: Mapping[str, Any], seed: int | None) -> list[str]:
    """The command line of one run of a trial, without its workdir."""
    arguments, changes = [config.partition(":")[2]], []
    for label, value in values.items():
        place, _, name = sweep.space[label].key.partition(".")
        if place == "arg":
            arguments.append(f"{name}={value}")
        else:
            changes.append(f"--config.{name}={value}")
    path, joined = config.partition(":")[0], ",".join(filter(None, arguments))
    return [
        f"--config={path}:{joined}" if joined else f"--config={path}",
        *fixed,
        *changes,
        *([] if seed is None else [f"--config.seed={seed}"]),
    ]


def _parse(text: str, labels) -> ast.Expression:
    try:
        tree = ast.parse(text, mode="eval")
    except SyntaxError as error:
        raise ConfigError(f"sweep.constraints holds {text!r}, which is no expression; write for example 'rate * batch <= 2'.") from error
    for node in ast.walk(tree):
        if not isinstance(node, _ALLOWED):
            raise ConfigError(f"sweep.constraints holds {text!r} with a {type(node).__name__}; only comparisons and arithmetic of labels.")
        if isinstance(node, ast.Name):
            check_keys({node.id: None}, list(labels), "sweep.space")
    return tree


def allows(sweep) -> Callable[[Values], bool]:
    """Whether values fulfil every constraint."""
    compiled = [compile(_parse(text, sweep.space), text, "eval") for text in constraints(sweep)]
    return lambda values: all(eval(one, {"__builtins__": {}}, dict(values)) for one in compiled)


def distributions(space) -> dict[str, Any]:
    """The space in Optuna's terms."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found = {}
    for label, entry in space.items():
        if "values" in entry:
            found[label] = CategoricalDistribution(tuple(entry["values"]))
            continue
        whole = isinstance(entry.low, int) and isinstance(entry.high, int)
        options = dict(log="log" in entry and entry.log, step=entry.step if "step" in entry else (1 if whole else None))
        found[label] = (IntDistribution if whole else FloatDistribution)(entry.low, entry.high, **options)
    return found


class Search(NamedTuple):
    """How trials are found: all at once, or each from the results of earlier ones."""

    trials: int | None  # None: as many as were listed
    listed: Callable[[Any], list[Values]] | None  # (sweep) -> values of all trials; None: the sampler proposes
    sampler: Callable[[int], Any]  # trials so far -> Optuna's sampler


def grid() -> Search:
    """Every combination of `values`."""
    return Search(None, _combinations, lambda done: _random_sampler(0))


def random(*, trials: int = 10, seed: int = 0) -> Search:
    """Independent draws without repeats, all made beforehand, so that a sweep that goes on draws the same."""
    return Search(trials, lambda sweep: _draws(sweep, trials, seed), lambda done: _random_sampler(seed))


def tpe(*, trials: int = 20, seed: int = 0, startup_trials: int = 10, multivariate: bool = False) -> Search:
    """Tree-structured Parzen estimator: random at first, then where good trials were more frequent than bad ones."""

    def sampler(done: int):
        from optuna.samplers import TPESampler

        # Each start has a seed of its own, or it would draw what it drew at first.
        return TPESampler(seed=seed + 7919 * done, n_startup_trials=startup_trials, multivariate=multivariate or None)

    return Search(trials, None, sampler)


SEARCHES = {"grid": grid, "random": random, "tpe": tpe}


def no_pruner():
    """Every trial runs to its end."""
    from optuna.pruners import NopPruner

    return NopPruner()


def median(*, startup_trials: int = 4, warmup_steps: int = 0):
    """Stops a trial whose best evaluation so far is worse than the median of earlier trials at that step."""
    from optuna.pruners import MedianPruner

    return MedianPruner(n_startup_trials=startup_trials, n_warmup_steps=warmup_steps)


def halving(*, min_steps: int = 1, reduction: int = 3):
    """Successive halving: at each rung, `min_steps` times a power of `reduction`, the best of every `reduction` trials go on."""
    from optuna.pruners import SuccessiveHalvingPruner

    return SuccessiveHalvingPruner(min_resource=min_steps, reduction_factor=reduction)


PRUNERS = {"none": no_pruner, "median": median, "halving": halving}


def search_of(sweep) -> Search:
    """The search that a sweep names, its options bound."""
    check_section(sweep.search, ("name", "options"), "sweep.search", optional=("options",))
    options = sweep.search.options if "options" in sweep.search else {}
    found = bind(choose(SEARCHES, sweep.search.name, "sweep.search.name"), options, "sweep.search.options")()
    if found.trials is not None and found.trials < 1:
        raise ConfigError(f"sweep.search.options.trials is {found.trials}: the space holds nothing; set it to 1 or more.")
    return found


def pruner_of(sweep) -> tuple[str, Any]:
    """Name of the pruner and the pruner."""
    if "pruner" not in sweep:
        return "none", no_pruner()
    check_section(sweep.pruner, ("name", "options"), "sweep.pruner", optional=("options",))
    options = sweep.pruner.options if "options" in sweep.pruner else {}
    return sweep.pruner.name, bind(choose(PRUNERS, sweep.pruner.name, "sweep.pruner.name"), options, "sweep.pruner.options")()


def _combinations(sweep) -> list[Values]:
    for label, entry in sweep.space.items():
        if "values" not in entry:
            raise ConfigError(f"sweep.search.name is 'grid', but sweep.space.{label} is a range; list its values, or search with 'random'.")
    every = [dict(zip(sweep.space, row, strict=True)) for row in itertools.product(*(entry["values"] for entry in sweep.space.values()))]
    kept = [values for values in every if allows(sweep)(values)]
    if not kept:
        raise ConfigError(f"sweep.constraints leave none of {len(every)} combinations: the space is empty; loosen them.")
    return kept


def _random_sampler(seed: int):
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=seed)


def _draws(sweep, trials: int, seed: int) -> list[Values]:
    import optuna

    study, found, allowed = optuna.create_study(sampler=_random_sampler(seed)), [], allows(sweep)
    for _ in range(100 * trials):
        values = study.ask(distributions(sweep.space)).params
        if allowed(values) and values not in found:
            found.append(values)
        if len(found) == trials:
            break
    if not found:
        raise ConfigError(f"sweep.constraints leave none of {100 * trials} random draws: the space is (nearly) empty; loosen them.")
    return found  # fewer than asked where the space has no more


def as_json(sweep) -> dict:
    """The sweep for its folder, so that another one is not continued there."""
    return plain(sweep)
