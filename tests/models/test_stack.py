"""A stack of blocks: scanned or not, rematerialised or not, hooked and captured."""

import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.transformer import Block, Stack
from tests.models import toys

WAYS = [dict(scan=scan, remat=remat) for scan in (False, True) for remat in (False, True)]
LAYERS = 2


def stack(**options):
    return Stack(LAYERS, partial(Block, heads=2, dropout=0.3, attention_dropout=0.3), **options)


@functools.lru_cache
def given():
    """Parameters, states, mask and keys."""
    x = jnp.asarray(np.random.default_rng(0).standard_normal((4, 5, 16)), jnp.float32)
    mask = jnp.asarray(np.arange(5)[None] < np.array([5, 3, 1, 4])[:, None])
    return toys.init(stack(), x), x, mask, toys.keys()


def value_and_gradient(module, hook=None, keep_layers=False):
    params, x, mask, keys = given()

    def objective(params, x):
        last, after, layers = module.apply({"params": params}, x, mask, keys, hook=hook, keep_layers=keep_layers)
        return jnp.sum(jnp.sin(last)) + (jnp.sum(jnp.cos(layers)) if keep_layers else 0.0), (last, after, layers)

    return jax.jit(jax.value_and_grad(objective, argnums=(0, 1), has_aux=True))(params, x)


def growing(index, x, mask):
    """Changes the states by a traced or plain index, and hides one more token after each layer."""
    return x * (1 + 0.1 * index), mask & (jnp.arange(5)[None] != index)


@pytest.mark.parametrize("hook", [None, growing])
@pytest.mark.parametrize("options", WAYS[1:], ids=str)
def test_every_way_to_run_gives_the_same_values_and_gradients(options, hook):
    expected = value_and_gradient(stack(), hook, keep_layers=True)
    found = value_and_gradient(stack(**options), hook, keep_layers=True)
    # the same sums, compiled in another program: float32 rounding only
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4), found, expected)


def test_a_scan_compiles_one_block():
    params, x, *_ = given()
    count = lambda module: str(jax.make_jaxpr(lambda p: module.apply({"params": p}, x)[0])(params)).count("dot_general")
    assert count(stack()) == LAYERS * count(stack(scan=True))


def test_remat_keeps_less_for_the_backward_pass():
    params, x, *_ = given()
    kept = lambda module: sum(
        leaf.size for leaf in jax.tree.leaves(jax.eval_shape(lambda p: jax.vjp(lambda q: module.apply({"params": q}, x)[0], p)[1], params))
    )
    assert kept(stack(remat=True)) < 0.6 * kept(stack())


@pytest.mark.parametrize("options", WAYS, ids=str)
def test_parameters_have_one_form(options):
    params, x, *_ = given()
    shapes = jax.eval_shape(lambda: stack(**options).init(jax.random.key(0), x))["params"]
    assert set(shapes) == {f"block_{i}" for i in range(LAYERS)}
    assert jax.tree.structure(shapes, is_leaf=lambda leaf: hasattr(leaf, "names")) == jax.tree.structure(params)


@pytest.mark.parametrize("scan", [False, True])
def test_a_hook_runs_after_the_embeddings_and_each_layer(scan):
    params, x, mask, _ = given()
    seen = []

    def hook(index, x, mask):
        jax.debug.callback(lambda i: seen.append(int(i)), index, ordered=True)
        return x, mask

    stack(scan=scan).apply({"params": params}, x, mask, hook=hook)
    jax.effects_barrier()
    assert seen == list(range(LAYERS + 1))


@pytest.mark.parametrize("scan", [False, True])
def test_what_a_hook_changes_is_what_the_next_layer_reads(scan):
    params, x, mask, _ = given()
    apply = lambda options, x, mask: stack(scan=scan).apply({"params": params}, x, mask, **options)
    fewer = mask.at[:, 2].set(False)
    found, after, _ = apply(dict(hook=lambda i, x, m: (jnp.where(i == 0, 2 * x, x), jnp.where(i == 0, fewer, m))), x, mask)
    expected, _, _ = apply({}, 2 * x, fewer)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(after, fewer)


@pytest.mark.parametrize("scan", [False, True])
def test_layers_are_kept_as_the_hook_left_them(scan):
    params, x, mask, _ = given()
    last, _, layers = stack(scan=scan).apply({"params": params}, x, mask, hook=lambda i, x, m: (x + 1, m), keep_layers=True)
    assert layers.shape == (LAYERS, *x.shape)
    np.testing.assert_array_equal(layers[-1], last)
    assert stack(scan=scan).apply({"params": params}, x, mask)[2] is None


@pytest.mark.parametrize("name", ["text", "vit"])
@pytest.mark.parametrize("scan", [False, True])
def test_captures_of_a_tower(name, scan):
    tower, (x, mask) = toys.tower(name, scan=scan), toys.inputs(name)
    params = toys.init(tower, x, mask)
    out = jax.jit(lambda p: tower.apply({"params": p}, x, mask, capture=("tokens", "layers", "layers_pooled")))(params)
    tokens = 6 if name == "text" else 4
    shapes = {"embedding": (4, 8), "tokens": (4, tokens, 16), "layers": (2, 4, tokens, 16), "layers_pooled": (2, 4, 8)}
    assert {key: array.shape for key, array in out.items()} == shapes
    np.testing.assert_allclose(out["layers_pooled"][-1], out["embedding"], rtol=1e-6, atol=1e-6)
    assert np.abs(out["layers_pooled"][0] - out["embedding"]).max() > 1e-2
    np.testing.assert_allclose(
        out["tokens"].mean(-1), ((out["tokens"] - params["norm"]["bias"][None, None]).mean(-1) + params["norm"]["bias"].mean()), atol=1e-5
    )
    assert set(tower.apply({"params": params}, x, mask)) == {"embedding"}
