"""Characters of `glyphs` with names that are false of them by one word: capital for small, another script, letter or mark.

A swapped name is the name of another character that exists and looks different, so every negative is known to be wrong.
"""

from typing import Any

import numpy as np

from input_pipeline import word_swaps
from input_pipeline.sources.glyphs import SCRIPTS, Glyphs
from input_pipeline.tasks import CandidatesTask

NEGATIVES = ("swap", "word")


class GlyphSwaps(Glyphs):
    """The records of `glyphs`, with `negatives` (k texts) and `negatives_weight`, 0 where there is none and the name stands in its place.

    Names of training are swapped for names of training alone: those of characters held out for evaluation are never shown.

    Args:
        split: as in `Glyphs`.
        size: likewise.
        heldout: likewise.
        only: likewise.
        negatives: `swap` takes the name of another character that differs in one word; `word` puts any word of other names into the
            place of any of its own, whatever that says: a control.
        k: negatives of each record, drawn anew in each epoch.

    Raises:
        ValueError: as `Glyphs`, an unknown kind of negatives, or k below 1.
    """

    def __init__(self, *, split: str = "train", size: int = 32, heldout: int = 500, only: tuple = (), negatives: str = "swap", k: int = 1):
        if negatives not in NEGATIVES or k < 1:
            raise ValueError(f"negatives are {negatives!r}, k {k}; set options.negatives to {' or '.join(NEGATIVES)}, and k to 1 or more.")
        super().__init__(split=split, size=size, heldout=heldout, only=only)
        self._kind, self._k = negatives, k
        self._swaps = self._different(self._seen_names if split.startswith("train") else self._names)
        self._words = sorted({word for name in self._seen_names for word in name.split()})

    def __getitem__(self, i: int) -> dict[str, Any]:
        return self.read(i, None)

    def read(self, i: int, rng: np.random.Generator | None) -> dict[str, Any]:
        """Record i; `rng` draws its negatives."""
        record = super().__getitem__(i)
        name = record["text"]
        if self._kind == "swap":
            found = word_swaps.draw(self._swaps.get(name, {}), self._k, rng)
        else:
            drawn = [word_swaps.other_word(name, self._words, rng, lambda made: self.alike(name, made)) for _ in range(self._k)]
            found = [text for text in drawn if text is not None]
        weight = float(bool(found))
        return record | {"negatives": [*found, *(found[:1] or [name]) * (self._k - len(found))], "negatives_weight": weight}

    def candidates(self) -> CandidatesTask:
        """Each image picks between its name and one that differs in a word, once for every kind of word that has such a name.

        Groups are the kinds. The other name is of any character, seen in training or not.
        """
        swaps, texts = self._different(self._names), {}
        queries, lists, groups = [], [], []
        for row, character in enumerate(self._id.tolist()):
            name = self._names[character]
            for kind, others in swaps.get(name, {}).items():
                pair = name, others[character % len(others)]
                queries.append(self._images[row])
                lists.append([texts.setdefault(text, len(texts)) for text in pair])
                groups.append(kind)
        return CandidatesTask(queries, list(texts), lists, np.array([own for own, _ in lists], np.int64), groups)

    def _different(self, names) -> dict[str, dict[str, list[str]]]:
        """Names by name and kind that differ in one word, without those of characters that look the same in some face."""
        found = word_swaps.neighbours(names, frozenset(SCRIPTS))
        kept = {
            name: {kind: [other for other in others if not self.alike(name, other)] for kind, others in by_kind.items()}
            for name, by_kind in found.items()
        }
        return {name: {kind: others for kind, others in by_kind.items() if others} for name, by_kind in kept.items()}
