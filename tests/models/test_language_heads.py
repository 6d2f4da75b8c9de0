"""The decoders of RetroMAE and Starbucks: their definitions, what each row may see, and that the table of words is the tower's."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import language_heads
from tests.oracles import token_losses as oracle

B, T, W, V, EPS = 2, 6, 4, 9, 1e-5
OWN = np.array([[-1, 3, 4, 3, -1, -1], [-1, 5, 6, 7, 8, -1]], np.int32)
MASK = np.array([[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]], bool)
HEAD = language_heads.RetroMae(heads=2, mlp_ratio=2.0, norm_eps=EPS)


def drawn():
    rng = np.random.default_rng(0)
    normal = lambda *shape: rng.normal(size=shape).astype(np.float32)
    ids = np.where(OWN >= 0, 2, np.array([[1, 0, 0, 0, 2, 0], [1, 0, 0, 0, 0, 2]], np.int32)).astype(np.int32)  # all its own are hidden
    tower = dict(table=normal(V, W), places=normal(8, W), types=normal(2, W), scale=normal(W), bias=normal(W))
    return jax.tree.map(jnp.asarray, dict(tokens=normal(B, T, W), ids=ids, own=OWN, mask=MASK) | tower)


ARRAYS = drawn()


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(lambda: HEAD.init(jax.random.key(0), **ARRAYS))["params"]
    return jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), nn.unbox(shapes))


@pytest.fixture(scope="module")
def apply(params):
    def decoded(tokens, arrays, key):
        made = HEAD.apply({"params": params}, **arrays | dict(tokens=tokens), key=key)
        return made["decoder"][:, 1:].sum(), made

    compiled = jax.jit(jax.grad(decoded, has_aux=True))  # the one program of these tests

    def apply(seed=0, **changes):
        arrays = ARRAYS | jax.tree.map(jnp.asarray, changes)
        by_tokens, made = compiled(arrays["tokens"], arrays, jax.random.key(seed))
        return made | dict(by_tokens=by_tokens)

    return apply


def seen(seed=0, share=0.5):
    key = jax.random.key(seed)
    return np.asarray(language_heads.visibility(key, jnp.asarray(OWN), jnp.asarray(MASK), share, 256))


def test_the_decoder_is_its_definition(params, apply):
    found = apply()
    original = np.where(OWN >= 0, OWN, ARRAYS["ids"])
    tower = [np.float64(ARRAYS[name]) for name in ("table", "places", "types", "scale", "bias")]
    exact = jax.tree.map(np.float64, params)
    expected = oracle.decoder(exact, np.float64(ARRAYS["tokens"]), original, seen(), *tower, heads=2, eps=EPS)
    rows = seen().any(2)  # a row that sees nothing is asked nothing
    np.testing.assert_allclose(found["decoder"][rows], expected[rows], rtol=1e-4, atol=1e-4)
    assert found["encoder"].shape == (B, T, W) and (found["table"] == ARRAYS["table"]).all() and found["bias"].shape == (V,)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_no_row_sees_itself_and_all_see_the_vector(share):
    for seed in range(3):
        visible = seen(seed, share)
        assert not np.diagonal(visible, axis1=1, axis2=2).any()
        assert visible[:, 1:, 0].all()
        assert not visible[0, :, 5].any()  # padding
        assert visible[0, [0, 1, 2, 3], 4].all()  # what ends a text is always seen
    own = (OWN >= 0)[:, None] & ~np.eye(T, dtype=bool)
    assert (visible[own & np.ones((B, T, T), bool)].mean() == share) or share == 0.5


def test_half_of_the_others_is_seen_anew_in_each_step_and_row():
    own = jnp.full((40, 30), 5)
    drawn = jax.jit(language_heads.visibility, static_argnums=(3, 4))
    first, second = (np.asarray(drawn(jax.random.key(seed), own, own > 0, 0.5, 256)) for seed in (0, 1))
    others = ~np.eye(30, dtype=bool)[:, 1:]
    assert abs(first[:, :, 1:][:, others].mean() - 0.5) < 0.01  # 34,000 draws
    assert (first != second).any() and (first[0] != first[1]).any()
    few = np.asarray(language_heads.visibility(jax.random.key(0), own, own > 0, 0.0, 1))
    np.testing.assert_array_equal(few[:, 1:], np.broadcast_to(np.arange(30) == 0, (40, 29, 30)))


def test_its_own_token_never_reaches_a_row(apply):
    """With the vector held, another word at place i leaves row i as it is, and not every other row."""
    whole, place = apply()["decoder"], 2
    own = OWN.copy()
    own[:, place] = 8
    changed = apply(own=own)["decoder"]
    np.testing.assert_array_equal(changed[:, place], whole[:, place])
    assert (changed != whole).any()


def test_the_tower_is_reached_through_the_vector_alone(apply):
    gradient = apply()["by_tokens"]
    assert gradient[:, 0].any() and not gradient[:, 1:].any()


def test_without_the_vector_in_question_and_column_the_tower_gets_nothing(params):
    layer = language_heads.Decoder(2, 2.0, "gelu", EPS)
    visible = jnp.asarray(seen()).at[:, :, 0].set(False)

    def decoded(vector):
        hidden = jnp.concatenate([vector, jnp.ones((B, T - 1, W))], axis=1)
        return layer.apply({"params": params["decoder"]}, jnp.ones((B, T, W)), hidden, visible)[1].sum()

    assert not jax.jit(jax.grad(decoded))(jnp.ones((B, 1, W))).any()


def test_a_mean_is_that_of_the_tokens_that_count():
    tokens = jnp.where(MASK[..., None], ARRAYS["tokens"], jnp.nan)
    found = language_heads.mean(tokens, jnp.asarray(MASK))
    np.testing.assert_allclose(found[0, 0], ARRAYS["tokens"][0, :5].mean(0), rtol=1e-6)


def test_padding_changes_no_other_token(apply):
    ids = ARRAYS["ids"].at[0, 5].set(7)
    np.testing.assert_array_equal(apply(ids=ids)["decoder"][0, :5], apply()["decoder"][0, :5])


SIZES = ((1, 2), (2, 3), (2, W))
SIZED = language_heads.StarbucksMae(sizes=SIZES, heads=2, mlp_ratio=2.0, norm_eps=EPS)
SIZED_ARRAYS = {name: array for name, array in ARRAYS.items() if name not in ("tokens", "own")} | dict(
    layers=jnp.asarray(np.random.default_rng(2).normal(size=(2, B, T, W)), jnp.float32)
)


@pytest.fixture(scope="module")
def sized(params):
    """What the head makes, with RetroMAE's parameters, which have the same names; and its gradient by the states of layers."""

    def made(layers, arrays):
        found = SIZED.apply({"params": params}, **arrays | dict(layers=layers))
        return found["encoder_1x2"].sum() + (found["decoder_1x2"][:, 1:] ** 2).sum(), found

    compiled = jax.jit(jax.grad(made, has_aux=True))

    def sized(**changes):
        arrays = SIZED_ARRAYS | jax.tree.map(jnp.asarray, changes)
        by_layers, found = compiled(arrays["layers"], arrays)
        return found | dict(by_layers=by_layers)

    return sized


