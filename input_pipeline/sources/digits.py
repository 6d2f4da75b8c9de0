"""The 1,797 handwritten digits that scikit-learn installs, with class prompts as captions: a set that trains in seconds."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from input_pipeline import image as image_ops
from input_pipeline.tasks import ClassificationTask, Labelled, ProbeTask, RetrievalTask

SPLITS = ("train", "test")
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEMPLATES = ("the handwritten digit {}", "a scan of the number {}", "a {} written by hand", "{}")
TEST_SHARE = 0.2


class Digits:
    """Handwritten digits; `id` is the class, so all images and captions of one digit are positives of each other.

    Args:
        split: `test` has a fifth of the images, drawn once by a fixed seed, `train` the others.
        size: side of the images in pixels; 8 is what was scanned.

    Raises:
        ValueError: no such split.
    """

    counts = {"id": len(WORDS)}

    def __init__(self, *, split: str = "train", size: int = 8):
        if split not in SPLITS:
            raise ValueError(f"Digits has no split {split!r}; set options.split to one of: {', '.join(SPLITS)}.")
        from sklearn.datasets import load_digits  # longer to import than all the rest of Tandem

        digits = load_digits()
        order = np.random.Generator(np.random.PCG64(0)).permutation(len(digits.target))
        tests = round(TEST_SHARE * len(order))
        rows = np.sort(order[:tests] if split == "test" else order[tests:])
        images = np.round(digits.images[rows] * (255 / 16)).astype(np.uint8)[..., None]  # scanned in 17 levels
        self._images = images if size == 8 else np.stack([image_ops.resize(i, size, size) for i in images])
        self._labels = digits.target[rows].astype(np.int32)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, i: int) -> dict[str, Any]:
        label = int(self._labels[i])
        return {"image": self._images[i], "text": TEMPLATES[i % len(TEMPLATES)].format(WORDS[label]), "id": label}

    def texts(self) -> Iterator[str]:
        return (template.format(word) for word in WORDS for template in TEMPLATES)

    def retrieval(self) -> RetrievalTask:
        """Every image against every caption; the captions of its class are relevant."""
        prompts = len(TEMPLATES)
        pairs = [(i, label * prompts + k) for i, label in enumerate(self._labels.tolist()) for k in range(prompts)]
        groups = [WORDS[label] for label in self._labels]
        return RetrievalTask(self._images, list(self.texts()), np.array(pairs, np.int32), groups)

    def classification(self) -> ClassificationTask:
        return ClassificationTask(self._images, self._labels, WORDS, TEMPLATES)

    def labelled(self) -> Labelled:
        return Labelled(self._images, self._labels)

    def probe(self) -> ProbeTask:
        """Learns from `train`, whatever the option `split` says, and is measured on `test`."""
        return ProbeTask(*(Digits(split=split, size=self._images.shape[1]).labelled() for split in SPLITS))
