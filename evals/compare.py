"""Two results side by side: do the scores differ, and which recorded settings could be why."""

import dataclasses
import math
import pathlib
from collections.abc import Mapping
from typing import Any

from core.config import differences
from core.workdir import read_json

WEIGHTS = ("fingerprint", "weights", "step")
TASK = ("data", "cut", "options", "inputs", "conventions")
SAME = 1e-9  # scores nearer than this are one score


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What two results have apart; each entry reads `name: first -> second`.

    Attributes:
        scores: metrics that both have and that differ: name to (first, second); None where one is undefined.
        weights: of the settings, those that say which model it was.
        task: those that say what was asked: data, options, the digest of what was encoded.
        reading: all others: tokenizer, case, length, prompts, precision, batch, devices, versions.
        lost: metrics that one result has alone.
    """

    scores: dict[str, tuple[float | None, float | None]]
    weights: list[str]
    task: list[str]
    reading: list[str]
    lost: list[str]

    def verdict(self) -> str:
        """One sentence on where a difference of scores may come from."""
        if not self.scores:
            return "The scores are the same" + (", although settings differ." if self.weights + self.task + self.reading else ".")
        if self.task:
            return "The scores differ, but so does what was asked: they do not measure the same thing."
        if self.weights:
            more = ", and so do settings, which may explain a part of it: compare with them equal" if self.reading else ""
            return f"The scores differ, and the weights are others{more}."
        if self.reading:
            return "The weights and what was asked are the same: the scores differ only by the settings below."
        return "The scores differ although nothing recorded does: what was run is not deterministic, or depends on something not recorded."


def compare(first: Mapping[str, Any], second: Mapping[str, Any]) -> Comparison:
    """Compares two result files' contents.

    Args:
        first: as `results.write` writes it.
        second: the same.
    """
    one, other = first["settings"], second["settings"]
    between = lambda names: [line for name in names for line in differences(one.get(name), other.get(name), name)]
    rest = [name for name in dict.fromkeys([*one, *other]) if name not in WEIGHTS + TASK]
    task = differences(first["evaluator"], second["evaluator"], "evaluator") + between(TASK)
    a, b = first["metrics"], second["metrics"]
    scores = {name: (a[name], b[name]) for name in a if name in b and not _same(a[name], b[name])}
    return Comparison(scores, between(WEIGHTS), task, between(rest), sorted(set(a) ^ set(b)))


def _same(a: float | None, b: float | None) -> bool:
    if a is None or b is None:
        return a is b
    return math.isclose(a, b, rel_tol=SAME, abs_tol=SAME)


def of_files(first, second) -> str:
    """What two result files say differently, in lines; the settings at the end.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is no result of an evaluation.
    """
    found = compare(*(_read(path) for path in (first, second)))
    lines = [found.verdict()]
    lines += [f"  {name}: {_number(a)} -> {_number(b)}" for name, (a, b) in found.scores.items()]
    for title, some in (("what was asked", found.task), ("weights", found.weights), ("settings", found.reading)):
        lines += [f"{title}:", *(f"  {line}" for line in some)] if some else []
    return "\n".join(lines + ([f"measured in one of them alone: {', '.join(found.lost)}"] if found.lost else []))


def _read(path) -> Mapping[str, Any]:
    found = read_json(pathlib.Path(path))
    if not isinstance(found, dict) or not {"evaluator", "metrics", "settings"} <= found.keys():
        raise ValueError(f"{path} is no result of an evaluation; give a file such as evals/<step>/<label>.json or <model>/<task>.json.")
    return found


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.6g}"
