"""Characters of the fonts that matplotlib installs, paired with their Unicode names: real images and captions without a download.

Leaves rendering to `input_pipeline/glyph_images.py`.
"""

import hashlib
import unicodedata
from collections.abc import Iterator
from typing import Any

import numpy as np

from input_pipeline import glyph_images
from input_pipeline.tasks import ClassificationTask, RetrievalTask

SPLITS = ("train", "unseen", "train_faces", "faces")
# One serif italic, one monospaced bold and one of the other foundry.
HELDOUT_FACES = ("DejaVuSansMono-Bold", "DejaVuSerif-Italic", "STIXGeneralBolIta")
# First words of names that are writing systems, with the words that follow in every name; each has about 50 characters or more.
SCRIPTS = {
    "arabic": "arabic", "armenian": "armenian", "braille": "braille", "canadian": "canadian syllabics", "cyrillic": "cyrillic",
    "georgian": "georgian", "greek": "greek", "hebrew": "hebrew", "lao": "lao", "latin": "latin", "lisu": "lisu", "nko": "nko",
    "tifinagh": "tifinagh",
}  # fmt: skip
OTHER = "other"
TEMPLATES = ("{}", "{} letter", "{} small letter", "{} capital letter")
MAX_PROMPTS = 100  # names of a script that stand for it


