import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from core.config import ConfigError
from input_pipeline import batching
from losses.infonce import infonce
from tests.input_pipeline.toys import Toy, toy_config


def sources(**constants):
    """Two toys, each with its constants around it."""
    make = lambda values: batching.make_source(ConfigDict(dict(name="toy", options={}, constants=values)), "key", dict(toy=lambda: Toy(12)))
    return {label: make(values) for label, values in constants.items()}


def read(made, **weights):
    with batching.batches(toy_config(weights), made, None, seed=0) as rows:
        return next(rows)


def test_each_row_has_the_number_of_its_source():
    batch = read(sources(some=dict(named=1, share=0.25), others=dict(named=0.0, share=2)), some=1.0, others=1.0)
    assert 0 < batch["source"].sum() < 8
    assert batch["named"].dtype == batch["share"].dtype == np.float32
    np.testing.assert_array_equal(batch["named"], 1 - batch["source"])
    np.testing.assert_array_equal(batch["share"], np.where(batch["source"] == 0, 0.25, 2))
    np.testing.assert_array_equal(batch["x"][:, 0], batch["record"])


def test_a_loss_leaves_the_rows_of_a_source_out():
    batch = read(sources(some=dict(named=1.0), others=dict(named=0.0)), some=1.0, others=1.0)
    rng = np.random.default_rng(0)
    zq, zp = (jnp.asarray(rng.normal(size=(8, 4)), jnp.float32) for _ in range(2))
    value, weight, _ = infonce(zq, zp, jnp.float32(3.0), weight=jnp.asarray(batch["named"]))
    here = batch["source"] == 0
    alone, _, _ = infonce(zq[here], zp[here], jnp.float32(3.0))
    np.testing.assert_allclose((value * weight).sum() / weight.sum(), alone.mean(), rtol=1e-6)


def test_what_the_source_draws_and_knows_stays():
    class Drawn(Toy):
        def read(self, i, rng):
            return self[i] | {"drawn": rng.integers(9)}

        def texts(self):
            return iter(["a text"])

    made = batching.make_source(ConfigDict(dict(name="toy", options={}, constants=dict(named=0.5))), "key", dict(toy=lambda: Drawn(3)))
    expected = {"x", "id", "score", "drawn", "named"}
    assert made.read(1, np.random.default_rng(0)).keys() == expected
    assert len(made) == 3 and made.counts == {"id": 3} and made.id(2) == 2 and list(made.texts()) == ["a text"]


@pytest.mark.parametrize(
    "constants, said",
    [
        (0.5, "constants is 0.5; set it to numbers by column"),
        (dict(named="yes"), "constants.named is 'yes'; set it to a finite number"),
        (dict(named=True), "constants.named is True"),
        (dict(named=float("nan")), "constants.named is nan"),
        (dict(score=1.0), "constants.score: records have a column of that name; give it one besides: x, id, score"),
    ],
)
def test_what_cannot_be_is_refused_by_its_key(constants, said):
    with pytest.raises(ConfigError, match=f"key: {said}"):
        sources(some=constants)


def test_sources_with_and_without_are_not_mixed():
    with pytest.raises(ConfigError, match="mixed sources need the same columns"):
        read(sources(some=dict(named=1.0), others={}), some=1.0, others=1.0)
