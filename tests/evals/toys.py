"""A source small enough to reason about, and encode functions of known quality."""

import dataclasses
import math

import numpy as np

from input_pipeline.tasks import Bitext, CandidatesTask, Labelled, NeedleTask, PairScores, ProbeTask, RankingTask


@dataclasses.dataclass(frozen=True)
class Task:
    images: list
    texts: list
    relevant: np.ndarray
    groups: list


@dataclasses.dataclass(frozen=True)
class Classes:
    images: list
    labels: np.ndarray
    class_names: list
    templates: list
    prompts: list | None = None


class Toy:
    """Each character in `faces` faces: two pixels that hold character and face; its text is its name."""

    def __init__(self, characters: int = 20, faces: int = 3, scripts: int = 5):
        self.names = [f"CHARACTER {c}" for c in range(characters)]
        self.scripts = [f"SCRIPT {s}" for s in range(scripts)]
        self.rows = [(c, f) for f in range(faces) for c in range(characters)]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        c, f = self.rows[i]
        return {"image": np.array([[[c], [f]]], np.uint8), "text": self.names[c], "id": c, "pixel_id": 100 * f + c}

    def script(self, c):
        return c % len(self.scripts)

    def retrieval(self):
        return Task(
            images=[self[i]["image"] for i in range(len(self))],
            texts=self.names,
            relevant=np.array([(i, c) for i, (c, _) in enumerate(self.rows)]),
            groups=[self.scripts[self.script(c)] for c, _ in self.rows],
        )

    def ranking(self):
        task = self.retrieval()
        return RankingTask(task.images, task.texts, task.relevant)

    def similarity(self):
        """Every other image stands beside its own name, the rest beside the next character's."""
        own = [i % 2 == 0 for i in range(len(self))]
        texts = [self.names[(c + (not mine)) % len(self.names)] for mine, (c, _) in zip(own, self.rows, strict=True)]
        return PairScores(self.retrieval().images, texts, np.array(own, int))

    pairs = similarity

    def labelled(self):
        """Five characters in many faces: k-means begins with rows that it draws, and would miss a rare class."""
        labels = np.arange(len(self)) % 5
        return Labelled([np.array([[[c], [i]]], np.uint8) for i, c in enumerate(labels)], labels)

    def probe(self):
        """Five characters by name, twelve examples of each to learn from; as many are measured."""
        labels = np.arange(len(self)) % 5
        return ProbeTask(*[Labelled([self.names[c] for c in labels], labels)] * 2)

    def bitext(self):
        return Bitext(self.retrieval().images, self.names, np.array([c for c, _ in self.rows]))

    def candidates(self):
        """Each image has its own name among the next four, in an order of its own."""
        lists = [[(c + (k + i) % 5) % len(self.names) for k in range(5)] for i, (c, _) in enumerate(self.rows)]
        right = np.array([c for c, _ in self.rows])
        return CandidatesTask(self.retrieval().images, self.names, lists, right, [f"face_{f}" for _, f in self.rows])

    def needles(self):
        """Half of the images at each of two lengths, among all names."""
        halves, images = np.array_split(np.arange(len(self)), 2), self.retrieval().images
        right, depth = np.array([c for c, _ in self.rows]), np.linspace(0, 1, len(self))
        return [NeedleTask(10 + n, [images[i] for i in own], self.names, right[own], depth[own]) for n, own in enumerate(halves)]

    def classification(self):
        labels = np.array([self.script(c) for c, _ in self.rows])
        return Classes(self.retrieval().images, labels, self.scripts, ["a letter of {}", "{}"])


class Encoders(dict):
    """Encode functions by view, with the scale and the losses that the eval job adds."""

    def __init__(self, logit_scale=20.0, losses=None, logit_bias=None, **views):
        super().__init__(views)
        self.logit_scale, self.logit_bias = logit_scale, logit_bias
        self.losses = [("main", 1.0, cross_entropy)] if losses is None else losses


def cross_entropy(arrays):
    """The plain one-way InfoNCE of a batch in float64, other rows of the same id left out of the denominator."""
    logits = arrays["logit_scale"] * (arrays["z_image"].astype(float) @ arrays["z_text"].astype(float).T)
    values = []
    for i, row in enumerate(logits):
        others = [v for j, v in enumerate(row) if j == i or arrays["id"][j] != arrays["id"][i]]
        values.append(math.log(sum(math.exp(v) for v in others)) - row[i])
    return sum(values) / len(values)


def of_image(image):
    return int(image[0, 0, 0])


def perfect(toy):
    """One axis per character, and a shared one per script that class prompts name."""
    characters, width = len(toy.names), len(toy.names) + len(toy.scripts)

    def image(images):
        z = np.zeros((len(images), width), np.float32)
        for row, character in zip(z, map(of_image, images), strict=True):
            row[character], row[characters + toy.script(character)] = 0.8, 0.6
        return z

    def text(texts):
        z = np.zeros((len(texts), width), np.float32)
        for row, value in zip(z, texts, strict=True):
            kind, number = value.split()[-2:]
            row[int(number) + (characters if kind == "SCRIPT" else 0)] = 1
        return z

    return Encoders(image=image, text=text)


def constant(toy):
    def same(values):
        return np.full((len(values), 8), 8**-0.5, np.float32)

    return Encoders(image=same, text=same)


def random(seed, width=16, logit_scale=20.0):
    rng = np.random.default_rng(seed)

    def draw(values):
        z = rng.normal(size=(len(values), width))
        return (z / np.linalg.norm(z, axis=1, keepdims=True)).astype(np.float32)

    return Encoders(logit_scale, image=draw, text=draw)


def letters(texts):
    """How often each letter occurs: unit rows that know a text a little."""
    rows = np.array([[text.count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts], float) + 1e-3
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
