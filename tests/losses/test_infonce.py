"""InfoNCE against its definition, and the exact values that follow from it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from losses.infonce import NEGATIVES, POSITIVES, infonce
from tests.losses import drawn
from tests.oracles import pair_losses

SIZES = dict(
    seed=st.integers(0, 10**6), queries=st.integers(1, 9), extra=st.integers(0, 4), width=st.integers(1, 5), hard=st.integers(0, 3),
    classes=st.integers(1, 8), padded=st.integers(0, 2), left_out=st.sets(st.sampled_from(drawn.OPTIONAL)),
)  # fmt: skip


def drawn_batch(loss, seed, queries, extra, width, hard, classes, padded, left_out, teacher=False):
    padded = min(padded, queries - 1)
    batch = drawn.batch(seed, queries, queries + extra, width, hard, classes, padded, np.float64)
    return drawn.inputs(loss, batch, without=left_out, teacher=teacher)


def value(**arguments):
    options = {k: v for k, v in arguments.items() if isinstance(v, (bool, str))}
    return compiled(frozenset(options.items()))(**{k: v for k, v in arguments.items() if k not in options})[0]


@functools.cache
def compiled(options):
    return jax.jit(functools.partial(infonce, **dict(options)))


@settings(deadline=None, max_examples=30, derandomize=True)
@given(**SIZES, symmetric=st.booleans(), positives=st.sampled_from(POSITIVES), negatives=st.sampled_from(NEGATIVES))
def test_value_is_the_definition(symmetric, positives, negatives, **sizes):
    arrays = drawn_batch(infonce, **sizes, teacher=positives == "teacher")
    options = dict(symmetric=symmetric, positives=positives, negatives=negatives)
    with jax.enable_x64(True):
        np.testing.assert_allclose(value(**arrays, **options), pair_losses.infonce(**arrays, **options), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("positives", ["mean", "sum", "exclude"])
def test_unique_labels_make_one_loss(positives):
    arrays = drawn.inputs(infonce, drawn.batch(padded=0), without=("id", "alias", "weight"))
    np.testing.assert_array_equal(value(**arrays, id=np.arange(8), positives=positives), value(**arrays))


def test_mean_positives_are_a_uniform_target():
    """The gradient by logits is softmax minus the uniform distribution over positives."""
    batch = drawn.batch(padded=0, classes=2, width=8)
    zp, id = np.eye(8, dtype=np.float32), batch["id"]  # zp = I makes the logits scale * zq

    def total(zq):
        return infonce(zq, jnp.asarray(zp), jnp.float32(1), jnp.asarray(id), symmetric=False)[0].sum()

    same = (id[:, None] == id[None, :]) | np.eye(8, dtype=bool)
    expected = jax.nn.softmax(batch["zq"], axis=1) - same / same.sum(1, keepdims=True)
    np.testing.assert_allclose(jax.jit(jax.grad(total))(jnp.asarray(batch["zq"])), expected, atol=1e-6)


def test_gradient_by_logits_is_the_closed_form():
    """dL/dZ = (softmax of rows + softmax of columns - 2 I) / 2B, seen through zp = I."""
    zq, eye = drawn.batch(width=8)["zq"], jnp.eye(8)
    scale = jnp.float32(7)
    gradient = jax.jit(jax.grad(lambda zq: infonce(zq, eye, scale)[0].mean()))(jnp.asarray(zq))
    logits = 7 * zq
    expected = 7 * (jax.nn.softmax(logits, axis=1) + jax.nn.softmax(logits, axis=0) - 2 * np.eye(8)) / 16
    np.testing.assert_allclose(gradient, expected, atol=2e-6)


def test_gradient_of_the_scale_is_the_closed_form():
    """dL/ds = sum of dL/dZ times the cosine."""
    arrays = drawn.inputs(infonce, drawn.batch(padded=0), without=drawn.OPTIONAL)
    gradient = jax.jit(jax.grad(lambda s: value(**(arrays | {"logit_scale": s})).mean()))(jnp.asarray(arrays["logit_scale"]))
    cosines = arrays["zq"] @ arrays["zp"].T
    logits = arrays["logit_scale"] * cosines
    expected = (cosines * (jax.nn.softmax(logits, axis=1) + jax.nn.softmax(logits, axis=0) - 2 * np.eye(8))).sum() / 16
    np.testing.assert_allclose(gradient, expected, rtol=1e-4)


def test_equal_embeddings_cost_log_batch():
    z = np.broadcast_to(drawn.batch()["zq"][:1], (8, 6))
    np.testing.assert_allclose(value(zq=z, zp=z, logit_scale=np.float32(14)), np.log(8), rtol=1e-6)


def test_orthonormal_pairs():
    eye = np.eye(8, dtype=np.float32)
    np.testing.assert_allclose(value(zq=eye, zp=eye, logit_scale=np.float32(3)), np.log1p(7 * np.exp(-3)), rtol=1e-6)


def test_batch_of_one():
    assert value(zq=np.ones((1, 1), np.float32), zp=np.ones((1, 1), np.float32), logit_scale=np.float32(50)) == 0


def test_common_rotation_changes_nothing():
    arrays = drawn.inputs(infonce, drawn.batch(padded=0))
    rotation, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(6, 6)))
    turned = arrays | {key: (arrays[key] @ rotation).astype(np.float32) for key in ("zq", "zp", "zn")}
    np.testing.assert_allclose(value(**turned), value(**arrays), rtol=1e-5, atol=1e-6)


def test_swapping_the_sides_changes_nothing():
    arrays = drawn.inputs(infonce, drawn.batch(padded=0), without=("zn", "zp_weight"))
    np.testing.assert_allclose(value(**(arrays | {"zq": arrays["zp"], "zp": arrays["zq"]})), value(**arrays), rtol=1e-6)


def test_gradient_of_unnormalised_embeddings_is_orthogonal_to_them():
    raw = np.random.default_rng(0).normal(size=(8, 6)).astype(np.float32)
    zp = jnp.asarray(drawn.batch()["zp"])

    def objective(raw):
        return infonce(raw / jnp.linalg.norm(raw, axis=1, keepdims=True), zp, jnp.float32(10))[0].sum()

    np.testing.assert_allclose((np.asarray(jax.jit(jax.grad(objective))(raw)) * raw).sum(1), 0, atol=2e-5)


def test_two_identical_captions_cost_log_two():
    """The queries of two identical passages cannot tell them apart, however good they are."""
    zp = np.eye(4)[[0, 0, 1, 2]]
    with jax.enable_x64(True):
        loss = np.asarray(value(zq=zp, zp=zp, logit_scale=np.float64(100), symmetric=False))
    assert (loss[:2] > np.log(2) - 1e-12).all() and (loss[2:] < 1e-12).all()


@pytest.mark.parametrize("positives", ["mean", "sum", "exclude"])
def test_more_negatives_never_lower_the_loss(positives):
    """Hard negatives, and passages that belong to no query."""
    arrays = drawn.inputs(infonce, drawn.batch(passages=12, padded=0, classes=3), without=("zp_weight",))
    fewer = {k: v for k, v in arrays.items() if k != "zn"}
    fewest = fewer | {"zp": arrays["zp"][:8]}
    losses = [np.asarray(value(**a, positives=positives)) for a in (fewest, fewer, arrays)]
    assert (losses[0] < losses[1]).all() and (losses[1] < losses[2]).all()


def test_a_weight_is_a_number_of_copies():
    """A passage of weight 3 counts as three passages, two of which belong to no query."""
    arrays = drawn.inputs(infonce, drawn.batch(padded=0), without=("id", "alias", "zp_weight"))
    weight = np.ones(8, np.float32)
    weight[5] = 3
    copies = arrays | {"zp": arrays["zp"][[*range(8), 5, 5]]}
    weighted, copied = (np.asarray(value(**a, symmetric=False)) for a in (arrays | {"zp_weight": weight}, copies))
    np.testing.assert_allclose(np.delete(weighted, 5), np.delete(copied, 5), rtol=1e-5)
    np.testing.assert_allclose(weighted[5], copied[5] - np.log(3), rtol=1e-5)  # the copies are its positives here


def test_a_sure_teacher_is_a_label():
    """A teacher whose cosines are 1 for the own pair and 0 elsewhere, at a scale of 50, leaves the plain loss."""
    arrays = drawn.inputs(infonce, drawn.batch(padded=0), without=drawn.OPTIONAL)
    eye = np.eye(8, dtype=np.float32)
    np.testing.assert_allclose(value(**arrays, positives="teacher", zq_teacher=eye, zp_teacher=eye), value(**arrays), rtol=1e-5)


def test_a_perfect_student_has_no_gradient():
    """Where the student's softmax is the teacher's, both directions' gradients are 0."""
    arrays = drawn.inputs(infonce, drawn.batch(padded=0), without=drawn.OPTIONAL)
    arrays["logit_scale"] = np.float32(50)
    taught = dict(zq_teacher=arrays["zq"], zp_teacher=arrays["zp"])
    gradient = jax.jit(jax.grad(lambda zq: value(**(arrays | taught | {"zq": zq}), positives="teacher").sum()))(jnp.asarray(arrays["zq"]))
    np.testing.assert_allclose(gradient, 0, atol=1e-4)


