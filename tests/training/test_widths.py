"""Processes that see parts of a batch hand on texts of one width: that of the whole batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from core import mesh as meshes
from input_pipeline import batching, tokenize
from models import dual
from tests import tiny
from tests.input_pipeline.toys import toy_config
from training import cached_gradients, flops, widths
from training.clock import Clock
from training.data import Data, open_data

WORDS = ["a", "a b", "a b c", "a b c d e", "a b c d e f g h i j"]
BUCKETS = (7, 8)
TEXT = dict(name="tokenize", options=dict(length=16, buckets=(4, 8), pool_prompt=False, prompt="a "))


class Texts:
    """Record i is `WORDS[i % 5]`, and a list of two texts."""

    counts = {"id": 40}

    def __len__(self):
        return 40

    def __getitem__(self, i):
        return {"text": WORDS[i % 5], "negatives": [WORDS[i % 3], "a"], "id": i}


@pytest.fixture(scope="module")
def data():
    config = toy_config(transforms=dict(text=TEXT, negatives=TEXT), global_batch=4, shuffle=False)
    return Data(config, {"main": Texts()}, tokenize.train_bpe(WORDS * 9, vocab_size=262), 0)


def rows(data, **part):
    return batching.batches(data.config, data.sources, data.tokenizer, seed=0, **part)


def test_parts_widened_are_the_whole_batch(data):
    pads = {"text": data.tokenizer.pad_id, "negatives": data.tokenizer.pad_id}
    seen = set()
    with rows(data) as whole, rows(data, process_count=2) as a, rows(data, process_index=1, process_count=2) as b:
        for _ in range(10):
            wanted, parts = next(whole), (next(a), next(b))
            agreed = {view: max(part[view].shape[-1] for part in parts) for view in pads}
            wide = [widths.widen(part, pads, agreed) for part in parts]
            for name, array in wanted.items():
                np.testing.assert_array_equal(np.concatenate([part[name] for part in wide]), array, err_msg=name)
            seen.add(tuple(part["text"].shape[-1] for part in parts))
    assert len(seen) > 2 and any(a != b for a, b in seen)  # else widening was not needed


def test_what_tokens_are_asked_for_is_widened_with_them():
    batch = {"text": np.ones((2, 3), np.int32), "text_target": np.ones((2, 3), np.int32), "text_own": np.ones((2, 3), np.int32)}
    wide = widths.widen(batch, {"text": 7}, {"text": 5})
    for name, fill in (("text", 7), ("text_target", -1), ("text_own", -1)):
        np.testing.assert_array_equal(wide[name], [[1, 1, 1, fill, fill]] * 2)


def test_a_batch_ahead_changes_no_batch_and_no_position(data):
    with rows(data) as plain:
        expected = [next(plain) for _ in range(4)]
    mesh = meshes.make(devices=jax.devices()[:4])
    with jax.set_mesh(mesh):
        same = widths.SameWidths(rows(data, start=1), {"text": 0, "negatives": 0}, mesh)
        for step, wanted in enumerate(expected[1:], 1):
            assert same.position == step
            for name, array in next(same).items():
                np.testing.assert_array_equal(array, wanted[name])
        same.close()


def test_the_spec_holds_the_longest_text(data):
    spec = data.spec()
    assert spec["text"].shape == spec["text_mask"].shape == spec["text_pool_mask"].shape == (4, 16)
    assert spec["negatives"].shape == spec["negatives_mask"].shape == (4, 2, 16)
    assert data.config.transforms.text.options.buckets == (4, 8)


def test_microbatches_of_every_width_encode_as_padded_ones(tmp_path):
    made = tiny.config(data__global_batch=2)
    made.model.towers.text.options.update(causal=False, pooling="mean", width=8, heads=2)
    made.model.views = dict(text="text")
    model = dual.build(made.model)
    embeddings, seen, params = {}, set(), None
    for buckets, count in (((), 1), (BUCKETS, 2)):
        made.data.transforms.text.options = ConfigDict(dict(length=16, buckets=buckets))
        apply = jax.jit(lambda params, batch, count=count: cached_gradients.apply(model, params, batch, {}, count, 1)["z_text"])
        with open_data(made, tmp_path).iterate(2) as batches, jax.set_mesh(meshes.make(devices=jax.devices()[:1])):
            read = [{name: next_[name] for name in ("text", "text_mask")} for next_ in (next(batches), next(batches))]
            params = params or model.init(jax.random.key(0), jax.tree.map(jnp.asarray, read[0]))["params"]
            embeddings[buckets] = np.concatenate([apply(params, batch) for batch in read])
            seen |= {batch["text"].shape[1] for batch in read}
    assert seen == {7, 8, 16}
    np.testing.assert_allclose(embeddings[BUCKETS], embeddings[()], rtol=1e-5, atol=1e-6)  # float32 sums of other lengths


def test_the_clock_counts_each_step_at_its_own_width(tmp_path):
    made = tiny.config()
    made.data.transforms.text.options = ConfigDict(dict(length=16, buckets=BUCKETS))
    run = tiny.prepare(made, tmp_path)
    like = lambda width: {
        name: jax.ShapeDtypeStruct((*s.shape[:-1], width) if name.startswith("text") else s.shape, s.dtype) for name, s in run.spec.items()
    }
    forward = lambda params, batch: run.model.apply({"params": params}, batch)
    of = {width: flops.matmul_flops(forward, run.abstract.params, like(width)) for width in (7, 16)}
    assert of[7] < of[16]
    clock, seen, step = Clock(run, 16, 0), [], 0
    for widths_ in ([7, 7, 16], [7]):
        for width in widths_:
            clock.finished({name: s.shape for name, s in like(width).items()} | {"stop": (16,)})
        step += len(widths_)
        lap = clock.lap(step)
        seen.append(lap["perf/matmul_gflops_per_second"] * lap["perf/step_seconds"] * len(widths_) * 1e9)
    np.testing.assert_allclose(seen, [3 * (2 * of[7] + of[16]), 3 * of[7]], rtol=1e-9)
