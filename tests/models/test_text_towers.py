"""BERT, ModernBERT and decoders: beside a naive evaluation, and what padding, windows and positions may change."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import position
from models.attention import Attention, attend, attend_near, keep, rotate
from models.transformer import rounds
from tests.models import toys
from tests.oracles import text_towers as oracles

TOLERANCE = 1e-5
ROBERTA = dict(position_offset=2, token_types=1, norm_eps=1e-5)
MPNET = dict(position_offset=2, token_types=0, relative_buckets=8)
CASES = [
    ("bert", {}),
    ("bert", ROBERTA),
    ("bert", MPNET),
    ("modernbert", dict(layers=4)),
    ("decoder", {}),
    ("decoder", dict(causal=False, qk_norm=False, window=2)),
]


@functools.lru_cache
def states(name, **options):
    """A function from ids and mask to last states and embeddings, and random parameters."""
    tower = toys.tower(name, embed_dim=0, **options)
    params = toys.init(tower, *toys.texts())
    return tower, params, jax.jit(lambda ids, mask: tower.apply({"params": params}, ids, mask, capture=("tokens",)))


@pytest.mark.parametrize("name, options", CASES, ids=str)
def test_towers_by_definition(name, options):
    tower, params, apply = states(name, **options)
    ids, mask = toys.texts(seed=4)
    found, mask = np.asarray(apply(ids, mask)["tokens"]), np.asarray(mask)
    expected = getattr(oracles, name)(params, tower, np.asarray(ids), mask)
    np.testing.assert_allclose(found[mask], expected[mask], rtol=TOLERANCE, atol=3 * TOLERANCE)


@pytest.mark.parametrize("name, options", CASES, ids=str)
def test_padding_and_other_rows_change_nothing(name, options):
    _, _, apply = states(name, **options)
    ids, mask = toys.texts()
    expected = apply(ids, mask)["embedding"]
    other = jnp.where(mask, ids, 17)
    np.testing.assert_array_equal(apply(other, mask)["embedding"], expected)
    alone = np.concatenate([apply(ids[i : i + 1], mask[i : i + 1])["embedding"] for i in range(2)])
    np.testing.assert_allclose(alone, expected[:2], rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("name, options", [c for c in CASES if c[0] == "decoder" or "position_offset" in c[1]], ids=str)
def test_padding_may_lie_on_the_left(name, options):
    _, _, apply = states(name, **options)
    ids, mask = (np.asarray(a) for a in toys.texts())
    shifts = mask.shape[1] - mask.sum(1)
    left = [np.stack([np.roll(row, s) for row, s in zip(a, shifts, strict=True)]) for a in (ids, mask)]
    np.testing.assert_allclose(apply(*left)["embedding"], apply(ids, mask)["embedding"], rtol=1e-4, atol=3 * TOLERANCE)


def test_a_causal_decoder_reads_a_prefix_as_it_stands_alone():
    """The first copy of a repeated text has the states of a single one: pooling the second copy is what differs."""
    _, _, apply = states("decoder")
    ids = toys.texts()[0][:, :3]
    mask = jnp.ones((4, 6), bool)
    twice = apply(jnp.concatenate([ids, ids], axis=1), mask)["tokens"]
    once = apply(jnp.pad(ids, ((0, 0), (0, 3))), mask.at[:, 3:].set(False))["tokens"]
    np.testing.assert_array_equal(twice[:, :3], once[:, :3])


def test_types_are_added_and_the_first_has_no_norm():
    _, params, _ = states("bert")
    assert params["type_embedding"].shape == (2, 16)
    _, params, _ = states("modernbert", layers=4)
    assert "norm_attention" not in params["blocks"]["block_0"] and "norm_attention" in params["blocks"]["block_1"]


def test_what_a_token_reaches_grows_by_one_window_a_local_layer():
    options = dict(global_every=100, layers=3, pooling="last")  # layer 0 is global; without it nothing else may be
    tower, params, _ = states("modernbert", **options)
    silent = params | {"blocks": params["blocks"] | {"block_0": jax.tree.map(jnp.zeros_like, params["blocks"]["block_0"])}}
    apply = jax.jit(lambda ids: tower.apply({"params": silent}, ids, None, capture=("tokens",))["tokens"])
    ids = toys.texts()[0]
    moved = np.abs(apply(ids.at[:, 0].set(7)) - apply(ids)).max(-1)
    assert (moved[:, :3] > 1e-4).all() and (moved[:, 3:] == 0).all()  # two local layers, one token each


@pytest.mark.parametrize("scan", [False, True])
def test_a_scan_of_rounds_is_the_same(scan):
    ids, mask = toys.texts()
    options = dict(layers=5, global_every=2)  # global | local global local global
    _, params, apply = states("modernbert", **options)
    tower = toys.tower("modernbert", embed_dim=0, scan=scan, remat=True, **options)
    found = jax.jit(lambda p: tower.apply({"params": p}, ids, mask, capture=("layers",)))
    expected = apply(ids, mask)
    np.testing.assert_allclose(found(params)["embedding"], expected["embedding"], rtol=1e-5, atol=1e-5)
    assert found(params)["layers"].shape == (5, 4, 6, 16)
    text = str(jax.make_jaxpr(lambda p: tower.apply({"params": p}, ids, mask)["embedding"])(params))
    assert text.count("dot_general") == (3 if scan else 5) * 6  # the first, and a round of two


def test_rounds():
    a, b, c = (functools.partial(dict, x=x) for x in "abc")
    assert rounds([a, a, a]) == (0, 1)
    assert rounds([a, b, b, c, b, b, c]) == (1, 3)
    assert rounds([a, b, c]) == (3, 1)
    assert rounds([]) == (0, 1)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("length, window", [(9, 2), (8, 4), (5, 7)])
def test_blocks_of_a_window_are_the_window(length, window, causal):
    rng = np.random.default_rng(0)
    q, k, v = (jnp.asarray(rng.standard_normal((3, 2, length, 4)), jnp.float32) for _ in range(3))
    mask = jnp.asarray(rng.random((3, length)) < 0.7).at[:, 0].set(True)

    @jax.jit
    def differences(mask):
        kept = keep(mask, length, causal, window)
        # A query that sees no key has no defined value.
        seen = jnp.broadcast_to(True if kept is None else kept.any(-1), (3, 1, length))[..., None]
        return jnp.where(seen, attend_near(q, k, v, mask, window, causal) - attend(q, k, v, kept), 0)

    np.testing.assert_allclose(differences(mask), 0, atol=1e-6)
    np.testing.assert_allclose(differences(jnp.ones_like(mask)), 0, atol=1e-6)


def test_long_texts_never_make_a_square_of_scores():
    module = Attention(heads=2, window=4)
    x = jnp.zeros((1, 64, 8))
    params = toys.init(module, x)
    shapes = [v.aval.shape for e in jax.make_jaxpr(lambda x: module.apply({"params": params}, x))(x).eqns for v in e.outvars]
    assert not [s for s in shapes if s.count(64) > 1]


def test_scores_of_turned_queries_and_keys_depend_on_distance_alone():
    rope = tuple(jnp.asarray(a) for a in position.rope(12, 6, 50.0))
    q, k = (jnp.broadcast_to(jnp.asarray(np.random.default_rng(i).standard_normal(6), jnp.float32), (1, 1, 12, 6)) for i in range(2))
    scores = np.asarray(jnp.einsum("bhqd,bhkd->qk", rotate(q, rope), rotate(k, rope)))
    for away in range(-5, 6):
        line = np.diagonal(scores, away)
        np.testing.assert_allclose(line, np.broadcast_to(line[:1], line.shape), rtol=0, atol=1e-5)
    assert np.ptp(scores) > 1


def test_scalings_of_rotary_positions():
    table = lambda name, **options: position.rope(9, 8, 100.0, dict(name=name, options=options))
    plain = position.rope(9, 8, 100.0)
    for name in position.SCALINGS:
        np.testing.assert_allclose(table(name, factor=1.0), plain, rtol=0, atol=1e-6)
    np.testing.assert_allclose(table("linear", factor=2.0)[0][::2], plain[0][:5], rtol=0, atol=1e-6)  # position 2 is where 1 was
    _, sin = table("ntk", factor=4.0)
    np.testing.assert_allclose(np.arcsin(sin[1]), 100.0 ** -(np.arange(0, 8, 2) / 8) * 4.0 ** -(np.arange(4) / 3), rtol=1e-4)
    options = dict(factor=4.0, original_length=8)
    assert table("llama3", **options)[0][1, -1] == pytest.approx(np.cos(100.0**-0.75 / 4), abs=1e-6)  # turns 0.04 times in 8 tokens
    assert np.hypot(*table("yarn", **options)).mean() == pytest.approx(1 + 0.1 * np.log(4))
    with pytest.raises(ValueError, match="options.rope_scaling.name is 'yarm', which is not among: .* mean 'yarn'"):
        table("yarm")
    with pytest.raises(ValueError, match="an even head width, not 5"):
        position.rope(4, 5, 10.0)


def test_distances_share_buckets_by_logarithm():
    expected = [[oracles.bucket(i - j, 32) for j in range(150)] for i in range(150)]
    found = position.relative_buckets(150)
    assert found.max() == 31 and found.min() == 0
    # float32 decides at the bounds, where the logarithm is a whole number
    assert (found != np.array(expected)).mean() < 0.02


@pytest.mark.parametrize("name", ["bert", "decoder", "modernbert"])
def test_longer_texts_than_the_tower_takes_are_refused(name):
    with pytest.raises(ValueError, match="texts of 7 tokens, but the tower takes 6; set config.data.transforms.text.options.length to 6"):
        jax.eval_shape(lambda: toys.tower(name).init(jax.random.key(0), *toys.texts(length=7)))


def test_heads_that_do_not_share_are_refused():
    with pytest.raises(ValueError, match="4 heads do not share 3 key-value heads; change the tower's options.heads or options.kv_heads"):
        jax.eval_shape(lambda: toys.tower("decoder", kv_heads=3).init(jax.random.key(0), *toys.texts()))
