"""The GPU benchmark's tiny mode: every part runs on a CPU, arms agree, and what fails is reported while the rest goes on."""

import time

import pytest

from benchmarks import gpu


def arms(found):
    """Every measurement that came back, by part and arm."""
    (row,) = found["loss"]["rows"]
    return found["pieces"] | {name: arm for name, arm in row.items() if name != "pairs"} | found["step"] | {"matmul": found["matmul"]}


@pytest.mark.many_processes  # it compiles for long
def test_every_part_runs_at_toy_size(monkeypatch):
    def broken():
        raise MemoryError("no room")

    monkeypatch.setattr(gpu, "open_clip_loss", broken)
    monkeypatch.setattr(gpu, "their_step", lambda *_: broken())
    found = gpu.measure(True, 600)
    failed = {name: arm["error"] for name, arm in arms(found).items() if "error" in arm}
    assert failed.pop("open_clip") == "MemoryError: no room"
    assert failed.pop("inf_cl", "ModuleNotFoundError").startswith("ModuleNotFoundError")
    assert not failed
    values = [arm["value"] for name, arm in found["loss"]["rows"][0].items() if name.startswith("tandem")]
    assert len(values) == 4 and max(values) - min(values) < 1e-4
    assert gpu.summary(found)["ratio"] > 0


def test_what_there_is_no_time_for_is_skipped():
    found = gpu.pieces(True, time.monotonic() - 1)
    assert all(arm == {"error": gpu.OUT_OF_TIME} for arm in found.values())
