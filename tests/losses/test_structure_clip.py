"""Structure-CLIP against its definition, and what follows exactly from it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses.structure_clip import structure_clip
from tests.losses import drawn
from tests.oracles import structure

BATCH = drawn.batch(queries=6, padded=0)
KNOWN = drawn.unit(np.random.default_rng(7).normal(size=(6, 6))).astype(np.float32)
PAIR = ("zq", "zp")


def take(*names, batch=BATCH):
    return {name: jnp.asarray(batch[name]) for name in names}


@functools.partial(jax.jit, static_argnames=("in_batch", "mean_steps", "knowledge_weight"))
def value(arrays, **options):
    return structure_clip(**arrays, **options)[0]


@functools.partial(jax.jit, static_argnames=("in_batch", "knowledge_weight"))
def gradients(leaves, arrays, **options):
    return jax.grad(lambda leaves: structure_clip(**leaves, **arrays, **options)[0].sum())(leaves)


@pytest.mark.parametrize("early", [False, True])
def test_value_is_the_definition(early):
    with jax.enable_x64(True):
        batch = drawn.batch(queries=7, passages=9, padded=2, classes=5, dtype=np.float64)
        batch["zn_weight"] = np.array([1.0, 0, 1, 1, 0, 1, 1])
        batch["knowledge"] = drawn.unit(np.random.default_rng(3).normal(size=batch["zp"].shape))
        names = (*PAIR, "zn", "zn_weight", "knowledge", "id", "alias", "weight")
        expected = structure.structure_clip(**{name: batch[name] for name in names}, early=early)
        arrays = take(*names, batch=batch) | dict(step=jnp.int32(4))
        np.testing.assert_allclose(value(arrays, mean_steps=5 if early else 4), expected, rtol=1e-12, atol=1e-12)
        alone = structure.structure_clip(**{name: batch[name] for name in (*PAIR, "zn")}, in_batch=False)
        np.testing.assert_allclose(value(take(*PAIR, "zn", batch=batch), in_batch=False), alone, rtol=1e-12, atol=1e-12)


def test_a_swap_that_changes_nothing_costs_the_margin_and_moves_no_caption():
    leaves = take(*PAIR) | dict(zn=jnp.asarray(BATCH["zp"])[:, None])
    np.testing.assert_allclose(value(leaves, in_batch=False), 5 * 0.1, rtol=1e-6)
    found = jax.jit(jax.grad(lambda zp: structure_clip(leaves["zq"], zp, zp[:, None], in_batch=False)[0].sum()))(leaves["zp"])
    np.testing.assert_array_equal(found, 0)


def test_without_its_weight_knowledge_has_no_gradient():
    leaves = take(*PAIR) | dict(knowledge=jnp.asarray(KNOWN))
    without = gradients(leaves, {}, knowledge_weight=0.0)
    np.testing.assert_array_equal(without["knowledge"], 0)
    np.testing.assert_array_equal(without["zq"], gradients(take(*PAIR), {})["zq"])
    assert np.abs(gradients(leaves, {})["knowledge"]).max() > 0


@pytest.mark.parametrize("side", PAIR)
def test_the_hardest_one_alone_is_touched_even_among_equals(side):
    """Of an image, every other caption but one is free to change; of a caption, every other image."""
    own = jnp.eye(4, 6)
    same = jnp.broadcast_to(own[1], (4, 6)).at[0].set(own[0])  # captions, or images, 1, 2, 3 are one
    found = jax.jit(jax.grad(lambda z: structure_clip(**dict(zq=own, zp=own) | {side: z}, margin=2.0)[0][0]))(same)
    touched = np.flatnonzero(np.abs(found).max(1))
    assert touched.tolist() == [0, 1]


def test_where_there_is_no_swapped_caption_nothing_of_it_counts():
    arrays = take(*PAIR, "zn")
    bare = value(take(*PAIR))
    np.testing.assert_array_equal(value(arrays | dict(zn_weight=jnp.zeros(6))), bare)
    some = value(arrays | dict(zn_weight=jnp.array([1.0, 0, 1, 0, 1, 0])))
    np.testing.assert_array_equal(some[1::2], bare[1::2])
    np.testing.assert_array_equal(some[::2], value(arrays)[::2])


def test_the_share_of_images_that_see_through_the_swap_is_counted():
    eye = jnp.eye(4)
    arrays = dict(zq=eye, zp=eye, zn=jnp.stack([eye[1], eye[1], eye[3], eye[0]])[:, None], weight=jnp.array([1.0, 1, 1, 0]))
    right, count = jax.jit(functools.partial(structure_clip, in_batch=False))(**arrays)[2]["swap_accuracy"]
    assert (right, count) == (2, 3)  # the second one's is its own caption, the last one is padding


def test_nothing_to_compare_with_is_refused():
    with pytest.raises(ValueError, match="map config.losses.<label>.inputs.zn"):
        structure_clip(**take(*PAIR), in_batch=False)
