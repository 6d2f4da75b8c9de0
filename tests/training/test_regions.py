"""A loss over what each position of an image says: on any mesh, and in microbatches."""

import jax
import numpy as np
import pytest

from core.config import ConfigError
from tests import tiny
from tests.training.test_heads import STEADY, updated


def config(**changes):
    made = tiny.config(train__steps=2, **STEADY | changes)
    inputs = dict(zq="dense_image", zp="z_text", id="id")
    made.losses.parts = dict(name="clim", inputs=inputs, weight=1.0, options={})
    return made


def test_an_array_that_no_tower_makes_is_refused(tmp_path):
    made = config()
    made.losses.parts.inputs.zq = "densest_image"
    with pytest.raises(ConfigError, match="config.losses.parts.inputs.zq asks for 'densest_image', but a step has only"):
        tiny.prepare(made, tmp_path)


@pytest.mark.many_processes  # compiles two steps
def test_a_loss_over_positions_is_that_of_the_whole_batch_on_every_mesh_and_in_microbatches(tmp_path):
    _, before, alone = updated(config(), tmp_path / "alone")
    mesh = dict(data=2, fsdp=2, tensor=2)
    _, _, found = updated(config(train__microbatches=2), tmp_path / "parts", devices=jax.devices(), **mesh)
    assert any((before[path] != alone[path]).any() for path in before if path.startswith("towers_image"))
    for path, expected in alone.items():
        np.testing.assert_allclose(found[path], expected, atol=5e-6, err_msg=path)
