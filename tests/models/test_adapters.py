"""Adapters: what they add, where they start, which matrices low-rank ones pick, how those lie on a mesh."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from core import mesh as meshes
from core.config import ConfigError
from core.paths import by_path, from_paths, matches
from models import adapters
from models.bert import PostBlock
from models.dual import DualEncoder
from models.text import Text
from models.transformer import Block
from tests.models import toys

WIDTH, HEADS, LAYERS, RANK = 8, 2, 2, 3
QKV = "towers_text/blocks/block_{}/attention/qkv_kernel"
IDS = jnp.arange(10).reshape(2, 5)


def model(**options):
    small = dict(vocab_size=16, length=6, width=WIDTH, layers=LAYERS, heads=HEADS, embed_dim=4, causal=False, pooling="mean")
    return DualEncoder(towers=dict(text=Text(**small | options)), views=dict(query="text", passage="text"))


@pytest.fixture(scope="module")
def boxed():
    return jax.eval_shape(lambda: model().init(jax.random.key(0), dict(query=IDS)))["params"]


@pytest.fixture(scope="module")
def base():
    return nn.unbox(model().init(jax.random.key(0), dict(query=IDS)))["params"]


def section(patterns, label="text", **entry):
    entry = dict(name="lora", options={}) | entry
    return ConfigDict(dict(towers=dict(text={}), adapters={label: dict(patterns=patterns, **entry)}))


def made(boxed, *patterns, train=(), **options):
    return adapters.make(section(patterns, train=train, options=dict(rank=RANK) | options), boxed)


@pytest.fixture(scope="module")
def apply():
    return jax.jit(lambda params: model().apply({"params": params}, dict(query=IDS))["z_query"])


def test_the_start_is_the_base_model_bit_for_bit(boxed, base, apply):
    found = made(boxed, "kernel")
    merged = found.merge(base | found.init(0))
    jax.tree.map(np.testing.assert_array_equal, merged, base)
    np.testing.assert_array_equal(apply(merged), apply(base))


def test_factors_of_a_normal_start_move_every_adapted_matrix_and_nothing_else(boxed, base):
    found = made(boxed, "mlp/", init="normal")
    merged, plain = by_path(found.merge(base | found.init(0))), by_path(base)
    assert {path for path in plain if not (merged[path] == plain[path]).all()} == {site.target for site in found.sites}
    factors = np.concatenate([np.ravel(leaf) for leaf in by_path(found.init(0)).values()])
    assert 0.01 < factors.std() < 0.02 and np.abs(factors).max() <= 0.04


def test_first_factors_depend_on_seed_and_path_only(boxed):
    one, more = by_path(made(boxed, "fc_in").init(0)), by_path(made(boxed, "mlp/").init(0))
    assert all((leaf == more[path]).all() for path, leaf in one.items())
    drawn = [leaf for path, leaf in one.items() if path.endswith("/a")]
    assert len(drawn) == LAYERS and not (drawn[0] == drawn[1]).all()
    assert not (by_path(made(boxed, "fc_in").init(1))["adapters/text/blocks/block_0/mlp/fc_in/kernel/a"] == drawn[0]).all()
    assert np.abs(drawn[0]).max() <= WIDTH**-0.5  # Kaiming uniform with a slope of sqrt(5)


@pytest.mark.parametrize("rslora, scale", [(False, 6.0 / RANK), (True, 6.0 / RANK**0.5)])
def test_a_merged_layer_is_the_layer_beside_its_adapter(boxed, base, rslora, scale):
    """y = x W + scale (x a) b, in every adapted dense layer of the tower at once; a fused one follows."""
    found = made(boxed, "mlp/", "attention/out", "projection", init="normal", alpha=6.0, rslora=rslora)
    factors = jax.tree.map(lambda leaf: 20 * leaf, found.init(0))  # large enough to matter
    flat = by_path(factors["adapters"]["text"])

    def beside(next_method, args, kwargs, context):
        y, path = next_method(*args, **kwargs), "/".join(context.module.path[1:]) + "/kernel"
        if context.method_name != "__call__" or f"{path}/a" not in flat:
            return y
        return y + scale * (args[0] @ flat[f"{path}/a"]) @ flat[f"{path}/b"]

    with nn.intercept_methods(beside):
        expected = model().apply({"params": base}, dict(query=IDS))["z_query"]
    merged = found.merge(base | factors)
    np.testing.assert_allclose(model().apply({"params": merged}, dict(query=IDS))["z_query"], expected, atol=1e-5)
    assert np.abs(model().apply({"params": base}, dict(query=IDS))["z_query"] - expected).max() > 1e-2


def test_a_fused_kernel_has_an_adapter_for_each_part(boxed, base):
    found = made(boxed, "block_1/.*qkv_kernel/[qv]$", init="normal")
    assert [site.path[-1] for site in found.sites] == ["q", "v"]
    params = base | found.init(0)
    own, delta = by_path(params["adapters"]["text"]), {}
    for part in "qv":
        a, b = (np.asarray(own[f"blocks/block_1/attention/qkv_kernel/{part}/{ab}"], np.float64) for ab in "ab")
        delta[part] = 8.0 / RANK * np.einsum("ir,rhd->ihd", a, b)
    merged, plain = (np.asarray(by_path(tree)[QKV.format(1)], np.float64) for tree in (found.merge(params), base))
    for place, part in enumerate("qkv"):
        np.testing.assert_allclose(merged[:, place], plain[:, place] + delta.get(part, 0), atol=1e-7)
    np.testing.assert_array_equal(merged[:, 1], plain[:, 1])
    assert (by_path(found.merge(params))[QKV.format(0)] == by_path(base)[QKV.format(0)]).all()


def test_parameters_are_the_rank_times_both_sides(boxed):
    found = made(boxed, "kernel")
    count = lambda part: sum(leaf.size for path, leaf in by_path(found.init(0)).items() if part in path)
    inner = 4 * WIDTH
    assert count("block_0/mlp/fc_in") == count("block_0/mlp/fc_out") == RANK * (WIDTH + inner)
    assert count("block_0/attention/qkv_kernel") == 3 * RANK * 2 * WIDTH and count("attention/out") == LAYERS * RANK * 2 * WIDTH
    assert count("projection") == RANK * (WIDTH + 4)


def test_merging_twice_is_refused(boxed, base):
    found = made(boxed, "mlp/")
    with pytest.raises(ValueError, match="hold no adapters/text/blocks/block_0/mlp/fc_in/kernel: they are merged already"):
        found.merge(found.merge(base | found.init(0)))


def test_no_adapters_change_nothing(boxed, base):
    for config in (dict(towers={}), dict(towers={}, adapters={})):
        found = adapters.make(ConfigDict(config), boxed)
        assert found == adapters.Adapters() and found.init(0) == found.boxed() == {}
        jax.tree.map(np.testing.assert_array_equal, found.merge(base), base)


def test_factors_lie_like_the_axes_of_their_matrix(boxed):
    mesh, rules = meshes.make(2, 2, 2), (("embed", "fsdp"), ("heads", "tensor"), ("mlp", "tensor"))
    found = {p: s.spec for p, s in by_path(meshes.param_shardings(made(boxed, "qkv_kernel/q", "mlp/").boxed(), mesh, rules)).items()}
    block = "adapters/text/blocks/block_0/"
    assert found[block + "mlp/fc_in/kernel/a"] == P("fsdp", None) and found[block + "mlp/fc_in/kernel/b"] == P(None, "tensor")
    assert found[block + "mlp/fc_out/kernel/a"] == P("tensor", None) and found[block + "mlp/fc_out/kernel/b"] == P(None, "fsdp")
    assert found[block + "attention/qkv_kernel/q/b"] == P(None, "tensor", None)


def test_merging_on_a_mesh_moves_nothing_between_devices(boxed, base):
    found, mesh = made(boxed, "kernel", init="normal"), meshes.make(2, 2, 2)
    tree = boxed | found.boxed()
    shardings = meshes.param_shardings(tree, mesh, (("embed", "fsdp"), ("heads", "tensor"), ("mlp", "tensor")))
    like = jax.tree.map(lambda s, to: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=to), nn.unbox(tree), shardings)
    out = {key: value for key, value in shardings.items() if key != "adapters"}
    program = jax.jit(found.merge, out_shardings=out).lower(like).compile().as_text()
    assert not any(kind in program for kind in ("all-gather", "all-reduce", "collective-permute", "all-to-all"))


@pytest.mark.parametrize(
    "train, learns",
    [((), ()), (("projection", "norm/scale$"), ("towers_text/projection/kernel", "towers_text/norm/scale"))],
)
def test_a_tower_with_adapters_is_frozen_but_for_what_it_names(boxed, train, learns):
    config = ConfigDict(dict(model=section(("mlp/",), train=train), optimizer=dict(freeze=("^log_",))))
    paths = [*by_path(boxed), *by_path(made(boxed, "mlp/").boxed()), "towers_image/norm/scale"]
    free = [path for path in paths if not matches(path, adapters.frozen(config))]
    assert set(free) == {*learns, "towers_image/norm/scale", *(p for p in paths if p.startswith("adapters/"))}


@pytest.mark.parametrize(
    "bad, message",
    [
        (section(("mlp/",), label="txt"), "config.model.adapters.txt is not a key; valid ones: text"),
        (section(("mpl/",)), "config.model.adapters.text.patterns holds 'mpl/', which matches no parameter.*adapters/text/blocks/"),
        (section(("qkv_bias",)), "config.model.adapters.text.patterns holds 'qkv_bias', which matches no parameter"),
        (section(("mlp/",), train=("hed",)), "config.model.adapters.text.train holds 'hed'"),
        (section(("mlp/",), name="lorra"), "config.model.adapters.text.name is 'lorra'.* Did you mean 'lora'"),
        (section(("mlp/",), options=dict(rnk=2)), "config.model.adapters.text.options.rnk is not a key.*'rank'"),
        (section(("mlp/",), options=dict(rank=0)), "config.model.adapters.text.options.rank is 0; set it to 1 or more"),
        (section(("mlp/",), options=dict(init="zero")), "config.model.adapters.text.options.init is 'zero'.*'zero_b'"),
    ],
)
def test_mistakes_name_the_key(boxed, bad, message):
    with pytest.raises(ConfigError, match=message):
        adapters.make(bad, boxed)


def test_factors_stay_float32_under_a_bfloat16_tower():
    half = jax.eval_shape(lambda: model(dtype="bfloat16").init(jax.random.key(0), dict(query=IDS)))["params"]
    found = made(half, "mlp/", init="normal")
    assert {leaf.dtype for leaf in jax.tree.leaves(found.init(0))} == {jnp.dtype("float32")}
    merged = jax.eval_shape(found.merge, nn.unbox(half) | found.init(0))
    assert {leaf.dtype for leaf in by_path(merged).values()} == {jnp.dtype("float32")} and from_paths(by_path(merged)) == merged


@pytest.mark.parametrize("name", toys.ATTENTIVE)
def test_a_bottleneck_starts_as_the_tower_without_it(name):
    plain, adapted, given = toys.tower(name), toys.tower(name, bottleneck=3), toys.inputs(name)
    drawn = by_path(nn.unbox(adapted.init(jax.random.key(0), *given)["params"]))
    own = {path: leaf for path, leaf in drawn.items() if "/adapter/" in path}
    assert sum(leaf.size for leaf in own.values()) == 2 * (2 * 16 * 3 + 3 + 16)  # of two layers: D m + m, m D + D
    base = by_path(toys.init(plain, *given))
    assert base.keys() == drawn.keys() - own.keys()
    expected = plain.apply({"params": from_paths(base)}, *given)["embedding"]
    np.testing.assert_array_equal(adapted.apply({"params": from_paths(base | own)}, *given)["embedding"], expected)
    moved = {path: leaf for path, leaf in by_path(toys.init(adapted, *given)).items() if path in own}
    assert np.abs(adapted.apply({"params": from_paths(base | moved)}, *given)["embedding"] - expected).max() > 1e-3


@pytest.mark.parametrize("post", [True, False])
def test_a_bottleneck_by_definition(post):
    """h = Up(relu(Down(LN(r + x)))) + r and then LN(h + x), the block's own norm twice; without one at the end of a block, none."""
    block = PostBlock(2, 2.0, "gelu", 1e-6, 0.0, 0.0, 3, "float32") if post else Block(heads=2, mlp_ratio=2.0, bottleneck=3)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 5, 8)), jnp.float32)
    params, seen = toys.init(block, x), {}

    def watch(next_method, args, kwargs, context):
        y = next_method(*args, **kwargs)
        if context.method_name == "__call__":
            seen.setdefault(context.module.name, np.asarray(y, float))  # of a norm that runs twice the first
        return y

    with nn.intercept_methods(watch):
        found = block.apply({"params": params}, x)
    r, before = seen["mlp"], seen["norm_attention"] if post else np.asarray(x, float) + seen["attention"]
    wide = jax.tree.map(lambda leaf: np.asarray(leaf, float), params)

    def norm(x):
        unit = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return unit * wide["norm_mlp"]["scale"] + wide["norm_mlp"]["bias"] if post else x

    down, up = wide["adapter"]["down"], wide["adapter"]["up"]
    h = np.maximum(norm(r + before) @ down["kernel"] + down["bias"], 0) @ up["kernel"] + up["bias"] + r
    np.testing.assert_allclose(found, norm(h + before), rtol=0, atol=1e-5)


def test_freezing_all_but_bottlenecks():
    frozen = ("^towers_text/(?!.*/adapter/)",)  # as docs/fine_tuning.md says
    shapes = jax.eval_shape(lambda: model(bottleneck=2).init(jax.random.key(0), dict(query=IDS)))["params"]
    free = [path for path in by_path(nn.unbox(shapes)) if path.startswith("towers_text/") and not matches(path, frozen)]
    assert len(free) == LAYERS * 4 and all("/adapter/" in path for path in free)
