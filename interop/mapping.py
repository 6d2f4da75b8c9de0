"""Rules between our parameter paths and the tensor names of another format, read in both directions.

A format's table is a list of rules; import and export go through the same one, so neither can know a tensor that the other forgets.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from core.config import ConfigError

SHOWN = 8  # names that an error lists


class Transform(NamedTuple):
    """Two functions that undo each other, on lists of arrays; `read` also gets the shapes that our arrays must have."""

    read: Callable[[Sequence[np.ndarray], Sequence[tuple[int, ...]]], list[np.ndarray]]
    write: Callable[[Sequence[np.ndarray]], list[np.ndarray]]


def one(read: Callable, write: Callable) -> Transform:
    """A transform of one array: `read(theirs, shape)`, `write(ours)`."""
    return Transform(lambda theirs, shapes: [read(theirs[0], shapes[0])], lambda ours: [write(ours[0])])


SAME = one(lambda a, shape: a, lambda a: a)
TRANSPOSE = one(lambda a, shape: a.T, lambda a: a.T)  # torch's Linear keeps [out in]
CONV = one(lambda a, shape: a.transpose(2, 3, 1, 0), lambda a: a.transpose(3, 2, 0, 1))  # OIHW to HWIO
PATCHES = one(lambda a, shape: a.T.reshape(shape), lambda a: a.reshape(-1, a.shape[-1]).T)  # Linear over (row, column, channel) to HWIO
BATCHED = one(lambda a, shape: a[None], lambda a: a[0])  # a leading axis of 1 that only we have
SCALAR = one(lambda a, shape: a.reshape(()), lambda a: a.reshape(1))  # [1] to []
# Fused projections [D 3 H Dh] and their bias [3 H Dh], from a Linear layer for each part or from one with all parts one after the other.
QKV = Transform(
    lambda theirs, shapes: [np.stack([a.T.reshape(a.shape[1], *shapes[0][2:]) for a in theirs], axis=1)],
    lambda ours: [ours[0][:, i].reshape(len(ours[0]), -1).T for i in range(ours[0].shape[1])],
)
QKV_BIAS = Transform(
    lambda theirs, shapes: [np.stack(theirs).reshape(shapes[0])],
    lambda ours: [part.reshape(-1) for part in ours[0]],
)
PACKED_QKV = one(lambda a, shape: a.T.reshape(shape), lambda a: a.reshape(len(a), -1).T)
FLAT = one(lambda a, shape: a.reshape(shape), lambda a: a.reshape(-1))
# Several of our linear layers packed into one of theirs.
PACKED = Transform(
    lambda theirs, shapes: [a.T for a in np.split(theirs[0], np.cumsum([s[1] for s in shapes])[:-1])],
    lambda ours: [np.concatenate([a.T for a in ours])],
)
PACKED_BIAS = Transform(
    lambda theirs, shapes: np.split(theirs[0], np.cumsum([s[0] for s in shapes])[:-1]),
    lambda ours: [np.concatenate(ours)],
)


class Rule(NamedTuple):
    """Our paths, their names, what lies between, and the key of their config that decides the shape or the presence."""

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    transform: Transform = SAME
    key: str = ""


def rule(ours: str | Sequence[str], theirs: str | Sequence[str], transform: Transform = SAME, key: str = "") -> Rule:
    """A rule from single names or lists of them."""
    listed = lambda names: (names,) if isinstance(names, str) else tuple(names)
    return Rule(listed(ours), listed(theirs), transform, key)


def linear(ours: str, theirs: str, *, bias: bool = True, key: str = "") -> list[Rule]:
    """A torch Linear `theirs.weight [out in]` and our `ours/kernel [in out]`."""
    weight = rule(f"{ours}/kernel", f"{theirs}.weight", TRANSPOSE, key)
    return [weight, rule(f"{ours}/bias", f"{theirs}.bias", key=key)] if bias else [weight]


def norm(ours: str, theirs: str, *, bias: bool = True, key: str = "") -> list[Rule]:
    """A LayerNorm or RMSNorm."""
    weight = rule(f"{ours}/scale", f"{theirs}.weight", key=key)
    return [weight, rule(f"{ours}/bias", f"{theirs}.bias", key=key)] if bias else [weight]


def renamed(rules: Iterable[Rule], change: Callable[[str], str]) -> list[Rule]:
    """The rules with each of their names changed."""
    return [r._replace(theirs=tuple(change(name) for name in r.theirs)) for r in rules]


def fit_names(rules: Sequence[Rule], names: Iterable[str], prefixes: Sequence[str] = ("",)) -> list[Rule]:
    """The rules in the spelling of one file: with the prefix that most of its names bear, and old files' `gamma` and `beta`.

    Args:
        rules: with names as their table has them.
        names: of the tensors in the file.
        prefixes: what a wrapper may have put before every name; the first wins a tie.
    """
    names = set(names)
    wanted = [name for r in rules for name in r.theirs]
    prefix = max(prefixes, key=lambda p: sum(p + name in names for name in wanted))
    old = {".weight": ".gamma", ".bias": ".beta"}

    def spelled(name: str) -> str:
        name = prefix + name
        ending = next((e for e in old if name.endswith(e)), None)
        legacy = name if ending is None else name.removesuffix(ending) + old[ending]
        return legacy if name not in names and legacy in names else name

    return renamed(rules, spelled)


def read(
    rules: Sequence[Rule],
    tensors: Mapping[str, np.ndarray],
    shapes: Mapping[str, tuple[int, ...]],
    source: str,
    *,
    ignored: Sequence[str] = (),
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Our arrays from theirs, each of theirs used once.

    Args:
        rules: the table, in the spelling of the file.
        tensors: theirs.
        shapes: ours by path; every path needs a rule.
        source: the file, for errors.
        ignored: patterns of names that hold no parameter of an encoder (buffers, heads of other objectives).

    Returns:
        float32 arrays by our path, and the names used.

    Raises:
        ConfigError: missing tensors, leftovers, or another shape; names them and the config key that decides them.
    """
    _check_table(rules, shapes)
    used = tuple(name for r in rules for name in r.theirs)
    _refuse_missing(rules, tensors, source)
    left = [n for n in tensors if n not in set(used) and not any(re.search(pattern, n) for pattern in ignored)]
    if left:
        raise ConfigError(f"{source} holds tensors that no parameter takes: {_some(left)}; {_hint(rules, left)}.")
    result, wrong = {}, []
    for r in rules:
        theirs, wanted = [tensors[n] for n in r.theirs], [shapes[path] for path in r.ours]
        expected = [a.shape for a in r.transform.write([np.broadcast_to(np.float32(0), s) for s in wanted])]
        bad = [(n, a.shape, e) for n, a, e in zip(r.theirs, theirs, expected, strict=True) if tuple(a.shape) != tuple(e)]
        wrong += [f"{n} is {list(found)} where {list(e)} is needed{f' ({r.key})' if r.key else ''}" for n, found, e in bad]
        if not bad:
            made = r.transform.read([np.asarray(a, np.float32) for a in theirs], wanted)
            # np.array copies: a 0-d array stays one, and no parameter keeps the whole file in memory.
            result |= {path: np.array(a, np.float32, order="C") for path, a in zip(r.ours, made, strict=True)}
    if wrong:
        raise ConfigError(f"{source} does not fit its config: {_some(wrong)}.")
    return result, used


