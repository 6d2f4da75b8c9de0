"""Every recipe builds, and what it says fits the code; nothing compiles here."""

import importlib
import logging
import pathlib

import pytest
from ml_collections import ConfigDict

import configs
from configs import common
from core import mesh as meshes
from core.config import plain
from core.paths import by_path
from training import run as runs
from training.data import open_data

NAMES = sorted(p.stem for p in pathlib.Path(next(iter(configs.__path__))).glob("*.py") if p.stem not in ("common", "__init__"))
DEFAULTS = dict(size=32, rate=0.1, name="a", smoke=False, fast=True)


@pytest.mark.parametrize(
    "arg, changed",
    [
        ("", {}),
        (None, {}),
        ("smoke", dict(smoke=True)),
        ("smoke=true", dict(smoke=True)),
        ("fast=False", dict(fast=False)),
        ("size=64,rate=1,name=b=c", dict(size=64, rate=1.0, name="b=c")),
        ("64", dict(size=64)),
        ("64,smoke", dict(size=64, smoke=True)),
        ("smoke,", dict(smoke=True)),
    ],
)
def test_the_argument_changes_what_it_names(arg, changed):
    found = common.parse_arg(arg, **DEFAULTS)
    assert found.to_dict() == DEFAULTS | changed
    assert {name: type(value) for name, value in found.items()} == {name: type(value) for name, value in DEFAULTS.items()}


@pytest.mark.parametrize(
    "arg, message",
    [
        ("sise=3", r"the config's argument has no 'sise'; it takes: size=32, rate=0.1"),
        ("smoke,64", "has no '64'"),
        ("size=big", "size='big' must be a int such as 32"),
        ("size", "size='size' must be a int"),
        ("smoke=1", "smoke='1' must be true or false"),
        ("rate=", "rate='' must be a float"),
    ],
)
def test_a_wrong_argument_is_an_error(arg, message):
    with pytest.raises(ValueError, match=message):
        common.parse_arg(arg, **DEFAULTS)


def recipe(name):
    return importlib.import_module(f"configs.{name}")


def test_there_are_recipes():
    assert "glyphs" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_locked_plain_data(name):
    import json

    config = recipe(name).get_config()
    assert isinstance(config, ConfigDict) and config.is_locked
    assert json.loads(json.dumps(plain(config))) == plain(config)
    assert set(config) == {"seed", "data", "model", "losses", "optimizer", "train", "checkpoint", "mesh", "evals", "log"}
    assert recipe(name).get_config("smoke").train.steps < config.train.steps


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_says_how_to_run_it(name):
    assert f"python -m launch.train --config=configs/{name}.py" in recipe(name).__doc__


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_refuses_other_arguments(name):
    with pytest.raises(ValueError, match="has no 'smoky'"):
        recipe(name).get_config("smoky=true")


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_traces_on_eight_devices(name, tmp_path, caplog):
    from evals import job

    config = recipe(name).get_config("smoke")
    job.check(config)
    with caplog.at_level(logging.WARNING):
        run = runs.prepare(config, open_data(config, tmp_path), meshes.make(2, 2, 2))
    assert run.steps == config.train.steps and not caplog.records
    labels = {path.split("/")[0] for path in by_path(run.abstract.params)}
    assert {f"towers_{label}" for label in config.model.towers} <= labels
