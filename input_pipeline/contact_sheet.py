"""A picture of some records, for a person to look at before training on all of them."""

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from input_pipeline import decode
from input_pipeline.bad_records import BadRecord

COLUMNS, SIDE, LINES, MARGIN = 6, 160, 4, 10  # pixels, and lines of text below an image
LETTER, LINE = 26, 13  # letters in a line below an image, pixels from line to line


def draw(records: Sequence[Mapping[str, Any]]) -> Image.Image:
    """Images in rows of six with their first caption, or texts one below the other.

    Args:
        records: with `image` (bytes) and lists of texts, or with lists of texts alone.
    """
    font = ImageFont.load_default(11)
    if not records or "image" not in records[0]:
        return _texts(records, font)
    height = SIDE + LINES * LINE + 2 * MARGIN
    sheet = Image.new("RGB", (COLUMNS * (SIDE + MARGIN) + MARGIN, -(-len(records) // COLUMNS) * height + MARGIN), "white")
    pen = ImageDraw.Draw(sheet)
    for place, record in enumerate(records):
        left, top = MARGIN + place % COLUMNS * (SIDE + MARGIN), MARGIN + place // COLUMNS * height
        try:
            thumbnail = Image.fromarray(decode.pixels(record["image"], 3))
            thumbnail.thumbnail((SIDE, SIDE))
            sheet.paste(thumbnail, (left + (SIDE - thumbnail.width) // 2, top + SIDE - thumbnail.height))
        except BadRecord as error:
            pen.text((left, top), f"({error.kind})", "red", font)
        _lines(pen, (left, top + SIDE + 2), _first_text(record), LETTER, LINES, font)
    return sheet


def _texts(records: Sequence[Mapping[str, Any]], font) -> Image.Image:
    lines = [f"{name}: {value[0]}" for record in records for name, value in record.items() if isinstance(value, list) and value]
    sheet = Image.new("RGB", (COLUMNS * (SIDE + MARGIN) + MARGIN, max(len(lines), 1) * (2 * LINE + 4) + 2 * MARGIN), "white")
    pen = ImageDraw.Draw(sheet)
    for row, line in enumerate(lines):
        _lines(pen, (MARGIN, MARGIN + row * (2 * LINE + 4)), line, 165, 2, font)
    return sheet


def _lines(pen: ImageDraw.ImageDraw, place: tuple[int, int], text: str, width: int, most: int, font) -> None:
    for number, line in enumerate(textwrap.wrap(text[: width * most], width)[:most]):
        pen.text((place[0], place[1] + number * LINE), line, "black", font)


def _first_text(record: Mapping[str, Any]) -> str:
    return next((value[0] for value in record.values() if isinstance(value, list) and value), "")


def as_png(sheet: Image.Image) -> bytes:
    """The bytes of a file."""
    file = io.BytesIO()
    sheet.save(file, "PNG", optimize=True)
    return file.getvalue()
