"""What a row of RetroMAE's decoder may not see stays hidden however high it scores."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.models.test_language_heads import ARRAYS, HEAD, OWN, B, params  # noqa: F401 (a fixture)


def test_its_own_token_never_reaches_a_row_that_scores_it_by_ten_thousands(params):  # noqa: F811
    """A mask that subtracts 1000 would show the token wherever its score is beyond that; keys are made so long that it is."""
    decoder = params["decoder"]
    long = {name: decoder[name] | dict(kernel=200 * decoder[name]["kernel"]) for name in ("query", "key")}
    apply = jax.jit(lambda own: HEAD.apply({"params": params | dict(decoder=decoder | long)}, **ARRAYS | dict(own=own))["decoder"])
    whole = apply(jnp.asarray(OWN))
    for place in (1, 2, 3):
        own = OWN.copy()
        own[:, place] = [7, 3]
        changed = apply(jnp.asarray(own))
        np.testing.assert_array_equal(changed[:, place], whole[:, place])
        assert (changed != whole).any()
