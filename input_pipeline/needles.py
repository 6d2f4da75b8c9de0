"""Long texts with one sentence to be found in each: whether a model still reads what stands far down.

Made, not read: from a seed alone, of plain English in words of our own, so that length and depth are exact. A text has at most 0.75 words
for each token of its length; how many tokens that becomes is the tokenizer's affair.
"""

import itertools
import random
from collections.abc import Iterable, Iterator

import numpy as np

from input_pipeline.local_files import one_of
from input_pipeline.tasks import NeedleTask

LENGTHS = (256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768)
WORDS_PER_TOKEN = 0.75
FIRST = (
    "Adela Anton Astrid Basil Beatrix Bruno Camille Cedric Clara Conrad Dagmar Darius Delia Dominic Edith Egon Elena Emil Esther Fabian "
    "Felix Fiona Frieda Gerard Gideon Greta Gustav Hannah Harvey Helga Hugo Ida Ignaz Ingrid Irene Isaac Jasper Jolanda Josef Judith "
    "Karin Kaspar Klara Konstantin Lamont Laura Leander Leonie Linus Lucia Magnus Marcel Margot Marius Martha Matilda Maurice Miriam "
    "Nadine Nelson Nico Nora Odette Olga Oscar Otis Pamela Pascal Petra Philip Quentin Quincy Ramona Raoul Regina Roland Rosalind Rufus "
    "Sabina Selma Silas Simon Stella Sven Tabitha Theodor Thora Tobias Ulla Ulrich Ursula Valentin Vera Viktor Vivian Walter Wanda Wilma "
    "Xaver Yvonne"
).split()
LAST = (
    "Abbott Alder Ashworth Baxter Bellamy Birch Blackwood Bolton Brandt Calloway Carver Castellan Chandler Cromwell Dalton Draper Dunmore "
    "Eastman Ellison Everard Fairfax Fletcher Forster Gaskell Gladwin Granger Hadley Halloran Harwood Hawthorn Holloway Ingram Irving "
    "Jarvis Jennings Kellerman Kendrick Kingsley Lambert Langdon Lathrop Lindqvist Lockwood Maddox Mallory Marlowe Mercer Merritt "
    "Navarro Newcomb Norwood Oakley Ormond Osgood Pemberton Penrose Pickering Prescott Quayle Quigley Radcliffe Ransom Redfern Rourke "
    "Sadler Sanderson Selwyn Sheridan Sinclair Stafford Talbot Tennant Thackeray Thornton Tilden Ullman Underhill Upton Vance Varga "
    "Vaughan Vickers Wakefield Waverly Webster Wentworth Whitaker Winslow Woodruff Wycliffe Yardley Yates Yeoman Zabriskie Zeller Zimmer "
    "Zoller Zorn Zuckert Zweig"
).split()
FILLER = (
    "The road follows the river down to the mill.", "Rain has fallen since the morning and the fields are wet.",
    "A cart waits beside the gate.", "Nobody is in a hurry, and the water goes on its way.",
)  # fmt: skip
SUBJECTS = (
    "the ferry", "a row of poplars", "the old observatory", "the harvest", "a narrow bridge", "the market hall", "the glass works",
    "a flock of geese", "the winter fog", "the town archive", "a stone wall", "the evening train", "the salt road", "a pair of lanterns",
)  # fmt: skip
VERBS = (
    "stands quietly near", "has long belonged to", "was once larger than", "can be seen from", "gave its name to", "turns slowly towards",
    "is older than", "leads in the end to", "looks small beside", "was painted as often as", "is rarely mentioned with",
)  # fmt: skip
OBJECTS = (
    "the northern shore", "the baker's yard", "the upper valley", "the second lighthouse", "the orchard", "the quarry", "the new canal",
    "the school garden", "the bell tower", "the cattle market", "the forest edge", "the harbour office", "the weather station",
)  # fmt: skip
HABITS = (
    "collects", "repairs", "sells", "draws", "restores", "borrows", "counts", "polishes", "studies", "lends out",
)  # fmt: skip
THINGS = (
    "brass compasses", "paper kites", "clay whistles", "velvet gloves", "copper kettles", "rare stamps", "wooden puppets", "silver spoons",
    "pocket watches", "sea maps", "music boxes", "chess sets", "oil lamps", "walnut chairs", "wool carpets", "glass marbles",
)  # fmt: skip


