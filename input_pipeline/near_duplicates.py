"""Texts that say nearly the same: MinHash signatures of their shingles, who repeats whom, and which records belong together.

Source: Broder 1997, "On the resemblance and containment of documents"; bands as in Leskovec et al., Mining of Massive Datasets, 3.4.
"""

import re
import zlib

import numpy as np

SIZE = 128  # numbers in a signature: the share of equal ones estimates the Jaccard similarity, with a standard deviation of at most 0.045
SHINGLE = 3  # words
_PRIME = np.uint64(2**61 - 1)
_A, _B = np.random.default_rng(0).integers(1, 2**29, (2, SIZE), np.uint64)  # products with 32 bits stay below 2**61


def shingles(text: str) -> set[str]:
    """Runs of three words, in lower case and without punctuation; a shorter text is one shingle."""
    words = re.findall(r"\w+", text.lower())
    return {" ".join(words[i : i + SHINGLE]) for i in range(max(len(words) - SHINGLE + 1, 1))}


def signature(text: str) -> np.ndarray:
    """uint32 [SIZE]; two are equal in about as many places as their texts share shingles."""
    hashes = np.array([zlib.crc32(shingle.encode()) for shingle in shingles(text)], np.uint64)
    return ((hashes[:, None] * _A + _B) % _PRIME).astype(np.uint32).min(axis=0)


def repeated(signatures: np.ndarray, similarity: float) -> np.ndarray:
    """Whether each text [N] is as similar, by its estimate, as `similarity` to an earlier one that is kept.

    Args:
        signatures: uint32 [N SIZE].
        similarity: above 0, at most 1.
    """
    first, number = _distinct(signatures)
    found = np.arange(len(signatures)) != first[number]
    for i, j in sorted(_alike(signatures[first], similarity).tolist(), key=lambda pair: pair[1]):
        found[first[j]] |= not found[first[i]]
    return found


def groups(signatures: np.ndarray, similarity: float) -> np.ndarray:
    """int64 [N], equal for texts as similar as `similarity`, directly or through others.

    Args:
        signatures: uint32 [N SIZE].
        similarity: above 0, at most 1.
    """
    first, number = _distinct(signatures)
    pairs = _alike(signatures[first], similarity)
    return joined(len(first), pairs[:, 0], pairs[:, 1])[number]


def joined(count: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """int64 [count], equal for things that pairs connect, directly or through others, from 0."""
    from scipy.sparse import coo_array, csgraph  # a third of a second, which most sources do without

    graph = coo_array((np.ones(len(first), bool), (first, second)), (count, count))
    return csgraph.connected_components(graph, directed=False)[1].astype(np.int64)


def _distinct(signatures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each distinct signature stands first, in this order, and the number [N] of each row's among them."""
    _, first, number = np.unique(_hashed(signatures), return_index=True, return_inverse=True)
    order = np.argsort(first)
    return first[order], np.argsort(order)[number]


def _hashed(numbers: np.ndarray) -> np.ndarray:
    """uint64 [N], equal for equal rows, and for others hardly ever; a tenth of the time of comparing whole rows."""
    total = np.zeros(len(numbers), np.uint64)
    for column, factor in zip(numbers.T, _A, strict=False):
        total += column * factor
    return total


def _alike(signatures: np.ndarray, similarity: float) -> np.ndarray:
    """Pairs (i, j), i < j, of rows that are as similar by their estimate; a pair may stand twice.

    Only rows that agree in a whole band of numbers are compared; bands are short enough to miss one similar pair in a hundred. Time
    grows with the square of the rows that share a band.
    """
    rows, found = band_rows(similarity), [np.zeros((0, 2), np.int64)]
    for start in range(0, SIZE - rows + 1, rows):
        key = _hashed(signatures[:, start : start + rows])
        order = np.argsort(key, kind="stable")
        key, distance = key[order], 1
        while len(same := np.flatnonzero(key[distance:] == key[:-distance])):
            pairs = np.stack([order[same], order[same + distance]], axis=1)
            estimates = (signatures[pairs[:, 0]] == signatures[pairs[:, 1]]).mean(axis=1)
            found.append(pairs[estimates >= similarity])
            distance += 1
    return np.concatenate(found)


def band_rows(similarity: float) -> int:
    """Numbers in a band: the most with which a pair of this similarity agrees in some band with a probability of 0.99."""
    fits = [rows for rows in range(1, SIZE + 1) if (1 - similarity**rows) ** (SIZE // rows) <= 0.01]
    return max(fits, default=1)
