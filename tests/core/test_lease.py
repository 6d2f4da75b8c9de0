"""The lock of object stores, on a folder that stands for one: TensorStore compares versions there in the same way."""

import json
import logging
import subprocess
import sys
import threading
import time

import pytest

from core import lease
from core.lease import Held, Lease

FAST = dict(beat_seconds=0.05, patience_seconds=20.0)


@pytest.fixture
def elsewhere(monkeypatch):
    """Makes holders seem to run on other machines: nobody can look at their processes."""
    names = iter(range(1000))
    monkeypatch.setattr(lease, "_machine", lambda: f"host{next(names)} boot")


def url(tmp_path):
    return f"file://{tmp_path}/run/"


def read(tmp_path):
    return json.loads((tmp_path / "run" / "lock").read_text())


def test_the_second_is_refused_and_may_come_when_the_first_has_gone(tmp_path):
    for _ in range(2):
        with Lease(url(tmp_path), "lock", **FAST):
            with pytest.raises(Held, match=f"process {read(tmp_path)['process']} on"), Lease(url(tmp_path), "lock", **FAST):
                pytest.fail("held twice")
        assert not (tmp_path / "run" / "lock").exists()


def test_a_holder_elsewhere_lives_while_it_writes(tmp_path, elsewhere, caplog):
    caplog.set_level(logging.INFO)
    with Lease(url(tmp_path), "lock", **FAST), pytest.raises(Held, match="on host0"), Lease(url(tmp_path), "lock", **FAST):
        pytest.fail("held twice")
    assert caplog.text.count("looking whether it lives") == 1


def test_a_holder_elsewhere_that_is_silent_is_dead(tmp_path, elsewhere):
    ended = Lease(url(tmp_path), "lock", beat_seconds=1000, leave=pytest.fail)
    ended.__enter__()
    begin = time.monotonic()
    with Lease(url(tmp_path), "lock", beat_seconds=0.05, patience_seconds=0.4) as lock:
        assert time.monotonic() - begin > 0.4
        assert read(tmp_path)["token"] == lock._me["token"]
    ended.__exit__()


def test_a_killed_holder_on_this_machine_is_seen_at_once(tmp_path):
    code = f"from core.lease import Lease; Lease({url(tmp_path)!r}, 'lock').__enter__(); print('held', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as other:
        other.stdout.readline()
        with pytest.raises(Held, match=f"process {other.pid} on"), Lease(url(tmp_path), "lock"):
            pytest.fail("held twice")
        other.kill()
        while lease._began(other.pid) is not None:
            time.sleep(0.01)
        begin = time.monotonic()  # its parent has not asked for its code yet
        with Lease(url(tmp_path), "lock"):
            assert time.monotonic() - begin < lease.BEAT_SECONDS


def test_of_many_that_come_together_one_is_in_at_a_time(tmp_path):
    inside, most, turns = [], [], []

    def turn(number):
        with Lease(url(tmp_path), "lock", wait=True, **FAST):
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.02)
            turns.append(inside.pop())

    threads = [threading.Thread(target=turn, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(turns) == [0, 1, 2, 3] and set(most) == {1}


def test_who_was_taken_for_dead_and_is_not_leaves(tmp_path, caplog):
    left = threading.Event()
    with Lease(url(tmp_path), "lock", leave=lambda code: (left.set(), caplog.messages.append(code)), **FAST):
        found = read(tmp_path)
        (tmp_path / "run" / "lock").write_text(json.dumps(found | {"token": "of another"}))
        assert left.wait(5)
    assert "another process has taken it" in caplog.text
    assert read(tmp_path)["token"] == "of another"  # what is another's is not deleted


def test_a_write_whose_answer_was_lost_is_still_the_holders(tmp_path):
    with Lease(url(tmp_path), "lock", leave=pytest.fail, **FAST) as lock:
        lock._store.write("lock", json.dumps(lock._me | {"time": 0}).encode()).result()
        deadline = time.monotonic() + 5
        while read(tmp_path)["time"] == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert read(tmp_path)["time"] > 0
