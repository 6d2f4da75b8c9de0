"""Runs whose texts share rows: the vectors of padded texts, in the order of the batch, and no group split between devices."""

import jax
import numpy as np
import pytest

from core.config import ConfigError
from tests import tiny
from training import cached_gradients


def config(group, **changes):
    """The toy run, whose texts share three rows for four."""
    made = tiny.config(**changes)
    made.data.transforms.text = dict(name="pack", options=dict(length=16, group=group, rows=3 * group // 4))
    return made


def test_vectors_are_those_of_padded_texts(tmp_path):
    runs = [tiny.prepare(made, tmp_path / str(i)) for i, made in enumerate((tiny.config(), config(4)))]
    batches = []
    for run in runs:
        with run.data.iterate(0) as rows:
            batches.append({name: array for name, array in next(rows).items() if run.model.reads(name)})
    assert batches[1]["text"].shape == (16, 12) and batches[0]["text"].shape == (16, 16)
    assert runs[1].spec["text_places"].shape == (16, 4, 2)
    with jax.set_mesh(runs[0].mesh):
        params = jax.jit(runs[0].init)().params
        apply = lambda count: lambda batch: cached_gradients.apply(runs[0].model, params, batch, {}, count, 1)["z_text"]
        found = [jax.jit(apply(count))(batch) for count, batch in ((1, batches[0]), (2, batches[1]))]
    np.testing.assert_allclose(found[1], found[0], atol=1e-5)


def test_a_group_stays_on_its_device(tmp_path):
    with pytest.raises(ConfigError, match="4 texts of a device at once do not split into groups of 8; set config.data.transforms.text.opt"):
        tiny.prepare(config(8, train__microbatches=4), tmp_path)
