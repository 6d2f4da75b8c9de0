"""The numbers that tell a learning run from a collapsed one."""

import jax.numpy as jnp
import numpy as np
import pytest

from training import health


def test_effective_rank_is_the_entropy_of_singular_values():
    z = np.random.default_rng(0).normal(size=(40, 8))
    s = np.linalg.svd(z, compute_uv=False)
    p = s / s.sum()
    assert float(health.effective_rank(jnp.asarray(z, jnp.float32))) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-5)


@pytest.mark.parametrize("directions", [1, 3, 8])
def test_effective_rank_counts_directions(directions):
    z = np.eye(8)[np.arange(48) % directions]
    assert float(health.effective_rank(jnp.asarray(z, jnp.float32))) == pytest.approx(directions, rel=1e-4)


def test_logit_means_and_recall_leave_positives_out_of_the_negatives():
    z = jnp.asarray(np.eye(4)[[0, 1, 1, 2]], jnp.float32)  # rows 1 and 2 are one character
    ids = jnp.array([5, 6, 6, 7])
    found = health.measure({"zq": z, "zp": z, "logit_scale": jnp.float32(10.0)}, ("zq", "zp"), [ids], jnp.asarray(True))
    assert float(found["train/positive_logit"]) == 10.0
    assert float(found["train/negative_logit"]) == 0.0
    assert float(found["train/recall@1_in_batch"]) == 1.0
    # Without ids the twin counts as a negative: it ties with the own pair, and a tie is no hit.
    blind = health.measure({"zq": z, "zp": z, "logit_scale": jnp.float32(10.0)}, ("zq", "zp"), [], jnp.asarray(True))
    assert float(blind["train/negative_logit"]) == pytest.approx(2 * 10 / 12)
    assert float(blind["train/recall@1_in_batch"]) == 0.5


def test_nothing_is_measured_unless_wanted():
    z = jnp.eye(4)
    found = health.measure({"zq": z, "zp": z, "logit_scale": jnp.float32(10.0)}, ("zq", "zp"), [], jnp.asarray(False))
    assert float(found["train/logit_scale"]) == 10.0 and float(found["train/positive_logit"]) == 0.0
