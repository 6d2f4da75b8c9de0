"""The arithmetic of a plan against the compiler at small sizes, and by hand where a mesh needs no compiler."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from losses.entries import Entry
from losses.infonce import infonce
from models.dual import DualEncoder
from models.text import Text
from training import flops
from training import plan as plans

RULES = (("embed", "fsdp"), ("mlp", "tensor"), ("heads", "tensor"))


def model(**options):
    tower = Text(**(dict(vocab_size=64, length=16, width=64, layers=2, heads=4, embed_dim=32) | options))
    return DualEncoder(towers=dict(text=tower), views=dict(text="text"))


def spec(rows):
    return dict(text=jax.ShapeDtypeStruct((rows, 16), "int32"))


def abstract(of):
    return nn.unbox(plans.boxed_params(of, spec(1)))


def test_tower_flops_are_the_compilers_but_for_elementwise_work():
    """Unrolled, because the compiler counts the body of a scan once. What it adds is less than a fifth at width 64."""
    of = model(layers=3)
    forward = lambda params, batch: of.apply({"params": params}, batch)
    counted = flops.matmul_flops(forward, abstract(of), spec(8))
    found = jax.jit(forward).lower(abstract(of), spec(8)).compile().cost_analysis()["flops"]
    assert counted < found < 1.2 * counted


def test_a_scanned_tower_counts_as_the_unrolled_one():
    one, other = (plans.survey(model(scan=scan), spec(1)) for scan in (False, True))
    assert one[2] == other[2] > 0


def loss_gradient(batch, d, **options):
    total = lambda zq, zp, scale: infonce(zq, zp, scale, **options)[0].sum()
    z, scale = jax.ShapeDtypeStruct((batch, d), "float32"), jax.ShapeDtypeStruct((), "float32")
    return jax.value_and_grad(total, (0, 1, 2)), z, z, scale


@pytest.mark.parametrize("method, block_size", [("dense", 64), ("ring", 16)])
def test_loss_flops_are_the_products_of_its_program(method, block_size):
    assert flops.matmul_flops(*loss_gradient(64, 32, method=method, block_size=block_size)) == plans.loss_flops(method, 64, 32)


@pytest.mark.parametrize("method", ["dense", "ring"])
def test_dense_loss_flops_are_the_compilers_but_for_elementwise_work(method):
    """Elementwise work does not grow with d. One tile, since the compiler counts a loop's body once; alone, it computes its logits once."""
    function, *shapes = loss_gradient(64, 512, method=method)
    found = jax.jit(function).lower(*shapes).compile().cost_analysis()["flops"]
    assert 1 < found / plans.loss_flops("dense", 64, 512) < 1.05


@pytest.mark.parametrize("method, block_size", [("dense", 1024), ("ring", 64)])
def test_loss_memory_bounds_the_compilers(method, block_size):
    batch, d = 512, 32
    function, *shapes = loss_gradient(batch, d, method=method, block_size=block_size)
    found = jax.jit(function).lower(*shapes).compile().memory_analysis()
    planned = sum(plans.loss_memory(method, batch, batch, d, block_size, 1).values())
    # The plan counts both sides and their gradients, which here are arguments and results.
    assert 0.3 * planned < found.temp_size_in_bytes + found.argument_size_in_bytes + found.output_size_in_bytes < 1.1 * planned


def test_activations_are_what_the_compiler_allots_for_a_tower():
    of, rows = model(), 32
    grad = jax.grad(lambda params, batch: of.apply({"params": params}, batch)["z_text"].sum())
    found = jax.jit(grad).lower(abstract(of), spec(rows)).compile().memory_analysis().temp_size_in_bytes
    kept = plans.activations(of, abstract(of), spec(1))
    # The compiler merges some of what autodiff keeps, and the backward pass needs room to compute activations again; measured: 1.17.
    assert 0.7 < found / (kept.by_row * rows + kept.fixed) < 1.25


def test_rematerialising_keeps_less_but_one_block_whole():
    plain, remat = (plans.activations(model(layers=6, remat=remat), abstract(model(layers=6)), spec(1)).by_row for remat in (False, True))
    assert plain / 6 < remat < plain / 2


def params():
    names = dict(kernel=("embed", "mlp"), bias=("mlp",), odd=("embed",))
    shapes = dict(kernel=(64, 128), bias=(128,), odd=(3,))
    return {name: nn.Partitioned(jax.ShapeDtypeStruct(shapes[name], "float32"), names[name]) for name in names}


@pytest.mark.parametrize(
    "mesh, stored, reduced, gathered",
    [
        ((1, 1, 1), 8323, 0, 0),
        ((8, 1, 1), 8323, 2 * 8323 * 7 / 8, 0),
        # 1/4 of the kernel: reduce-scatter sends 3 shares, all-reduce over two halves of the data one; bias and odd are whole.
        ((2, 4, 1), 2048 + 131, 3 * 2048 + 2048 + 2 * 131 * 7 / 8, 2 * 3 * 2048),
        ((1, 1, 2), 4096 + 64 + 3, 0, 0),
    ],
    ids=str,
)
def test_bytes_of_parameters_and_gradients_by_hand(mesh, stored, reduced, gathered):
    mesh = plans.mesh_of(*mesh)
    placed = plans.place(params(), mesh, RULES)
    assert plans.shard_bytes(placed) == 4 * stored
    assert plans.gradients_sent(placed, mesh) == pytest.approx(4 * reduced, abs=4)  # whole bytes of each array
    assert plans.parameters_sent(placed, mesh) == 4 * gathered


def planned(rows=64, mesh=(8, 1, 1), of=None, **options):
    of = of or model()
    entry = Entry("main", partial(infonce, method="ring"), {}, frozenset(), 1.0)
    return plans.make(of, [entry], spec(rows), plans.mesh_of(*mesh), RULES, **options)


def test_freezing_takes_gradients_optimizer_and_traffic_away():
    found = planned(freeze=("^towers_text/",), ema=True)
    assert found.memory["parameters"] > 1000 and found.memory["gradients"] == found.memory["averages"] == 4  # log_logit_scale
    assert found.memory["optimizer"] == 8 and found.sent["gradients"] == 7


def test_microbatches_share_the_memory_of_one():
    one, four = planned(), planned(microbatches=4)
    fixed = plans.activations(model(), abstract(model()), spec(1)).fixed
    assert one.memory["activations"] - fixed == 4 * (four.memory["activations"] - fixed)
    assert one.sent == four.sent and one.tower_flops == four.tower_flops


def test_tensor_sharding_sends_hidden_states_four_times_a_block():
    # 4 all-reduces x 2 blocks x 64 rows x 16 tokens x 64 wide x 4 bytes; over two devices each sends the array once.
    assert planned(mesh=(1, 1, 2)).sent["hidden states"] == 4 * 2 * 64 * 16 * 64 * 4


def test_a_large_batch_is_refused_with_what_takes_most_and_a_cure():
    plan = planned()
    assert plans.refusal(plan, plan.bytes, "v5e") is None
    big = plan._replace(memory=plan.memory | {"logits": 10**12})
    assert "1000.0 GB of each device, but v5e has 16 GB; logits take most, 1000.0 GB: set config.losses." in plans.refusal(big, 16e9, "v5e")


def test_a_mesh_may_be_larger_than_any_machine():
    found = planned(rows=1 << 20, mesh=(512, 8, 1))
    assert found.memory["batch"] == 256 * 16 * 4 and jnp.isfinite(found.bytes)
