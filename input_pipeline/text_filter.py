"""Which texts of a record may stay: by their length, and by the language that py3langid reads in the letters that follow each other.

Captions of a dozen words are told right but for neighbours (one Czech one in a hundred is taken for Slovak); a word alone is a guess.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from core.config import ConfigError
from input_pipeline.bad_records import BadRecord

LISTS = ("negatives",)  # columns that stay lists, and may be empty; of other texts a record needs one


def trimmer(least: int, most: int, languages: Mapping[str, Sequence[str]]) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """What makes a record of lists of those texts that may stay; it raises `BadRecord` where a column is left without any.

    Args:
        least: characters.
        most: characters.
        languages: codes of those that a column may be in; a column that is not named may be in any.

    Raises:
        ConfigError: a language that is not known, or the library is not installed.
    """
    identify = Identifier() if languages else None
    for name, codes in languages.items():
        if unknown := [code for code in codes if code not in identify.known]:
            raise ConfigError(
                f"there is no language {unknown[0]!r} to keep of {name!r}; those that can be told are: {' '.join(identify.known)}."
            )
    return functools.partial(_trimmed, least=least, most=most, languages=languages, identify=identify)


def _trimmed(record: Mapping[str, Any], least: int, most: int, languages: Mapping[str, Sequence[str]], identify) -> dict[str, Any]:
    texts = {name: [value] if isinstance(value, str) else value for name, value in record.items() if isinstance(value, (str, list))}
    if absent := [name for name in languages if name not in texts]:
        raise ConfigError(f"a language is asked of {absent[0]!r}, but the texts of records are: {', '.join(texts) or 'none'}.")
    kept = {}
    for name, values in texts.items():
        kept[name] = [text for text in values if least <= len(text) <= most]
        if not kept[name] and name not in LISTS:
            short = all(len(text) < least for text in values)
            raise BadRecord(f"{name!r} is too {'short' if short else 'long'}", "text_length")
        if name in languages:
            found = [identify(text) for text in kept[name]]
            kept[name] = [text for text, language in zip(kept[name], found, strict=True) if language in languages[name]]
            if not kept[name] and name not in LISTS:
                raise BadRecord(f"{name!r} is in the language {', '.join(sorted(set(found)))}", "language")
    return {**record, **kept}


class Identifier:
    """`identify(text)` is the ISO 639 code of a text's language, `en` for English, and `zxx` for numbers, markup or names of files.

    Loading takes half a second and 100 MB, a text of a dozen words 50 microseconds.

    Raises:
        ConfigError: the library is not installed.
    """

    def __init__(self):
        try:
            from py3langid import langid
        except ImportError as error:
            raise ConfigError("telling languages apart needs a package that is not here: pip install py3langid.") from error
        self._model = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE)

    @property
    def known(self) -> list[str]:
        """The codes of all languages."""
        return self._model.labels

    def __call__(self, text: str) -> str:
        return self._model.classify(text)[0]
