"""What every claim must have, and what is concluded from its numbers."""

import dataclasses
import importlib.util
import inspect
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from claims import CLAIMS, harness, page
from claims.claim import Contrast, judge, t_interval, verdict
from core.config import ConfigError
from evals import job
from losses.entries import entries


def config_of(claim, run, quick=False, first=""):
    spec = importlib.util.spec_from_file_location("claimed", claim.file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(f"run={run}{',quick' if quick else ''}{f',first={first}' if first else ''}")


@pytest.mark.parametrize("card", sorted(CLAIMS))
def test_every_run_has_a_config_that_differs_from_the_others(card):
    runs = CLAIMS[card].runs
    found = [config_of(CLAIMS[card], run) for run in runs]
    for config in found:
        job.check(config)
        entries(config.losses)
    assert len({config.to_json() for config in found}) == len(found)
    quick = [config_of(CLAIMS[card], run, quick=True) for run in runs]
    assert all(short.train.steps < whole.train.steps for short, whole in zip(quick, found, strict=True))


@pytest.mark.parametrize("card", sorted(CLAIMS))
def test_runs_start_from_runs_that_are_trained_before_them(card):
    claim = CLAIMS[card]
    for run, first in claim.first.items():
        assert claim.runs.index(first) < claim.runs.index(run)
        towers = config_of(claim, run, first=f"somewhere/{first}").model.towers
        assert {(tower.init.format, tower.init.path) for tower in towers.values() if "init" in tower} == {("tandem", f"somewhere/{first}")}


@pytest.mark.parametrize("card", sorted(CLAIMS))
def test_the_file_says_which_card_it_measures(card):
    claim = CLAIMS[card]
    assert claim.file.name.startswith(f"{card}_") and claim.contrasts and claim.says.endswith(".")
    assert all(contrast.smallest > 0 for contrast in claim.contrasts)
    assert f"{card}," in inspect.getdoc(inspect.getmodule(claim.measure))


@settings(deadline=None, max_examples=20, derandomize=True)
@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), min_size=2, max_size=8))
def test_the_interval_is_that_of_a_paired_t_test(pairs):
    ours, theirs = np.array(pairs).T
    if np.ptp(ours - theirs) < 1e-6:
        return  # no spread: scipy has no interval
    expected = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    np.testing.assert_allclose(t_interval(ours - theirs), expected, rtol=1e-9, atol=1e-12)


def test_one_seed_says_nothing():
    assert verdict(*t_interval(np.array([0.5])), smallest=10.0) == "underpowered"


@pytest.mark.parametrize(
    "low, high, word",
    [(0.01, 0.03, "shown"), (-0.01, 0.02, "not shown"), (-0.03, -0.01, "opposite"), (0.01, 0.2, "underpowered"), (0.0, 0.02, "not shown")],
)
def test_the_verdict_of_an_interval(low, high, word):
    assert verdict(low, high, smallest=0.05) == word


def drawn(seeds=4, items=200, gain=0.1):
    """Items of two arms over seeds: one better by `gain`, and a seed's luck in common."""
    rng = np.random.default_rng(0)
    plain = [rng.uniform(0, 0.5, items) for _ in range(seeds)]
    return [{"plain": seed, "better": seed + gain + rng.normal(0, 0.01)} for seed in plain]


def test_a_real_difference_is_shown_and_the_reverse_is_opposite():
    found, reverse = judge(Contrast("better", "plain", 0.05), drawn()), judge(Contrast("plain", "better", 0.05), drawn())
    assert (found["verdict"], reverse["verdict"]) == ("shown", "opposite")
    assert abs(found["mean"] - 0.1) < 0.02 and len(found["differences"]) == 4
    low, high = found["interval_over_items"]  # every item gains alike, so other items would have said the same
    np.testing.assert_allclose([low, high], found["mean"], atol=1e-9)


def result():
    items = drawn()
    contrasts = [judge(Contrast("better", "plain", 0.05), items), judge(Contrast("plain", "better", 0.05), items)]
    made = dict(command="python -m launch.claim T01", commit="abc", cpu="a processor", cores=2, time="2026-01-02T03:04:05Z")
    return {
        "card": "T01", "title": "Toy", "says": "Better is better.", "metric": "score", "seeds": 4, "items": 200,
        "arms": {arm: [float(seed[arm].mean()) for seed in items] for arm in items[0]},
        "contrasts": contrasts, "verdict": contrasts[0]["verdict"], "made_by": made,
    }  # fmt: skip


def test_the_table_says_what_the_results_say(tmp_path):
    (tmp_path / "T01.json").write_text(json.dumps(result()))
    made = page.table(tmp_path)
    assert "| T01 | Better is better. | score | better - plain: +0." in made and "| shown | 4 |" in made
    assert "| plain - better |" in made and "| opposite |" in made and "commit abc, a processor, cores: 2, 2026-01-02." in made
    assert "verdict: shown" in page.summary(result())


def test_the_committed_table_is_that_of_the_committed_results():
    assert not page.TABLE.exists() or page.TABLE.read_text() == page.table(harness.RESULTS)
    for path in harness.RESULTS.glob("*.json"):
        found = json.loads(path.read_text())
        assert found["card"] in CLAIMS and not found["made_by"]["commit"].endswith("+"), "measured by code that nobody has"


def test_what_runs_read_is_made_once_and_whole(tmp_path):
    calls = []

    def prepare(folder, quick):
        (folder / "scores").write_text("1")
        calls.append(quick)
        if len(calls) == 1:
            raise KeyboardInterrupt

    claim = dataclasses.replace(CLAIMS["X04"], prepare=prepare)
    with pytest.raises(KeyboardInterrupt):
        harness._prepared(claim, tmp_path / "prepared", quick=True)
    assert not (tmp_path / "prepared").exists()
    for _ in range(2):
        assert (harness._prepared(claim, tmp_path / "prepared", quick=True) / "scores").read_text() == "1"
    assert calls == [True, True]
    with pytest.raises(ConfigError, match="set --workdir to a folder without one"):
        harness.measure("X04", claim, tmp_path / "a,b", 2, quick=True)
    with pytest.raises(ConfigError, match="--seeds=1: one seed has no interval"):
        harness.measure("X04", claim, tmp_path, 1, quick=True)


def test_items_that_were_measured_are_not_measured_again(tmp_path):
    folder = tmp_path / "T01_quick" / "0"
    folder.mkdir(parents=True)
    np.savez(folder / "items.npz", plain=np.zeros(3), better=np.ones(3))
    found = harness.items_of(None, folder, seed=0, quick=True)  # no claim, so nothing could be trained
    assert {arm: values.mean() for arm, values in found.items()} == {"plain": 0, "better": 1}