class Needles:
    """Texts by length, 100 of each, and 50 questions that one sentence in one of them answers.

    Args:
        kind: `passkey` repeats one short passage around a person's key, `needle` hides a fact about a person in a long essay.
        lengths: tokens that texts are made for, rising.
        queries: questions of each length.
        documents: texts of each length, at most 100: each tells of another person, and no two share a name.
        seed: of all that is drawn.

    Raises:
        ValueError: no such kind, lengths that do not rise or are too short for the sentence, or numbers that do not fit.

    Source: Zhu et al. 2024 (LongEmbed), arXiv:2404.12096; its passkey after Wang et al. 2023. The words are ours.
    """

    def __init__(
        self, *, kind: str = "passkey", lengths: tuple[int, ...] = LENGTHS, queries: int = 50, documents: int = 100, seed: int = 0
    ):  # fmt: skip
        self._kind, self._seed = one_of(kind, ("passkey", "needle"), "kind"), seed
        if not lengths or list(lengths) != sorted(set(lengths)) or lengths[0] < 64:
            raise ValueError(f"lengths are {tuple(lengths)}; set options.lengths to rising numbers of tokens from 64.")
        if not 1 <= queries <= documents or not 2 <= documents <= len(FIRST):
            raise ValueError(
                f"{queries} queries of {documents} documents; set options.queries to 1 up to options.documents, 2 to {len(FIRST)}."
            )
        self._lengths, self._queries, self._documents = tuple(lengths), queries, documents

    def needles(self) -> list[NeedleTask]:
        """One task a length, the shortest first."""
        return [self._task(length) for length in self._lengths]

    def _task(self, length: int) -> NeedleTask:
        rng = random.Random(f"needles {self._kind} {self._seed} {length}")  # a text is hashed the same way in every process
        people = [" ".join(names) for names in zip(rng.sample(FIRST, len(FIRST)), rng.sample(LAST, len(FIRST)), strict=True)]
        made = [self._sentence(person, rng) for person in people[: self._documents]]
        words = int(WORDS_PER_TOKEN * length)
        room = words - max(len(sentence.split()) for sentence, _ in made)
        hay = _fill(itertools.cycle(FILLER) if self._kind == "passkey" else _essay(rng), room)
        starts = [rng.randint(0, len(hay)) for _ in made]
        corpus = [" ".join([*hay[:start], sentence, *hay[start:]]) for (sentence, _), start in zip(made, starts, strict=True)]
        before = [sum(len(part.split()) for part in hay[:start]) for start in starts]
        depth = np.array([count / len(text.split()) for count, text in zip(before, corpus, strict=True)])
        right = np.array(sorted(rng.sample(range(self._documents), self._queries)))
        return NeedleTask(length, [made[i][1] for i in right], corpus, right, depth[right])

    def _sentence(self, person: str, rng: random.Random) -> tuple[str, str]:
        """What is hidden, and the question that it answers."""
        if self._kind == "passkey":
            key = rng.randrange(10_000, 100_000)
            return (
                f"The pass key of {person} is {key}. Remember it: {key} is the pass key of {person}.",
                f"What is the pass key of {person}?",
            )
        habit, thing, place = rng.choice(HABITS), rng.choice(THINGS), rng.choice(OBJECTS)
        return f"Every spring {person} {habit} {thing} in a room behind {place}.", f"What does {person} do every spring, and where?"


def _essay(rng: random.Random) -> Iterator[str]:
    """Sentences without end, hardly any twice."""
    draw = lambda: f"{rng.choice(SUBJECTS)} {rng.choice(VERBS)} {rng.choice(OBJECTS)}"
    while True:
        yield f"{draw().capitalize()}, and {draw()}."


def _fill(sentences: Iterable[str], words: int) -> list[str]:
    """The first sentences, of at most so many words."""
    out: list[str] = []
    for sentence in sentences:
        words -= len(sentence.split())
        if words < 0:
            return out
        out.append(sentence)
    return out
