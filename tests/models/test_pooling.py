"""Tokens to one vector, rows without any token too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from core.config import ConfigError
from models import POOLINGS, read_out
from models.pooling import take
from tests.models import toys

MASK = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]], bool)
LEFT = np.array([[1, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0]], bool)
TOKENS = jnp.asarray(np.random.default_rng(0).standard_normal((4, 4, 8)), jnp.float32)
LAYERS = jnp.asarray(np.random.default_rng(1).standard_normal((3, 4, 4, 8)), jnp.float32)
OPTIONS = {
    "latent": dict(latents=5, heads=2),
    "queries": dict(latents=5, heads=2),
    "layers": dict(latents=5, heads=2),
    "lama": dict(maps=3, rank=2),
    "joined_layers": dict(joined=2),
}
NAMES = sorted(POOLINGS)


def made(name, **options):
    """A pooling and random parameters."""
    module = POOLINGS[name](**(OPTIONS.get(name, {}) | options))
    return module, toys.init(module, TOKENS, jnp.asarray(MASK), is_eos=jnp.asarray(MASK), layers=LAYERS)


def pool(name, mask=MASK, is_eos=MASK, tokens=TOKENS, layers=LAYERS, visible=None, change=lambda p: p, **options):
    module, params = made(name, **options)
    array = lambda a: None if a is None else jnp.asarray(a)
    given = dict(is_eos=array(is_eos), visible=array(visible), layers=layers)
    return np.asarray(jax.jit(module.apply)({"params": change(params)}, tokens, array(mask), **given))


def rows(weights):
    """What each row is by weights [T] of its tokens."""
    return np.einsum("bt,btw->bw", np.asarray(weights, float), np.asarray(TOKENS, float))


@pytest.mark.parametrize("name, place", [("cls", [0, 0, 0, 0]), ("last", [3, 1, 2, 0]), ("eos", [1, 3, 2, 0])])
def test_which_token_is_taken(name, place):
    is_eos = np.array([[0, 1, 1, 0], [0, 0, 0, 1], [0, 0, 1, 1], [0, 0, 0, 0]], bool)
    np.testing.assert_array_equal(pool(name, is_eos=is_eos), np.asarray(TOKENS)[np.arange(4), place])


def test_the_last_token_under_left_padding_is_the_last():
    np.testing.assert_array_equal(pool("last", LEFT)[:3], np.asarray(TOKENS)[:3, 3])


@pytest.mark.parametrize("mask", [MASK, LEFT], ids=["right", "left"])
def test_means_by_definition(mask):
    count = np.maximum(mask.sum(1, keepdims=True), 1)
    np.testing.assert_allclose(pool("mean", mask), rows(mask / count), rtol=0, atol=1e-6)
    np.testing.assert_allclose(pool("mean_sqrt_length", mask), rows(mask / np.sqrt(count)), rtol=0, atol=1e-6)
    place = np.cumsum(mask, axis=1) * mask  # 1 for the first kept token, 2 for the second, ...
    np.testing.assert_allclose(pool("weighted_mean", mask), rows(place / np.maximum(place.sum(1, keepdims=True), 1)), rtol=0, atol=1e-6)
    largest = [np.asarray(TOKENS)[r][mask[r]].max(0) if mask[r].any() else np.zeros(8) for r in range(4)]
    np.testing.assert_array_equal(pool("max", mask), largest)


def test_an_instruction_out_of_the_mean_keeps_the_weights_of_what_follows():
    """Tokens 2 and 3 of a row whose first two are read but not pooled weigh 3 and 4."""
    found = pool("weighted_mean", np.array([[0, 0, 1, 1]] * 4, bool), visible=np.ones((4, 4), bool))
    np.testing.assert_allclose(found, rows([[0, 0, 3 / 7, 4 / 7]] * 4), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_no_mask_keeps_all(name):
    np.testing.assert_allclose(pool(name, None), pool(name, np.ones_like(MASK)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", sorted(set(POOLINGS) - {"cls", "eos", "pooler"}))
def test_hidden_tokens_change_nothing(name):
    hide = lambda a: jnp.where(jnp.asarray(MASK)[..., None], a, 100.0)
    np.testing.assert_array_equal(pool(name, tokens=hide(TOKENS), layers=hide(LAYERS))[:3], pool(name)[:3])


@pytest.mark.parametrize("name", NAMES)
def test_rows_without_a_token_are_finite_with_finite_gradients(name):
    module, params = made(name)
    given = dict(is_eos=jnp.asarray(MASK), layers=LAYERS)
    total = lambda t, p: jnp.sum(module.apply({"params": p}, t, jnp.asarray(MASK), **given) ** 2)
    value, gradients = jax.jit(jax.value_and_grad(total, argnums=(0, 1)))(TOKENS, params)
    assert np.isfinite(value) and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def without(params, *paths):
    """The parameters with those of some layers set to zero."""
    zero = lambda path, leaf: leaf * (not any(p in jax.tree_util.keystr(path, simple=True, separator="/") for p in paths))
    return jax.tree_util.tree_map_with_path(zero, params)


SILENT = ("read/out", "read/mlp/fc_out")  # nothing read, nothing from the MLP


def test_latents_that_say_nothing_leave_the_mean():
    np.testing.assert_allclose(pool("latent", change=lambda p: without(p, *SILENT)), pool("mean"), rtol=0, atol=1e-6)
    assert np.abs(pool("latent") - pool("mean"))[:3].max() > 0.1


def test_latents_have_no_order_nor_have_tokens_that_go_with_their_mask():
    expected = pool("latent")
    turned = pool("latent", change=lambda p: p | dict(latents=p["latents"][::-1]))
    np.testing.assert_allclose(turned, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(pool("latent", MASK[:, ::-1], tokens=TOKENS[:, ::-1]), expected, rtol=1e-5, atol=1e-6)


def test_equal_latents_are_read_alike_by_every_token():
    """Of identical keys and values softmax makes the value itself: what is read does not depend on the token."""
    same = lambda p: without(p | dict(latents=jnp.broadcast_to(p["latents"][:1], (5, 8))), "read/mlp/fc_out")
    shift = pool("latent", np.ones_like(MASK), change=same) - np.asarray(TOKENS).mean(1)
    np.testing.assert_allclose(shift, np.broadcast_to(shift[:1], shift.shape), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["queries", "layers"])
def test_queries_that_read_nothing_are_the_same_for_every_text(name):
    found = pool(name, change=lambda p: without(p, *SILENT))
    latents = made(name)[1]["latents"].mean(0)
    np.testing.assert_allclose(found, np.broadcast_to(latents, found.shape), rtol=0, atol=1e-6)


def test_layers_have_an_order_by_their_row_of_the_table_alone():
    turn = lambda p: p | dict(layer_table=p["layer_table"][::-1])
    expected = pool("layers")
    np.testing.assert_allclose(pool("layers", layers=LAYERS[::-1], change=turn), expected, rtol=1e-5, atol=1e-6)
    assert np.abs(pool("layers", layers=LAYERS[::-1]) - expected).max() > 1e-2
    plain = lambda layers: pool("layers", layers=layers, table=False)
    np.testing.assert_allclose(plain(LAYERS[::-1]), plain(LAYERS), rtol=1e-5, atol=1e-6)


def test_one_layer_is_read_alike_by_every_latent():
    """Softmax over a single key is 1: every latent reads the same."""
    no_mlp = lambda p: without(p, "read/mlp/fc_out")
    module, params = POOLINGS["layers"](latents=5, heads=2), made("layers")[1]
    params = no_mlp(params | dict(layer_table=params["layer_table"][:1]))
    apply = lambda latents: module.apply({"params": params | dict(latents=latents)}, TOKENS, None, layers=LAYERS[:1])
    shift = apply(params["latents"]) - params["latents"].mean(0)[None]
    np.testing.assert_allclose(apply(7 * params["latents"][::-1]) - 7 * params["latents"].mean(0)[None], shift, rtol=0, atol=2e-5)


def test_summaries_of_layers_are_means_or_last_tokens():
    """States that are the same at every token have one mean and one last token."""
    flat = jnp.broadcast_to(LAYERS[:, :, :1], LAYERS.shape)
    np.testing.assert_allclose(pool("layers", layers=flat)[:3], pool("layers", layers=flat, summary="last")[:3], rtol=0, atol=1e-5)
    assert np.abs(pool("layers") - pool("layers", summary="last"))[0].max() > 1e-2


def test_a_mix_of_layers_starts_as_their_average():
    average = np.mean([pool("mean", tokens=layer) for layer in LAYERS], axis=0)
    start = lambda p: dict(weight=jnp.zeros_like(p["weight"]))
    np.testing.assert_allclose(pool("layer_mix", change=start), average, rtol=0, atol=1e-6)
    only = pool("layer_mix", change=lambda p: dict(weight=jnp.asarray([-50.0, 50.0, -50.0])))
    np.testing.assert_allclose(only, pool("mean", tokens=LAYERS[1]), rtol=0, atol=1e-6)


def test_joined_layers_are_the_means_of_the_last_ones():
    expected = np.concatenate([pool("mean", tokens=layer) for layer in LAYERS[1:]], axis=1)
    np.testing.assert_allclose(pool("joined_layers"), expected, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="4 layers of 3; set the tower's options.pooling_options.joined from 1 to 3"):
        pool("joined_layers", joined=4)


def test_an_adapter_starts_as_a_norm_of_the_mean_and_reads_a_stored_one():
    module = POOLINGS["adapted"](blocks=2)
    first = module.init(jax.random.key(0), TOKENS, jnp.asarray(MASK))["params"]
    mean = pool("mean")[:3]  # the last row keeps no token
    centred = mean - mean.mean(1, keepdims=True)
    expected = centred / np.sqrt(np.square(centred).mean(1, keepdims=True) + 1e-5 * np.square(mean).sum(1, keepdims=True))
    found = module.apply({"params": first}, TOKENS, jnp.asarray(MASK))
    np.testing.assert_allclose(found[:3], expected, rtol=0, atol=1e-4)
    stored = jnp.asarray(mean / np.linalg.norm(mean, axis=1, keepdims=True))[:, None]  # of one token each, so that its mean is itself
    trained = dict(blocks=2, change=lambda p: jax.tree.map(lambda a: a + 0.1, p))
    live = pool("adapted", **trained)[:3]
    np.testing.assert_allclose(pool("adapted", None, tokens=stored, **trained), live, rtol=0, atol=1e-5)
    assert np.abs(live - expected).max() > 0.05


@pytest.mark.parametrize("rank", [1, 3])
def test_low_rank_maps_by_their_matrices(rank):
    """Each map's score is c^T M h with M a sum of `rank` outer products."""
    module, params = made("lama", maps=2, rank=rank)
    p, q = (np.asarray(params[name], float) for name in ("text_kernel", "token_kernel"))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 2 * 8 * 2 * rank
    h, expected = np.asarray(TOKENS, float), np.zeros((4, 2, 8))
    for row in range(3):
        kept = [t for t in range(4) if MASK[row, t]]
        c = h[row, kept].mean(0)
        score = np.tanh([[sum(c @ np.outer(p[:, m, r], q[:, m, r]) @ h[row, t] for r in range(rank)) for m in range(2)] for t in kept])
        weight = np.exp(score / np.sqrt((score**2).sum(1, keepdims=True) + 1e-6))
        expected[row] = (weight / weight.sum(0)).T @ h[row, kept]
    np.testing.assert_allclose(pool("lama", maps=2, rank=rank), expected.reshape(4, 16), rtol=0, atol=1e-5)


