"""Distillation against sentence-transformers' losses and torch's, on the same embeddings and scores."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sentence_transformers")

from sentence_transformers.sentence_transformer.losses import DistillKLDivLoss, MarginMSELoss  # noqa: E402

from losses.rank_distill import rank_distill  # noqa: E402
from losses.score_distill import score_distill  # noqa: E402
from tests.losses import drawn  # noqa: E402

pytestmark = pytest.mark.parity


class Embeddings(torch.nn.Module):
    """A model whose inputs are its outputs."""

    def forward(self, features):
        return dict(features)


@pytest.mark.parametrize("kind", ["kl", "margin"])
def test_rank_distill_is_that_of_sentence_transformers(kind):
    batch = drawn.batch(seed=2, queries=6, width=8, hard=2, padded=0)
    zq, zp = (torch.tensor(batch[name], requires_grad=True) for name in ("zq", "zp"))
    zn = [torch.tensor(batch["zn"][:, k].copy(), requires_grad=True) for k in range(2)]
    sides = [{"sentence_embedding": z} for z in (zq, zp, *zn)]
    scale, temperature, factor = (1.0, 1.0, 1.0) if kind == "margin" else (2.0, 0.5, 0.25)
    loss = MarginMSELoss(Embeddings()) if kind == "margin" else DistillKLDivLoss(Embeddings(), temperature=temperature)
    expected = loss(sides, torch.tensor(batch["teacher"]))
    expected.backward()
    arrays = {name: jnp.asarray(batch[name]) for name in ("zq", "zp", "zn", "teacher")}

    def ours(leaves):
        options = dict(kind=kind, temperature=temperature)
        return factor * rank_distill(**(arrays | leaves), logit_scale=jnp.float32(scale), **options)[0].mean()

    found, gradients = jax.value_and_grad(ours)({name: arrays[name] for name in ("zq", "zp", "zn")})
    np.testing.assert_allclose(found, expected.item(), rtol=1e-5)
    for name, theirs in (("zq", zq.grad), ("zp", zp.grad), ("zn", torch.stack([z.grad for z in zn], 1))):
        np.testing.assert_allclose(gradients[name], theirs.numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("scores", [1, 3])
def test_score_distill_is_two_losses_of_torch(scores):
    rng = np.random.default_rng(0)
    score, teacher = (rng.normal(size=(6, scores)).astype(np.float32) for _ in range(2))
    label = rng.integers(0, max(scores, 2), 6)
    theirs, goal, y = torch.tensor(score, requires_grad=True), torch.tensor(teacher), torch.tensor(label)
    if scores == 1:
        task = torch.nn.functional.binary_cross_entropy_with_logits(theirs[:, 0], y.float())
    else:
        task = torch.nn.functional.cross_entropy(theirs, y)
    expected = 0.4 * task + 0.6 * torch.nn.functional.mse_loss(theirs, goal) * scores  # ours sums over scores
    expected.backward()
    ours = lambda score: score_distill(score, jnp.asarray(teacher), jnp.asarray(label, jnp.int32), share=0.6)[0].mean()
    found, gradient = jax.value_and_grad(ours)(jnp.asarray(score))
    np.testing.assert_allclose(found, expected.item(), rtol=1e-5)
    np.testing.assert_allclose(gradient, theirs.grad.numpy(), rtol=1e-5, atol=1e-7)
