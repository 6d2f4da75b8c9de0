"""Two characters of one face beside or above each other, with captions that say which stands where.

A bag of words cannot tell a caption from the one in which the two names, or two words of them, have changed places.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from input_pipeline import canvas, word_swaps
from input_pipeline.sources.glyphs import Glyphs
from input_pipeline.tasks import CandidatesTask, ClassificationTask, RetrievalTask

RELATIONS = ("left of", "on top of")  # which stand in no name
SEED = 20_240  # of partners and relations


class GlyphScenes(Glyphs):
    """One scene for each image of `glyphs`: it and another of its face, drawn once for all.

    Records have `image` uint8 [size size 1], `text` ("greek small letter alpha left of digit one"), `negatives` (one false caption) and
    `id`, the number of the scene. Two characters of one scene never look alike in any face.

    Args:
        split: as in `Glyphs`; both characters are of it.
        size: side of the canvas; a character has half of it.
        heldout: as in `Glyphs`.
        only: likewise.

    Raises:
        ValueError: as `Glyphs`, or an odd size.
    """

    def __init__(self, *, split: str = "train", size: int = 32, heldout: int = 500, only: tuple = ()):
        if size % 2:
            raise ValueError(f"a character has half of {size} pixels; set options.size to an even number.")
        super().__init__(split=split, size=size // 2, heldout=heldout, only=only)
        self._known = set(self._seen_names if split.startswith("train") else self._names)
        self._other, self._relation = self._partners()
        self.counts = {"id": len(self)}
        self._size = size

    def __getitem__(self, i: int) -> dict[str, Any]:
        return self.read(i, None)

    def read(self, i: int, rng: np.random.Generator | None) -> dict[str, Any]:
        """Record i; `rng` draws how its caption is made false, by kind first."""
        (negative,) = word_swaps.draw(self.false(i), 1, rng)
        return {"image": self.image(i), "text": self.caption(i), "negatives": [negative], "id": i}

    def image(self, i: int) -> np.ndarray:
        """The canvas: side by side at half height, or one above the other at half width."""
        pair = [self._images[i], self._images[self._other[i]]]
        return canvas.centred(canvas.assemble(pair, columns=2 - int(self._relation[i])), self._size)

    def caption(self, i: int) -> str:
        """What is true of scene i."""
        return f"{self._name(i)} {RELATIONS[self._relation[i]]} {self._name(self._other[i])}"

    def false(self, i: int) -> dict[str, list[str]]:
        """What is not, by kind: `order` exchanges the names, `word` a word of each where that gives two names; in training, of training."""
        one, other, relation = self._name(i), self._name(self._other[i]), RELATIONS[self._relation[i]]
        found = {"order": [f"{other} {relation} {one}"]}
        words = [
            f"{first} {relation} {second}"
            for first, second in word_swaps.exchanged_words(one, other, self._known.__contains__)
            if not (self.alike(first, one) and self.alike(second, other))
        ]
        return found | ({"word": words} if words else {})

    def texts(self) -> Iterator[str]:
        """Each distinct caption once, in the order of the scenes."""
        return iter(dict.fromkeys(self.caption(i) for i in range(len(self))))

    def retrieval(self) -> RetrievalTask:
        """Every scene against the captions of all; a caption is relevant to the scenes it is true of, by names that look the same."""
        number = {text: i for i, text in enumerate(self.texts())}
        true: dict[tuple, set[int]] = {}
        for i in range(len(self)):
            true.setdefault(self._seen(i), set()).add(number[self.caption(i)])
        pairs = [(i, text) for i in range(len(self)) for text in sorted(true[self._seen(i)])]
        return RetrievalTask(self._canvases(), list(number), np.array(pairs, np.int32), [RELATIONS[k] for k in self._relation])

    def classification(self) -> ClassificationTask:
        """Which of the relations a scene shows."""
        return ClassificationTask(self._canvases(), self._relation.astype(np.int32), RELATIONS, ("{}",))

    def candidates(self) -> CandidatesTask:
        """Each scene picks between its caption and a false one, once for each kind of `false`."""
        queries, lists, groups, texts = [], [], [], {}
        for i in range(len(self)):
            for kind, others in self.false(i).items():
                queries.append(self.image(i))
                lists.append([texts.setdefault(text, len(texts)) for text in (self.caption(i), others[i % len(others)])])
                groups.append(kind)
        return CandidatesTask(queries, list(texts), lists, np.array([own for own, _ in lists], np.int64), groups)

    def _name(self, i: int) -> str:
        return self._names[self._id[i]]

    def _seen(self, i: int) -> tuple:
        """What a picture shows, up to characters that look alike."""
        return int(self._class[self._id[i]]), int(self._relation[i]), int(self._class[self._id[self._other[i]]])

    def _canvases(self) -> list[np.ndarray]:
        return [self.image(i) for i in range(len(self))]

    def _partners(self) -> tuple[np.ndarray, np.ndarray]:
        """For each image the row of its partner, of the same face and another look, and the relation; drawn by row from a fixed seed.

        Raises:
            ValueError: a face of which all characters of the split look the same.
        """
        looks, rng = self._class[self._id], np.random.Generator(np.random.PCG64(SEED))
        rows_of = {face: np.flatnonzero(self._face == face) for face in np.unique(self._face)}
        other, relation = np.zeros(len(self), np.int64), rng.integers(len(RELATIONS), size=len(self))
        for i, face in enumerate(self._face.tolist()):
            rows, start = rows_of[face], int(rng.integers(len(rows_of[face])))
            found = (rows[(start + k) % len(rows)] for k in range(len(rows)))
            other[i] = next((row for row in found if looks[row] != looks[i]), -1)
        if (other < 0).any():
            raise ValueError("a face has one character alone, and no other beside it; set options.heldout higher.")
        return other, relation
