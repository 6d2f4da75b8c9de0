"""The methods on docstrings: each traces with what it adds to a run of pairs, and reads what it says."""

import json

import pytest

from configs import docstrings_methods
from core import mesh as meshes
from core.paths import matches
from evals import job
from training import run as runs
from training.data import open_data

SIZED = ("matryoshka_2d", "starbucks")  # many layers and widths, which take seconds to trace
ADDED = dict(gist="towers_guide", scores="heads", whitened="heads")  # beside the one tower and its scale


@pytest.fixture
def traced(tmp_path):
    """From a method to its config, its data and its run on eight devices, over eight pairs with scores of a teacher."""
    rows = [dict(query=f"query {i}", positive=f"passage {i}", label=i % 2, teacher=i - 3.5) for i in range(8)]
    path = tmp_path / "scored.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def make(method):
        config = docstrings_methods.get_config(f"smoke,method={method}" + (f",path={path}" if method == "scores" else ""))
        if method != "scores":  # the standard library takes seconds to read
            with config.unlocked():
                config.data.sources.main = dict(name="pairs", weight=1.0, options=dict(files=(str(path),)))
        job.check(config)
        data = open_data(config, tmp_path / method)
        return config, data, runs.prepare(config, data, meshes.make(2, 2, 2))

    return make


# `simcse` is what the recipe is without an argument: test_configs.py traces it.
@pytest.mark.parametrize(
    "method",
    [pytest.param(m, marks=pytest.mark.many_processes if m in SIZED else ()) for m in docstrings_methods.METHODS if m != "simcse"],
)
def test_a_method_traces_on_eight_devices(method, traced):
    config, data, run = traced(method)
    assert run.steps == 20
    assert set(run.abstract.params) == {"towers_text", "log_logit_scale"} | ({ADDED[method]} if method in ADDED else set())
    if method == "scores":
        with data.iterate(0) as batches:
            batch = next(batches)
        assert (batch["teacher"] == batch["record"] - 3.5).all() and (batch["label"] == batch["record"] % 2).all()


def test_simcse_reads_one_text_twice_by_one_tower_at_one_temperature():
    config = docstrings_methods.get_config("method=simcse")
    assert config.data.copies.to_dict() == {"again": "query"} and config.data.transforms.again == config.data.transforms.query
    assert config.model.views.again == config.model.views.query and matches("log_logit_scale", config.optimizer.freeze)
    assert config.model.towers.text.options.dropout > 0


@pytest.mark.parametrize(
    "arg, said",
    [
        ("method=white", "must be one of: gist, matryoshka, matryoshka_2d, scores, simcse, starbucks, whitened"),
        ("method=gist", "add path="),
        ("method=scores,smoke", "add path="),
    ],
)
def test_a_method_that_cannot_be_is_refused(arg, said):
    with pytest.raises(ValueError, match=said):
        docstrings_methods.get_config(arg)
