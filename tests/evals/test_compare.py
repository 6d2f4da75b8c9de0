"""What is said of two results: it must name the setting, and never call another task a better score."""

import copy
import json

import pytest

from evals import compare

RESULT = {
    "evaluator": "sts",
    "metrics": {"cosine_spearman": 0.8, "cosine_pearson": 0.7, "tie_rate": None},
    "settings": {
        "data": {"name": "stsb", "options": {"first": "en"}}, "cut": None, "options": {"first": "text"},
        "inputs": {"text": {"view": "text", "values": 20, "digest": "ab"}}, "conventions": ["as it is"],
        "fingerprint": "11", "weights": "params", "step": 0,
        "views": {"text": {"tokenizer": "77", "case": "ignored", "length": 256, "dtype": "float32"}},
        "versions": {"jax": "0.10.2", "numpy": "2.4"},
    },
}  # fmt: skip


def changed(**settings):
    """RESULT with other settings (dotted paths, `__` for the dot) and, if any differ, another score."""
    made = copy.deepcopy(RESULT)
    for path, value in settings.items():
        section = made["settings"]
        *names, last = path.split("__")
        for name in names:
            section = section[name]
        section[last] = value
    made["metrics"]["cosine_spearman"] += 0.01 * bool(settings)
    return made


def test_one_result_twice_is_the_same():
    found = compare.compare(RESULT, changed())
    assert found == compare.Comparison({}, [], [], [], []) and found.verdict() == "The scores are the same."


def test_scores_that_differ_only_by_settings_are_said_to():
    found = compare.compare(RESULT, changed(views__text__case="kept", versions__numpy="2.5"))
    assert found.reading == ["views.text.case: 'ignored' -> 'kept'", "versions.numpy: '2.4' -> '2.5'"]
    assert found.scores == {"cosine_spearman": (0.8, pytest.approx(0.81))} and not found.task and not found.weights
    assert found.verdict() == "The weights and what was asked are the same: the scores differ only by the settings below."


@pytest.mark.parametrize(
    "settings, kind, says",
    [
        (dict(fingerprint="22"), "weights", "The scores differ, and the weights are others."),
        (dict(fingerprint="22", views__text__length=128), "weights", "and so do settings, which may explain a part"),
        (dict(data__options__first="de", fingerprint="22"), "task", "they do not measure the same thing"),
        (dict(inputs__text__digest="cd"), "task", "they do not measure the same thing"),
        (dict(cut=dict(items=5)), "task", "they do not measure the same thing"),
    ],
)
def test_other_weights_and_other_tasks_are_told_apart(settings, kind, says):
    found = compare.compare(RESULT, changed(**settings))
    assert says in found.verdict() and getattr(found, kind)


def test_a_difference_without_a_cause_is_a_finding():
    other = changed()
    other["metrics"]["cosine_pearson"] = 0.9
    assert "although nothing recorded does" in compare.compare(RESULT, other).verdict()


def test_settings_that_changed_nothing_and_lost_metrics_are_named():
    other = changed()
    other["settings"]["versions"]["jax"] = "0.11"
    del other["metrics"]["tie_rate"]
    found = compare.compare(RESULT, other)
    assert found.verdict() == "The scores are the same, although settings differ." and found.lost == ["tie_rate"]


def test_files_are_compared_in_words(tmp_path):
    for name, made in (("a", RESULT), ("b", changed(views__text__dtype="bfloat16"))):
        (tmp_path / name).write_text(json.dumps(made))
    text = compare.of_files(tmp_path / "a", tmp_path / "b")
    assert "  cosine_spearman: 0.8 -> 0.81" in text and "settings:\n  views.text.dtype: 'float32' -> 'bfloat16'" in text
    (tmp_path / "b").write_text("[]")
    with pytest.raises(ValueError, match="is no result of an evaluation; give a file such as"):
        compare.of_files(tmp_path / "a", tmp_path / "b")
