"""What a claim is, and what follows from its measurements: paired differences over seeds, their interval, a verdict.

A claim is fixed in its file before anything runs: arms, what is measured of each, which differences count and how large one must
be to matter. `launch/claim.py` trains and measures; here are only values.
"""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from evals import statistics

LEVEL = 0.95


class Contrast(NamedTuple):
    """A difference that a claim is about: `arm` should be above `against`; below `smallest` nobody would care."""

    arm: str
    against: str
    smallest: float


@dataclasses.dataclass(frozen=True)
class Claim:
    """A method's claim.

    Attributes:
        title: the method.
        says: the claim in one sentence.
        file: the module of the claim, which is a config file too: `get_config("run=<run>")` is what a run trains.
        runs: names of the runs of one seed; those of one seed share data order and initial parameters where they have them in common.
        measure: from the workdirs of one seed's runs, by name, to one number for each item [Q] of every arm; items are the same for all.
        metric: what the mean of those numbers is called.
        contrasts: the first one decides the verdict; the others are reported beside it.
        first: for runs that start from an earlier one of `runs`, its name; their config is told its workdir, `first=<workdir>`.
        prepare: makes the files that runs read (a teacher's scores) in a folder, once for all seeds, and is told whether the claim is
            quick; `get_config` then gets the folder as its argument `folder`. None: runs read nothing that must be made.
    """

    title: str
    says: str
    file: pathlib.Path
    runs: Sequence[str]
    measure: Callable[[Mapping[str, pathlib.Path]], Mapping[str, np.ndarray]]
    metric: str
    contrasts: Sequence[Contrast]
    first: Mapping[str, str] = dataclasses.field(default_factory=dict)
    prepare: Callable[[pathlib.Path, bool], None] | None = None


def judge(contrast: Contrast, items: Sequence[Mapping[str, np.ndarray]]) -> dict:
    """What the seeds say of one difference.

    Args:
        contrast: the difference.
        items: for each seed, the numbers of the items [Q] by arm.

    Returns:
        Per-seed differences of means, their mean, the interval by the t-distribution over seeds, the interval by a bootstrap over items (of
        the differences averaged over seeds: what other queries would have said of these very models), and the verdict: `underpowered`
        where half the first interval's width exceeds the smallest difference of interest, else `shown`, `opposite` or `not shown`.
    """
    each = np.array([np.mean(seed[contrast.arm]) - np.mean(seed[contrast.against]) for seed in items])
    low, high = t_interval(each)
    by_item = np.mean([seed[contrast.arm] - seed[contrast.against] for seed in items], axis=0)
    return {
        "arm": contrast.arm,
        "against": contrast.against,
        "smallest": contrast.smallest,
        "differences": each.tolist(),
        "mean": float(each.mean()),
        "interval": [low, high],
        "interval_over_items": list(statistics.interval(by_item)),
        "verdict": verdict(low, high, contrast.smallest),
    }


def t_interval(differences: np.ndarray) -> tuple[float, float]:
    """Between which values the mean difference lies by a paired t-test [seeds]; infinite with fewer than two seeds."""
    count = len(differences)
    if count < 2:
        return -math.inf, math.inf
    half = stats.t.ppf((1 + LEVEL) / 2, count - 1) * differences.std(ddof=1) / math.sqrt(count)
    return float(differences.mean() - half), float(differences.mean() + half)


def verdict(low: float, high: float, smallest: float) -> str:
    """The word for an interval."""
    if (high - low) / 2 > smallest:
        return "underpowered"
    if low > 0:
        return "shown"
    return "opposite" if high < 0 else "not shown"
