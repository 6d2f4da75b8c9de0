"""Texts in rows that they share: what a tower makes of them is what it makes of each in a row of its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from core import mesh as meshes
from core.config import ConfigError
from input_pipeline.packing import first_fit
from models.dual import DualEncoder
from tests.models import toys

GROUP, ROWS, LENGTH = 4, 2, 6


def packed(ids, mask):
    """Groups of four texts in two rows of six tokens."""
    ids, counts, flat, places = np.asarray(ids), np.asarray(mask).sum(1), [], []
    for first in range(0, len(ids), GROUP):
        starts = first_fit(counts[first : first + GROUP], ROWS, LENGTH)
        row = np.zeros(ROWS * LENGTH, np.int32)
        for text, start in enumerate(starts, first):
            row[start : start + counts[text]] = ids[text, : counts[text]]
        flat.append(row)
        places.append(np.stack([starts, counts[first : first + GROUP]], axis=1))
    flat = np.stack(flat).reshape(len(ids), -1)
    return jnp.asarray(flat), jnp.asarray(np.repeat(np.stack(places), GROUP, axis=0), jnp.int32)


CASES = {
    "clip": ("text", dict(eos_id=-1, layers=1)),
    "layers": ("text", dict(causal=False, pooling="layer_mix", layers=1)),
    "bert": ("bert", dict(position_offset=1, relative_buckets=4, layers=1)),
    "decoder": ("decoder", dict(layers=1)),
    "modernbert": ("modernbert", {}),
}


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_those_of_each_text_alone(name):
    kind, options = CASES[name]
    tower, (ids, mask) = toys.tower(kind, **options), toys.texts(8, seed=156)
    together, places = packed(ids, mask)
    assert together.shape == (8, ROWS * LENGTH // GROUP), "two texts or more share a row"
    params = toys.init(tower, ids, mask)

    @jax.jit
    def both(params):
        def total(params, ids, mask=None, **places):
            z = tower.apply({"params": params}, ids, mask, **places)["embedding"]
            return jnp.sum(jnp.sin(z) * jnp.arange(1.0, 1 + z.size).reshape(z.shape)) / z.size, z

        return jax.grad(total, has_aux=True)(params, ids, mask), jax.grad(total, has_aux=True)(params, together, places=places)

    (expected_gradient, expected), (gradient, found) = both(params)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), gradient, expected_gradient)


def test_dropout_belongs_to_the_group():
    """Another group in the batch changes nothing, the keys of its own do."""
    tower, (ids, mask) = toys.tower("text", dropout=0.5, layers=1), toys.texts(8, seed=156)
    together, places = packed(ids, mask)
    params = toys.init(tower, ids, mask)
    embed = jax.jit(lambda ids, places, keys: tower.apply({"params": params}, ids, None, keys, places=places)["embedding"])
    found = embed(together, places, toys.keys(8))
    turned = embed(*(jnp.roll(a, GROUP, axis=0) for a in (together, places, toys.keys(8))))
    np.testing.assert_array_equal(turned, jnp.roll(found, GROUP, axis=0))
    assert np.abs(embed(together, places, toys.keys(8, seed=1)) - found).max() > 1e-3


def test_groups_are_split_over_devices():
    """A group on each of two devices, with gradients; the embeddings of a group need no other device."""
    tower, (ids, mask) = toys.tower("text", layers=1, dropout=0.2), toys.texts(8, seed=156)
    params, batch = toys.init(tower, ids, mask), (*packed(ids, mask), toys.keys(8))
    embed = lambda params, ids, places, keys: tower.apply({"params": params}, ids, None, keys, places=places)["embedding"]
    both = jax.jit(jax.value_and_grad(lambda params, *batch: jnp.sum(jnp.sin(embed(params, *batch)) ** 2)))
    expected = both(params, *batch)
    mesh = meshes.make(2, 1, 1, devices=jax.devices()[:2])
    with jax.set_mesh(mesh):
        placed = [jax.device_put(a, meshes.batch_sharding(mesh)) for a in batch]
        found = both(params, *placed)
        program = jax.jit(embed).lower(params, *placed).compile().as_text()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, expected)
    assert "all-gather" not in program and "all-reduce" not in program


def test_hard_negatives_share_rows_too():
    model = DualEncoder(towers=dict(text=toys.tower("text", layers=1)), views=dict(negatives="text"))
    ids, mask = toys.texts(8, seed=156)
    together, places = packed(ids, mask)
    fold = lambda a: a.reshape(4, 2, *a.shape[1:])
    plain, shared = dict(negatives=fold(ids), negatives_mask=fold(mask)), dict(negatives=fold(together), negatives_places=fold(places))
    assert model.reads("negatives_places")
    params = toys.init(model, plain)
    found, expected = jax.jit(lambda p: [model.apply({"params": p}, batch)["z_negatives"] for batch in (shared, plain)])(params)
    assert found.shape == (4, 2, 8)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ConfigError, match="a hook looks at texts in rows of their own; set config.data.transforms.negatives.name to 'tok"):
        jax.eval_shape(lambda p: model.apply({"params": p}, shared, hooks=dict(negatives=lambda i, x, mask: (x, mask))), params)


@pytest.mark.parametrize(
    "options, rows, message",
    [
        (dict(attend_padding=True), 8, "packed texts have no padding to read"),
        (dict(length=5), 8, "16 tokens of a group in rows of 5 do not split; set options.length"),
        ({}, 6, "6 texts in groups of 4 do not split"),
    ],
)
def test_sizes_that_do_not_fit_are_named(options, rows, message):
    places, tower = jnp.zeros((rows, GROUP, 2), jnp.int32), toys.tower("text", **options)
    with pytest.raises((ConfigError, ValueError), match=message):
        jax.eval_shape(lambda: tower.init(jax.random.key(0), jnp.zeros((rows, 4), jnp.int32), places=places))
