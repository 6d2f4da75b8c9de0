"""Captions that are false by a word or two: which names differ in one word, and texts in which two spans have changed places.

All of it works on whole words, so that nothing inside a longer word is touched ("a" in "alpha").
"""

import collections
from collections.abc import Callable, Iterable, Sequence

import numpy as np

CASES = frozenset(("small", "capital"))


def neighbours(names: Iterable[str], groups: frozenset[str] = frozenset()) -> dict[str, dict[str, list[str]]]:
    """For each name, those of the other names that differ from it in one word, by kind of the word, sorted.

    Args:
        names: distinct texts.
        groups: first words that name a family (a script), see `kind`.
    """
    holes = collections.defaultdict(list)
    for name in sorted(names):
        words = name.split()
        for place in range(len(words)):
            holes[(*words[:place], None, *words[place + 1 :])].append(name)
    found: dict[str, dict[str, list[str]]] = collections.defaultdict(lambda: collections.defaultdict(list))
    for hole, members in holes.items():
        for one in members:
            for other in members:
                if one != other:
                    found[one][kind(one.split(), other.split(), hole.index(None), groups)].append(other)
    return {name: {kind: sorted(others) for kind, others in sorted(by_kind.items())} for name, by_kind in found.items()}


def kind(one: Sequence[str], other: Sequence[str], place: int, groups: frozenset[str] = frozenset()) -> str:
    """What the word at `place`, in which two names differ, says: `case`, `script` (the first word, one of `groups` in both), `mark`
    (what stands after "with"), or `letter` for all else.
    """
    pair = {one[place], other[place]}
    if pair == CASES:
        return "case"
    if place == 0 and pair <= groups:
        return "script"
    return "mark" if "with" in one[:place] else "letter"


def exchange(text: str, one: str, other: str) -> str:
    """The text with two spans of words in each other's place; done twice, it is the text again.

    Raises:
        ValueError: a span that does not stand in the text exactly once, or that overlaps the other.
    """
    words, spans = text.split(), []
    for span in (one.split(), other.split()):
        starts = [i for i in range(len(words) - len(span) + 1) if words[i : i + len(span)] == span]
        if len(starts) != 1:
            raise ValueError(f"{' '.join(span)!r} stands {len(starts)} times in {text!r}, so it cannot change places; it must stand once.")
        spans.append((starts[0], starts[0] + len(span)))
    (a, b), (c, d) = sorted(spans)
    if b > c:
        raise ValueError(f"{one!r} and {other!r} overlap in {text!r}, so they cannot change places.")
    return " ".join([*words[:a], *words[c:d], *words[b:c], *words[a:b], *words[d:]])


def exchanged_words(one: str, other: str, known: Callable[[str], bool]) -> list[tuple[str, str]]:
    """Both names after a word of one has changed places with a word of the other, where both results are known and new; sorted.

    Of "greek small letter alpha" and "latin capital letter b", for example, "greek capital letter alpha" and "latin small letter b".
    """
    first, second = one.split(), other.split()
    found = set()
    for i in range(len(first)):
        for j in range(len(second)):
            made = " ".join([*first[:i], second[j], *first[i + 1 :]]), " ".join([*second[:j], first[i], *second[j + 1 :]])
            if first[i] != second[j] and all(map(known, made)) and not set(made) & {one, other}:
                found.add(made)
    return sorted(found)


def other_word(text: str, words: Sequence[str], rng: np.random.Generator | None, refused: Callable[[str], bool]) -> str | None:
    """The text with one of its words replaced by any of `words`; None where every one of twenty draws was refused or the same.

    Args:
        text: words with spaces between them.
        words: to draw from.
        rng: of the draws; None draws from a stream of its own that is the same for every call.
        refused: texts that must not come of it.
    """
    rng, own = np.random.default_rng(0) if rng is None else rng, text.split()
    for _ in range(20):
        place, word = int(rng.integers(len(own))), words[int(rng.integers(len(words)))]
        made = " ".join([*own[:place], word, *own[place + 1 :]])
        if made != text and not refused(made):
            return made
    return None


def draw(by_kind: dict[str, list[str]], count: int, rng: np.random.Generator | None) -> list[str]:
    """`count` of the texts, by a kind that is drawn first, none twice before all are drawn; without `rng`, the first ones."""
    pick = (lambda n: 0) if rng is None else (lambda n: int(rng.integers(n)))
    pools, chosen = {}, []
    while len(chosen) < count and by_kind:
        if not pools:
            pools = {kind: list(texts) for kind, texts in by_kind.items()}
        name = sorted(pools)[pick(len(pools))]
        chosen.append(pools[name].pop(pick(len(pools[name]))))
        if not pools[name]:
            del pools[name]
    return chosen
