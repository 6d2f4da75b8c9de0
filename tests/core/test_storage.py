"""Paths, whole files and the local stand-in of folders on a store, with fsspec's memory in place of one."""

import json
import os
import pathlib
import time

import fsspec
import pytest

from core import storage
from core.config import ConfigError
from core.storage import Spool, as_path, exchange, mend_exchange, on_this_machine, spooled, written_whole


@pytest.fixture
def memory():
    system = fsspec.filesystem("memory")
    yield system
    system.rm("/bucket", recursive=True) if system.exists("/bucket") else None


def test_a_folder_of_this_machine_stays_what_it_was(tmp_path):
    assert type(as_path("runs/a")) is type(as_path(pathlib.Path("runs/a"))) is type(pathlib.Path())
    with spooled(tmp_path / "there", ["*"]) as folder:
        assert folder == tmp_path / "there"


@pytest.mark.parametrize("path", ["s3://bucket/run", "ftp://host/run", "gs:/bucket://run"])
def test_other_stores_are_refused(path):
    with pytest.raises(ConfigError, match="neither a folder nor gs://"):
        as_path(path)


def test_a_missing_package_is_one_line(monkeypatch):
    monkeypatch.setattr(storage.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="gs://bucket/run needs a package that is not here: pip install gcsfs"):
        as_path("gs://bucket/run")


def test_what_goes_to_disks_takes_no_url():
    with pytest.raises(ConfigError, match="--output=gs://bucket/vectors: this is written to a folder on this machine"):
        on_this_machine("gs://bucket/vectors", "--output")
    assert on_this_machine("vectors", "--output") == pathlib.Path("vectors")


def test_a_file_that_fails_in_the_middle_leaves_the_old_one(tmp_path):
    for content, fails in ((b"old", False), (b"new", True)):
        try:
            with written_whole(tmp_path / "deep" / "file") as file:
                file.write(content)
                assert not fails or 1 / 0
        except ZeroDivisionError:
            pass
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["file"]
    assert (tmp_path / "deep" / "file").read_bytes() == b"old"


def test_a_spool_brings_what_is_asked_for_and_sends_what_changed(memory):
    memory.pipe({"/bucket/run/metrics.jsonl": b'{"step": 1}\n', "/bucket/run/other": b"x", "/bucket/run/config.json": b"{}"})
    spool = Spool("memory://bucket/run", ["metrics.jsonl", "other"], seconds=1000)
    assert spool.local.name == "run" and sorted(p.name for p in spool.local.iterdir()) == ["metrics.jsonl", "other"]
    with open(spool.local / "metrics.jsonl", "a") as file:
        file.write('{"step": 2}\n')
    (spool.local / "tensorboard" / "train").mkdir(parents=True)
    (spool.local / "tensorboard" / "train" / "events").write_bytes(b"e")
    memory.pipe("/bucket/run/other", b"of another process")
    spool.close()
    assert [json.loads(line)["step"] for line in memory.cat("/bucket/run/metrics.jsonl").splitlines()] == [1, 2]
    assert memory.cat("/bucket/run/tensorboard/train/events") == b"e"
    assert memory.cat("/bucket/run/other") == b"of another process"  # untouched here, so not sent
    assert not spool.local.exists()


def test_a_spool_sends_while_a_run_goes_on(memory):
    spool = Spool("memory://bucket/run", [], seconds=0.02)
    for content in ("one", "one and two"):
        (spool.local / "lines").write_text(content)
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline and not (
            memory.exists("/bucket/run/lines") and memory.cat("/bucket/run/lines") == content.encode()
        ):
            time.sleep(0.01)
        assert memory.cat("/bucket/run/lines") == content.encode()
    spool.close()


def test_an_outage_costs_nothing_that_is_not_named(memory, monkeypatch, caplog):
    spool = Spool("memory://bucket/run", [], seconds=0.02)
    refuse = lambda *_: (_ for _ in ()).throw(OSError("503 backend error"))
    monkeypatch.setattr(spool._system, "put_file", refuse)
    (spool.local / "lines").write_text("kept")
    while "503 backend error" not in caplog.text:
        time.sleep(0.01)
    spool.close()
    assert f"stays in {spool.local}" in caplog.text and (spool.local / "lines").read_text() == "kept"
    monkeypatch.undo()
    again = Spool("memory://bucket/run", [], seconds=1000)
    (again.local / "lines").write_text("sent")
    again.close()
    assert memory.cat("/bucket/run/lines") == b"sent"


def test_fetched_files_are_as_old_as_in_the_store(memory, monkeypatch):
    memory.pipe("/bucket/run/metrics.jsonl", b"{}")
    info = memory.info
    import datetime

    then = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    monkeypatch.setattr(memory, "info", lambda name, **options: info(name, **options) | {"mtime": then})
    spool = Spool("memory://bucket/run", ["*"], seconds=1000)
    assert os.stat(spool.local / "metrics.jsonl").st_mtime == then.timestamp()
    spool.close()


@pytest.mark.parametrize("killed", [False, True])
def test_an_exchange_ends_with_the_new_folder(killed, tmp_path):
    for name in ("best", "best.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "best.json").write_text(name)
    if killed:  # between the two renames
        (tmp_path / "best").rename(tmp_path / "best.old")
        mend_exchange(tmp_path / "best.tmp", tmp_path / "best", "best.json")
        assert (tmp_path / "best" / "best.json").read_text() == "best"
    exchange(tmp_path / "best.tmp", tmp_path / "best", "best.json")
    assert [path.name for path in tmp_path.iterdir()] == ["best"] and (tmp_path / "best" / "best.json").read_text() == "best.tmp"