def test_a_teacher_is_asked_for_or_refused():
    arrays = drawn.inputs(infonce, drawn.batch(), teacher=True)
    with pytest.raises(ValueError, match="options.positives to 'teacher'"):
        value(**arrays)
    del arrays["zp_teacher"]
    with pytest.raises(ValueError, match="inputs.zq_teacher"):
        value(**arrays, positives="teacher")


def test_a_shared_hard_negative_counts_for_every_query():
    arrays = drawn.inputs(infonce, drawn.batch(padded=0, hard=1), without=("id", "alias", "weight"))
    moved = arrays | {"zn": arrays["zn"][::-1]}
    np.testing.assert_allclose(value(**moved, negatives="all"), value(**arrays, negatives="all"), rtol=1e-5)
    assert not np.allclose(value(**moved, negatives="own"), value(**arrays, negatives="own"), rtol=1e-3)


def test_bfloat16_operands_keep_float32_sums():
    """The value that the rounded embeddings have in float32."""
    arrays = drawn.inputs(infonce, drawn.batch(), without=drawn.OPTIONAL)
    rounded = arrays | {key: np.asarray(jnp.asarray(arrays[key], jnp.bfloat16), np.float32) for key in ("zq", "zp")}
    found = value(**arrays, matmul_dtype="bfloat16")
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, value(**rounded), rtol=1e-6)
    assert not np.allclose(found, value(**arrays), rtol=1e-4)


def test_an_infinite_embedding_is_never_hidden():
    for sign in (1, -1):
        arrays = drawn.inputs(infonce, drawn.batch(padded=0))
        arrays["zp"][2, 0] = sign * np.inf
        assert not np.isfinite(value(**arrays)[2])


def test_an_unknown_treatment_of_positives_names_the_key():
    with pytest.raises(ValueError, match="options.positives"):
        value(**drawn.inputs(infonce, drawn.batch()), positives="guess")
