"""Texts that say nearly the same: MinHash signatures of their shingles, and who repeats whom.

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

    Only pairs that agree in a whole band of numbers are compared; bands are short enough to miss one similar pair in a hundred.

    Args:
        signatures: uint32 [N SIZE].
        similarity: above 0, at most 1.
    """
    rows = band_rows(similarity)
    kept_by_band: dict[bytes, list[int]] = {}
    found = np.zeros(len(signatures), bool)
    for i, signature in enumerate(signatures):
        keys = [bytes([band]) + signature[band * rows : (band + 1) * rows].tobytes() for band in range(SIZE // rows)]
        candidates = np.array(sorted({j for key in keys if key in kept_by_band for j in kept_by_band[key]}), np.int64)
        found[i] = len(candidates) > 0 and bool(((signatures[candidates] == signature).mean(axis=1) >= similarity).any())
        if not found[i]:
            for key in keys:
                kept_by_band.setdefault(key, []).append(i)
    return found


def band_rows(similarity: float) -> int:
    """Numbers in a band: the most with which a pair of this similarity agrees in some band with a probability of 0.99."""
    fits = [rows for rows in range(1, SIZE + 1) if (1 - similarity**rows) ** (SIZE // rows) <= 0.01]
    return max(fits, default=1)
