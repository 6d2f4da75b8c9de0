"""Bag of words as a control: the cosine of word counts, which knows neither order nor meaning."""

import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from scipy.sparse import csr_array

WORD = re.compile(r"\w+")


def counts(texts: Sequence[str], known: dict[str, int]) -> csr_array:
    """Word counts of each text, scaled to length 1 [N V]; a text without a word is a row of zeros.

    Args:
        texts: in any case, which is not minded.
        known: column of each word seen so far; new words are added.
    """
    found = [Counter(WORD.findall(text.lower())) for text in texts]
    column = [known.setdefault(word, len(known)) for row in found for word in row]
    value = [count / np.sqrt(sum(c * c for c in row.values())) for row in found for count in row.values()]
    bounds = np.cumsum([0, *map(len, found)])
    return csr_array((np.array(value, np.float64), np.array(column, np.int64), bounds), shape=(len(texts), max(len(known), 1)))


def of_pairs(first: Sequence[str], second: Sequence[str]) -> np.ndarray:
    """Cosine of each pair of texts, float32 [N]; 0 where no word is shared."""
    both = counts([*first, *second], {})
    return np.asarray((both[: len(first)] * both[len(first) :]).sum(axis=1)).ravel().astype(np.float32)


def bag_of_words(queries: Sequence[str], corpus: Sequence[str]) -> Callable[[np.ndarray], np.ndarray]:
    """Cosines of queries by index with the whole corpus: float32 [n M]."""
    both = counts([*corpus, *queries], {})
    candidates, asked = both[: len(corpus)].T.tocsc(), both[len(corpus) :]
    return lambda rows: (asked[rows] @ candidates).toarray().astype(np.float32)
