"""The methods on characters: each traces, in its phases, with what stands still."""

import re

import jax
import pytest

from configs import glyphs_methods
from core.paths import by_path
from tests import tiny

STILL = dict(lit=r"^towers_image/", llm2clip=r"^towers_text/(?!pool/|projection/)")


@pytest.mark.many_processes
@pytest.mark.parametrize("method", glyphs_methods.METHODS)
def test_every_method_traces(method, tmp_path):
    run = tiny.prepare(glyphs_methods.get_config(f"method={method},smoke"), tmp_path)
    assert len(run.phases) == (2 if method in ("clim", "mi_mix") else 1)
    if method in STILL:
        learns = {path for path in by_path(run.abstract.params) if not re.search(STILL[method], path)}
        moments = jax.tree_util.tree_leaves_with_path(run.abstract.opt_state)
        assert len(by_path(run.abstract.params)) > len(learns) + 10 and set(run.abstract.ema) == learns
        assert {path[-1].key for path, leaf in moments if isinstance(path[-1], jax.tree_util.DictKey)} == learns


def test_a_finished_tower_is_read_from_its_path():
    made = glyphs_methods.get_config("method=lit,path=runs/first")
    assert made.model.towers.image.init.to_dict() == dict(format="tandem", path="runs/first", keep=())
    made = glyphs_methods.get_config("method=llm2clip,path=minilm")
    assert made.model.towers.text.init.path == made.data.tokenizer.options.path == "minilm"


@pytest.mark.parametrize(
    "arg, said",
    [("method=clip", "must be one of: clim, lit, llm2clip, "), ("method=lit", "add path="), ("method=llm2clip", "add path=")],
)
def test_a_method_that_cannot_be_is_refused(arg, said):
    with pytest.raises(ValueError, match=said):
        glyphs_methods.get_config(arg)
