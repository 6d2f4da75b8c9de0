"""Losses against sentence-transformers', on the same embeddings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sentence_transformers")

from sentence_transformers.sentence_transformer.losses import GISTEmbedLoss, MatryoshkaLoss, MultipleNegativesRankingLoss  # noqa: E402

from losses.gist import gist  # noqa: E402
from losses.infonce import infonce  # noqa: E402
from losses.matryoshka import matryoshka  # noqa: E402
from tests.losses import drawn  # noqa: E402

pytestmark = pytest.mark.parity


class Embeddings(torch.nn.Module):
    """A model whose inputs are its outputs."""

    def __init__(self, width):
        super().__init__()
        self.width = width

    def forward(self, features):
        return dict(features)

    def get_embedding_dimension(self):
        return self.width


class Guide(Embeddings):
    """Reads the guide's vectors."""

    def forward(self, features):
        return {"sentence_embedding": features["guide"]}


@pytest.mark.parametrize("dims, weights", [((8,), (1.0,)), ((2, 3, 8), (1.0, 0.5, 2.0))], ids=str)
def test_matryoshka_is_that_of_sentence_transformers(dims, weights):
    batch = drawn.batch(queries=6, width=8, padded=0)
    zq, zp = (torch.tensor(batch[name], requires_grad=True) for name in ("zq", "zp"))
    model = Embeddings(8)
    loss = MatryoshkaLoss(model, MultipleNegativesRankingLoss(model, scale=20.0), list(dims), list(weights))
    expected = loss([{"sentence_embedding": zq}, {"sentence_embedding": zp}], None)
    expected.backward()

    def ours(leaves):
        inner = lambda **arrays: infonce(**arrays, logit_scale=jnp.float32(20), symmetric=False)
        return matryoshka(**leaves, loss=inner, dims=dims, weights=weights)[0].mean()

    found, gradients = jax.value_and_grad(ours)({name: jnp.asarray(batch[name]) for name in ("zq", "zp")})
    np.testing.assert_allclose(found, expected.item(), rtol=1e-5)
    for name, theirs in (("zq", zq), ("zp", zp)):
        # Theirs normalises the full width too, so its gradient has no part along the vector; ours takes unit vectors as they are.
        unit, gradient = batch[name], np.asarray(gradients[name])
        across = gradient - (gradient * unit).sum(1, keepdims=True) * unit
        theirs = theirs.grad.numpy()
        np.testing.assert_allclose(across, theirs - (theirs * unit).sum(1, keepdims=True) * unit, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("hard", [False, True], ids=["pairs", "hard negatives"])
@pytest.mark.parametrize("margin, kind", [(0.0, "absolute"), (0.2, "absolute"), (0.3, "relative")])
def test_gist_is_that_of_sentence_transformers(margin, kind, hard, monkeypatch):
    batch = drawn.batch(seed=1, queries=6, width=8, hard=1, padded=0)
    names = ("zq", "zp", "zn")[: 2 + hard]
    student = [torch.tensor(batch[name].reshape(6, -1), requires_grad=True) for name in names]
    guide = [torch.tensor(batch[f"{name}_guide"].reshape(6, -1)) for name in names]
    loss = GISTEmbedLoss.__new__(GISTEmbedLoss)  # its own constructor wants two whole models and their tokenizers
    torch.nn.Module.__init__(loss)
    loss.model, loss.guide, loss.must_retokenize, loss.gather_across_devices = Embeddings(8), Guide(10), False, False
    loss.temperature, loss.margin, loss.margin_strategy, loss.contrast_anchors, loss.contrast_positives = 0.05, margin, kind, True, True
    loss.similarity_fct, loss.cross_entropy_loss = torch.nn.CosineSimilarity(dim=-1), torch.nn.CrossEntropyLoss()
    expected = loss([{"sentence_embedding": s, "guide": g} for s, g in zip(student, guide, strict=True)], None)
    expected.backward()
    arrays = {name: jnp.asarray(batch[name]) for name in (*names, *(f"{name}_guide" for name in names))}

    def ours(leaves):
        return gist(**(arrays | leaves), logit_scale=jnp.float32(20), margin=margin, margin_kind=kind)[0].mean()

    found, gradients = jax.value_and_grad(ours)({name: arrays[name] for name in names})
    np.testing.assert_allclose(found, expected.item(), rtol=1e-5)
    for name, theirs in zip(names, student, strict=True):
        unit, gradient, theirs = batch[name].reshape(6, -1), np.asarray(gradients[name]).reshape(6, -1), theirs.grad.numpy()
        across = lambda g, unit=unit: g - (g * unit).sum(1, keepdims=True) * unit  # theirs normalises, ours takes unit vectors
        np.testing.assert_allclose(across(gradient), across(theirs), rtol=1e-4, atol=1e-6)