def write(rules: Sequence[Rule], params: Mapping[str, np.ndarray], source: str) -> dict[str, np.ndarray]:
    """Their tensors from our arrays, each of ours used once.

    Args:
        rules: the table.
        params: ours by path.
        source: what is exported, for errors.

    Raises:
        ConfigError: parameters that the format has no place for, or that it needs and the model lacks; names them.
    """
    paths = {path for r in rules for path in r.ours}
    if missing := sorted(paths - set(params)):
        raise ConfigError(f"{source} lacks parameters that the format needs: {_some(missing)}; choose another --format.")
    if left := sorted(set(params) - paths):
        raise ConfigError(f"the format has no place for parameters of {source}: {_some(left)}; choose another --format.")
    result = {}
    for r in rules:
        made = r.transform.write([np.asarray(params[path], np.float32) for path in r.ours])
        result |= {name: np.array(a, np.float32, order="C") for name, a in zip(r.theirs, made, strict=True)}
    return result


def _check_table(rules: Sequence[Rule], shapes: Mapping) -> None:
    """A table that misses or repeats a name is a mistake in the table, not in the file."""
    ours, theirs = [p for r in rules for p in r.ours], [n for r in rules for n in r.theirs]
    twice = {n for n in ours if ours.count(n) > 1} | {n for n in theirs if theirs.count(n) > 1} if _repeats(ours, theirs) else set()
    if twice or set(ours) != set(shapes):
        raise ConfigError(
            f"these options have no counterpart in the format: {_some(sorted(twice | (set(ours) ^ set(shapes))))}; "
            "change the tower's options to those of the checkpoint."
        )


def _repeats(*lists: Sequence[str]) -> bool:
    return any(len(set(names)) < len(names) for names in lists)


def _refuse_missing(rules: Sequence[Rule], tensors: Mapping, source: str) -> None:
    lacking = [(name, r.key) for r in rules for name in r.theirs if name not in tensors]
    if not lacking:
        return
    keys = sorted({key for _, key in lacking if key})
    hint = f"its config's {', '.join(keys)} may not be those of the file" if keys else "it may be of another architecture"
    there = f"; it holds, for example, {_some(sorted(tensors), 3)}"
    raise ConfigError(f"{source} lacks tensors: {_some([name for name, _ in lacking])}{there}; {hint}.")


def _hint(rules: Sequence[Rule], left: Sequence[str]) -> str:
    """Names that differ from a known one in digits alone are further layers."""
    shape = lambda name: re.sub(r"\d+", "#", name)
    keys = {shape(name): r.key for r in rules for name in r.theirs if r.key}
    found = sorted({keys[shape(name)] for name in left if shape(name) in keys})
    return f"its config's {', '.join(found)} may not be those of the file" if found else "it may be of another architecture"


def _some(names: Sequence[str], shown: int = SHOWN) -> str:
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")
