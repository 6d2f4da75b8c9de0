"""Wall time by what it went to: nothing is counted twice or left out, whatever happens between two starts."""

import os

import pytest

from core.workdir import read_json
from training.goodput import KINDS, Goodput, settle, summary


class Time:
    """A clock that a test turns."""

    now = 1000.0

    def __call__(self):
        return self.now

    def pass_(self, seconds):
        self.now += seconds


@pytest.fixture
def time():
    return Time()


def first_start(tmp_path, time):
    """Set-up 5 s, compile 3, input 1, steps 10, a save 2 at step 10; then 4 more seconds that nothing saves, and a crash."""
    goodput = Goodput(tmp_path, 0, began=time.now - 5, clock=time)
    for kind, seconds in (("compile", 3), ("input_wait", 1), ("checkpoint", 2)):
        with goodput.spent(kind):
            time.pass_(seconds)
    time.pass_(10)
    goodput.save(10)
    time.pass_(4)
    (tmp_path / "metrics.jsonl").touch()
    os.utime(tmp_path / "metrics.jsonl", (time.now, time.now))


def seconds(tmp_path):
    found = read_json(tmp_path / "goodput.json")
    assert found["wall_seconds"] == pytest.approx(sum(found["seconds"].values()))
    assert found["goodput"] == pytest.approx(found["seconds"]["step"] / found["wall_seconds"])
    return {kind: value for kind, value in found["seconds"].items() if value}


def test_every_second_has_one_kind(tmp_path, time):
    first_start(tmp_path, time)
    assert seconds(tmp_path) == dict(setup=5, compile=3, input_wait=1, checkpoint=2, step=10)


def test_after_a_crash_what_no_checkpoint_holds_is_lost(tmp_path, time):
    first_start(tmp_path, time)
    time.pass_(7)  # nothing runs
    time.pass_(6)  # the next process restores
    goodput = Goodput(tmp_path, 10, began=time.now - 6, clock=time)
    time.pass_(8)
    goodput.end(20, ended=True)
    assert seconds(tmp_path) == dict(setup=11, compile=3, input_wait=1, checkpoint=2, step=18, lost=4, down=7)


def test_a_checkpoint_that_was_never_committed_is_lost_too(tmp_path, time):
    first_start(tmp_path, time)
    Goodput(tmp_path, 4, clock=time)
    assert seconds(tmp_path) == dict(setup=5, compile=3, input_wait=1, checkpoint=2, step=4, lost=6 + 4)


def test_a_stop_that_was_asked_for_loses_nothing(tmp_path, time):
    first_start(tmp_path, time)
    goodput = Goodput(tmp_path, 10, clock=time)
    time.pass_(2)
    goodput.end(12, ended=True)
    time.pass_(100_000)
    Goodput(tmp_path, 12, clock=time)
    assert seconds(tmp_path) == dict(setup=5, compile=3, input_wait=1, checkpoint=2, step=12, lost=4)


def test_a_crash_before_the_first_checkpoint_loses_all_steps(tmp_path, time):
    Goodput(tmp_path, 0, began=time.now - 5, clock=time)
    time.pass_(9)
    (tmp_path / "metrics.jsonl").touch()
    os.utime(tmp_path / "metrics.jsonl", (time.now, time.now))
    Goodput(tmp_path, 0, clock=time)
    assert seconds(tmp_path) == dict(setup=5, lost=9)


@pytest.mark.parametrize("last_sign, began", [(0.0, 1100.0), (5000.0, 1100.0), (1050.0, 1000.0)])
def test_clocks_that_disagree_give_no_negative_seconds(last_sign, began):
    start = dict(began=990.0, until=1020.0, first_step=0, last_step=10, ended=False, seconds=dict(setup=1.0, step=20.0))
    assert min(settle(start, 10, last_sign, began)["seconds"].values()) >= 0


def test_the_line_names_what_took_time_largest_first():
    assert summary(dict.fromkeys(KINDS, 0.0) | dict(step=6.0, input_wait=3.0, compile=1.0)) == (
        "10.0 s of wall time: step 6.0 s (60%), input wait 3.0 s (30%), compile 1.0 s (10%)"
    )


def test_a_torn_file_or_a_full_disk_ends_nothing(tmp_path, time, caplog):
    (tmp_path / "goodput.json").write_text("{")
    Goodput(tmp_path, 0, clock=time)
    assert "earlier starts are not counted" in caplog.text
    (tmp_path / "file").touch()
    Goodput(tmp_path / "file" / "below", 0, clock=time)
    assert "was not written" in caplog.text
