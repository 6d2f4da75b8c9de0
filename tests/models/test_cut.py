"""A model cut to its first layers gives what the whole one has after them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from core.config import ConfigError
from core.paths import by_path
from models import cut, dual
from tests.interop import toys

IDS = np.random.default_rng(0).integers(3, 20, (4, 6)).astype(np.int32)
MASK = np.arange(6)[None] < np.array([6, 4, 3, 6])[:, None]


def run(model, params, **options):
    """What the text tower makes of the ids."""
    tower = dual.build(ConfigDict(model)).towers["text"]
    return jax.jit(lambda params: tower.apply({"params": params}, jnp.asarray(IDS), jnp.asarray(MASK), **options))(params["towers_text"])


@pytest.mark.parametrize("name", ["clip", "bert", "modernbert"])  # a final norm and a projection; neither; layers that take turns
def test_a_cut_tower_gives_the_inner_state_of_the_whole_one(name):
    source = toys.imported(name)
    whole = run(source.model, source.params, capture=("layers_pooled",))
    model, params = cut.to_layers(source.model, source.params, 1)
    np.testing.assert_allclose(run(model, params)["embedding"], whole["layers_pooled"][0], rtol=1e-5, atol=1e-6)
    assert model["towers"]["text"]["options"]["layers"] == 1 and source.model["towers"]["text"]["options"]["layers"] == 2
    assert {path for path in by_path(source.params) if "/block_1/" in path} == set(by_path(source.params)) - set(by_path(params))


def test_one_tower_alone():
    source = toys.imported("clip")
    model, params = cut.to_layers(source.model, source.params, {"text": 1})
    assert [model["towers"][label]["options"]["layers"] for label in ("image", "text")] == [2, 1]
    gone = set(by_path(source.params)) - set(by_path(params))
    assert gone and all(path.startswith("towers_text/") for path in gone)


def test_a_narrow_projection_gives_the_first_values():
    source = toys.imported("clip")
    model, params = cut.to_dim(source.model, source.params, 2)
    np.testing.assert_allclose(run(model, params)["embedding"], run(source.model, source.params)["embedding"][:, :2], rtol=1e-5)
    assert dual.build(ConfigDict(model)).towers["image"].output_dim == 2


@pytest.mark.parametrize(
    "change, layers, said",
    [
        ({}, 3, "tower text has 2 layers, not 3"),
        ({}, 0, "tower text has 2 layers, not 0"),
        ({}, {"image": 1}, "layers is 'image', which is not among: text"),
        (dict(pooling="layer_mix"), 1, "pools by 'layer_mix', which reads all of its layers"),
    ],
)
def test_a_cut_that_cannot_be_is_refused(change, layers, said):
    model = toys.model("bert")
    model["towers"]["text"]["options"] |= change
    with pytest.raises(ConfigError, match=said):
        cut.to_layers(model, {}, layers)


def test_vectors_without_a_projection_cannot_be_narrow():
    with pytest.raises(ConfigError, match="tower text ends in a projection to nothing: it has none"):
        cut.to_dim(toys.model("bert"), {}, 2)
