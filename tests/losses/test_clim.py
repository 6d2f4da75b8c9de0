"""CLIM against its definition: regions by area, captions without a gradient, and the loss around which it stands."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from input_pipeline import canvas
from losses.clim import clim, regions
from losses.entries import apply_entry, entries
from losses.infonce import infonce
from tests.losses import drawn
from tests.oracles import pair_losses, structure

RNG = np.random.default_rng(0)
DENSE = RNG.normal(size=(3, 16, 5)).astype(np.float32)  # a square of 4 x 4
TILES = drawn.unit(RNG.normal(size=(3, 4, 5))).astype(np.float32)
BOXES = np.broadcast_to(canvas.boxes(2, 2), (3, 4, 4))
FOUND = jax.jit(regions)


def entry(**inputs):
    options = dict(loss=dict(name="infonce", inputs=dict(logit_scale="scale"), options={}))
    made = dict(matmul_dtype="float32", main=dict(name="clim", inputs=inputs, weight=1.0, options=options))
    return entries(ConfigDict(made))[0]


def test_a_region_is_the_mean_by_area_of_unit_features():
    boxes = np.sort(RNG.uniform(size=(3, 2, 2, 2)), axis=2).reshape(3, 2, 4).astype(np.float32)
    np.testing.assert_allclose(FOUND(DENSE, boxes), structure.regions(DENSE, boxes), atol=2e-6)
    first = np.concatenate([RNG.normal(size=(3, 1, 5)), DENSE], axis=1).astype(np.float32)  # a class token counts for nothing
    np.testing.assert_allclose(FOUND(first, boxes), FOUND(DENSE, boxes), atol=1e-6)


def test_tiles_whose_edges_meet_positions_are_means_of_blocks_in_reading_order():
    unit = drawn.unit(DENSE).reshape(3, 4, 4, 5)
    blocks = [drawn.unit(unit[:, r : r + 2, c : c + 2].mean((1, 2))) for r in (0, 2) for c in (0, 2)]
    found = np.asarray(FOUND(DENSE, BOXES))
    np.testing.assert_allclose(found, np.stack(blocks, axis=1), atol=1e-6)
    order = [2, 0, 3, 1]  # images put elsewhere in a mosaic take their regions with them
    moved = np.stack([np.stack(canvas.cut(image, 2, 2))[order] for image in DENSE.reshape(3, 4, 4, 5)])
    moved = np.stack([canvas.assemble(list(tiles), 2) for tiles in moved]).reshape(3, 16, 5)
    np.testing.assert_allclose(FOUND(moved, BOXES), found[:, order], atol=1e-6)


def test_the_whole_image_is_the_mean_of_its_unit_features():
    whole = np.broadcast_to(np.array([0, 0, 1, 1], np.float32), (3, 1, 4))
    np.testing.assert_allclose(FOUND(DENSE, whole)[:, 0], drawn.unit(drawn.unit(DENSE).mean(1)), atol=1e-6)
    scale, names = jnp.float32(5), TILES[:, 0]
    inner = lambda **arrays: infonce(logit_scale=scale, **arrays)
    bare = jax.jit(lambda zq, zp: clim(zq, zp, loss=inner)[0])(DENSE, names)
    expected = pair_losses.infonce(drawn.unit(drawn.unit(DENSE).mean(1)), names, 5.0)
    np.testing.assert_allclose(bare, expected, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def found():
    """Value, weight and gradients of regions with labels, padding and a box without area, through the config."""
    boxes = BOXES.copy()
    boxes[1, 3] = 0
    arrays = dict(boxes=boxes, tiles_id=RNG.integers(0, 6, (3, 4)).astype(np.int32), weight=np.array([1.0, 2, 0], np.float32))
    arrays |= dict(scale=np.float32(4), d=DENSE.copy(), t=TILES.copy())
    arrays["d"][2] = np.nan
    arrays = {name: jnp.asarray(array) for name, array in arrays.items()}
    bound = entry(zq="d", zp="t", id="tiles_id")

    def objective(leaves):
        value, weight, _ = apply_entry(bound, arrays | leaves)
        return (value * weight).sum() / weight.sum(), (value, weight)

    gradients, (value, weight) = jax.jit(jax.grad(objective, has_aux=True))({name: arrays[name] for name in ("d", "t")})
    return arrays, gradients, value, weight


def test_value_is_that_of_the_loss_around_which_it_stands(found):
    arrays, _, value, weight = found
    expected_weight = np.array([1, 1, 1, 1, 2, 2, 2, 0, 0, 0, 0, 0], np.float32)
    np.testing.assert_array_equal(weight, expected_weight)
    z = structure.regions(np.nan_to_num(arrays["d"]), arrays["boxes"]).reshape(12, 5)
    expected = pair_losses.infonce(z, TILES.reshape(12, 5), 4.0, id=np.asarray(arrays["tiles_id"]).reshape(-1), weight=expected_weight)
    np.testing.assert_allclose(value, expected, rtol=2e-5, atol=1e-6)


def test_captions_have_no_gradient_and_padding_neither(found):
    _, gradients, _, _ = found
    np.testing.assert_array_equal(gradients["t"], 0)
    np.testing.assert_array_equal(gradients["d"][2], 0)
    block = np.asarray(gradients["d"][1]).reshape(4, 4, 5)
    np.testing.assert_array_equal(block[2:, 2:], 0)  # the tile without a box
    assert np.abs(block[:2, :2]).min() > 0


def test_what_does_not_fit_is_refused(found):
    with pytest.raises(ValueError, match="15 positions are no square"):
        regions(jnp.zeros((1, 15, 2)), jnp.zeros((1, 1, 4)))
    with pytest.raises(ValueError, match=r"captions \(3, 4\) do not fit boxes \(3, 2\)"):
        clim(jnp.asarray(DENSE), jnp.asarray(TILES), jnp.asarray(BOXES[:, :2]))
    with pytest.raises(ValueError, match=r"id has 3 labels for 12 regions; let config.losses.<label>.inputs.id name .* or set it to None"):
        apply_entry(entry(zq="d", zp="t"), found[0] | dict(id=jnp.arange(3)))


def test_labels_of_the_batch_never_reach_the_inner_loss_by_themselves():
    """Those of images would, by their name, where `id` of regions is left out."""
    inner = entry(zq="d", zp="t", id=None, alias=None).inner["loss"]
    assert inner.inputs["logit_scale"] == "scale" and not {"id", "alias", "weight"} & set(inner.inputs)
