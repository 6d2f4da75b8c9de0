"""Renders the named characters of the fonts that matplotlib installs, and finds the ones that look alike.

Leaves splits, captions and tasks to `input_pipeline/sources/glyphs.py`.
"""

import dataclasses
import os
import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np
from fontTools.ttLib import TTFont
from PIL import ImageFont

# Faces with fewer named characters are display cuts and size variants of brackets.
MIN_CHARACTERS = 100
# Of the image's side. 99% of the ink then fits without moving: at 32 px it reaches 25 px above the baseline and 7 below.
EM, BASELINE = 0.8, 0.765


@dataclasses.dataclass(frozen=True)
class GlyphImages:
    """Every character in every face that draws it, ordered by face, then code point.

    Args:
        images: uint8 [N S S 1], ink 255 on 0.
        code: int32 [N], the code point.
        face: int32 [N], index into `faces`.
        pixel_id: int32 [N], dense; equal where all pixels are.
        faces: file names without suffix, sorted.
    """

    images: np.ndarray
    code: np.ndarray
    face: np.ndarray
    pixel_id: np.ndarray
    faces: tuple[str, ...]


def named_characters(only: Sequence[str] = ()) -> dict[str, list[int]]:
    """Code points that have a Unicode name, by the path of each DejaVu or STIX face with at least `MIN_CHARACTERS` of them.

    Args:
        only: file names without suffix of the faces to look at; () takes all.

    Raises:
        ValueError: a face that is not there.
    """
    import matplotlib  # for its fonts, and slow to import

    folder = os.path.join(matplotlib.get_data_path(), "fonts", "ttf")
    paths = [os.path.join(folder, n) for n in sorted(os.listdir(folder)) if n.startswith(("DejaVu", "STIX")) and n.endswith(".ttf")]
    names = {os.path.splitext(os.path.basename(path))[0]: path for path in paths}
    if unknown := sorted(set(only) - set(names)):
        raise ValueError(f"there is no face {unknown[0]!r}; set options.only to some of: {', '.join(names)}.")
    by_path = {}
    for path in [path for name, path in names.items() if not only or name in only]:
        with TTFont(path, lazy=True) as font:
            by_path[path] = sorted(c for c in font.getBestCmap() if unicodedata.name(chr(c), None))
    return {path: codes for path, codes in by_path.items() if len(codes) >= MIN_CHARACTERS}


def render(size: int, only: Sequence[str] = ()) -> GlyphImages:
    """Renders every character of every face, about 54,000 images in two seconds at 32 px.

    Args:
        size: side of the images in pixels.
        only: as `named_characters` takes it.
    """
    images, code, face = [], [], []
    by_path = named_characters(only)
    for number, (path, codes) in enumerate(by_path.items()):
        for c, image in render_face(path, codes, size):
            images.append(image)
            code.append(c)
            face.append(number)
    names = tuple(os.path.splitext(os.path.basename(path))[0] for path in by_path)
    pixels = np.stack(images)
    return GlyphImages(pixels[..., None], np.array(code, np.int32), np.array(face, np.int32), number_pixels(pixels), names)


def render_face(path: str, codes: list[int], size: int) -> Iterator[tuple[int, np.ndarray]]:
    """Code points with their images [S S], without those that leave no ink or only the face's box for missing glyphs.

    The scale and the baseline are those of the face, so that case, accents and superscripts keep their place; across, the ink is
    centred. Ink that would leave the image is moved in, and ink larger than the image is drawn with a smaller font.
    """
    fonts = {}

    def draw(c: int, em: int) -> tuple[np.ndarray, int]:
        if em not in fonts:
            fonts[em] = ImageFont.truetype(path, em, layout_engine=ImageFont.Layout.BASIC)  # raqm fails on some characters
        return _ink(fonts[em], chr(c))

    full = round(EM * size)
    missing, _ = draw(0xFFFFF, full)  # private use, which no face fills
    for c in codes:
        ink, top = draw(c, full)
        if not ink.size or (ink.shape == missing.shape and (ink == missing).all()):
            continue
        em = full
        while max(ink.shape) > size:
            em = min(em - 1, int(em * size / max(ink.shape)))
            ink, top = draw(c, em)
        yield c, _place(ink, top, size)


def _ink(font: ImageFont.FreeTypeFont, character: str) -> tuple[np.ndarray, int]:
    """The smallest array that holds the ink, and its first row counted from the baseline (negative is above)."""
    mask, (_, top) = font.getmask2(character, mode="L", anchor="ls")
    box = mask.getbbox() if mask.size[0] and mask.size[1] else None
    if box is None:
        return np.zeros((0, 0), np.uint8), 0
    array = np.frombuffer(bytes(mask), np.uint8).reshape(mask.size[1], mask.size[0])
    return array[box[1] : box[3], box[0] : box[2]], top + box[1]


def _place(ink: np.ndarray, top: int, size: int) -> np.ndarray:
    image = np.zeros((size, size), np.uint8)
    row = min(max(round(BASELINE * size) + top, 0), size - ink.shape[0])
    column = (size - ink.shape[1]) // 2
    image[row : row + ink.shape[0], column : column + ink.shape[1]] = ink
    return image


def number_pixels(images: np.ndarray) -> np.ndarray:
    """Dense int32 numbers, in order of first appearance, equal for identical images."""
    numbers: dict[bytes, int] = {}
    return np.array([numbers.setdefault(image.tobytes(), len(numbers)) for image in images], np.int32)


def homoglyph_classes(code: np.ndarray, pixel_id: np.ndarray) -> list[list[int]]:
    """Classes of code points joined by chains of identical images, each sorted, ordered by their first code point.

    Two characters may be identical in one face only; they still share a class, since a picture of one is a picture of the other.
    """
    parent: dict[int, int] = {}

    def root(c: int) -> int:
        while parent[c] != c:
            parent[c] = c = parent[parent[c]]
        return c

    first: dict[int, int] = {}
    for c, pixel in zip(code.tolist(), pixel_id.tolist(), strict=True):
        parent.setdefault(c, c)
        a, b = root(c), root(first.setdefault(pixel, c))
        parent[max(a, b)] = min(a, b)
    classes: dict[int, list[int]] = {}
    for c in sorted(parent):
        classes.setdefault(root(c), []).append(c)
    return list(classes.values())
