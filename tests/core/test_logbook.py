"""Metrics on disk: lines, events, and what a killed run leaves."""

import json
import math

import pytest
from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import masked_crc32c

from core.logbook import Logbook, read_lines, tag

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
