"""The methods on docstrings that the recipe does not have by default: they trace, and read what they say."""

import json

import pytest

from configs import docstring_methods
from core import mesh as meshes
from evals import job
from training import run as runs
from training.data import open_data


@pytest.mark.parametrize("method", ["gist", "scores"])
def test_a_method_traces_on_eight_devices(method, tmp_path):
    rows = [dict(query=f"query {i}", positive=f"passage {i}", label=i % 2, teacher=i - 3.5) for i in range(8)]
    (tmp_path / "scored.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = tmp_path / "scored.jsonl"
    config = docstring_methods.get_config(f"smoke,method={method}" + (f",path={path}" if method == "scores" else ""))
    if method == "gist":  # the standard library takes seconds to read
        with config.unlocked():
            config.data.sources.main = dict(name="pairs", weight=1.0, options=dict(files=(str(path),)))
    job.check(config)
    data = open_data(config, tmp_path / "run")
    run = runs.prepare(config, data, meshes.make(2, 2, 2))
    assert run.steps == 20
    added = {"gist": "towers_guide", "scores": "heads"}[method]
    assert added in run.abstract.params
    if method == "scores":
        with data.iterate(0) as batches:
            batch = next(batches)
        assert (batch["teacher"] == batch["record"] - 3.5).all() and (batch["label"] == batch["record"] % 2).all()


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="must be one of: whitened, gist, scores"):
        docstring_methods.get_config("method=white")
