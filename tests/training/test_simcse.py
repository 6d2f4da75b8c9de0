"""SimCSE: two passes of one text under dropout, as a copied view; what differs between the passes is their keys and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from losses.infonce import infonce
from models import dual
from tests.training.test_cached_gradients import TEXTS, TOWER
from training.forward import example_keys

IDS = jnp.asarray(np.random.default_rng(0).integers(3, 20, (5, 6)), jnp.int32)
BATCH = {name: IDS for name in ("query", "again")} | {f"{name}_mask": IDS > 4 for name in ("query", "again")}


def model(dropout):
    tower = TOWER | dict(options=TOWER["options"] | dict(dropout=dropout))
    return dual.build(ConfigDict(TEXTS | dict(towers=dict(text=tower), views=dict(query="text", again="text"))))


@pytest.fixture(scope="module")
def passes():
    """From keys to both passes, at a dropout of 0.1."""
    dropping = model(0.1)
    params = jax.jit(dropping.init)(jax.random.key(0), BATCH)["params"]
    apply = jax.jit(lambda keys: dropping.apply({"params": params}, BATCH, keys))
    return params, lambda keys: [apply(keys)[f"z_{view}"] for view in ("query", "again")]


def test_passes_of_a_step_differ_and_those_of_one_key_are_one(passes):
    _, both = passes
    keys = example_keys(0, 3, ("query", "again"), len(IDS))
    query, again = both(keys)
    cosine = (query * again).sum(1)
    assert (cosine < 1 - 1e-4).all() and (cosine > 0).all()
    np.testing.assert_array_equal(*both(keys | {"again": keys["query"]}))
    np.testing.assert_array_equal(query, both(keys | {"again": keys["query"]})[0])  # a pass depends on its own keys


def test_a_text_that_stands_twice_in_a_batch_is_read_differently(passes):
    _, both = passes
    keys = example_keys(0, 3, ("query", "again"), len(IDS))
    assert len(np.unique(jax.random.key_data(jnp.concatenate(list(keys.values()))), axis=0)) == 2 * len(IDS)
    moved = jax.tree.map(lambda k: k[jnp.array([1, 0, 2, 3, 4])], keys)
    assert np.abs(both(moved)[0][:2] - both(keys)[0][:2]).max() > 1e-3


def test_without_dropout_a_pass_is_its_own_positive_and_pulls_at_nothing(passes):
    """The diagonal is 1 / temperature and flat there: only the negatives are left of the loss."""
    params, _ = passes
    still = model(0.0)

    @jax.jit
    def run(params, order):
        def positive(params):
            z = still.apply({"params": params}, BATCH, example_keys(0, 3, ("query", "again"), len(IDS)))
            return (z["z_query"] * z["z_again"][order]).sum(1).mean(), (z["z_query"], z["z_again"])

        return jax.value_and_grad(positive, has_aux=True)(params)

    largest = lambda gradient: max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradient))
    (_, (query, again)), own = run(params, jnp.arange(5))
    _, other = run(params, jnp.roll(jnp.arange(5), 1))
    np.testing.assert_array_equal(query, again)
    assert largest(own) < 1e-5 * largest(other)  # of a cosine at 1, what the roundings of unit vectors leave
    with jax.enable_x64(True):  # the loss is small beside logits of 20, whose float32 neighbours are 2e-6 apart
        query, again = (np.asarray(z, np.float64) for z in (query, again))
        found = infonce(jnp.asarray(query), jnp.asarray(again), jnp.float64(20), symmetric=False)[0]
    logits = 20 * query @ again.T
    np.testing.assert_allclose(np.diagonal(logits), 20, rtol=1e-6)
    np.testing.assert_allclose(found, np.log(np.exp(logits - np.diagonal(logits)[:, None]).sum(1)), rtol=1e-10)
