"""What sources of encoded images with captions have in common: one caption drawn in each epoch, all of them in evaluation.

Leaves finding images and captions to `input_pipeline/sources/`, decoding images to transforms.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from input_pipeline.bad_records import BadRecord
from input_pipeline.tasks import RetrievalTask

MAX_CHARACTERS = 10_000  # of a caption; the longest that people write have a few hundred
TEXT_RECORDS = 1_000_000  # records whose captions a tokenizer is trained on, evenly over all


class Captioned:
    """Records of `image` (the bytes of a file), `text` and `id`; a subclass has `__len__`, `image(i)`, `captions(i)` and `counts`.

    `id` is the number of the record, unless a subclass sets `_ids` (int32 [N]) or has its own.

    Args:
        draw: False takes the first caption in training too.
    """

    _ids: np.ndarray | None = None

    def __init__(self, draw: bool):
        self._draw = draw

    def __getitem__(self, i: int) -> dict[str, Any]:
        return self.read(i, None)

    def read(self, i: int, rng: np.random.Generator | None) -> dict[str, Any]:
        """Record i; `rng` draws one of its captions.

        Raises:
            BadRecord: no image or no caption, or one that cannot be read.
        """
        record = self.whole(i)
        captions = record["text"]
        return record | {"text": captions[int(rng.integers(len(captions))) if rng is not None and self._draw else 0]}

    def whole(self, i: int) -> dict[str, Any]:
        """Record i with all its captions, a list, as `text`.

        Raises:
            BadRecord: as `read`.
        """
        captions = self.captions(i)
        if not captions:
            raise BadRecord(f"record {i} has no caption", "missing")
        return {"image": self.image(i), "text": captions, "id": self.id(i)} | self.numbers(i)

    def id(self, i: int) -> int:
        """What records that are positives of each other share."""
        return i if self._ids is None else int(self._ids[i])

    def numbers(self, i: int) -> dict[str, float]:
        """What else there is of record i: columns of numbers."""
        return {}

    def texts(self) -> Iterator[str]:
        """Each distinct caption once, in order; of more than `TEXT_RECORDS` records, those of so many evenly over all."""
        seen: set[bytes] = set()
        for i in range(0, len(self), -(-len(self) // TEXT_RECORDS)):
            try:
                captions = self.captions(i)
            except BadRecord:
                continue
            for caption in captions:
                digest = hashlib.blake2b(caption.encode(), digest_size=8).digest()
                if digest not in seen:
                    seen.add(digest)
                    yield caption

    def retrieval(self) -> RetrievalTask:
        """Every image against every distinct caption; all captions of an image are relevant, and those that say the same.

        Raises:
            ValueError: a record without a readable caption.
        """
        numbers: dict[str, int] = {}
        try:
            captions = [self.captions(i) for i in range(len(self))]
        except BadRecord as error:
            raise ValueError(f"{error}; an evaluation needs every record of config.evals.<label>.data.options.") from error
        if missing := [i for i, found in enumerate(captions) if not found]:
            raise ValueError(f"record {missing[0]} has no caption; an evaluation needs every record of config.evals.<label>.data.options.")
        pairs = {(i, numbers.setdefault(text, len(numbers))) for i, found in enumerate(captions) for text in found}
        relevant = np.array(sorted(pairs), np.int32).reshape(-1, 2)
        return RetrievalTask(self.images(), list(numbers), relevant, self.groups())

    def images(self) -> "Lazy":
        """The bytes of all images, each read when it is asked for."""
        return Lazy(len(self), self.image)

    def groups(self) -> list[str]:
        """A label of each image, for plots."""
        return ["all"] * len(self)


class Lazy(Sequence):
    """`count` values, each made when it is asked for; a slice is a list.

    Args:
        count: of the values.
        make: value i; a `BadRecord` becomes a `ValueError`, since an evaluation over fewer images is another one.
    """

    def __init__(self, count: int, make: Callable[[int], Any]):
        self._count, self._make = count, make

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, i):
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(self._count))]
        if not -self._count <= i < self._count:
            raise IndexError(i)
        try:
            return self._make(int(i) % self._count)
        except BadRecord as error:
            raise ValueError(f"{error}; an evaluation needs every image of config.evals.<label>.data.options.") from error
