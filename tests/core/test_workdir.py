"""The folder of a run: whole files, one config, one writer."""

import json
import os
import re
import subprocess
import sys

import pytest
from ml_collections import ConfigDict

from core.config import ConfigError
from core.workdir import claim_config, locked, read_json, write_json

CONFIG = dict(seed=0, data=dict(sizes=(1, 2)), log=dict(every_steps=1), evals={})


def test_json_there_and_back(tmp_path):
    path = tmp_path / "deep" / "file.json"
    write_json(path, {"a": [1, None, "é"]})
    assert read_json(path) == {"a": [1, None, "é"]}
    assert path.stat().st_mode & 0o777 == 0o644  # a temporary file is private; a result is not


@pytest.mark.parametrize("value", [{"a": float("nan")}, {"a": object()}], ids=["nan", "object"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, value):
    write_json(tmp_path / "file.json", {"old": 1})
    with pytest.raises((ValueError, TypeError)):
        write_json(tmp_path / "file.json", value)
    assert read_json(tmp_path / "file.json") == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["file.json"]


def test_a_reader_sees_a_file_whole_or_not_at_all(tmp_path, monkeypatch):
    path, seen = tmp_path / "file.json", []
    write_json(path, {"old": 1})
    replace = os.replace
    monkeypatch.setattr(
        os, "replace", lambda source, target: (seen.append((read_json(path), json.load(open(source)))), replace(source, target))
    )
    write_json(path, {"new": 2})
    assert seen == [({"old": 1}, {"new": 2})] and read_json(path) == {"new": 2}


def test_a_file_that_is_not_json_is_named(tmp_path):
    (tmp_path / "cut.json").write_text('{"a": ')
    with pytest.raises(ValueError, match=r"cut\.json is not JSON .*; it was cut off or edited"):
        read_json(tmp_path / "cut.json")
    with pytest.raises(FileNotFoundError, match="absent.json"):
        read_json(tmp_path / "absent.json")


def test_the_same_config_may_come_back(tmp_path):
    for _ in range(2):
        claim_config(tmp_path, ConfigDict(CONFIG))
    assert read_json(tmp_path / "config.json") == {"seed": 0, "data": {"sizes": [1, 2]}, "log": {"every_steps": 1}, "evals": {}}


def test_another_config_is_refused_with_every_differing_key(tmp_path):
    claim_config(tmp_path, ConfigDict(CONFIG))
    with pytest.raises(ConfigError) as error:
        claim_config(tmp_path, ConfigDict(CONFIG | dict(seed=3, data=dict(sizes=(1, 3)))))
    for text in ("was made with another config", "config.seed: 0 -> 3", "config.data.sizes: [1, 2] -> [1, 3]", "--allow_config_change"):
        assert text in str(error.value)
    assert "\n" not in str(error.value) and read_json(tmp_path / "config.json")["seed"] == 0


def test_a_change_may_be_allowed_and_is_noted(tmp_path):
    claim_config(tmp_path, ConfigDict(CONFIG))
    claim_config(tmp_path, ConfigDict(CONFIG | dict(seed=3)), allow_change=True)
    assert read_json(tmp_path / "config.json")["seed"] == 3


def test_what_is_logged_and_evaluated_may_change(tmp_path):
    claim_config(tmp_path, ConfigDict(CONFIG))
    claim_config(tmp_path, ConfigDict(CONFIG | dict(log=dict(every_steps=9), evals=dict(a=1))))
    assert read_json(tmp_path / "config.json")["log"] == {"every_steps": 9}


LOCK = """
import pathlib, sys
from core.workdir import locked
with locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_one_process_holds_the_folder_until_it_ends(tmp_path):
    with subprocess.Popen([sys.executable, "-c", LOCK, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match=re.escape(f"{tmp_path} is being trained by process {other.pid}; choose another --workdir.")):
            with locked(tmp_path):
                pass
        other.kill()
    for _ in range(2):  # killed or left, the lock is free again
        with locked(tmp_path):
            assert (tmp_path / "lock").read_text() == str(os.getpid())
