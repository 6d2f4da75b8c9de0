"""What an evaluator gives back, and which of its numbers want to be small.

An evaluator is `evaluator(encode, data, *, options) -> Evaluation`: `encode` maps a view to a function from a sequence of
raw values (uint8 images, str) to unit rows float32 [N d]; `data` is a source of `input_pipeline`. It never sees TrainState,
files or steps: `evals/job.py` brings those.
"""

import dataclasses

import numpy as np

from evals.statistics import STATISTICS

LOWER_IS_BETTER = ("loss", "cross_entropy", "mean_rank", "median_rank", "ece", "ece_adaptive", "brier", "fpr95")
NO_DIRECTION = (
    "tie_rate",
    "count",
    "std",
    "geometry",
    "chance",
    "logit_scale",
    "edited",
    "strength",
    "temperature",
    "confidence",
    "complexity",
)


@dataclasses.dataclass
class Evaluation:
    """Result of one evaluator on one checkpoint.

    Attributes:
        primary: key of `metrics` that decides which checkpoint is best.
        metrics: numbers by name; recalls and accuracies are fractions 0-1, losses are nats.
        count: queries, images or pairs measured.
        gallery: small arrays that the report draws from; strings as '<U', nothing that needs pickle.
        items: of each query, image or pair, in the order of the data, what the primary metric is made of: one number [N] whose mean it
            is, or a row [N P] that `statistic` reads. Resampling its rows tells how sure the metric is. None where nothing of the
            kind exists.
        statistic: name in `evals/statistics.py` of the function from `items` to the primary metric.
    """

    primary: str
    metrics: dict[str, float]
    count: int
    gallery: dict[str, np.ndarray] = dataclasses.field(default_factory=dict, repr=False)
    items: np.ndarray | None = dataclasses.field(default=None, repr=False)
    statistic: str = "mean"

    def __post_init__(self):
        if self.primary not in self.metrics:
            raise ValueError(f"primary metric {self.primary!r} is not among: {', '.join(sorted(self.metrics))}.")
        if self.items is not None:
            _check_items(np.asarray(self.items), self.statistic, self.metrics[self.primary], self.primary)


def _check_items(items: np.ndarray, statistic: str, value: float, primary: str) -> None:
    """Items that do not make up the metric would give it an interval that belongs to something else."""
    if items.ndim not in (1, 2) or not len(items) or not np.issubdtype(items.dtype, np.number):
        raise ValueError(f"items are {items.dtype} of shape {items.shape}; they are numbers [N] or [N P], at least one row.")
    made = float(STATISTICS[statistic](items))
    if not np.isclose(made, value, rtol=1e-6, atol=1e-9, equal_nan=True):
        raise ValueError(f"the {statistic} of the items is {made}, but {primary} is {value}; they must be the same number.")


def direction(name: str) -> int:
    """1 where a larger value of the metric is better, -1 where a smaller one is, 0 where neither is."""
    words = name.replace("@", "/").replace("_chance", "/chance").split("/")
    if any(word in NO_DIRECTION for word in words):
        return 0
    return -1 if any(word in LOWER_IS_BETTER for word in words) else 1
