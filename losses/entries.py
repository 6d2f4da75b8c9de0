"""The losses of a config, bound to their functions and to the names of a step's arrays.

An option of a loss whose default is `{name, inputs, options}` is an inner loss: the outer one gets it as a function of those of `zq`, `zp`,
`zn`, `weight`, `id` and `alias` that it has itself, with everything else (a scale, a key, labels that it has not) bound. `from_step` and
`until_step` of a loss bound the steps in which it is active, and its `weight` may be a schedule of `losses/schedules.py`.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from core.config import ConfigError, bind, check_keys, check_section, choose, options_of, picked
from losses import LOSSES
from losses.schedules import SCHEDULES

PHASE = ("from_step", "until_step")
HANDED_ON = frozenset(("zq", "zp", "zn", "weight", "id", "alias"))  # what an outer loss that has them makes of its arrays for an inner one


class Entry(NamedTuple):
    """One loss of the config, bound: `call(**arrays)` on the arrays that `inputs` names."""

    key: str  # where the config has it
    call: Callable
    inputs: Mapping[str, str]  # parameter to array
    optional: frozenset[str]  # parameters that may be missing
    weight: float | Callable = 1.0  # or a function of the steps since `from_step`
    inner: Mapping[str, "Entry"] = {}  # by option
    from_step: int = 0  # active in updates from_step + 1 ...
    until_step: int | None = None  # ... to until_step; None: to the last

    @property
    def label(self) -> str:
        """Its name among the losses of a config."""
        return self.key.rsplit(".", 1)[-1]

    @property
    def arrays(self) -> dict[str, str]:
        """Parameter to array, those of inner losses included."""
        found: dict[str, str] = {}
        for entry in self.inner.values():
            found |= entry.arrays
        return found | self.inputs

    def active(self, step: int) -> bool:
        """Whether the update after `step` finished ones has this loss."""
        return self.from_step <= step and (self.until_step is None or step < self.until_step)

    def weight_at(self, step):
        """The weight in that update; `step` may be traced."""
        return self.weight(step - self.from_step) if callable(self.weight) else self.weight


def entries(losses) -> list[Entry]:
    """The losses of `config.losses`.

    Raises:
        ConfigError: unknown loss, key, option or parameter.
    """
    found = []
    for label in [name for name in losses if name != "matmul_dtype"]:
        entry, key = losses[label], f"config.losses.{label}"
        check_section(entry, ("name", "inputs", "weight", "options", *PHASE), key, optional=PHASE)
        first, last = (entry[name] if name in entry else None for name in PHASE)
        if (first or 0) < 0 or (last is not None and last <= (first or 0)):
            raise ConfigError(f"{key} is active from step {first} until {last}: never; raise {key}.until_step, or set it to None.")
        made = _entry(entry, key, losses.matmul_dtype)
        found.append(made._replace(weight=_weight(entry.weight, f"{key}.weight"), from_step=first or 0, until_step=last))
    if not found:
        raise ConfigError("config.losses holds no loss; add config.losses.main = dict(name='infonce', inputs=..., weight=1.0, options={}).")
    return found


def _weight(weight, key: str) -> float | Callable:
    """A number, or the schedule that the config describes."""
    if isinstance(weight, (int, float)):
        return weight
    check_section(weight, ("name", "options"), key)
    return bind(choose(SCHEDULES, weight.name, f"{key}.name"), weight.options, f"{key}.options")


def phases(found: list[Entry], steps: int) -> dict[int, tuple[str, ...]]:
    """Labels of the active losses by the step from which they are.

    Raises:
        ConfigError: no loss is active at some step.
    """
    bounds = {0} | {bound for entry in found for bound in (entry.from_step, entry.until_step) if bound is not None and bound < steps}
    made = {bound: tuple(entry.label for entry in found if entry.active(bound)) for bound in sorted(bounds)}
    idle = [bound for bound, labels in made.items() if not labels]
    if idle:
        raise ConfigError(f"no loss is active after step {idle[0]}; raise a config.losses.<label>.until_step, or lower a from_step.")
    return made


def _entry(entry, key: str, matmul_dtype: str, given: frozenset[str] = frozenset()) -> Entry:
    """Binds one loss; `given` are parameters that an outer one hands on."""
    target = choose(LOSSES, entry["name"], f"{key}.name")
    offered = options_of(target)
    arrays = [p for p in inspect.signature(target).parameters.values() if p.kind is not p.KEYWORD_ONLY]
    names = frozenset(p.name for p in arrays)
    inner = {}
    for option in [name for name, default in offered.items() if isinstance(default, Mapping) and "inputs" in default]:
        section, inner_key = (entry["options"] if option in entry["options"] else offered)[option], f"{key}.options.{option}"
        check_section(section, ("name", "inputs", "options"), inner_key)
        inner[option] = _entry(section, inner_key, matmul_dtype, given | names & HANDED_ON)
    call = bind(target, {name: value for name, value in entry["options"].items() if name not in inner}, f"{key}.options")
    if "matmul_dtype" in offered and "matmul_dtype" not in entry["options"]:
        call.keywords["matmul_dtype"] = matmul_dtype
    own = [p for p in arrays if p.name not in given]
    check_keys(entry["inputs"], [p.name for p in own], f"{key}.inputs")
    # None leaves an optional parameter out where the batch has an array of its name.
    inputs = {p.name: entry["inputs"].get(p.name, p.name) for p in own}
    inputs = {parameter: name for parameter, name in inputs.items() if name is not None}
    # A parameter that the config maps must be there; an unmapped one with a default may be missing.
    optional = frozenset(p.name for p in own if p.default is None and p.name not in entry["inputs"])
    return Entry(key, call, inputs, optional, inner=inner)


def apply_entry(entry: Entry, arrays: Mapping[str, Array]) -> tuple[Array, Array, dict]:
    """Value `[R]`, weight `[R]` and metrics of one loss on a step's named arrays.

    Raises:
        ConfigError: an array that the loss needs is missing; lists what there is.
    """
    result = _bound(entry, arrays)()
    value, weight, metrics = result if isinstance(result, tuple) else (result, jnp.ones_like(result), {})
    return value, weight, metrics


def _bound(entry: Entry, arrays: Mapping[str, Array]) -> functools.partial:
    given = picked(entry.inputs, arrays, f"{entry.key}.inputs", entry.optional)
    return functools.partial(entry.call, **given, **{option: _bound(inner, arrays) for option, inner in entry.inner.items()})


def mean_loss(found: list[Entry], arrays: Mapping[str, Array], step: int | Array = 0) -> tuple[Array, dict[str, Array]]:
    """The weighted sum of each loss's one mean, sum(value * weight) / sum(weight) over the global batch, in nats; and the parts.

    A scheduled weight, which is that of `step`, is a part as well.
    """
    total, parts = jnp.zeros(()), {}
    for entry in found:
        value, weight, metrics = apply_entry(entry, arrays)
        parts[entry.label] = jnp.sum(value * weight) / jnp.maximum(jnp.sum(weight), 1e-9)
        parts |= {f"{entry.label}_{name}": s / jnp.maximum(n, 1e-9) for name, (s, n) in metrics.items()}
        factor = entry.weight_at(step)
        parts |= {f"{entry.label}_weight": factor} if callable(entry.weight) else {}
        total += factor * parts[entry.label]
    return total, parts
