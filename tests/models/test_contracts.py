"""What every entry of TOWERS must satisfy."""

import functools
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import models
from configs import common
from core import mesh as meshes
from core.config import options_of
from core.paths import by_path
from models import TOWERS
from models.dual import DualEncoder
from tests.models import toys

ROWS = 4
NAMES = sorted(TOWERS)


@functools.lru_cache  # parameters and results are read only
def made(name, **changes):
    """A tower and random parameters."""
    tower = toys.tower(name, **changes)
    return tower, toys.init(tower, *toys.inputs(name))


@functools.lru_cache
def jitted(tower):
    return jax.jit(lambda params, x, mask, keys: tower.apply({"params": params}, x, mask, keys)["embedding"])


def embed(tower, params, x, mask=None, keys=None):
    return np.asarray(jitted(tower)(params, x, mask, keys))


def objective(tower, params, x, mask):
    """A scalar that every output moves."""
    out = tower.apply({"params": params}, x, mask)["embedding"]
    return jnp.sum(jnp.sin(out) * jnp.arange(1.0, 1 + out.size).reshape(out.shape)) / out.size


def attention_dropout(name, rate):
    """The option, of towers with attention."""
    return dict(attention_dropout=rate) if name in toys.ATTENTIVE else {}


def test_table_and_folder_agree():
    helpers = {
        "__init__", "adapters", "attention", "attention_pooling", "cut", "dual", "heads", "language_heads", "layers",
        "packing", "pooling", "position", "read_out", "transformer", "whitening",
    }  # fmt: skip
    files = {p.stem for p in pathlib.Path(models.__file__).parent.glob("*.py")}
    assert files - helpers == set(TOWERS) == set(toys.OPTIONS)


@pytest.mark.parametrize("name", NAMES)
def test_options_have_defaults(name):
    needed = {"embed_dim", "dtype", "dropout"}
    assert needed <= set(options_of(TOWERS[name]))
    TOWERS[name]()


@pytest.mark.parametrize("name", NAMES)
def test_init_is_finite_and_float32_and_rows_differ(name):
    tower, (x, mask) = toys.tower(name), toys.inputs(name)
    variables, out = jax.jit(lambda key: (v := nn.unbox(tower.init(key, x, mask)), tower.apply(v, x, mask)))(jax.random.key(0))
    assert set(variables) == {"params"}, "batch statistics would make examples see each other"
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert out["embedding"].shape == (ROWS, 8) and np.isfinite(out["embedding"]).all()
    assert np.ptp(out["embedding"], axis=0).min() > 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_embed_dim_0_returns_the_pooled_state(name):
    tower, (x, mask) = toys.tower(name, embed_dim=0), toys.inputs(name)
    assert tower.output_dim == 16 and toys.tower(name).output_dim == 8
    shapes = jax.eval_shape(lambda: tower.init_with_output(jax.random.key(0), x, mask))
    assert shapes[0]["embedding"].shape == (ROWS, 16) and "projection" not in shapes[1]["params"]


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_computes_with_float32_parameters(name):
    tower, params = made(name)
    x, mask = toys.inputs(name)
    half = toys.tower(name, dtype="bfloat16")
    shapes = jax.eval_shape(lambda: half.init(jax.random.key(0), x, mask))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    unit = lambda z: z / np.linalg.norm(z, axis=1, keepdims=True)
    rough, fine = (unit(embed(t, params, x, mask)) for t in (half, tower))
    assert rough.dtype == np.float32 and not np.array_equal(rough, fine)
    assert (rough * fine).sum(axis=1).min() > 0.995  # 8 bits of mantissa through a dozen layers


