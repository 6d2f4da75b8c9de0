"""Sources by the name a config uses."""

from input_pipeline.sources import digits, glyphs

SOURCES = {
    "digits": digits.Digits,
    "glyphs": glyphs.Glyphs,
}
