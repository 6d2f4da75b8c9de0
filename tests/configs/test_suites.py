"""Every suite builds, fits the code and says where its data is from; nothing is read or computed here."""

import importlib
import json
import pathlib

import pytest

import configs
from core.config import plain
from evals import suite

NAMES = sorted(p.stem for p in (pathlib.Path(next(iter(configs.__path__))) / "suites").glob("local_*.py"))


def made(name, arg=""):
    return importlib.import_module(f"configs.suites.{name}").get_config(arg)


def test_there_are_suites():
    assert "local_text" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_suite_is_locked_plain_data_that_fits_the_code(name):
    config = made(name)
    suite.check(config)
    assert config.is_locked and json.loads(json.dumps(plain(config))) == plain(config) and config.name == name
    assert f"python -m launch.evaluate --suite=configs/suites/{name}.py" in importlib.import_module(f"configs.suites.{name}").__doc__


def test_text_is_controlled_and_a_cut_search_is_called_one():
    for full in ("", "full"):
        for label, task in made("local_text", full).tasks.items():
            assert ("cut" in task) == label.endswith("_1000") and not ("cut" in task and full)
            assert task.type in ("clustering", "classification") or task.options.controls, label


def test_the_folder_is_where_the_argument_says():
    assert {task.data.options.path.split("/")[0] for task in made("local_text", "path=there").tasks.values()} == {"there"}


@pytest.mark.parametrize("full", [False, True])
def test_images_are_probed_at_a_chosen_strength_only_in_full(full):
    tasks = made("local_image", "full" if full else "").tasks
    assert {label for label, task in tasks.items() if task.name == "linear_probe" and task.options.sweep == full} == {
        "cifar10_5000_probe", "mnist_2000_probe",
    }  # fmt: skip
    prompts = [task.data.options.prompts for task in tasks.values() if "prompts" in task.data.options]
    assert set(prompts) == {"data/clip_classnames"}
