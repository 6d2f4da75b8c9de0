"""SimCSE: two passes of one text under dropout, as a copied view; what differs between the passes is their keys and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import docstrings_methods
from core.paths import matches
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
    def run(params):
        def positive(params):
            z = still.apply({"params": params}, BATCH, example_keys(0, 3, ("query", "again"), len(IDS)))
            return (z["z_query"] * z["z_again"]).sum(1).mean(), (z["z_query"], z["z_again"])

        return jax.value_and_grad(positive, has_aux=True)(params)

    (_, (query, again)), gradient = run(params)
    np.testing.assert_array_equal(query, again)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradient)) < 1e-6
    logits = 20.0 * np.asarray(query, np.float64) @ np.asarray(again, np.float64).T
    np.testing.assert_allclose(np.diagonal(logits), 20.0, rtol=1e-6)
    found = infonce(query, again, jnp.float32(20), symmetric=False)[0]
    np.testing.assert_allclose(found, np.log(np.exp(logits).sum(1)) - 20.0, rtol=1e-4, atol=1e-6)


def test_the_recipe_reads_one_text_twice_by_one_tower_at_one_temperature():
    config = docstrings_methods.get_config("method=simcse")
    assert config.data.copies.to_dict() == {"again": "query"} and config.data.transforms.again == config.data.transforms.query
    assert config.model.views.again == config.model.views.query and matches("log_logit_scale", config.optimizer.freeze)
    assert config.model.towers.text.options.dropout > 0
