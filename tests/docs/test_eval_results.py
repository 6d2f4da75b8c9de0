"""The numbers of docs/evals.md are the stored ones, and MTEB's are the same."""

import json
import pathlib

import pytest

from configs.suites import local_image, local_text
from evals import board

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def stored():
    return json.loads((ROOT / "docs" / "results" / "local_text.json").read_text())


def test_the_table_is_the_stored_one(stored):
    page = (ROOT / "docs" / "evals.md").read_text()
    rows = [line for line in board.table(stored).splitlines() if line.startswith("| ") and "---" not in line]
    assert len(rows) > 20 and all(row in page for row in rows)
    for label, score in stored["mteb"]["scores"].items():
        (row,) = [line for line in page.splitlines() if line.startswith(f"| {label} |")]
        assert row.endswith(f"| {score:.4f} |")


def test_the_table_of_images_is_the_stored_one():
    images, page = json.loads((ROOT / "docs" / "results" / "local_image.json").read_text()), (ROOT / "docs" / "evals.md").read_text()
    rows = [line for line in board.table(images).splitlines() if line.startswith("| ") and "---" not in line]
    assert len(rows) > 20 and all(row in page for row in rows)
    tasks = local_image.get_config().tasks
    assert set(images["tasks"]) == set(tasks) == set(images["models"]["glyphs"]["scores"])
    assert all(images["tasks"][label]["licence"] == task.licence for label, task in tasks.items())


def test_mteb_scores_the_same(stored):
    """Other vectors (PyTorch), other code; every task."""
    theirs = stored["mteb"]["scores"]
    ours = {label: stored["models"]["minilm"]["scores"][label] for label in theirs}
    assert ours == pytest.approx(theirs, abs=1e-4)
    assert set(theirs) == set(stored["tasks"])


def test_every_task_of_the_suite_was_measured_with_the_tasks_words(stored):
    config = local_text.get_config()
    assert set(stored["tasks"]) == set(config.tasks) == set(stored["models"]["minilm"]["scores"])
    for label, task in config.tasks.items():
        said = {name: task[name] for name in ("type", "source", "licence", "protocol")}
        assert {name: stored["tasks"][label][name] for name in said} == said
    assert not stored["models"]["minilm"]["missing"] and {"command", "commit", "date", "machine", "versions", "settings"} <= set(stored)
