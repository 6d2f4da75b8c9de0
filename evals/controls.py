"""What ranks texts beside a model and is none: a score that word overlap alone reaches is no proof of understanding."""

from collections.abc import Callable, Sequence

import numpy as np

from core.config import ConfigError, choose
from evals import bag_of_words, bm25

KEY = "config.evals.<label>.options.controls"
CONTROLS = {"bag_of_words": bag_of_words.bag_of_words, "bm25": bm25.bm25}


def check(names: Sequence[str]) -> None:
    """Refuses a control that does not exist.

    Raises:
        ConfigError: lists those that do.
    """
    for name in names:
        choose(CONTROLS, name, KEY)


def scorer(name: str, queries: Sequence[str], corpus: Sequence[str]) -> Callable[[np.ndarray], np.ndarray]:
    """Scores of queries by index with the whole corpus, float32 [n M].

    Raises:
        ConfigError: an unknown control, or values that are no texts.
    """
    if not all(isinstance(value, str) for values in (queries, corpus) for value in values):
        raise ConfigError(f"{name} ranks texts alone; leave it out of {KEY}.")
    return choose(CONTROLS, name, KEY)(queries, corpus)