def test_each_size_is_its_definition(params, sized):
    found, exact = sized(), jax.tree.map(np.float64, params)
    tower = [np.float64(ARRAYS[name]) for name in ("table", "places", "types", "scale", "bias")]
    layers, ids = np.float64(SIZED_ARRAYS["layers"]), np.asarray(SIZED_ARRAYS["ids"])
    for layer, m in SIZES:
        encoder, decoder = oracle.starbucks_mae(exact, layers, ids, MASK, *tower, size=(layer, m), heads=2, eps=EPS)
        np.testing.assert_allclose(found[f"encoder_{layer}x{m}"], encoder, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(found[f"decoder_{layer}x{m}"], decoder, rtol=1e-4, atol=1e-4)


def test_the_whole_size_is_the_plain_head(params, sized):
    own = jax.tree.map(jnp.asarray, params["language"])
    plain = language_heads.MaskedLanguage(norm_eps=EPS).apply({"params": own}, SIZED_ARRAYS["layers"][1], ARRAYS["table"])
    np.testing.assert_allclose(sized()[f"encoder_2x{W}"], plain["states"], rtol=1e-6, atol=1e-6)  # of numbers about 1, compiled apart


def test_a_size_reads_its_layer_and_first_values_alone(sized):
    gradient = sized()["by_layers"]
    assert gradient[0, :, :, :2].any() and not gradient[0, :, :, 2:].any() and not gradient[1].any()


def test_a_sized_decoder_never_sees_padding(sized):
    ids = ARRAYS["ids"].at[0, 5].set(7)
    np.testing.assert_array_equal(sized(ids=ids)["decoder_1x2"][0, :5], sized()["decoder_1x2"][0, :5])


@pytest.mark.parametrize("sizes", [(), ((0, 2),), ((3, 2),), ((1, W + 1),)])
def test_sizes_that_the_tower_has_not_are_refused(sizes):
    with pytest.raises(ValueError, match=r"set the head's options.sizes to \(layer, width\) pairs within \(2, 4\)"):
        jax.eval_shape(lambda: language_heads.StarbucksMae(sizes=sizes, heads=2).init(jax.random.key(0), **SIZED_ARRAYS))
