"""Transforms undo each other; tables refuse what they do not cover."""

import numpy as np
import pytest

from core.config import ConfigError
from interop import mapping
from interop.mapping import rule

RNG = np.random.default_rng(0)
# Each transform, the shapes of our arrays and those of theirs.
CASES = {
    "SAME": ([(3, 4)], [(3, 4)]),
    "TRANSPOSE": ([(3, 4)], [(4, 3)]),
    "CONV": ([(2, 3, 4, 5)], [(5, 4, 2, 3)]),
    "PATCHES": ([(2, 2, 3, 5)], [(5, 12)]),
    "BATCHED": ([(1, 3, 4)], [(3, 4)]),
    "SCALAR": ([()], [(1,)]),
    "QKV": ([(6, 3, 2, 4)], [(8, 6)] * 3),
    "QKV_BIAS": ([(3, 2, 4)], [(8,)] * 3),
    "PACKED_QKV": ([(6, 3, 2, 4)], [(24, 6)]),
    "FLAT": ([(3, 2, 4)], [(24,)]),
    "PACKED": ([(6, 4), (6, 2)], [(6, 6)]),
    "PACKED_BIAS": ([(4,), (2,)], [(6,)]),
}


def test_every_transform_has_a_case():
    assert {name for name, value in vars(mapping).items() if isinstance(value, mapping.Transform)} == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_transforms_undo_each_other(name):
    transform, (ours, theirs) = getattr(mapping, name), CASES[name]
    arrays = [RNG.standard_normal(shape).astype(np.float32) for shape in ours]
    written = transform.write(arrays)
    assert [a.shape for a in written] == theirs
    for found, array in zip(transform.read(written, ours), arrays, strict=True):
        np.testing.assert_array_equal(found, array)


def test_a_linear_layer_packed_or_not_computes_the_same():
    """By definition: our fused product equals three products with torch's [out in] matrices."""
    x, weights = RNG.standard_normal((5, 6)), [RNG.standard_normal((8, 6)) for _ in range(3)]
    shape = (6, 3, 2, 4)
    (apart,) = mapping.QKV.read(weights, [shape])
    (packed,) = mapping.PACKED_QKV.read([np.concatenate(weights)], [shape])
    for kernel in (apart, packed):
        made = np.einsum("td,dchk->cthk", x, kernel)
        for c in range(3):
            np.testing.assert_allclose(made[c].reshape(5, 8), x @ weights[c].T, rtol=1e-12)


@pytest.mark.parametrize("transform", ["CONV", "PATCHES"])
def test_patches_compute_what_a_convolution_does(transform):
    image = RNG.standard_normal((4, 4, 3))
    kernel = RNG.standard_normal((5, 3, 2, 2))  # OIHW
    theirs = kernel if transform == "CONV" else kernel.transpose(0, 2, 3, 1).reshape(5, -1)
    (ours,) = getattr(mapping, transform).read([theirs], [(2, 2, 3, 5)])
    for y in (0, 2):
        for x in (0, 2):
            patch = image[y : y + 2, x : x + 2]
            by_hand = [sum(patch[i, j, c] * kernel[o, c, i, j] for i in range(2) for j in range(2) for c in range(3)) for o in range(5)]
            np.testing.assert_allclose(patch.reshape(-1) @ ours.reshape(-1, 5), by_hand, rtol=1e-12)


def test_writing_refuses_leftovers_on_either_side():
    rules = [rule("a", "x"), rule("b", "y")]
    with pytest.raises(ConfigError, match="toy lacks parameters that the format needs: b"):
        mapping.write(rules, {"a": np.ones(2)}, "toy")
    with pytest.raises(ConfigError, match="no place for parameters of toy: c"):
        mapping.write(rules, {name: np.ones(2) for name in "abc"}, "toy")


def test_a_table_that_names_a_tensor_twice_is_refused():
    with pytest.raises(ConfigError, match="no counterpart in the format: x"):
        mapping.read([rule("a", "x"), rule("b", "x")], {"x": np.ones(2)}, {"a": (2,), "b": (2,)}, "toy")


def test_a_scalar_stays_one_and_nothing_shares_memory():
    tensor = np.ones(2, np.float32)
    found, _ = mapping.read([rule("a", "x", mapping.SCALAR), rule("b", "y")], {"x": np.ones(1), "y": tensor}, {"a": (), "b": (2,)}, "toy")
    assert found["a"].shape == () and not np.shares_memory(found["b"], tensor)
