"""The watchdog by its clock: silent while steps finish, stacks when they do not, and an end where others wait."""

import logging
import subprocess
import sys
import threading

import pytest

from core.watchdog import FIRST_STEP_ALLOWANCE, LOST_PEER, Watchdog


class Scene:
    """A clock that a test moves, and what the watchdog did, in order."""

    def __init__(self, seconds=10.0, **options):
        self.now, self.done = 100.0, []
        self.dog = Watchdog(
            seconds, dump=lambda: self.done.append("dump"), leave=lambda code: self.done.append(code), clock=lambda: self.now, **options
        )

    def after(self, seconds):
        self.now += seconds
        return self.dog.look()


@pytest.mark.parametrize("ends", [False, True])
def test_nothing_happens_while_steps_finish(ends):
    scene = Scene(ends=ends)
    with scene.dog:
        for _ in range(50):
            scene.dog.beat()
            assert scene.after(9.0) == pytest.approx(1.0)
    assert scene.done == []


def test_the_first_step_may_take_longer():
    scene = Scene(ends=True)
    with scene.dog:
        assert scene.after(FIRST_STEP_ALLOWANCE * 10.0 - 1) == pytest.approx(1.0)
        assert scene.done == []
        scene.after(1.0)
    assert scene.done == ["dump", LOST_PEER]


def test_one_of_several_shows_its_stacks_and_leaves(caplog):
    scene = Scene(ends=True)
    with scene.dog, caplog.at_level(logging.ERROR):
        scene.dog.beat()
        scene.after(10.0)
    assert scene.done == ["dump", LOST_PEER]
    assert "no step finished for 10 s (config.train.stall_seconds)" in caplog.text and "code 5" in caplog.text


def test_one_alone_shows_its_stacks_once_a_period_and_goes_on():
    scene = Scene(ends=False)
    with scene.dog:
        scene.dog.beat()
        assert scene.after(10.0) == 10.0
        scene.after(9.0)
        assert scene.done == ["dump"]
        scene.after(1.0)
        assert scene.done == ["dump", "dump"]
        scene.dog.beat()
        assert scene.after(9.0) == pytest.approx(1.0)
    assert scene.done == ["dump", "dump"]


def test_none_watches_nothing():
    before = threading.active_count()
    scene = Scene(seconds=None, ends=True)
    with scene.dog:
        scene.dog.beat()
        assert threading.active_count() == before
    assert scene.done == []


def test_a_process_that_hangs_shows_every_thread_and_ends_with_5():
    program = """
import threading, time
from core.watchdog import Watchdog
def reader_that_never_returns():
    time.sleep(600)
threading.Thread(target=reader_that_never_returns, daemon=True).start()
with Watchdog(0.05, ends=True):
    time.sleep(600)
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert found.returncode == LOST_PEER
    assert "no step finished" in found.stderr and "reader_that_never_returns" in found.stderr and "most recent call first" in found.stderr
