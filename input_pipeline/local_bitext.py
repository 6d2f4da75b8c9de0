"""Captions in several languages, read from a folder on this machine: Multi30k."""

import numpy as np

from input_pipeline.local_files import find, one_of
from input_pipeline.tasks import Bitext

LANGUAGES = ("cs", "de", "en", "fr")


class Multi30k:
    """Multi30k: translated captions of photographs; each looks up its own among those of its split.

    Captions of one photograph differ less than Tatoeba's sentences do, and two of them may be the same: the first of equals is taken.

    Args:
        path: folder with `task1/<split>.<language>`.
        split: test_2016_flickr, test_2017_flickr, test_2017_mscoco, test_2018_flickr, val or train.
        first: language of the captions that are looked up: cs, de, en or fr.
        second: language that they are looked up in.

    Source: Elliott et al. 2016, arXiv:1605.00459.
    """

    def __init__(self, *, path: str = "data/multi30k_p", split: str = "test_2016_flickr", first: str = "de", second: str = "en"):
        read = lambda name, option: find(path, f"task1/{split}.{one_of(name, LANGUAGES, option)}").read_text(encoding="utf-8")
        self._sources, self._targets = (
            read(name, option).removesuffix("\n").split("\n") for name, option in ((first, "first"), (second, "second"))
        )

    def bitext(self) -> Bitext:
        if len(self._sources) != len(self._targets):
            raise ValueError(f"{len(self._sources)} captions have {len(self._targets)} translations; the files must go line by line.")
        return Bitext(self._sources, self._targets, np.arange(len(self._sources)))