def equations(jaxpr):
    """Every step of a traced program, those of inner programs too."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda p: hasattr(p, "jaxpr")):
            if hasattr(inner, "jaxpr"):
                yield from equations(inner.jaxpr)


def products(jaxpr):
    """Operand kinds and shape of every matrix product and convolution."""
    for equation in equations(jaxpr):
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            yield {str(v.aval.dtype) for v in equation.invars}, equation.outvars[0].aval.shape


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_goes_into_every_product_but_the_projection(name):
    x, mask = toys.inputs(name)
    tower = toys.tower(name, dtype="bfloat16")
    found = list(products(jax.make_jaxpr(lambda p: tower.apply({"params": p}, x, mask)["embedding"])(made(name)[1]).jaxpr))
    assert len(found) > 5
    assert [shape for kinds, shape in found if kinds != {"bfloat16"}] == [(ROWS, 8)]


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_finite_gradient(name):
    tower, params = made(name)
    gradient = jax.jit(jax.grad(functools.partial(objective, tower)))(params, *toys.inputs(name))
    for path, leaf in by_path(gradient).items():
        assert np.isfinite(leaf).all(), path
        # A key bias moves all scores of a query alike, so softmax removes it: [q, k, v] below.
        assert np.abs(leaf[0] if path.endswith("qkv_bias") else leaf).max() > 1e-7, path


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_has_logical_axes(name):
    x, mask = toys.inputs(name)
    boxed = jax.eval_shape(lambda: toys.tower(name).init(jax.random.key(0), x, mask))["params"]
    known = {"vocab", "embed", "mlp", "heads", "head_dim", "output", "position", "channels_in", "channels_out", None}
    for path, leaf in jax.tree_util.tree_leaves_with_path(boxed, is_leaf=lambda leaf: isinstance(leaf, nn.Partitioned)):
        assert isinstance(leaf, nn.Partitioned), path
        assert len(leaf.names) == leaf.value.ndim and set(leaf.names) <= known, path
        assert leaf.value.ndim == 0 or set(leaf.names) - {None} or "probe" in str(path), path


@pytest.mark.parametrize("name", NAMES)
def test_dropout_belongs_to_the_row_s_key(name):
    dropping, params = toys.tower(name, dropout=0.5), made(name)[1]
    x, mask = toys.inputs(name)
    same = jnp.broadcast_to(x[:1], x.shape), None if mask is None else jnp.broadcast_to(mask[:1], mask.shape)
    plain = embed(made(name)[0], params, *same)
    np.testing.assert_array_equal(embed(dropping, params, *same), plain)  # no keys: off
    found = embed(dropping, params, *same, toys.keys())
    np.testing.assert_array_equal(embed(dropping, params, *same, toys.keys()), found)
    for row in range(1, ROWS):
        assert np.abs(found[row] - found[0]).max() > 1e-3
    turned = embed(dropping, params, *same, toys.keys()[::-1])
    np.testing.assert_array_equal(turned, found[::-1])


@pytest.mark.parametrize("name", toys.ATTENTIVE)
def test_each_block_drops_attention_weights_where_asked(name):
    params, (x, mask) = made(name)[1], toys.inputs(name)

    def drawn(keys, **options):
        traced = jax.make_jaxpr(lambda p: toys.tower(name, **options).apply({"params": p}, x, mask, keys)["embedding"])(params)
        return sum(equation.primitive.name == "random_bits" for equation in equations(traced.jaxpr))

    assert drawn(toys.keys(), attention_dropout=0.3) == 2  # in each block
    assert drawn(toys.keys()) == drawn(None, attention_dropout=0.3) == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_row_does_not_depend_on_the_others(name):
    tower, params = made(name, dropout=0.3, **attention_dropout(name, 0.3))
    x, mask = toys.inputs(name)
    before = embed(tower, params, x, mask, toys.keys())
    other = toys.inputs(name, seed=9)[0]
    changed = other.at[1].set(x[1])
    masks = None if mask is None else jnp.ones_like(mask).at[1].set(mask[1])
    after = embed(tower, params, changed, masks, toys.keys())
    np.testing.assert_array_equal(after[1], before[1])
    assert np.abs(after[0] - before[0]).max() > 1e-3


@pytest.mark.parametrize("name", toys.IMAGES)
def test_images_of_another_size_or_kind_are_refused(name):
    tower, params = made(name)
    takes = r"\(patches, 6, 2\); set config.data.transforms" if name == "naflex" else r"\(8, 8, 2\); change its options.image_size"
    with pytest.raises(ValueError, match=rf"images of \(5, 5, 2\), but the tower takes {takes}"):
        tower.apply({"params": params}, toys.images(size=5))
    with pytest.raises(TypeError, match="uint8 in 0-255 or float in 0-1, not int32"):
        tower.apply({"params": params}, toys.inputs(name)[0].astype(jnp.int32))


@pytest.mark.parametrize("name", toys.IMAGES)
def test_bytes_and_fractions_are_the_same_image(name):
    tower, params = made(name)
    x, mask = toys.inputs(name)
    np.testing.assert_allclose(embed(tower, params, x.astype(jnp.float32) / 255, mask), embed(tower, params, x, mask), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_tower_cannot_capture_is_an_error(name):
    tower, params = made(name)
    with pytest.raises(ValueError, match="capture"):
        jax.eval_shape(lambda: tower.apply({"params": params}, *toys.inputs(name), capture=("token",)))


@pytest.mark.many_processes  # it compiles for long
def test_towers_ignore_the_mesh():
    """All towers at once, on data x fsdp x tensor = 2 x 2 x 2 under the usual rules: values and gradients of one device."""
    towers = {
        name: toys.tower(name, dropout=0.2, **attention_dropout(name, 0.2), **(dict(layers=1) if name in toys.ATTENTIVE else {}))
        for name in NAMES
    }
    model = DualEncoder(towers=towers, views={name: name for name in NAMES})
    batch = {name: toys.inputs(name, 8)[0] for name in NAMES}
    batch |= {f"{name}_mask": toys.inputs(name, 8)[1] for name in (*toys.TEXTS, "naflex")}
    keys = {name: toys.keys(8) for name in NAMES}
    boxed = jax.eval_shape(lambda: model.init(jax.random.key(0), batch))["params"]
    params = toys.init(model, batch)

    def total(params, batch):
        arrays = model.apply({"params": params}, batch, keys)
        weigh = lambda z: jnp.sum(z * jnp.arange(1.0, 1 + z.size).reshape(z.shape)) / z.size
        return arrays["logit_scale"] + sum(weigh(arrays[f"z_{name}"]) for name in NAMES), arrays

    both = jax.value_and_grad(total, has_aux=True)
    expected = jax.jit(both)(params, batch)
    mesh = meshes.make(2, 2, 2)
    shardings = meshes.param_shardings(boxed, mesh, common.base().mesh.rules)
    split = [path for path, s in by_path(shardings).items() if not s.is_fully_replicated]
    assert len(split) > 15
    with jax.set_mesh(mesh):
        placed = jax.device_put(batch, meshes.batch_sharding(mesh))
        found = jax.jit(both)(jax.device_put(params, shardings), placed)
    # float32 sums in another order
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), found, expected)
