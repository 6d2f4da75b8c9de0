"""The page about a machine: each trouble is a line that says what to do, and none hides the others."""

import importlib.metadata
import json

import pytest

from core.workdir import locked
from launch import checkup
from tests import tiny
from tests.launch.test_commands import TOY, run

MEMINFO = "MemTotal:       16000000 kB\nMemFree:  100 kB\nMemAvailable:   {} kB\n"


def only(lines, name):
    (line,) = [line for line in lines if line.name == name]
    return line


def test_a_package_of_another_version_is_noted_and_a_missing_one_is_wrong():
    jax = importlib.metadata.version("jax")
    assert only(checkup.versions(f"jax=={jax} # arrays\n"), "versions").state == checkup.OK
    other = only(checkup.versions("jax==0.0.1\n"), "versions")
    assert other.state == checkup.NOTE and other.found == f"jax {jax} (pinned 0.0.1)" and "requirements.txt" in other.cure
    assert only(checkup.versions(f"jax=={jax}\nno-such-package==1.0\n"), "versions").state == checkup.WRONG


@pytest.mark.parametrize("free, state", [(8_000_000, checkup.OK), (100_000, checkup.WRONG)])
def test_little_memory_is_wrong(free, state):
    line = only(checkup.memory(MEMINFO.format(free)), "memory")
    assert line.state == state and line.found.endswith("of 16.4 GB free")


def test_the_collective_sums_over_all_devices():
    (line,) = checkup.collective()
    assert line.state == checkup.OK and line.found.startswith("sum over all 8 is 36, 36 expected")


def test_a_mistake_in_the_config_is_a_line_and_the_rest_is_still_looked_at(tmp_path):
    made = tiny.config(data__global_batch=12)
    lines = list(checkup.examine(made, tmp_path / "run", take_step=True))
    line = only(lines, "mesh")
    assert line.state == checkup.WRONG and "set config.data.global_batch to 8 or 16" in line.found
    assert "first step" not in {line.name for line in lines} and only(lines, "workdir").state == checkup.OK
    assert not (tmp_path / "run").exists()


def test_a_folder_in_use_is_wrong(tmp_path):
    with locked(tmp_path):
        (line,) = checkup.tried("workdir", lambda: checkup.disk(tmp_path, 0))
    assert line.state == checkup.WRONG and "is being trained by process" in line.found


def test_a_folder_that_cannot_be_is_wrong(tmp_path):
    (tmp_path / "file").touch()
    (line,) = checkup.tried("workdir", lambda: checkup.disk(tmp_path / "file" / "run", 0))
    assert line.state == checkup.WRONG and "choose another folder" in line.cure


def test_checkpoints_that_do_not_fit_are_wrong(tmp_path):
    lines = list(checkup.disk(tmp_path, 10**18))
    assert only(lines, "disk space").state == checkup.WRONG and "config.checkpoint.keep_last" in only(lines, "disk space").cure
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_the_page_shows_cures_below_and_a_verdict():
    lines = [checkup.Line("a", "fine"), checkup.Line("b", "odd", checkup.NOTE, "wait"), checkup.Line("c", "bad", checkup.WRONG, "mend it")]
    assert checkup.page(lines, colour=False).splitlines() == [
        "ok    a                fine", "note  b                odd", f"{'':<23}-> wait",
        "WRONG c                bad", f"{'':<23}-> mend it",
        "", "1 wrong: a run would not work here as it is",
    ]  # fmt: skip
    assert "\033[31mWRONG" in checkup.page(lines, colour=True)


@pytest.mark.many_processes
def test_the_command_takes_a_step_and_touches_no_run(tmp_path):
    code, out, err = run("doctor", *TOY, f"--workdir={tmp_path / 'run'}", "--json")
    lines = {line["name"]: line for line in json.loads(out)}
    assert code == (3 if any(line["state"] == "WRONG" for line in lines.values()) else 0), err
    assert lines["first step"]["state"] == lines["loss"]["state"] == lines["mesh"]["state"] == "ok"
    assert "data=1, fsdp=1, tensor=1; 16 of 16 rows" in lines["mesh"]["found"] and not (tmp_path / "run").exists()
