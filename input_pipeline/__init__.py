"""Sources by the name a config uses."""

from input_pipeline.sources import digits, docstrings, glyphs, pairs

SOURCES = {
    "digits": digits.Digits,
    "docstrings": docstrings.Docstrings,
    "glyphs": glyphs.Glyphs,
    "pairs": pairs.Pairs,
}
