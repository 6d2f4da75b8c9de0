"""What benchmarks share: alternating runs, and the form of a result."""

import json

import pytest
from absl import flags

from benchmarks import loss_memory, measure


def test_calls_take_turns_and_the_best_run_counts(monkeypatch):
    order, times = [], iter([(3.0, 1.0), (9.0, 9.0), (2.0, 4.0), (7.0, 8.0)])
    monkeypatch.setattr(measure, "seconds", lambda call: (order.append(call), next(times))[1])
    found = measure.alternate({"a": "first", "b": "second"}, rounds=2)
    assert order == ["first", "second", "first", "second"]
    assert found == {"a": dict(seconds=2.0, processor_seconds=1.0), "b": dict(seconds=7.0, processor_seconds=8.0)}


def test_seconds_waits_for_the_call():
    wall, processor = measure.seconds(sum, range(100_000))
    assert wall > 0 and processor >= 0


@pytest.fixture
def flag_values():
    """Flags of a benchmark as a command line sets them, and as they were afterwards."""
    saved = {name: flags.FLAGS[name].value for name in ("sizes", "width", "repeats", "open_clip_up_to", "block_size", "loss")}
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    yield flags.FLAGS
    for name, value in saved.items():
        setattr(flags.FLAGS, name, value)


@pytest.mark.parametrize("loss", ["infonce", "sigmoid"])
def test_the_loss_benchmark_runs_and_states_a_result(loss, flag_values, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    monkeypatch.setattr(measure, "machine", dict)
    for name, value in dict(sizes=["48"], width=8, repeats=1, open_clip_up_to=0, block_size=16, loss=loss).items():
        setattr(flag_values, name, value)
    loss_memory.main([])
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last == json.loads((tmp_path / f"loss_memory_{loss}.json").read_text())
    assert {"question", "ratio", "ours", "peer", "peer_name", "unit", "machine"} <= set(last)
    assert last["ratio"] == last["peer"] / last["ours"]
    assert last["memory"]["ours"] == last["rows"][-1]["tiles"]["temp_bytes"] > 0
