"""Models as evaluators see them: encode functions by view, with all that their vectors depend on.

Models of `retrieval`, and references that know nothing or little: what they score shows what ties, chance and shared words are worth.
"""

import hashlib
import inspect
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

import retrieval
from core.config import ConfigError, plain
from evals.bag_of_words import WORD
from evals.mteb import SIDES
from input_pipeline.pictures import Pictures
from losses.entries import apply_entry, entries

# Views that may stand in for one that a model lacks, the likeliest first.
STAND_INS = {"query": SIDES["query"], "passage": SIDES["document"], "text": SIDES[None]}
MIXED_CASE = "The Quick BROWN fox"


class NoView(ConfigError):
    """A model that cannot read what a task gives it."""


class Encoders(dict):
    """What evaluators see of a model: encode functions by view, and the learned scale, bias and losses where it was trained here.

    A view that the model lacks is read by one that stands in for it: `query` by `text`, for example.

    Args:
        functions: by view, from raw values to unit rows.
        made_by: what the rows depend on, ready for JSON; with `fingerprint` and `weights`.
        logit_scale: learned; 1 where none is.
        logit_bias: learned, or None.
        losses: (label, weight, function of a batch's arrays) of the training objective.
    """

    def __init__(self, functions: Mapping[str, Callable], made_by: Mapping[str, Any], *, logit_scale=1.0, logit_bias=None, losses=()):
        super().__init__(functions)
        self.made_by, self.logit_scale, self.logit_bias, self.losses = dict(made_by), logit_scale, logit_bias, list(losses)

    def view(self, name: str) -> str:
        """The view that reads what is meant for `name`.

        Raises:
            NoView: there is none.
        """
        found = next((view for view in (name, *STAND_INS.get(name, ())) if dict.__contains__(self, view)), None)
        if found is None:
            raise NoView(f"the task needs a view {name!r}; this model has {', '.join(self)}.")
        return found

    def __missing__(self, name: str) -> Callable:
        return self[self.view(name)]


def of_model(encoder: retrieval.Encoder) -> Encoders:
    """A model for evaluators, with all that its vectors depend on."""
    described = {view: encoder.describe(view) for view in encoder.views}
    first = next(iter(described.values()))
    own = ("fingerprint", "weights", "step")
    views = {view: {key: value for key, value in found.items() if key not in (*own, "view")} for view, found in described.items()}
    for view, found in views.items():
        found["tower"] = _tower(found["tower"])
        found |= _reading(encoder, view)
    batch = {"tokens": encoder.tokens, "images": inspect.signature(retrieval.Encoder.encode).parameters["batch"].default}
    made_by = {key: first[key] for key in own} | {"views": views, "prompts": encoder.prompts, "batch": batch}
    trained = entries(_on_any_device(encoder.config.losses)) if encoder.config.losses else []  # another library's model brings none
    last = max(encoder.step - 1, 0)  # losses may take turns: those of the last update
    return Encoders(
        {view: partial(encoder.encode, view=view) for view in encoder.views},
        made_by | {"devices": {"kind": jax.devices()[0].device_kind, "count": len(jax.devices())}},
        logit_scale=encoder.logit_scale,
        logit_bias=encoder.logit_bias,
        losses=[(entry.label, float(entry.weight_at(last)), jax.jit(partial(_mean, entry))) for entry in trained if entry.active(last)],
    )


def _tower(section: Mapping[str, Any]) -> dict[str, Any]:
    """What makes vectors of a tower's entry: only training drops, and where weights came from their fingerprint makes needless."""
    return {"name": section["name"], "options": {name: value for name, value in section["options"].items() if "drop" not in name}}


def _on_any_device(losses):
    """The losses with tiles by the compiler: the run's kernel may need a GPU that this job lacks, and the results are equal."""
    swap = lambda node: {k: "xla" if k == "kernel" else swap(v) for k, v in node.items()} if isinstance(node, Mapping) else node
    return ConfigDict(swap(losses.to_dict()))


def _mean(entry, arrays):
    value, weight, _ = apply_entry(entry, arrays)
    return (value * weight).sum() / weight.sum()


def _reading(encoder: retrieval.Encoder, view: str) -> dict[str, Any]:
    """How a view reads texts, in the words that explain most disagreements; found by trying it. Empty for images."""
    if not encoder.reads_text(view):
        return {}
    tokenizer = encoder.imported().tokenizer
    kept, lowered = tokenizer.rows([MIXED_CASE, MIXED_CASE.lower()])
    options = plain(encoder.config.model.towers[encoder.config.model.views[view]].options)
    padding = "attended" if options.get("attend_padding") else "masked"
    return {"length": encoder.max_tokens(view), "case": "ignored" if kept == lowered else "kept", "padding": padding}


def constant(width: int = 8) -> Encoders:
    """A model that has collapsed: one vector for everything, so that a score shows what ties are worth."""
    same = lambda values: np.full((len(values), width), width**-0.5, np.float32)
    return Encoders({view: same for view in ("image", "text")}, {"fingerprint": "constant", "weights": "reference"})


def random(width: int = 64) -> Encoders:
    """A model that knows nothing: rows drawn anew for each list of values, the same ones every time that list comes."""

    def draw(values):
        rows = np.random.default_rng(int(_digest(values), 16)).normal(size=(len(values), width))
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    return Encoders({view: draw for view in ("image", "text")}, {"fingerprint": "random", "weights": "reference"})


def hashed_words(width: int = 1024) -> Encoders:
    """A bag of words as a model of texts: counts of words, which share a column where their hashes do.

    The control of tasks that learn from vectors, as classification does; it knows neither order nor meaning.
    """

    def count(values):
        rows = np.zeros((len(values), width), np.float32)
        for row, text in zip(rows, values, strict=True):
            columns = [zlib.crc32(word.encode()) % width for word in WORD.findall(text.lower())]
            np.add.at(row, columns or [0], 1)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    return Encoders({"text": count}, {"fingerprint": f"hashed_words {width}", "weights": "reference"})


REFERENCES = {"constant": constant, "hashed_words": hashed_words, "random": random}


class Listening(Encoders):
    """Encoders that note what was encoded."""

    def __init__(self, encode: Encoders, heard: dict):
        super().__init__(encode, encode.made_by, logit_scale=encode.logit_scale, logit_bias=encode.logit_bias, losses=encode.losses)
        self.heard = heard

    def __getitem__(self, name: str) -> Callable:
        view = self.view(name)
        return partial(self._listen, name, view, dict.__getitem__(self, view))

    def _listen(self, name: str, view: str, function: Callable, values: Sequence) -> np.ndarray:
        before = self.heard.get(name, {"values": 0, "digest": ""})
        digest = _short(before["digest"].encode() + _digest(values).encode())
        self.heard[name] = {"view": view, "values": before["values"] + len(values), "digest": digest}
        return function(values)


def _short(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _digest(values: Sequence) -> str:
    """16 hex digits of a list of raw values; of one that makes its values when asked, only the length, or files as they lie there."""
    found = hashlib.sha256(str(len(values)).encode())
    values = values.contents if isinstance(values, Pictures) else values
    for value in values if isinstance(values, (list, tuple, np.ndarray)) else ():
        text = isinstance(value, (str, os.PathLike))
        raw = str(value).encode("utf-8", "surrogatepass") if text else np.ascontiguousarray(value).tobytes()
        found.update(f"{len(raw)} {'' if text else np.shape(value)}".encode() + raw)
    return found.hexdigest()[:16]