class Glyphs:
    """About 7,300 characters in 17 faces, 54,000 images.

    Records have `image` uint8 [size size 1], `text` (the name in lower case), `id` (the character), `pixel_id` (equal where the
    images are) and `face`. The three numbers are the same in every split of one size.

    Args:
        split: `unseen` holds out characters, `train` has the others in every face. `faces` has the characters of `train` in three
            held-out faces, without images that occur in another face too; `train_faces` has them in the other faces.
        size: side of the images in pixels.
        heldout: characters in `unseen`.
        only: faces to read, by the names of their files; () reads all.
        scripts: writing systems to read, names of `SCRIPTS`, and `other` for what has none of them; () reads all.

    Raises:
        ValueError: no such split, face or writing system, or more characters held out than there are.
    """

    def __init__(self, *, split: str = "train", size: int = 32, heldout: int = 500, only: tuple = (), scripts: tuple = ()):
        if split not in SPLITS:
            raise ValueError(f"Glyphs has no split {split!r}; set options.split to one of: {', '.join(SPLITS)}.")
        unknown = set(scripts) - {*SCRIPTS.values(), OTHER}
        if unknown:
            raise ValueError(f"no writing system {sorted(unknown)}; choose options.scripts from: {', '.join(SCRIPTS.values())}, {OTHER}.")
        glyphs = glyph_images.render(size, only)
        codes, character = np.unique(glyphs.code, return_inverse=True)
        unseen = np.isin(codes, heldout_characters(glyphs, heldout))
        rows = np.flatnonzero(_in_split(glyphs, split, unseen[character]))
        # What the arrays number, so that mixed sources can keep their numbers apart.
        self.counts = {"id": len(codes), "pixel_id": int(glyphs.pixel_id.max()) + 1, "face": len(glyphs.faces)}
        self.faces = glyphs.faces
        self._names = [unicodedata.name(chr(c)).lower() for c in codes]
        if scripts:
            rows = rows[np.isin([_script(name) or OTHER for name in self._names], scripts)[character[rows]]]
        self._seen_names = [name for name, held in zip(self._names, unseen, strict=True) if not held]
        self._images, self._face, self._pixel_id = glyphs.images[rows], glyphs.face[rows], glyphs.pixel_id[rows]
        self._id = character[rows].astype(np.int32)
        self._class = _classes(character, glyphs.pixel_id)
        self._number = {name: number for number, name in enumerate(self._names)}

    def __len__(self) -> int:
        return len(self._id)

    def __getitem__(self, i: int) -> dict[str, Any]:
        character = int(self._id[i])
        return {
            "image": self._images[i], "text": self._names[character],
            "id": character, "pixel_id": int(self._pixel_id[i]), "face": int(self._face[i]),
        }  # fmt: skip

    def texts(self) -> Iterator[str]:
        """Names of this split's characters in the order of their code points."""
        return (self._names[character] for character in np.unique(self._id))

    def retrieval(self) -> RetrievalTask:
        """Every image against the name of every character of the split.

        A name is relevant if its character looks the same, pixel for pixel, in the face of the image.
        """
        characters, own = np.unique(self._id, return_inverse=True)
        alike: dict[tuple[int, int], list[int]] = {}
        looks = list(zip(self._face.tolist(), self._pixel_id.tolist(), strict=True))
        for look, candidate in zip(looks, own.tolist(), strict=True):
            alike.setdefault(look, []).append(candidate)
        pairs = [(i, candidate) for i, look in enumerate(looks) for candidate in sorted(alike[look])]
        names = [self._names[c] for c in characters]
        groups = [_script(self._names[c]) or OTHER for c in self._id]
        return RetrievalTask(self._images, names, np.array(pairs, np.int32), groups)

    def classification(self) -> ClassificationTask:
        """The writing system of each image whose character belongs to one of `SCRIPTS`; classes are those that occur.

        A script's prompts are names of its characters in `train`, evenly over its code points, at most `MAX_PROMPTS`: "latin letter"
        is no caption that training shows, and a word that half of all captions share says little alone.
        """
        scripts = np.array([_script(self._names[c]) or "" for c in self._id])
        rows = np.flatnonzero(scripts != "")
        class_names, labels = np.unique(scripts[rows], return_inverse=True)
        prompts = [self._prompts(name) for name in class_names]
        return ClassificationTask(self._images[rows], labels.astype(np.int32), tuple(class_names.tolist()), TEMPLATES, prompts)

    def alike(self, one: str, other: str) -> bool:
        """Whether both texts are names of characters, of any split, that look the same in some face, or are joined by a chain of such."""
        numbers = self._number.get(one), self._number.get(other)
        return None not in numbers and bool(self._class[numbers[0]] == self._class[numbers[1]])

    def _prompts(self, script: str) -> list[str]:
        names = [name for name in self._seen_names if _script(name) == script]
        return names[:: max(1, -(-len(names) // MAX_PROMPTS))] or [script]


def _script(name: str) -> str | None:
    return SCRIPTS.get(name.split()[0])


def _classes(character: np.ndarray, pixel_id: np.ndarray) -> np.ndarray:
    """The number of each character's homoglyph class [characters]."""
    number = np.zeros(int(character.max()) + 1, np.int32)
    for i, members in enumerate(glyph_images.homoglyph_classes(character, pixel_id)):
        number[members] = i
    return number


def _in_split(glyphs: glyph_images.GlyphImages, split: str, unseen: np.ndarray) -> np.ndarray:
    if split in ("train", "unseen"):
        return unseen == (split == "unseen")
    in_heldout_face = np.isin(glyphs.face, [i for i, name in enumerate(glyphs.faces) if name in HELDOUT_FACES])
    train_faces = ~unseen & ~in_heldout_face
    if split == "train_faces":
        return train_faces
    seen_image = np.isin(glyphs.pixel_id, glyphs.pixel_id[train_faces])
    return ~unseen & in_heldout_face & ~seen_image & np.isin(glyphs.code, glyphs.code[train_faces])


def heldout_characters(glyphs: glyph_images.GlyphImages, count: int) -> np.ndarray:
    """Code points held out for evaluation: whole homoglyph classes, exactly `count` characters.

    Classes are taken in the order of a hash of their first code point and passed over where they would not fit, so another image
    size, which merges a few other classes, changes few characters.

    Raises:
        ValueError: fewer characters than `count`.
    """
    classes = glyph_images.homoglyph_classes(glyphs.code, glyphs.pixel_id)
    chosen: list[int] = []
    for members in sorted(classes, key=lambda c: hashlib.sha256(b"tandem glyphs %d" % c[0]).digest()):
        if len(chosen) + len(members) <= count:
            chosen += members
    if len(chosen) != count:
        raise ValueError(f"only {len(chosen)} of {count} characters can be held out; set options.heldout to {len(chosen)} or less.")
    return np.array(sorted(chosen))
