"""Pages about several runs: what is set side by side, what is told apart, and the tests between models."""

import csv
import json
import re

import numpy as np
import pytest

from evals import EVALUATORS, plots, report, run_files, side_by_side, side_sections, statistics
from tests.evals import toys

TOY = toys.Toy(characters=12, faces=3)
DATA = {"name": "toy", "options": {"faces": 3}}


def dump(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def put(path, label, metrics, primary, *, evaluator="ranking", step=5, data=DATA, items=None, gallery=None, settings=None):
    """A result file as the eval job writes it, with its arrays beside it."""
    stated, made_by = None if items is None else {"statistic": "mean", "count": len(items)}, {"fingerprint": "f", "weights": "params"}
    dump(path.with_name(f"{label}.json"), {
        "evaluator": evaluator, "label": label, "step": step, "primary": {"name": primary, "value": metrics[primary]}, "metrics": metrics,
        "settings": {"data": data, **made_by, **(settings or {})}, "count": 36, "items": stated, "seconds": 0.5,
    })  # fmt: skip
    if items is not None:
        np.savez(path.with_name(f"{label}.items.npz"), items=np.asarray(items, float))
    if gallery:
        np.savez(path.with_name(f"{label}.npz"), **gallery)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of the same evaluations, the second one better, and their page."""
    root = tmp_path_factory.mktemp("runs")
    for name, encode, seed in (("first", toys.random(0), 1), ("second", toys.perfect(TOY), 2)):
        dump(root / name / "config.json", {"seed": seed, "train": {"steps": 30}})
        lines = [{"step": s, "train/loss": seed / s} for s in (1, 2, 3)]
        (root / name / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        for step in (10, 30):
            options = {"gallery_queries": 6, "gallery_pairs": 0}
            made = EVALUATORS["image_text_retrieval"](encode, TOY, **options)
            path = root / name / "evals" / str(step) / "unseen.json"
            words = dict(evaluator="image_text_retrieval", step=step, items=made.items, gallery=made.gallery)
            put(path, "unseen", made.metrics, made.primary, **words)
        found = searched(good=name == "second")
        put(
            root / name / "evals" / "30" / "x.json",
            "search",
            found.metrics,
            found.primary,
            step=30,
            items=found.items,
            gallery=found.gallery,
        )
    side_by_side.write([root / "first", str(root / "second")], root / "page")
    return root


def searched(good):
    """A search for numbers, by a model that knows them or one that knows nothing."""
    rng = np.random.default_rng(0)
    rows = {side: np.eye(20) if good else rng.normal(size=(20, 4)) for side in "qp"}
    read = lambda texts: rows[texts[0][0]][[int(text.split()[-1]) for text in texts]]
    data = type("Data", (), {"ranking": lambda self: toys.RankingTask([f"q {i}" for i in range(20)], [f"p {i}" for i in range(20)],
                                                                       np.array([(i, i) for i in range(20)]))})()  # fmt: skip
    return EVALUATORS["ranking"](toys.Encoders(query=read, passage=read), data, gallery_queries=5, controls=("bm25",))


def test_the_page_is_self_contained_and_whole(runs):
    page = (runs / "page" / "report.html").read_text()
    assert not re.search(r"https?:|//[a-z]|<link|@import|src=\"(?!data:)|href=\"(?!data:|#)", page)
    for title in ("Scores", "Task by task", "second less first", "Evaluation over training", "Training", "Geometry",
                  "search: the same queries", "search: gone worst", "unseen: the same images", "All metrics", "What differs"):  # fmt: skip
        assert f">{title}</h2>" in page
    assert "2 models on 2 tasks" in page and "place 1 of 2, 2 Borda points" in page
    assert "Scores that do not measure the same" not in page
    assert page.count('<article class="asked picture">') == 6 and page.count('<article class="asked">') == 5
    assert not any(placeholder in page for placeholder in plots.THEME)
    assert re.search(r'class="key">seed</th><td>1</td><td>2</td>', page) and "train.steps" not in page


def test_results_hold_scores_intervals_controls_and_tests(runs):
    found = json.loads((runs / "page" / "results.json").read_text())
    assert list(found["models"]) == ["first", "second"] and [found["models"][n]["place"] for n in found["models"]] == [2, 1]
    unseen, search = found["tasks"]["unseen"], found["tasks"]["search"]
    items = {name: run_files.read_run(runs / name).items["unseen"] for name in ("first", "second")}
    score = unseen["scores"]["first"]
    assert score["value"] == items["first"].mean() and score["step"] == 30
    assert score["interval"] == list(statistics.interval(items["first"], **side_by_side.BOOTSTRAP))
    assert set(search["beside"]) == {"bm25", "chance"} and unseen["beside"]["chance"] == pytest.approx(1 / 12)
    test = next(test for test in found["differences"] if test["task"] == "unseen")
    assert (test["first"], test["second"]) == ("first", "second")
    assert test["difference"] == items["second"].mean() - items["first"].mean()
    assert test["won"] == np.sum(items["second"] > items["first"]) and test["won"] + test["equal"] + test["lost"] == 36
    p = [test["p"] for test in found["differences"]]
    assert [test["p_holm"] for test in found["differences"]] == statistics.holm(np.array(p)).tolist() and len(p) == 2


def test_the_table_has_every_metric_of_every_checkpoint(runs):
    rows = list(csv.DictReader((runs / "page" / "results.csv").read_text().splitlines()))
    found = {(row["run"], row["task"], int(row["step"]), row["metric"]): float(row["value"]) for row in rows if row["value"]}
    assert {(run, step) for run, task, step, _ in found if task == "unseen"} == {(r, s) for r in ("first", "second") for s in (10, 30)}
    assert found["second", "unseen", 30, "img2txt/recall@1"] == 1
    assert [row["metric"] for row in rows if row["primary"] == "1"] == ["img2txt/recall@1", "img2txt/recall@1", "mrr@10"] * 2 or len(
        rows
    ) > 9
    report.write(runs / "first")
    alone = list(csv.DictReader((runs / "first" / "results.csv").read_text().splitlines()))
    assert alone == [row for row in rows if row["run"] == "first"]


def test_summary_is_a_table_of_primary_metrics(runs):
    lines = side_by_side.summary(runs / "page").splitlines()
    assert lines[0].split() == ["task", "metric", "first", "second", "beside"]
    assert next(line for line in lines if line.startswith("search")).split()[3] == "1.000"
    assert lines[-1] == f"report: {runs / 'page' / 'report.html'}"


def test_the_same_queries_come_first_where_models_differ(runs):
    found = side_by_side.read([runs / "first", runs / "second"])
    shown = side_sections.parts(found, side_by_side.collect(found))["queries"][0]
    places = [[cell["place"] for cell in row["cells"]] for row in shown["rows"]]
    assert len(places) == 5 and all(second == 1 for _, second in places) and places[0][0] > places[-1][0]
    assert [first for first, _ in places] == sorted((first for first, _ in places), reverse=True)


def test_labels_that_mean_different_things_are_different_tasks(tmp_path):
    put(tmp_path / "a/evals/5/x", "main", {"loss": 2.0}, "loss", evaluator="held_out_loss", data={"name": "one", "options": {}})
    put(tmp_path / "b/evals/5/x", "main", {"loss": 1.0}, "loss", evaluator="held_out_loss", data={"name": "two", "options": {}})
    put(tmp_path / "c/evals/5/x", "main", {"loss": 3.0}, "loss", evaluator="held_out_loss", data={"name": "two", "options": {}})
    put(tmp_path / "a/evals/5/x", "sized", {"map": 0.2}, "map", data={"name": "one", "options": {"size": 1}})
    put(tmp_path / "b/evals/5/x", "sized", {"map": 0.1}, "map", data={"name": "one", "options": {"size": 2}})
    found = side_by_side.collect(side_by_side.read([tmp_path / name for name in "abc"]))
    scores = {key: {name: score["value"] for name, score in task["scores"].items()} for key, task in found["tasks"].items()}
    assert scores == {"main (one)": {"a": 2.0}, "main (two)": {"b": 1.0, "c": 3.0}, "sized": {"a": 0.2}, "sized of b": {"b": 0.1}}
    assert not side_sections.all_did_all(found) and found["models"]["b"]["borda"] > found["models"]["c"]["borda"]


def test_other_settings_are_noted_and_not_tested(tmp_path):
    for name, options, view in (("a", {"k": 5}, "text"), ("b", {"k": 10}, "text"), ("c", {"k": 5}, "passage")):
        settings = {"options": options, "inputs": {"text": {"view": view, "values": 2, "digest": "d"}}}
        put(tmp_path / name / "evals/5/x", "main", {"map": 0.5}, "map", items=[0, 1], settings=settings)
    side_by_side.write([tmp_path / name for name in "abc"], tmp_path / "page")
    found = json.loads((tmp_path / "page" / "results.json").read_text())
    assert [test["second"] for test in found["differences"]] == ["c"] and len(found["tasks"]["main"]["notes"]) == 1
    assert "b was asked something else than a: options.k" in found["tasks"]["main"]["notes"][0]
    assert "Scores that do not measure the same" in (tmp_path / "page" / "report.html").read_text()


@pytest.mark.parametrize("better, sign", [("map", 1), ("loss", -1)])
def test_bars_stay_on_their_track_and_the_best_is_bold(tmp_path, better, sign):
    for name, value in (("a", 0.25), ("b", 0.5), ("c", None)):
        put(tmp_path / name / "evals/5/x", "main", {better: value}, better, items=[value, value] if value else None)
    runs = side_by_side.read([tmp_path / name for name in "abc"])
    shown = side_sections.parts(runs, side_by_side.collect(runs))
    assert [cell["best"] for cell in shown["table"][0]["cells"]] == [sign < 0, sign > 0, False]
    assert [cell["text"] for cell in shown["table"][0]["cells"]] == ["0.250", "0.500", "–"]
    assert [row["width"] for row in shown["bars"][0]["rows"]] == ([25, 50, 0] if sign > 0 else [50, 100, 0])


def test_a_suite_is_a_run_for_each_model_and_references_stand_beside(tmp_path):
    suite = tmp_path / "suite"
    for name, weights, value in (("x", "ema", 0.5), ("y", "ema", 0.7), ("random", "reference", 0.1)):
        dump(suite / name / "model.json", {"fingerprint": name, "weights": weights})
        dump(suite / name / "missing.json", {})
        for label in ("one", "two"):
            put(suite / name / "x", label, {"map": value}, "map", items=[value] * 3)
    dump(suite / "suite.json", {"tasks": {"two": {}, "one": {}}})
    runs = side_by_side.read([suite])
    found = side_by_side.collect(runs)
    assert [(m["name"], m["number"]) for m in side_sections.parts(runs, found)["models"]] == [("random", 3), ("x", 1), ("y", 2)]
    assert list(found["tasks"]) == ["two", "one"] and list(found["tasks"]["one"]["scores"]) == ["x", "y"]
    assert found["tasks"]["one"]["beside"] == {"random": 0.1} and found["models"]["random"]["place"] is None
    assert {test["second"] for test in found["differences"]} == {"y"}
    side_by_side.write([suite], tmp_path / "page")
    assert "random" in side_by_side.summary(tmp_path / "page")


def test_names_are_the_shortest_that_differ(tmp_path):
    for path in ("x/glyphs", "y/glyphs", "y/other"):
        dump(tmp_path / path / "config.json", {"a": 1})
    assert list(side_by_side.read([tmp_path / "x/glyphs", tmp_path / "y/other"])) == ["glyphs", "other"]
    assert list(side_by_side.read([tmp_path / path for path in ("x/glyphs", "y/glyphs", "y/glyphs/")])) == ["x/glyphs", "y/glyphs"]


def test_one_model_of_a_suite_has_a_page(tmp_path):
    dump(tmp_path / "a" / "model.json", {"fingerprint": "f", "weights": "ema"})
    put(tmp_path / "a" / "x", "one", {"map": 0.5}, "map", items=[0, 1])
    page = side_by_side.write([tmp_path], tmp_path).read_text()
    assert "<h1>1 model on 1 task</h1>" in page and "place" not in re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    assert run_files.models_of(tmp_path) == run_files.models_of(tmp_path / "a") == [tmp_path / "a"]
    assert "Borda" not in side_by_side.summary(tmp_path)


def test_what_cannot_be_compared_is_named(tmp_path):
    dump(tmp_path / "a" / "config.json", {"a": 1})
    with pytest.raises(FileNotFoundError, match="holds no config.json"):
        side_by_side.write([tmp_path / "a", tmp_path / "b"], tmp_path / "page")
    assert not (tmp_path / "page").exists()


def test_names_are_text_not_markup(tmp_path):
    nasty = "<script>alert(1)<"
    for name in (nasty, "b"):
        dump(tmp_path / name / "config.json", {"note": name})
        put(tmp_path / name / "evals/5/x", "main", {"map": 0.5}, "map")
    page = side_by_side.write([tmp_path / nasty, tmp_path / "b"], tmp_path / "page").read_text()
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)&lt;" in page
