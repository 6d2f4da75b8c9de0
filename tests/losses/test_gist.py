"""GISTEmbed against its definition, and what follows exactly from it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from losses.gist import ALSO, MARGINS, NEGATIVES, gist
from losses.infonce import infonce
from tests.losses import drawn
from tests.oracles import pair_losses

OPTIONAL = ("id", "alias", "weight")
HARD = ("zn", "zn_guide")


def on_device(arrays, **changes):
    return {name: jnp.asarray(array) for name, array in (arrays | changes).items()}


def value(arrays, **options):
    return compiled(frozenset(options.items()))(**arrays)


@functools.cache
def compiled(options):
    return jax.jit(functools.partial(gist, **dict(options)))


@settings(deadline=None, max_examples=12, derandomize=True)
@given(
    seed=st.integers(0, 10**6), queries=st.integers(1, 7), extra=st.integers(0, 3), width=st.integers(1, 4), hard=st.integers(0, 2),
    padded=st.integers(0, 2), left_out=st.sets(st.sampled_from(OPTIONAL)), without_hard=st.booleans(),
    also=st.sets(st.sampled_from(ALSO)), margin=st.sampled_from([0.0, 0.2, -0.3]), margin_kind=st.sampled_from(MARGINS),
    negatives=st.sampled_from(NEGATIVES),
)  # fmt: skip
def test_value_is_the_definition(seed, queries, extra, width, hard, padded, left_out, without_hard, also, **options):
    batch = drawn.batch(seed, queries, queries + extra, width, hard, 3, min(padded, queries - 1), np.float64)
    arrays = drawn.inputs(gist, batch, without=(*left_out, *(HARD if without_hard else ())))
    options["also"] = tuple(sorted(also))
    with jax.enable_x64(True):
        (found, _, metrics), (expected, counts) = value(arrays, **options), pair_losses.gist(**arrays, **options)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
        np.testing.assert_array_equal(metrics["dropped"], counts)


def test_a_guide_that_drops_nothing_leaves_infonce():
    arrays = drawn.inputs(gist, drawn.batch(padded=0, hard=1), without=("alias",))
    arrays["zq_guide"], arrays["zp_guide"] = np.eye(8, dtype=np.float32), np.eye(8, dtype=np.float32)
    arrays["zn_guide"] = np.zeros((8, 1, 8), np.float32)
    found, _, metrics = value(arrays, also=())
    plain = {name: array for name, array in arrays.items() if not name.endswith("_guide")}
    expected, _, _ = jax.jit(functools.partial(infonce, symmetric=False, positives="exclude"))(**plain)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert metrics["dropped"][0] == 0 and metrics["dropped"][1] > 0


def guided(**changes):
    """A batch in which row 0's query and row 1's passage are one text for the guide, and the others are far apart."""
    arrays = drawn.inputs(gist, drawn.batch(padded=0), without=(*OPTIONAL, *HARD)) | changes
    guide = np.eye(8, dtype=np.float32)
    arrays["zq_guide"] = guide * 0.8 + np.roll(guide, 4, axis=1) * 0.6
    arrays["zp_guide"] = guide.copy()
    arrays["zp_guide"][1] = arrays["zq_guide"][0]
    return arrays


def test_what_the_guide_drops_has_no_gradient():
    arrays = guided()

    def row(zp, i):
        return gist(**on_device(arrays, zp=zp), also=())[0][i]

    compiled = jax.jit(jax.grad(row))
    gradient = lambda i: compiled(jnp.asarray(arrays["zp"]), i)
    np.testing.assert_array_equal(gradient(0)[1], 0)  # dropped for row 0
    assert np.abs(gradient(2)[1]).max() > 0  # and for no other
    assert np.abs(gradient(1)[1]).max() > 0  # row 1 keeps it: it is its own


def test_a_hard_negative_that_is_dropped_everywhere_has_no_gradient():
    arrays = drawn.inputs(gist, drawn.batch(padded=0, hard=1), without=OPTIONAL)
    arrays["zq_guide"], arrays["zp_guide"] = np.eye(8, dtype=np.float32), np.roll(np.eye(8, dtype=np.float32), 1, 0)  # 0 with its own
    arrays["zn_guide"] = np.full((8, 1, 8), 8**-0.5, np.float32)  # 0.35 with every query
    gradient = jax.jit(jax.grad(lambda zn: gist(**on_device(arrays, zn=zn))[0].sum()))(jnp.asarray(arrays["zn"]))
    np.testing.assert_array_equal(gradient, 0)


def test_the_length_of_the_guides_vectors_and_their_gradient_mean_nothing():
    arrays = guided()
    lengths = np.exp2(np.arange(8, dtype=np.float32) % 5)[:, None]  # of each row another; powers of two round nothing
    scaled = arrays | {name: lengths * arrays[name] for name in ("zq_guide", "zp_guide")}
    for margin in (0.0, 0.3):
        np.testing.assert_array_equal(value(arrays, margin=margin)[0], value(scaled, margin=margin)[0])
    assert (value(arrays, margin=0.3)[0] != value(arrays)[0]).any()
    gradient = jax.jit(jax.grad(lambda z: gist(**on_device(arrays, zq_guide=z))[0].sum()))(jnp.asarray(arrays["zq_guide"]))
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("kind", MARGINS)
def test_a_larger_margin_drops_more(kind):
    """Signs of the guide's own cosines are mixed: the relative margin must not turn round where they are negative."""
    arrays = drawn.inputs(gist, drawn.batch(seed=5, queries=8, padded=0), without=OPTIONAL)
    own = (arrays["zq_guide"] * arrays["zp_guide"]).sum(1)
    assert own.min() < 0 < own.max()
    losses, _, metrics = zip(*(value(arrays, margin=margin, margin_kind=kind) for margin in (0.0, 0.1, 0.3, 0.9)), strict=True)
    assert all((after <= before + 1e-6).all() for before, after in zip(losses, losses[1:], strict=False))
    assert (losses[-1] < losses[0] - 1e-3).any() and np.isfinite(losses).all()
    (first, *_, last), offered = zip(*(of["dropped"] for of in metrics), strict=True)
    assert (first, offered[0]) == pair_losses.gist(**arrays)[1] and 0 < first < last < offered[0] == offered[-1]


def test_a_text_beside_itself_is_dropped_even_where_its_pair_is_as_near():
    """The guide says 1 of every pair, and 1 > 1 is false: the query itself is masked as what it is."""
    arrays = guided()
    arrays["zp_guide"] = arrays["zq_guide"] = np.eye(8, dtype=np.float32)
    expected, _ = pair_losses.gist(**{name: np.asarray(array, np.float64) for name, array in arrays.items()})
    np.testing.assert_allclose(value(arrays)[0], expected, rtol=1e-5)


def test_hard_negatives_need_their_guide():
    with pytest.raises(ValueError, match="config.losses.<label>.inputs.zn and .zn_guide"):
        value(drawn.inputs(gist, drawn.batch(), without=("zn_guide",)))
