"""Masked language modelling against transformers' BertForMaskedLM, by the same weights."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

from losses import LOSSES  # noqa: E402
from models.language_heads import MaskedLanguage  # noqa: E402

pytestmark = pytest.mark.parity


def test_head_and_loss_are_those_of_bert():
    torch.manual_seed(0)
    sizes = dict(
        vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, max_position_embeddings=12
    )
    theirs = transformers.BertForMaskedLM(transformers.BertConfig(**sizes)).eval()
    rng = np.random.default_rng(0)
    ids, target = rng.integers(0, 40, (3, 9)), rng.integers(0, 40, (3, 9))
    target[rng.random((3, 9)) < 0.6] = -1
    with torch.no_grad():
        theirs.cls.predictions.bias.normal_()
    labels = torch.tensor(np.where(target < 0, -100, target))
    states = theirs.bert(torch.tensor(ids)).last_hidden_state.detach().requires_grad_()
    scores = theirs.cls(states)
    loss = torch.nn.functional.cross_entropy(scores.reshape(-1, 40), labels.reshape(-1))
    (gradient,) = torch.autograd.grad(loss, states)
    numpy = lambda tensor: tensor.detach().numpy()
    head = theirs.cls.predictions
    dense, norm = head.transform.dense, head.transform.LayerNorm
    params = {
        "linear": {"kernel": numpy(dense.weight).T, "bias": numpy(dense.bias)},
        "norm": {"scale": numpy(norm.weight), "bias": numpy(norm.bias)},
        "bias": jnp.asarray(numpy(head.bias)),
    }
    table = jnp.asarray(numpy(theirs.bert.embeddings.word_embeddings.weight))

    def ours(states):
        made = MaskedLanguage().apply({"params": params}, states, table)
        value, weight, _ = LOSSES["masked_language"](made["states"], made["table"], jnp.asarray(target, jnp.int32), made["bias"])
        return (value * weight).sum() / weight.sum()

    found, by_states = jax.jit(jax.value_and_grad(ours))(jnp.asarray(numpy(states)))
    np.testing.assert_allclose(found, float(loss.detach()), rtol=1e-5)
    np.testing.assert_allclose(by_states, numpy(gradient), atol=1e-6)
