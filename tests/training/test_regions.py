"""A loss over what each position of an image says: on any mesh, and in microbatches."""

import jax
import numpy as np
import pytest

from core.config import ConfigError
from tests import tiny
from tests.training.test_heads import STEADY, same_movement, updated


def config(**changes):
    made = tiny.config(train__steps=2, **STEADY | changes)
    inputs = dict(zq="dense_image", zp="z_text", id="id")
    made.losses.parts = dict(name="clim", inputs=inputs, weight=1.0, options={})
    return made


def mosaics(**changes):
    """What `configs/glyphs_methods.py` does with tiles, on mosaics of one tile and of four."""
    made = tiny.config(train__steps=2, evals={}, **STEADY | changes)
    made.checkpoint.best = None
    options = dict(split="unseen", size=12, heldout=60, only=("STIXGeneralBol",), grids=(1, 2))
    made.data.sources = dict(main=dict(name="glyph_mosaics", weight=1.0, options=options))
    made.data.transforms.update(canvas=dict(name="stack", options={}), tiles=made.data.transforms.text)
    made.model.towers.image.options.image_size = 12
    made.model.views.update(canvas="image", tiles="text")
    tiles = dict(zq="dense_canvas", zp="z_tiles", boxes="boxes", id="tiles_id", alias="tiles_pixel_id")
    made.losses.tiles = dict(name="clim", inputs=tiles, weight=1.0, options={})
    return made


def test_an_array_that_no_tower_makes_is_refused(tmp_path):
    made = config()
    made.losses.parts.inputs.zq = "densest_image"
    with pytest.raises(ConfigError, match="config.losses.parts.inputs.zq asks for 'densest_image', but a step has only"):
        tiny.prepare(made, tmp_path)


@pytest.mark.many_processes  # compiles two steps
def test_a_loss_over_positions_is_that_of_the_whole_batch_on_every_mesh_and_in_microbatches(tmp_path):
    alike(config, tmp_path)


@pytest.mark.many_processes  # compiles two steps
def test_so_is_one_over_tiles_of_mosaics(tmp_path):
    run = alike(mosaics, tmp_path)
    with run.data.iterate(0) as batches:
        boxes = next(batches)["boxes"]
    assert boxes.shape == (16, 4, 4)
    assert {round(area, 3) for area in np.prod(boxes[..., 2:] - boxes[..., :2], axis=-1).ravel()} == {0, 0.25, 1}  # 0: padding


def alike(config, tmp_path):
    """Two updates by `config(**changes)` at once, and in microbatches on eight devices; the second run."""
    _, before, alone = updated(config(), tmp_path / "alone")
    run, _, found = updated(config(train__microbatches=2), tmp_path / "parts", devices=jax.devices(), data=2, fsdp=2, tensor=2)
    same_movement(before, alone, found)
    return run
