"""`training.fit` as a cell of a notebook calls it: told of each step, interrupted, run again."""

import os
import signal
import threading
from functools import partial

import jax
import pytest

from core.config import ConfigError
from core.logbook import read_lines
from core.workdir import read_json
from tests import tiny
from training import fit, fitting

MADE = tiny.config(optimizer__ema_decay=0.9)


@pytest.fixture(scope="module", autouse=True)
def one_device():
    """With the config the program of `test_loop.py`, which is then compiled once for both; and no time to measure a rate."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting.mesh, "make", partial(fitting.mesh.make, devices=jax.devices()[:1]))
        patch.setattr(fitting.environment, "matmul_gflops", lambda: 1.0)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run, and what it told; in a thread, as a notebook may want it, where Python delivers no signals."""
    workdir, told, made = tmp_path_factory.mktemp("whole"), [], []
    thread = threading.Thread(target=lambda: made.append(fit(MADE, workdir, on_metrics=told.append)))
    thread.start()
    thread.join()
    return made[0], told


def test_a_run_tells_each_step_and_says_that_it_is_done(whole):
    fitted, told = whole
    assert fitted.step == 6 and fitted.metrics == read_lines(fitted.workdir / "metrics.jsonl")
    assert told == [{name: value for name, value in row.items() if name != "time"} for row in fitted.metrics] and len(told) == 6
    assert read_json(fitted.workdir / "done.json") == {"step": 6, "exit_code": 0}
    assert "metrics" not in repr(fitted)


def test_a_run_that_is_done_is_told_again_and_left_alone(whole):
    fitted, _ = whole
    before, told = (fitted.workdir / "metrics.jsonl").stat().st_mtime_ns, []
    assert fit(MADE, fitted.workdir, on_metrics=told.append) == fitted and told == fitted.metrics
    assert (fitted.workdir / "metrics.jsonl").stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match=r"differing keys: config.seed: 0 -> 1"):
        fit(tiny.config(seed=1, optimizer__ema_decay=0.9), fitted.workdir)


def test_an_interrupted_cell_saves_and_the_same_cell_goes_on(whole, tmp_path):
    told = []

    def interrupt(row):
        told.append(row["step"])
        if row["step"] == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="saved after step [34] of 6; run the same again"):
        fit(MADE, tmp_path, on_metrics=interrupt)
    assert not (tmp_path / "done.json").exists() and told[-1] in (3, 4)
    again = []
    fitted = fit(MADE, tmp_path, on_metrics=again.append)
    assert [row["step"] for row in again] == [1, 2, 3, 4, 5, 6]
    assert [row["train/loss"] for row in fitted.metrics] == [row["train/loss"] for row in whole[0].metrics]
