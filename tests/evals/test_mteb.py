"""The adapter for MTEB without mteb: sides to views, prompts by priority, batches to rows."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from evals.mteb import MtebEncoder

TASK = SimpleNamespace(name="SciFact", type="Retrieval")
WHERE = dict(task_metadata=TASK, hf_split="test", hf_subset="default")


class Toy:
    """Stands for an encoder: notes what it is asked, a row is the length of its text or the sum of its image."""

    dim = 2

    def __init__(self, views=("query", "passage", "image"), prompts=()):
        self.views, self.prompts, self.asked = views, dict(prompts), []

    def reads_text(self, view):
        return view != "image"

    def view_for(self, text):
        return next(view for view in self.views if self.reads_text(view) == text)

    def encode(self, values, view, batch=0, *, prompt=None):
        self.asked.append((view, prompt))
        return np.array([[len(v) if isinstance(v, str) else np.sum(v), 1] for v in values], np.float32)


@pytest.mark.parametrize(
    "views, side, view",
    [
        (("query", "passage"), "query", "query"), (("query", "passage"), "document", "passage"), (("query", "passage"), None, "passage"),
        (("image", "text"), "query", "text"), (("image", "text"), None, "text"), (("caption",), "document", "caption"),
    ],
)  # fmt: skip
def test_each_side_goes_to_its_view(views, side, view):
    assert MtebEncoder(Toy(views), "a/b").view(side) == view


def test_the_most_specific_prompt_counts():
    names = ["SciFact-query", "SciFact", "Retrieval-query", "Retrieval", "query"]
    prompts = {name: f"{name}: " for name in [*names, "document", "STS"]}
    while names:
        assert MtebEncoder(Toy(), "a/b", prompts).prompt("SciFact", "Retrieval", "query") == f"{names[0]}: "
        del prompts[names.pop(0)]
    model = MtebEncoder(Toy(), "a/b", prompts)
    assert model.prompt("SciFact", "Retrieval", "query") is None and model.prompt("SciFact", "Retrieval", None) is None
    assert model.prompt("STS12", "STS", None) == "STS: " and model.prompt("SciFact", "Retrieval", "document") == "document: "
    assert MtebEncoder(Toy(prompts={"query": "q: "}), "a/b").prompt("SciFact", "Retrieval", "query") == "q: "


def test_batches_become_rows_in_order():
    encoder = Toy(prompts={"query": "q: "})
    model, batches = MtebEncoder(encoder, "a/b"), [{"text": ["a", "bb"], "query": ["a", "bb"]}, {"text": ["ccc"], "query": ["ccc"]}]
    side = SimpleNamespace(value="query")
    rows = model.encode(batches, **WHERE, prompt_type=side, batch_size=2, show_progress_bar=False)
    np.testing.assert_array_equal(rows[:, 0], [1, 2, 3])
    images = model.encode([{"image": [np.ones((2, 2))]}], **WHERE)
    np.testing.assert_array_equal(images[:, 0], [4])
    assert encoder.asked == [("query", "q: "), ("image", None)]
    with pytest.raises(ValueError, match="task SciFact joins a text and an image in one input"):
        model.encode([{"image": [np.ones((2, 2))], "text": ["a"]}], **WHERE)


def test_similarities_are_cosines():
    a, b = np.random.default_rng(0).standard_normal((2, 5, 3))
    model = MtebEncoder(Toy(), "a/b")
    expected = (a / np.linalg.norm(a, axis=1, keepdims=True)) @ (b / np.linalg.norm(b, axis=1, keepdims=True)).T
    np.testing.assert_allclose(model.similarity(a, b), expected, atol=1e-6)
    np.testing.assert_allclose(model.similarity_pairwise(a, b), np.diag(expected), atol=1e-6)


def test_without_mteb_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "mteb", None)  # what import then finds
    with pytest.raises(ImportError, match=r"MTEB is not installed .*pip install 'mteb>=2.26,<3'"):
        _ = MtebEncoder(Toy(), "a/b").mteb_model_meta
    with pytest.raises(ValueError, match="give name='tandem/minilm'"):
        MtebEncoder(Toy(), "minilm")
