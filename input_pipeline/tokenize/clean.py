"""What happens to a text before its tokenizer's own rules. By name, so that a saved tokenizer can say it."""

import html
import re
import string
import unicodedata

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def as_text(value: str | bytes) -> str:
    """A text that can be written as UTF-8: invalid bytes and lone surrogates become U+FFFD.

    Raises:
        TypeError: neither str nor bytes.
    """
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if not isinstance(value, str):
        raise TypeError(f"a text must be str or UTF-8 bytes, not {type(value).__name__}; look at what the source yields for this view.")
    if value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # joins halves that belong together
    return value


def open_clip(text: str) -> str:
    """Mends broken encodings and HTML, joins whitespace, folds case. Source: open_clip's `clean="lower"`, OpenAI's CLIP."""
    return " ".join(_mend(text).split()).lower()


def open_clip_cased(text: str) -> str:
    """As `open_clip`, without folding case. Source: open_clip's `clean="whitespace"`."""
    return " ".join(_mend(text).split())


def canonical(text: str) -> str:
    """Mends the text, then words alone: no ASCII punctuation, lower case. Source: open_clip's `clean="canonicalize"`; big_vision."""
    return " ".join(_mend(text).replace("_", " ").translate(_NO_PUNCTUATION).lower().split())


def siglip(text: str) -> str:
    """Words alone, as transformers prepares texts for SigLIP: `_` goes like other punctuation."""
    return re.sub(r"\s+", " ", text.replace("▁", " ").lower().translate(_NO_PUNCTUATION)).strip()


def albert(text: str) -> str:
    """One space between words, straight quotes, no accents, lower case. Source: github.com/google-research/albert."""
    text = unicodedata.normalize("NFKD", " ".join(text.split()).replace("``", '"').replace("''", '"'))
    return "".join(c for c in text if not unicodedata.combining(c)).lower()


def _mend(text: str) -> str:
    import ftfy  # a tenth of a second that only these need, and every worker would pay

    return html.unescape(html.unescape(ftfy.fix_text(text))).strip()


CLEANERS = {
    "albert": albert,
    "canonical": canonical,
    "lower": str.lower,
    "none": str,
    "open_clip": open_clip,
    "open_clip_cased": open_clip_cased,
    "siglip": siglip,
}
