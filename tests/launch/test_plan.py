"""`launch.plan`: what it prints, what it refuses, and the table that docs/scaling.md shows."""

import json
import pathlib

import pytest

from configs import digits
from core.config import ConfigError
from launch import plan
from tests.launch.test_commands import run
from training import plan as plans

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def made():
    return plan.of_config(digits.get_config("smoke"), plan.parse_mesh("data=8,fsdp=4"))


def test_the_mesh_is_read_from_its_sizes():
    assert plan.parse_mesh("fsdp=4,data=1024") == dict(data=1024, fsdp=4, tensor=1)


@pytest.mark.parametrize("text", ["data", "data=0", "data=-1", "model=2", "", "data=2,,fsdp=2"])
def test_a_mesh_that_cannot_be_read_is_refused(text):
    with pytest.raises(ConfigError, match="write it as --mesh=data=8,fsdp=4,tensor=1"):
        plan.parse_mesh(text)


def test_a_batch_that_does_not_split_names_the_key():
    with pytest.raises(ConfigError, match="set config.data.global_batch to 63 or 70"):
        plan.of_config(digits.get_config("smoke"), plan.parse_mesh("data=7"))


def test_the_text_is_aligned_and_holds_every_kind(made):
    text = plan.render(made, plan.parse_mesh("data=8,fsdp=4"), "v5e")
    rows = [line for line in text.splitlines() if line.startswith("  ") and "%" not in line]
    assert {len(row) for row in rows} == {42}
    assert all(kind in text for kind, size in (made.memory | made.sent | made.parameters).items() if size)
    assert text.startswith("32 devices: data=8, fsdp=4, tensor=1") and "of v5e" in text


def test_json_adds_up(made):
    found = json.loads(json.dumps(plan.as_json(made, dict(data=8, fsdp=4, tensor=1), None, None)))
    assert found["bytes_per_device"] == sum(found["memory"].values()) and found["fits"]
    assert plan.refusal(made, "v5e") is None
    assert found["sent_per_device"] == sum(found["sent"].values())


def test_an_unknown_device_lists_those_there_are(made):
    with pytest.raises(ConfigError, match="v5e"):
        plan.refusal(made, "v5")


def test_a_batch_of_a_million_is_refused_at_dense():
    words = ["--config=configs/digits.py", "--config.data.global_batch=1048576", "--mesh=data=64", "--device=v5e", "--json"]
    code, out, err = run("plan", *words)
    assert code == 3 and "logits take most" in err and "method to 'ring'" in err and "Traceback" not in err
    assert not json.loads(out)["fits"] and json.loads(out)["memory"]["logits"] == 3 * 4 * 2**20 * 2**14


def test_the_page_shows_the_first_rows_as_they_are_made():
    assert plan.scaling_table({"ViT-B/16": plan.TOWERS["ViT-B/16"]}) in (ROOT / "docs" / "scaling.md").read_text()


@pytest.mark.many_processes  # traces large towers
def test_the_page_shows_the_table_as_it_is_made():
    assert plan.scaling_table() in (ROOT / "docs" / "scaling.md").read_text(), "print it: python -m launch.plan --table"


def test_the_flag_lists_every_device():
    assert set(plan.flags.FLAGS["device"].help.split(": ")[1].split(", ")) == set(plans.MEMORY)
