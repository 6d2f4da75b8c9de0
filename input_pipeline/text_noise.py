"""Texts as careless reading leaves them: characters taken for others, words lost, marks of layout added.

A text's noise depends on the text, the kind, the rate and the seed alone, not on what stands beside it.
"""

import random
import re

# What scanners take for each other; the last two are words of two letters that look like one.
_LOOKALIKES = (
    "0Oo", "1lI|", "2Zz", "5Ss", "6b", "8B", "9gq", "ceo", "ao", "hb", "un", "vy", "ij", "tf", "kx", "CG", "DO", "EF", "MN", "PR", "UV",
    "VY", "QO", "KX", "HN", ".,", ":;", "-_", "'`",
)  # fmt: skip
CONFUSED: dict[str, str] = {
    mark: "".join(dict.fromkeys(other for group in _LOOKALIKES if mark in group for other in group if other != mark))
    for mark in sorted(set("".join(_LOOKALIKES)))
} | {"m": "rn", "w": "vv"}
PIECE = re.compile(r"\s+|\S+")


def characters(text: str, rate: float, rng: random.Random) -> str:
    """Each character is changed with chance `rate`: 6 of 10 become one that looks like it, 2 vanish, 1 is doubled, 1 changes place.

    A character that nothing looks like vanishes; one that changes place does so with the next, which then stays as it is.
    """
    out, i = [], 0
    while i < len(text):
        mark, i = text[i], i + 1
        if rng.random() >= rate:
            out.append(mark)
            continue
        kind = rng.random()
        if kind < 0.6:
            if mark in CONFUSED:
                out.append(CONFUSED[mark] if mark in "mw" else rng.choice(CONFUSED[mark]))
        elif 0.8 <= kind < 0.9:
            out.append(2 * mark)
        elif kind >= 0.9:
            out.append(text[i : i + 1] + mark)
            i += 1
    return "".join(out)


def words(text: str, rate: float, rng: random.Random) -> str:
    """Each word is changed with chance `rate`: 4 of 10 vanish, 3 become another word of the text, 3 change place with the next."""
    parts = PIECE.findall(text)
    place = [i for i, part in enumerate(parts) if not part.isspace()]
    every, n = [parts[i] for i in place], 0
    while n < len(place):
        if rng.random() < rate:
            kind = rng.random()
            if kind < 0.4:
                parts[place[n]] = ""
            elif kind < 0.7:
                parts[place[n]] = rng.choice(every)
            elif n + 1 < len(place):
                a, b = place[n], place[n + 1]
                parts[a], parts[b] = parts[b], parts[a]
                n += 1
        n += 1
    return "".join(parts)


def layout(text: str, rate: float, rng: random.Random) -> str:
    """Each word gets a mark with chance `rate`: emphasis, quotes, a new line, a bullet or a table's bars; letters and digits all stay."""
    marks = ("**{}**", "“{}”", "\n{}", "\n- {}", "| {} |")
    mark = lambda part: rng.choice(marks).replace("{}", part)
    return "".join(part if part.isspace() or rng.random() >= rate else mark(part) for part in PIECE.findall(text))


KINDS = {"characters": characters, "words": words, "layout": layout}


def noisy(text: str, kind: str, rate: float, seed: int) -> str:
    """The text with noise of one of `KINDS`; itself at rate 0."""
    return KINDS[kind](text, rate, random.Random(f"{kind} {rate} {seed} {text}")) if rate else text
