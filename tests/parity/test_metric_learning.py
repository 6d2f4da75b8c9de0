"""Losses against pytorch-metric-learning's, on the same embeddings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
theirs = pytest.importorskip("pytorch_metric_learning.losses")

from losses.infonce import infonce  # noqa: E402
from losses.simclr import simclr  # noqa: E402

pytestmark = pytest.mark.parity
TEMPERATURE = 0.2
LABELS = np.array([3, 1, 3, 0, 1, 3, 2], np.int32)


@pytest.fixture(scope="module")
def views():
    rows = np.random.default_rng(0).normal(size=(2, len(LABELS), 5))
    return rows / np.linalg.norm(rows, axis=2, keepdims=True)


def of_theirs(loss, views):
    """Value and gradient of both sides, float64."""
    one, two = (torch.tensor(side, requires_grad=True) for side in views)
    value = loss(one, two)
    value.backward()
    return value.item(), one.grad.numpy(), two.grad.numpy()


def of_ours(loss, views):
    """The same; embeddings are taken to unit length inside, as theirs are."""
    unit = lambda rows: rows / jnp.linalg.norm(rows, axis=1, keepdims=True)
    with jax.enable_x64(True):
        one, two = (jnp.asarray(side) for side in views)
        value, grads = jax.value_and_grad(lambda one, two: loss(unit(one), unit(two))[0].mean(), argnums=(0, 1))(one, two)
        return float(value), *map(np.asarray, grads)


def same(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)


def test_simclr_is_nt_xent(views):
    reference = theirs.SelfSupervisedLoss(theirs.NTXentLoss(TEMPERATURE))
    same(of_ours(lambda one, two: simclr(one, two, temperature=TEMPERATURE), views), of_theirs(reference, views))


def test_infonce_with_classes_as_labels_is_supcon_between_two_views(views):
    labels = torch.tensor(LABELS)
    # The same tensor twice would mean that row i of both sides is one thing, and no pair.
    reference = lambda one, two: theirs.SupConLoss(TEMPERATURE)(one, labels, ref_emb=two, ref_labels=labels.clone())
    ours = lambda one, two: infonce(one, two, jnp.asarray(1 / TEMPERATURE), id=jnp.asarray(LABELS), symmetric=False, positives="mean")
    same(of_ours(ours, views), of_theirs(reference, views))
