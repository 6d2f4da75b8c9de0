"""Sources by the name a config uses, and sets that only evaluators read."""

from input_pipeline import local_text
from input_pipeline.sources import digits, docstrings, glyphs, pairs

SOURCES = {
    "digits": digits.Digits,
    "docstrings": docstrings.Docstrings,
    "glyphs": glyphs.Glyphs,
    "pairs": pairs.Pairs,
}

EVAL_SETS = {
    "banking77": local_text.Banking77,
    "cosqa": local_text.CoSqa,
    "cranfield": local_text.Cranfield,
    "scifact": local_text.SciFact,
    "stsb": local_text.Stsb,
    "tatoeba": local_text.Tatoeba,
}
