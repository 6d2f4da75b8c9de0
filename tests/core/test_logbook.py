"""Metrics on disk: lines, events, and what a killed run leaves."""

import json
import math
import sys
import types

import pytest
from tensorboardX import record_writer
from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import masked_crc32c

from core.config import ConfigError
from core.events import tag
from core.logbook import Logbook, read_lines

METRICS = {"train/loss": 2.5, "perf/examples_per_second": 100.0, "train/recall@1_in_batch": 0.5}


def write(workdir, steps, loss=2.5, **options):
    book = Logbook(workdir, total_steps=100, **options)
    for step in steps:
        book.write(step, METRICS | {"train/loss": loss})
        book.progress(step)
    book.close()


def events(folder):
    """Events of a TensorBoard file: length, checksum, record, checksum."""
    found = []
    for path in sorted(folder.glob("events*")):
        data = path.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            record, rest = data[12 : 12 + length], data[12 + length :]
            assert int.from_bytes(rest[:4], "little") == masked_crc32c(record)
            found.append(event_pb2.Event.FromString(record))
            data = rest[4:]
    return found


def test_a_line_per_step(tmp_path):
    write(tmp_path, [1, 2])
    rows = read_lines(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2]
    assert METRICS.items() <= rows[0].items() and rows[0]["time"] > 1.7e9


def test_no_file_holds_no_lines(tmp_path):
    assert read_lines(tmp_path / "metrics.jsonl") == []


def test_steps_that_repeat_after_a_resume_count_once_and_last(tmp_path):
    write(tmp_path, [1, 2, 3], loss=3.0)
    write(tmp_path, [2, 3, 4], loss=1.0, first_step=1)
    rows = read_lines(tmp_path / "metrics.jsonl")
    assert [(row["step"], row["train/loss"]) for row in rows] == [(1, 3.0), (2, 1.0), (3, 1.0), (4, 1.0)]


def test_a_torn_line_costs_nothing_but_itself(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(tmp_path, [1, 2])
    path.write_text(path.read_text()[:-20])
    assert [row["step"] for row in read_lines(path)] == [1]
    write(tmp_path, [2, 3], first_step=1)
    assert [row["step"] for row in read_lines(path)] == [1, 2, 3]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_null(tmp_path, value):
    write(tmp_path, [1], loss=value)
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line, parse_constant=pytest.fail)["train/loss"] is None


def test_an_inactive_logbook_writes_nothing(tmp_path):
    write(tmp_path / "none", [1, 2], active=False)
    assert not list(tmp_path.iterdir())


def test_events_hold_the_same_numbers(tmp_path):
    write(tmp_path, [1, 2])
    found = [(e.step, v.tag, v.simple_value) for e in events(tmp_path / "tensorboard" / "train") for v in e.summary.value]
    assert sorted(found) == sorted((step, tag(name), value) for step in (1, 2) for name, value in METRICS.items())
    assert tag("train/recall@1_in_batch") == "train/recall_at_1_in_batch"


def test_events_may_be_left_out(tmp_path):
    write(tmp_path, [1], tensorboard=False)
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_resumed_run_hides_the_events_it_repeats(tmp_path):
    write(tmp_path, [3], first_step=2)
    starts = [e.step for e in events(tmp_path / "tensorboard" / "train") if e.HasField("session_log")]
    assert starts == [3]  # readers drop what earlier files hold from this step on


def test_a_disk_that_fills_up_ends_the_events_and_not_the_run(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(record_writer, "open_file", lambda path: open("/dev/full", "wb"))
    write(tmp_path, range(1, 30))
    assert len(read_lines(tmp_path / "metrics.jsonl")) == 29
    assert caplog.text.count("TensorBoard stops here: [Errno 28]") == 1


def stand_in(calls, fails):
    """A module like wandb that notes calls; those named in `fails` raise as an outage does."""

    def call(name):
        def noted(*args, **keywords):
            calls.append((name, args, keywords))
            if name in fails:
                raise ConnectionError(f"{name}: network is unreachable")
            return run

        return noted

    run = types.SimpleNamespace(log=call("log"), finish=call("finish"))
    return types.SimpleNamespace(init=call("init"))


def test_another_back_end_gets_the_same_numbers_and_the_same_run_again(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setitem(sys.modules, "wandb", stand_in(calls, ()))
    write(tmp_path, [1, 2], wandb="project")
    write(tmp_path, [3], first_step=2, wandb="project")
    assert [name for name, _, _ in calls] == ["init", "log", "log", "finish", "init", "log", "finish"]
    assert calls[1][1:] == ((METRICS,), {"step": 1})
    assert calls[0][2] == calls[4][2] and calls[0][2]["project"] == "project" and calls[0][2]["resume"] == "allow"


@pytest.mark.parametrize("fails", ["init", "log", "finish"])
def test_an_outage_of_a_back_end_costs_nothing_else(fails, tmp_path, monkeypatch, caplog):
    calls = []
    monkeypatch.setitem(sys.modules, "wandb", stand_in(calls, fails))
    write(tmp_path, [1, 2, 3], wandb="project")
    assert [row["step"] for row in read_lines(tmp_path / "metrics.jsonl")] == [1, 2, 3]
    assert len(events(tmp_path / "tensorboard" / "train")) > 3
    assert f"Weights & Biases stops here: {fails}: network is unreachable" in caplog.text
    assert [name for name, _, _ in calls].count(fails) == 1  # it is not asked again


def test_a_function_is_told_the_steps_before_and_each_new_one_until_it_fails(tmp_path, caplog):
    told = []

    def tell(row):
        told.append(row)
        if row["step"] == 3:
            raise RuntimeError("no such axes")

    write(tmp_path, [1, 2], tensorboard=False)
    write(tmp_path, [2, 3, 4], first_step=1, tensorboard=False, on_metrics=tell)
    lines = read_lines(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in told] == [1, 2, 3] and [line["step"] for line in lines] == [1, 2, 3, 4]
    assert told[0] == lines[0] and told[1] == {name: value for name, value in lines[1].items() if name != "time"}
    assert caplog.text.count("on_metrics stops here: no such axes") == 1


def test_a_back_end_that_is_not_installed_is_a_mistake_in_the_config(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match="config.log.wandb needs a package"):
        write(tmp_path, [1], wandb="project")


def test_events_that_cannot_be_written_end_nothing(tmp_path, caplog):
    (tmp_path / "tensorboard").touch()  # no folder can be here
    write(tmp_path, [1])
    assert "TensorBoard stops here" in caplog.text and len(read_lines(tmp_path / "metrics.jsonl")) == 1


def test_lines_wait_while_the_disk_refuses_them(tmp_path, caplog):
    book = Logbook(tmp_path, total_steps=4, tensorboard=False)
    path = tmp_path / "metrics.jsonl"
    book.write(1, METRICS)
    kept = path.read_bytes()
    path.unlink()
    path.mkdir()  # stands for a disk that is full
    book.write(2, METRICS)
    book.write(3, METRICS)
    path.rmdir()
    path.write_bytes(kept + b'{"step": 2, "tr')  # what went through before it was
    book.write(4, METRICS)
    book.close()
    assert [row["step"] for row in read_lines(path)] == [1, 2, 3, 4]
    assert caplog.text.count("its lines wait") == 1
