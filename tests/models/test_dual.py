"""Views, shared towers, hard negatives, and the config of a dual encoder."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from core.config import ConfigError
from core.paths import by_path
from models import dual
from models.layers import unit
from tests.models import toys


def section(**changes):
    towers = dict(image=dict(name="vit", options=toys.OPTIONS["vit"]), text=dict(name="text", options=toys.OPTIONS["text"]))
    return ConfigDict(dict(towers=towers, views=dict(image="image", text="text"), temperature_init=0.05, logit_bias_init=None) | changes)


def text_only(**changes):
    towers = dict(text=dict(name="text", options=toys.OPTIONS["text"]))
    return dual.build(section(towers=towers, views=dict(query="text", passage="text", negatives="text"), **changes))


def test_arrays_are_named_and_of_unit_length():
    model, (ids, mask) = dual.build(section(logit_bias_init=-10.0)), toys.texts()
    batch = dict(image=toys.images(), text=ids, text_mask=mask)
    params = toys.init(model, batch)
    arrays = model.apply({"params": params}, batch, capture=dict(text=("tokens",)))
    assert {k: v.shape for k, v in arrays.items()} == dict(
        z_image=(4, 8), z_text=(4, 8), tokens_text=(4, 6, 16), logit_scale=(), logit_bias=()
    )
    for name in ("z_image", "z_text"):
        np.testing.assert_allclose(np.linalg.norm(arrays[name], axis=1), 1, atol=1e-6)
    assert arrays["logit_bias"] == params["logit_bias"]
    assert {path.split("/")[0] for path in by_path(params)} == {"towers_image", "towers_text", "log_logit_scale", "logit_bias"}


def test_scale_and_bias_start_where_the_config_says():
    batch = dict(query=toys.texts(rows=1)[0])
    start = lambda: nn.unbox(text_only(logit_bias_init=-10.0).init(jax.random.key(0), batch))["params"]
    found = jax.jit(lambda: {name: start()[name] for name in ("log_logit_scale", "logit_bias")})()
    assert math.exp(found["log_logit_scale"]) == pytest.approx(1 / 0.05) and found["logit_bias"] == -10
    assert "logit_bias" not in toys.init(text_only(), batch)
    assert math.exp(dual.LOG_SCALE_MAX) == pytest.approx(100)


def test_views_of_one_tower_share_its_parameters():
    model, (ids, mask) = text_only(), toys.texts()
    batch = dict(query=ids, query_mask=mask, passage=ids, passage_mask=mask)
    params = toys.init(model, batch)
    assert set(params) == {"towers_text", "log_logit_scale"}
    arrays = model.apply({"params": params}, batch)
    np.testing.assert_array_equal(arrays["z_query"], arrays["z_passage"])
    assert "z_negatives" not in arrays  # the batch has none


@pytest.mark.parametrize("negatives", [2, 3])  # 2 = number of layers: shapes alone would not show a mixed-up axis
def test_hard_negatives_are_rows_folded_and_unfolded(negatives):
    model, (ids, mask) = text_only(), toys.texts(rows=4 * negatives)
    params = toys.init(model, dict(query=ids, query_mask=mask))
    fold = lambda a: a.reshape(4, negatives, 6)
    capture = ("tokens", "layers", "layers_pooled")
    folded = model.apply({"params": params}, dict(negatives=fold(ids), negatives_mask=fold(mask)), capture=dict(negatives=capture))
    flat = model.apply({"params": params}, dict(query=ids, query_mask=mask), capture=dict(query=capture))
    for name in ("z", "tokens"):
        expected = flat[f"{name}_query"].reshape(4, negatives, *flat[f"{name}_query"].shape[1:])
        np.testing.assert_allclose(folded[f"{name}_negatives"], expected, rtol=1e-6, atol=1e-6)
    for name in ("layers", "layers_pooled"):
        expected = flat[f"{name}_query"].reshape(2, 4, negatives, *flat[f"{name}_query"].shape[2:])
        np.testing.assert_allclose(folded[f"{name}_negatives"], expected, rtol=1e-6, atol=1e-6)


def test_each_hard_negative_drops_by_a_key_of_its_own():
    options = toys.OPTIONS["text"] | dict(dropout=0.5)
    model = dual.build(section(towers=dict(text=dict(name="text", options=options)), views=dict(negatives="text")))
    ids, mask = (jnp.broadcast_to(a[0], (2, 3, 6)) for a in toys.texts())
    batch = dict(negatives=ids, negatives_mask=mask)
    z = np.asarray(model.apply({"params": toys.init(model, batch)}, batch, dict(negatives=toys.keys(2)))["z_negatives"]).reshape(6, 8)
    assert min(np.abs(z[i] - z[j]).max() for i in range(6) for j in range(i)) > 1e-3


def test_an_instruction_is_read_but_not_pooled():
    options = toys.OPTIONS["text"] | dict(causal=False, pooling="mean", embed_dim=0)
    model = dual.build(section(towers=dict(text=dict(name="text", options=options)), views=dict(query="text", negatives="text")))
    ids, mask = toys.texts()
    pool_mask = mask.at[:, 0].set(False)
    batch = dict(query=ids, query_mask=mask)
    params = toys.init(model, batch)
    apply = lambda batch, **more: model.apply({"params": params}, batch, **more)
    found = apply(batch | dict(query_pool_mask=pool_mask), capture=dict(query=("tokens",)))
    weight = pool_mask / pool_mask.sum(1, keepdims=True)
    np.testing.assert_allclose(found["z_query"], unit(jnp.einsum("bt,btw->bw", weight, found["tokens_query"])), rtol=1e-5, atol=1e-6)
    other = apply(batch | dict(query=ids.at[:, 0].set(7), query_pool_mask=pool_mask))
    assert np.abs(other["z_query"] - found["z_query"])[0].max() > 1e-3  # its wording still matters
    folded = dict(negatives=ids[:, None], negatives_mask=mask[:, None], negatives_pool_mask=pool_mask[:, None])
    np.testing.assert_allclose(apply(folded)["z_negatives"][:, 0], found["z_query"], rtol=1e-6, atol=1e-6)


def test_hooks_and_keys_go_to_their_view():
    model, (ids, mask) = text_only(), toys.texts()
    batch = dict(query=ids, query_mask=mask, passage=ids, passage_mask=mask)
    params = toys.init(model, batch)
    arrays = model.apply({"params": params}, batch, hooks=dict(query=lambda i, x, m: (x + (i == 1) * jnp.arange(16.0)[None, None], m)))
    plain = model.apply({"params": params}, batch)
    np.testing.assert_array_equal(arrays["z_passage"], plain["z_passage"])
    assert np.abs(arrays["z_query"] - plain["z_query"]).max() > 1e-3


def test_unit_of_zeros_is_zero_with_a_finite_gradient():
    value, gradient = jax.value_and_grad(lambda x: unit(x).sum())(jnp.zeros((2, 3)))
    assert value == 0 and np.isfinite(gradient).all()
    assert unit(jnp.ones((2, 4), jnp.bfloat16)).dtype == jnp.float32


def towers(**changes):
    made = section().towers.to_dict()
    for label, change in changes.items():
        made[label] = made[label] | change
    return made


@pytest.mark.parametrize(
    "changes, vocabulary, message",
    [
        (
            dict(towers=towers(image=dict(name="vits"))),
            None,
            r"config.model.towers.image.name is 'vits', which is not among: .* Did you mean 'vit'\?",
        ),
        (
            dict(views=dict(image="imag")),
            None,
            r"config.model.views.image is 'imag', which is not among: image, text. Did you mean 'image'\?",
        ),
        (
            dict(towers=towers(text=dict(options=dict(widht=8)))),
            None,
            r"config.model.towers.text.options.widht is not a key; .* mean 'width'\?",
        ),
        (
            dict(towers=towers(text=dict(options=dict(width="8")))),
            None,
            "config.model.towers.text.options.width is '8', a str; it must be a int",
        ),
        (
            dict(towers=towers(text=dict(freeze=True))),
            None,
            "config.model.towers.text.freeze is not a key; valid ones: init, name, options",
        ),
        (
            dict(towers=towers(text=dict(options=dict(pooling_options=3)))),
            None,
            "config.model.towers.text.options.pooling_options is 3, a int; it must be a Mapping such as FrozenDict",
        ),
        (dict(temperature=0.1), None, r"config.model.temperature is not a key; .* Did you mean 'temperature_init'\?"),
        (dict(towers=towers(text=dict(options=dict(embed_dim=4)))), None, "one shared width, found {'image': 8, 'text': 4}"),
        ({}, 41, "config.model.towers.text.options.vocab_size is 40, but the tokenizer has 41 tokens; set it to at least 41"),
    ],
    ids=str,
)
def test_mistakes_name_their_key(changes, vocabulary, message):
    with pytest.raises(ConfigError, match=message):
        dual.build(section(**changes), vocabulary)


def test_a_vocabulary_that_fits_is_taken():
    assert dual.build(section(), 40).views == dict(image="image", text="text")
