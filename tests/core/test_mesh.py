"""Meshes, batches that divide them, and the sharding of parameters by rules."""

import logging
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from core import mesh as meshes
from core.config import ConfigError

RULES = (("embed", "fsdp"), ("vocab", "tensor"), ("heads", "tensor"), ("mlp", "tensor"))


@pytest.fixture(scope="module")
def cube():
    return meshes.make(2, 2, 2)


@pytest.mark.parametrize(
    "asked, found",
    [((-1, 1, 1), (8, 1, 1)), ((2, -1, 2), (2, 2, 2)), ((1, 2, -1), (1, 2, 4)), ((-1, 8, 1), (1, 8, 1)), ((2, 4, 1), (2, 4, 1))],
    ids=str,
)
def test_one_axis_takes_what_the_others_leave(asked, found):
    mesh = meshes.make(*asked)
    assert tuple(mesh.shape[axis] for axis in meshes.AXES) == found
    assert set(mesh.axis_types) == {AxisType.Auto}


def test_a_mesh_may_use_some_devices():
    assert meshes.make(-1, 2, 1, devices=jax.devices()[:4]).shape == {"data": 2, "fsdp": 2, "tensor": 1}


@pytest.mark.parametrize(
    "sizes", [(3, 1, 1), (-1, 3, 1), (-1, -1, 8), (-1, -1, 1), (0, 1, 1), (-1, 0, 1), (16, 1, 1), (-1, -2, 1), (-4, -2, 1)], ids=str
)
def test_sizes_that_do_not_fit_are_refused(sizes):
    data, fsdp, tensor = sizes
    with pytest.raises(ConfigError, match=f"data={data}, fsdp={fsdp}, tensor={tensor} does not fit 8 devices; set config.mesh.data to -1"):
        meshes.make(*sizes)


@pytest.mark.parametrize("batch, fits", [(1001, "1000 or 1004"), (3, "4"), (0, "4"), (6, "4 or 8")])
def test_a_batch_that_does_not_divide_gets_its_two_neighbours(cube, batch, fits):
    with pytest.raises(ConfigError, match=f"{batch} queries do not split over 4 data shards; set config.data.global_batch to {fits}\\."):
        meshes.check_batch(batch, cube)


def test_batches_that_divide_pass(cube):
    assert meshes.shards(cube) == 4  # data x fsdp
    for batch in (4, 8, 1000):
        meshes.check_batch(batch, cube)


def test_placed_rows_lie_over_data_and_fsdp(cube):
    batch = {"image": np.arange(8 * 2 * 2 * 1, dtype=np.uint8).reshape(8, 2, 2, 1), "id": np.arange(8, dtype=np.int32)}
    placed = meshes.place_batch(batch, cube)
    for name, array in placed.items():
        assert array.sharding.spec == P(("data", "fsdp")) and array.dtype == batch[name].dtype
        np.testing.assert_array_equal(array, batch[name])
        assert {s.data.shape[0] for s in array.addressable_shards} == {2}
    order = [[int(s.data[0]) for s in placed["id"].addressable_shards if s.device == d][0] for d in cube.devices.ravel()]
    assert order == [0, 0, 2, 2, 4, 4, 6, 6]  # tensor is the fastest axis and holds copies


def boxed(**shapes):
    """Abstract parameters, as a model's abstract init returns them."""
    box = lambda shape, names: nn.LogicallyPartitioned(jax.ShapeDtypeStruct(shape, jnp.float32), names)
    return {name: box(shape, names) if names else jax.ShapeDtypeStruct(shape, jnp.float32) for name, (shape, names) in shapes.items()}


@pytest.mark.parametrize(
    "shape, names, spec",
    [
        ((6, 4), ("embed", "mlp"), P("fsdp", "tensor")),
        ((10, 6), ("vocab", "embed"), P("tensor", "fsdp")),
        ((4, 3, 2, 5), ("embed", None, "heads", "head_dim"), P("fsdp", None, "tensor", None)),
        ((4,), ("head_dim",), P(None)),  # no rule
        ((), (), P()),
        ((4, 4), None, P()),  # no logical axes
        ((5, 4), ("embed", "mlp"), P(None, "tensor")),  # 5 does not divide
        ((4, 4), ("embed", "embed"), P("fsdp", None)),  # a mesh axis splits one dimension only
        ((4, 3, 4), ("mlp", None, "heads"), P("tensor", None, None)),
    ],
    ids=str,
)  # fmt: skip
def test_parameters_lie_by_rules(cube, shape, names, spec):
    found = meshes.param_shardings(boxed(a=(shape, names)), cube, RULES)["a"]
    padded = lambda s: tuple(s) + (None,) * (len(shape) - len(s))
    assert padded(found.spec) == padded(spec) and found.mesh == cube
    jax.device_put(jnp.zeros(shape), found)  # a sharding that the shape does not allow raises here


def test_the_first_rule_counts(cube):
    tree = boxed(a=((4, 4), ("embed", "mlp")))
    assert meshes.param_shardings(tree, cube, (("embed", "tensor"), ("embed", "fsdp")))["a"].spec == P("tensor", None)
    assert meshes.param_shardings(tree, cube, (("embed", None), ("embed", "fsdp")))["a"].spec == P(None, None)


def test_a_tower_may_have_rules_of_its_own(cube):
    kernel = boxed(kernel=((4, 4), ("embed", "mlp")))
    tree = {"towers_image": kernel, "towers_text": kernel, "adapters": {"image": kernel, "text": kernel}, **kernel}
    found = meshes.param_shardings(tree, cube, RULES, dict(image=(), text=(("embed", "tensor"),)))
    specs = {jax.tree_util.keystr(path): leaf.spec for path, leaf in jax.tree_util.tree_leaves_with_path(found)}
    assert specs["['towers_image']['kernel']"] == specs["['adapters']['image']['kernel']"] == P(None, None)
    assert specs["['towers_text']['kernel']"] == specs["['adapters']['text']['kernel']"] == P("tensor", None)
    assert specs["['kernel']"] == P("fsdp", "tensor")


def test_rules_of_a_tower_are_checked_like_the_others():
    meshes.check_tower_rules(dict(image=(), text=RULES), ("image", "text"))
    with pytest.raises(ConfigError, match="config.mesh.tower_rules.txt is not a key; valid ones: image, text. Did you mean 'text'"):
        meshes.check_tower_rules(dict(txt=()), ("image", "text"))
    with pytest.raises(ConfigError, match="config.mesh.tower_rules.text holds 'fsdp'; a rule is"):
        meshes.check_tower_rules(dict(text=("fsdp",)), ("image", "text"))


def test_what_stays_whole_is_logged(cube, caplog):
    with caplog.at_level(logging.INFO, "core.mesh"):
        meshes.param_shardings(boxed(odd=((5,), ("embed",))), cube, RULES)
    assert "['odd']: 5 of axis embed does not divide over fsdp=2; kept whole" in caplog.text


def test_axes_of_one_device_split_nothing():
    mesh = meshes.make(8, 1, 1)
    assert meshes.param_shardings(boxed(a=((4, 4), ("embed", "mlp"))), mesh, RULES)["a"].is_fully_replicated


@pytest.mark.parametrize("rule", [("embed", "data"), ("embed", "fspd"), ("embed",), ("embed", "fsdp", "tensor")], ids=str)
def test_rules_name_a_mesh_axis_that_may_split_parameters(rule):
    meshes.check_rules(RULES + (("head_dim", None),))
    with pytest.raises(ConfigError, match=re.escape(f"config.mesh.rules holds {rule!r}")):
        meshes.check_rules(RULES + (rule,))
