"""What an evaluator gives back, and which of its numbers want to be small.

An evaluator is `evaluator(encode, data, *, options) -> Evaluation`: `encode` maps a view to a function from a sequence of
raw values (uint8 images, str) to unit rows float32 [N d]; `data` is a source of `input_pipeline`. It never sees TrainState,
files or steps: `evals/job.py` brings those.
"""

import dataclasses

import numpy as np

LOWER_IS_BETTER = ("loss", "cross_entropy", "mean_rank", "median_rank")
NO_DIRECTION = ("tie_rate", "count", "std", "geometry", "chance", "logit_scale")


@dataclasses.dataclass
class Evaluation:
    """Result of one evaluator on one checkpoint.

    Attributes:
        primary: key of `metrics` that decides which checkpoint is best.
        metrics: numbers by name; recalls and accuracies are fractions 0-1, losses are nats.
        count: queries, images or pairs measured.
        gallery: small arrays that the report draws from; strings as '<U', nothing that needs pickle.
    """

    primary: str
    metrics: dict[str, float]
    count: int
    gallery: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if self.primary not in self.metrics:
            raise ValueError(f"primary metric {self.primary!r} is not among: {', '.join(sorted(self.metrics))}.")


def direction(name: str) -> int:
    """1 where a larger value of the metric is better, -1 where a smaller one is, 0 where neither is."""
    words = name.replace("@", "/").replace("_chance", "/chance").split("/")
    if any(word in NO_DIRECTION for word in words):
        return 0
    return -1 if any(word in LOWER_IS_BETTER for word in words) else 1
