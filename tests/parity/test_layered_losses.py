"""Losses over layers against sentence-transformers', on the same states of the same layers."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sentence_transformers")

from sentence_transformers import SentenceTransformer  # noqa: E402
from sentence_transformers.base.modules import Transformer  # noqa: E402
from sentence_transformers.sentence_transformer.losses import (  # noqa: E402
    AdaptiveLayerLoss,
    Matryoshka2dLoss,
    MultipleNegativesRankingLoss,
)

from losses.infonce import infonce  # noqa: E402
from losses.matryoshka import at_unit_length  # noqa: E402
from losses.matryoshka_2d import matryoshka_2d  # noqa: E402

pytestmark = pytest.mark.parity
LAYERS, ROWS, WIDTH = 4, 6, 8


class States(Transformer):
    """A transformer whose inputs are the states of its layers; the library counts the first as its embeddings, we as layer 1."""

    def __init__(self):
        torch.nn.Module.__init__(self)
        self.model = types.SimpleNamespace(config=types.SimpleNamespace(output_hidden_states=False))

    def forward(self, features):
        return dict(features) | {"token_embeddings": features["all_layer_embeddings"][-1]}


class Model(SentenceTransformer):
    """A model of `States` that pools nothing."""

    def __init__(self):
        torch.nn.Sequential.__init__(self, States())

    def forward(self, features):
        out = self[0].forward(features)
        return out | {"sentence_embedding": out["token_embeddings"]}

    def get_embedding_dimension(self):
        return WIDTH


@pytest.mark.parametrize("dims", [(), (2, 5, 8)], ids=["layers", "layers and widths"])
@pytest.mark.parametrize("ours, theirs", [("uniform", "uniform"), ("inverse", "linear")])
@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_every_layer_and_width_is_that_of_sentence_transformers(dims, ours, theirs, temperature):
    rng = np.random.default_rng(0)
    states = [rng.normal(size=(LAYERS, ROWS, WIDTH)).astype(np.float32) for _ in range(2)]
    leaves, model = [torch.tensor(side, requires_grad=True) for side in states], Model()
    base, options = MultipleNegativesRankingLoss(model, scale=20.0), dict(n_layers_per_step=-1, kl_temperature=temperature)
    if dims:
        loss = Matryoshka2dLoss(model, base, list(dims), n_dims_per_step=-1, layer_weighting=theirs, **options)
    else:
        loss = AdaptiveLayerLoss(model, base, layer_weighting=theirs, **options)
    expected = loss([{"all_layer_embeddings": tuple(leaf)} for leaf in leaves], None)
    expected.backward()

    def objective(zq_layers, zp_layers):
        inner = lambda **arrays: infonce(**arrays, logit_scale=jnp.float32(20), symmetric=False)
        z = dict(zq=at_unit_length(zq_layers[-1]), zp=at_unit_length(zp_layers[-1]), zq_layers=zq_layers, zp_layers=zp_layers)
        how = dict(layer_weights=ours, kl_weights="uniform", temperature=temperature, stop_teacher=True)
        return matryoshka_2d(**z, loss=inner, dims=dims, draw=False, **how)[0].mean()

    found, gradients = jax.jit(jax.value_and_grad(objective, (0, 1)))(*map(jnp.asarray, states))
    np.testing.assert_allclose(found, expected.item(), rtol=1e-5)
    for gradient, leaf in zip(gradients, leaves, strict=True):
        np.testing.assert_allclose(gradient, leaf.grad.numpy(), rtol=1e-4, atol=1e-6)