def test_maps_that_change_places_change_blocks():
    turn = lambda p: jax.tree.map(lambda a: a[:, ::-1], p)
    found = pool("lama", change=turn).reshape(4, 3, 8)
    np.testing.assert_allclose(found[:, ::-1].reshape(4, 24), pool("lama"), rtol=1e-5, atol=1e-6)


def test_widths():
    for name in NAMES:
        assert pool(name).shape == (4, read_out.width(name, OPTIONS.get(name, {}), 8))


def test_eos_needs_ids():
    with pytest.raises(ValueError, match="set the tower's options.pooling to 'last', or for images to 'cls'"):
        POOLINGS["eos"]().apply({}, TOKENS, None)


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("men", {}, "the text tower's options.pooling is 'men', which is not among: .* Did you mean 'mean'"),
        ("mean", dict(heads=2), "the text tower's options.pooling_options.heads is not a key; valid ones: none"),
        ("lama", dict(maps="4"), "options.pooling_options.maps is '4', a str; it must be a int"),
        ("layers", dict(summary="first"), "options.pooling_options.summary is 'first', which is not among: last, mean"),
        ("latent", dict(heads=3), "a width of 16 does not split into 3 heads; change options.pooling_options.heads or head_dim"),
    ],
    ids=str,
)
def test_mistakes_name_their_key(name, options, message):
    tower = toys.tower("text", pooling=name, pooling_options=options)
    with pytest.raises(ConfigError, match=message):
        jax.eval_shape(lambda: tower.init(jax.random.key(0), *toys.texts()))


def test_take_is_indexing():
    place = np.array([3, 0, 2, 1])
    np.testing.assert_array_equal(take(TOKENS, jnp.asarray(place)), np.asarray(TOKENS)[np.arange(4), place])
