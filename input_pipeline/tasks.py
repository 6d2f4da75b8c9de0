"""What a source hands to an evaluator, and what it raises for a record it cannot read.

Leaves encoding and metrics to `evals/`.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np


class BadRecord(Exception):
    """A record that cannot be read; batching replaces it by its successor and counts it."""


@dataclasses.dataclass(frozen=True)
class RetrievalTask:
    """Images and texts to rank against each other.

    Args:
        images: uint8 arrays [H W C], the queries of img2txt.
        texts: the candidates of img2txt, the queries of txt2img; distinct.
        relevant: int array [P 2] of (image index, text index), each pair once, sorted.
        groups: one label per image, for colouring plots.
    """

    images: Sequence[np.ndarray]
    texts: Sequence[str]
    relevant: np.ndarray
    groups: Sequence[str]


@dataclasses.dataclass(frozen=True)
class ClassificationTask:
    """Images to sort into named classes through prompts.

    Args:
        images: uint8 arrays [H W C].
        labels: int array [N], index into `class_names`.
        class_names: what a template's `{}` becomes, in the words of the training captions.
        templates: prompts with one `{}` each.
        prompts: prompts of each class, where templates would not do: they are used instead.
    """

    images: Sequence[np.ndarray]
    labels: np.ndarray
    class_names: Sequence[str]
    templates: Sequence[str]
    prompts: Sequence[Sequence[str]] | None = None
