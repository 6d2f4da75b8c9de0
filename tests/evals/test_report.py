"""The report of whole, partial and broken workdirs."""

import base64
import io
import json
import math
import re

import numpy as np
import pytest
from PIL import Image

from evals import EVALUATORS, pictures, plots, report, run_files
from tests.evals import toys

TOY = toys.Toy(characters=12, faces=3)
CONFIG = {
    "seed": 0, "data": {"global_batch": 64}, "train": {"steps": 30},
    "evals": {"unseen": {"name": "image_text_retrieval", "goal": 0.5}, "script": {"name": "zeroshot"}, "kept": {"name": "held_out_loss"}},
}  # fmt: skip
OPTIONS = {"unseen": {"gallery_queries": 6, "gallery_pairs": 5}, "script": {}, "kept": {"batch": 12}}
ENVIRONMENT = {"python": "3.11", "cores": 2, "commit": "abc123", "versions": {"jax": "0.10.2"}, "matmul_gflops": 151.2}


def dump(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def put_result(workdir, label, step, metrics, primary, evaluator="image_text_retrieval", gallery=None):
    found = {
        "evaluator": evaluator, "label": label, "step": step, "primary": {"name": primary, "value": metrics[primary]},
        "metrics": metrics, "settings": {}, "count": 36, "seconds": 0.5,
    }  # fmt: skip
    dump(workdir / "evals" / str(step) / f"{label}.json", found)
    if gallery:
        np.savez_compressed(workdir / "evals" / str(step) / f"{label}.npz", **gallery)


def put_training(workdir, steps=range(1, 31)):
    rows = [
        {"step": s, "time": 1000.0 + 2 * s, "train/loss": 4 / s, "train/recall@1_in_batch": s / 40, "train/logit_scale": 10.0 + s,
         "train/positive_logit": 1.0 * s, "train/negative_logit": -1.0, "train/effective_rank_query": 8.0,
         "opt/learning_rate": 1e-3, "opt/grad_norm": None, "perf/examples_per_second": 900.0 + s}
        for s in steps
    ]  # fmt: skip
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A run with all evaluators at two checkpoints, the later one better."""
    workdir = tmp_path_factory.mktemp("runs") / "toy"
    dump(workdir / "config.json", CONFIG)
    dump(workdir / "environment.json", ENVIRONMENT)
    put_training(workdir)
    for step, encode in ((10, toys.random(0)), (30, toys.perfect(TOY))):
        for label, entry in CONFIG["evals"].items():
            result = EVALUATORS[entry["name"]](encode, TOY, **OPTIONS[label])
            put_result(workdir, label, step, result.metrics, result.primary, entry["name"], result.gallery)
    report.write(workdir)
    return workdir


def test_page_is_self_contained_and_whole(full):
    page = (full / "report.html").read_text()
    assert not re.search(r"https?:|//[a-z]|<link|@import|src=\"(?!data:)|href=\"(?!data:|#)", page)
    for title in ("What it retrieves", "The shared space", "Image against text", "Classes from prompts alone", "Evaluation over training",
                  "Training", "All results", "The run"):  # fmt: skip
        assert f"<h2>{title}</h2>" in page
    assert page.count('<article class="query">') == 6
    assert page.count('class="cell"') == 25 and page.count('class="own"') == 5
    assert page.count("<circle") == 36 and page.count("(text)</title></path>") == 12
    assert "goal ≥ 50.0%: reached" in page and "of 36 images rank a right text first among 12" in page
    assert "151 GFLOP/s" in page and "58 s" in page and "1,920 examples" in page
    assert "Gradient norm" not in page  # never a number in the log
    assert not any(placeholder in page for placeholder in plots.THEME)


def test_right_and_wrong_differ_in_more_than_colour(full):
    page = (full / "report.html").read_text()
    rows = re.findall(r'<li class="(hit|miss)"><span class="mark" aria-label="(\w+)">(.)</span>', page)
    assert len(rows) == 30 and set(rows) == {("hit", "right", "✓"), ("miss", "wrong", "✕")}
    assert rows.count(("hit", "right", "✓")) == 6


def test_writing_twice_gives_the_same_bytes(full):
    before = (full / "report.html").read_bytes(), (full / "results.json").read_bytes()
    assert report.write(str(full)) == full / "report.html"
    assert ((full / "report.html").read_bytes(), (full / "results.json").read_bytes()) == before


def test_results_hold_last_best_and_history(full):
    found = json.loads((full / "results.json").read_text())
    assert list(found["evaluators"]) == ["unseen", "script", "kept"]  # as in the config
    unseen, kept = found["evaluators"]["unseen"], found["evaluators"]["kept"]
    assert unseen["primary"] == {"name": "img2txt/recall@1", "better": "higher", "goal": 0.5} and kept["primary"]["better"] == "lower"
    assert unseen["last"]["step"] == unseen["best"]["step"] == kept["best"]["step"] == 30
    assert [step for step, _ in unseen["history"]] == [10, 30] and unseen["history"][1][1] == 1
    assert found["train"]["step"] == 30 and found["environment"]["cores"] == 2


def test_the_evaluator_that_decides_comes_first(tmp_path):
    for label in ("a", "b", "c", "unlisted"):
        put_result(tmp_path, label, 1, {"loss": 1.0}, "loss")
    dump(tmp_path / "config.json", {"checkpoint": {"best": "b"}, "evals": {"a": {}, "b": {}, "c": {}}})
    assert list(run_files.read_run(tmp_path).results) == ["b", "a", "c", "unlisted"]


def test_summary_is_aligned(full):
    lines = report.summary(full).splitlines()
    assert lines[0].split() == ["evaluator", "metric", "last", "best@step"]
    assert lines[2].split() == ["unseen", "img2txt/recall@1", "100.0%", "100.0%", "@", "30"]
    body = lines[2 : lines.index("unseen: goal ≥ 50.0%: reached")]
    assert len({len(line) for line in body}) == 1 and len({line.index("@ ", 40) for line in body}) == 1
    assert not any("pessimistic" in line or "geometry" in line or "rank" in line for line in body)
    assert lines[-1] == f"report: {full / 'report.html'}"


def test_summary_shows_controls_beside_the_model(tmp_path):
    values = {"mrr@10": 0.4632, "recall@5": 0.6, "bm25/mrr@10": 0.3685, "bm25/recall@5": 0.5, "words/mrr@10": 0.1, "std/mrr@10": 0.3}
    put_result(tmp_path, "held_out", 7, values, "mrr@10", evaluator="ranking")
    put_result(tmp_path, "kept", 7, {"loss": 2.5}, "loss", evaluator="held_out_loss")
    lines = report.summary(tmp_path).splitlines()
    assert lines[0].endswith("best@step  beside")
    assert lines[2].split("  ")[-1] == "bm25 0.368, words 0.100" and lines[3].endswith("60.0% @ 7  bm25 50.0%")
    assert lines[4].split() == ["kept", "loss", "2.500", "2.500", "@", "7"]


@pytest.mark.parametrize("name, values, best", [("img2txt/recall@1", {2: 0.3, 4: 0.5, 10: 0.4}, 4), ("loss", {2: 3.0, 4: 2.0, 10: 2.5}, 4),
                                                 ("img2txt/recall@1", {2: 0.5, 4: 0.5, 10: 0.1}, 2)])  # fmt: skip
def test_best_follows_the_direction_and_steps_are_numbers(tmp_path, name, values, best):
    for step, value in values.items():
        put_result(tmp_path, "main", step, {name: value}, name)
    found = report.results(run_files.read_run(tmp_path))["evaluators"]["main"]
    assert found["best"]["step"] == best and found["last"]["step"] == 10
    assert [step for step, _ in found["history"]] == [2, 4, 10]
    assert f"@ {best}" in report.summary(tmp_path).splitlines()[2]


@pytest.mark.parametrize("value, reached", [(0.5, "reached"), (0.49, "not reached")])
def test_goal_is_stated_plainly(tmp_path, value, reached):
    dump(tmp_path / "config.json", CONFIG)
    put_result(tmp_path, "unseen", 1, {"img2txt/recall@1": value}, "img2txt/recall@1")
    assert f"unseen: goal ≥ 50.0%: {reached}\n" in report.summary(tmp_path)
    page = report.write(tmp_path).read_text()
    assert f"goal ≥ 50.0%: {reached}</span>" in page


@pytest.mark.parametrize("values", [{2: None, 4: 0.3, 6: None}, {2: None}])
def test_what_is_undefined_is_a_dash_and_worst(tmp_path, values):
    dump(tmp_path / "config.json", {"evals": {"unseen": {"goal": 0.5}}})
    for step, value in values.items():
        put_result(tmp_path, "unseen", step, {"cosine_spearman": value}, "cosine_spearman", evaluator="sts")
    found = report.results(run_files.read_run(tmp_path))["evaluators"]["unseen"]
    assert found["best"]["primary"]["value"] == values.get(4) and found["last"]["primary"]["value"] is None
    assert "goal ≥ 0.500: not reached" in report.summary(tmp_path)
    assert '<p class="value">–</p>' in report.write(tmp_path).read_text()


def test_an_evaluator_without_a_sentence_of_its_own(tmp_path):
    put_result(tmp_path, "other", 7, {"map": 0.25}, "map", evaluator="something_new")
    assert "map over 36 examples" in report.write(tmp_path).read_text()


@pytest.mark.parametrize("part", ["config", "environment and config", "metrics", "one line", "evals"])
def test_parts_alone_make_a_page(tmp_path, part):
    if "config" in part:
        dump(tmp_path / "config.json", CONFIG)
    if "environment" in part:
        dump(tmp_path / "environment.json", ENVIRONMENT)
    if part == "metrics":
        put_training(tmp_path)
    if part == "one line":
        put_training(tmp_path, steps=[5])
    if part == "evals":
        put_result(tmp_path, "unseen", 1, {"img2txt/recall@1": 0.1}, "img2txt/recall@1")
    page = report.write(tmp_path).read_text()
    assert ("No checkpoint has been evaluated yet" in page) == (part != "evals")
    assert ("<h2>Training</h2>" in page) == (part in ("metrics", "one line"))
    assert ("no evaluation yet" in report.summary(tmp_path)) == (part != "evals")


@pytest.mark.parametrize("call", [report.write, report.summary])
def test_an_empty_workdir_is_one_line(tmp_path, call):
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(FileNotFoundError, match=r"^\S+ holds no config.json, metrics.jsonl or evals/; give the --workdir of a .*$"):
            call(folder)
    assert list(tmp_path.iterdir()) == []


def test_repeated_steps_keep_the_last_and_a_torn_line_is_left_out(tmp_path):
    lines = [{"step": 1, "train/loss": 5.0}, {"step": 2, "train/loss": 9.0}, {"step": 2, "train/loss": 3.0}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 3, "train/lo')
    assert run_files.read_run(tmp_path).series("train/loss") == ([1, 2], [5.0, 3.0])


def test_a_broken_result_hides_no_other(tmp_path, caplog):
    put_result(tmp_path, "unseen", 1, {"img2txt/recall@1": 0.1}, "img2txt/recall@1")
    (tmp_path / "evals" / "1" / "torn.json").write_text('{"evalu')
    dump(tmp_path / "evals" / "best" / "unseen.json", {"not": "a result"})
    assert list(run_files.read_run(tmp_path).results) == ["unseen"]
    assert "torn.json is not JSON" in caplog.text


def test_the_newest_gallery_is_shown(tmp_path):
    for step in (2, 10):
        put_result(tmp_path, "a", step, {"accuracy@1": 0.1}, "accuracy@1", gallery={"confusion": np.eye(2, 3) * step})
    put_result(tmp_path, "a", 12, {"accuracy@1": 0.1}, "accuracy@1")
    assert run_files.read_run(tmp_path).galleries["a"]["confusion"][0, 0] == 10


def test_names_are_text_not_markup(tmp_path):
    nasty = "<script>alert(1)</script>"
    encode = toys.perfect(TOY)
    toy = toys.Toy(characters=12)
    toy.scripts = [f"{nasty} {s}" for s in range(5)]
    result = EVALUATORS["image_text_retrieval"](encode, toy, gallery_queries=4)
    put_result(tmp_path, "unseen", 1, result.metrics, result.primary, gallery=result.gallery)
    dump(tmp_path / "config.json", {"note": nasty, "evals": {}})
    page = report.write(tmp_path).read_text()
    assert nasty not in page and "&lt;script&gt;alert(1)" in page


def test_images_become_png_without_loss():
    for channels in (1, 3):
        image = np.random.default_rng(0).integers(0, 256, (5, 4, channels), dtype=np.uint8)
        kind, data = pictures.data_uri(image).split(",")
        assert kind == "data:image/png;base64"
        decoded = np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))).reshape(image.shape)
        np.testing.assert_array_equal(decoded, image)


def test_ink_is_grey_marks_on_black():
    glyphs = np.zeros((2, 8, 8, 1), np.uint8)
    glyphs[:, 2:4] = 255
    assert pictures.is_ink(glyphs) and not pictures.is_ink(255 - glyphs) and not pictures.is_ink(np.zeros((2, 8, 8, 3), np.uint8))


def test_heat_map_shades_rise_with_the_score():
    scores = np.array([[0.9, 0.1], [0.2, 0.1]], np.float32)
    arrays = {
        "pair_images": np.zeros((2, 1, 1, 1), np.uint8), "pair_names": np.array(["a", "b"]), "pair_groups": np.array(["x", "x"]),
        "pair_scores": scores, "pair_relevant": np.eye(2, dtype=bool),
    }  # fmt: skip
    heat = pictures.heat_map(arrays)
    shade = {(cell["row"], cell["column"]): cell["shade"] for cell in heat["cells"]}
    assert shade[0, 0] == 1 and shade[0, 1] == 0 and 0 < shade[1, 0] < 0.2
    assert heat["best"] == 1 and heat["groups"] == [{"name": "x", "start": 0, "length": 2}]


@pytest.mark.parametrize("images, texts, method", [(1, 1, "PCA"), (3, 2, "PCA"), (60, 20, "t-SNE")])
@pytest.mark.parametrize("constant", [False, True])
def test_maps_hold_every_point_inside_the_frame(images, texts, method, constant):
    rng = np.random.default_rng(0)
    draw = lambda n: (np.ones((n, 6)) if constant else rng.normal(size=(n, 6))).astype(np.float16)
    names = lambda n: np.array([f"name {i}" for i in range(n)])
    groups = lambda n: np.array([f"group {i % 14}" if i % 15 else "other" for i in range(n)])
    arrays = {}
    for view, n in (("image", images), ("text", texts)):
        arrays |= {f"map_{view}_embeddings": draw(n), f"map_{view}_names": names(n), f"map_{view}_groups": groups(n)}
    found = pictures.embedding_map(arrays)
    points = [point for group in found["groups"] for point in group["points"]]
    assert found["method"] == method and len(points) == images + texts
    assert all(0 <= p["x"] <= 1000 and 0 <= p["y"] <= 640 for p in points)
    assert found["groups"][-1]["name"] == "other" and found["groups"][-1]["number"] == 0
    numbers = [group["number"] for group in found["groups"] if group["number"]]
    assert numbers == list(range(1, min(10, len(found["groups"]) - 1) + 1))


def test_a_gap_between_views_does_not_show_on_the_map():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(40, 6))
    arrays = {}
    for view, shift in (("image", 50), ("text", -50)):
        noise = 0.01 * rng.normal(size=rows.shape)
        arrays |= {f"map_{view}_embeddings": (rows + noise + shift).astype(np.float32), f"map_{view}_names": np.array(["x"] * 40),
                   f"map_{view}_groups": np.full(40, "all")}  # fmt: skip
    points = pictures.embedding_map(arrays)["groups"][0]["points"]
    image, text = (np.array([(p["x"], p["y"]) for p in points if p["kind"] == kind]) for kind in ("image", "text"))
    nearest = np.argmin(np.linalg.norm(image[:, None] - text[None], axis=2), axis=1)
    assert np.mean(nearest == np.arange(40)) > 0.9


def test_names_on_the_map_do_not_cover_each_other():
    plane = np.array([[500.0, 300], [540, 310], [900, 300], [500, 340]])
    groups = pictures._groups(["a", "b", "c", "d"], plane)
    assert {label: group["written"] for label, group in groups.items()} == {"a": True, "b": False, "c": True, "d": True}


def test_near_rows_stay_near_on_the_map():
    rng = np.random.default_rng(0)
    centres = 10 * np.eye(4, 8)
    rows = np.concatenate([centre + 0.1 * rng.normal(size=(20, 8)) for centre in centres]).astype(np.float32)
    method, plane = pictures.project(rows)
    middles = plane.reshape(4, 20, 2).mean(axis=1)
    nearest = np.argmin(np.linalg.norm(plane[:, None] - middles[None], axis=2), axis=1)
    assert method == "t-SNE" and nearest.tolist() == np.repeat(np.arange(4), 20).tolist()


def test_confusion_shows_other_predictions_only_where_there_are_any():
    arrays = {"confusion": np.array([[3, 1, 0], [0, 2, 0]]), "class_names": np.array(["a", "b"]), "class_recall": np.array([0.75, 1]),
              "class_rows": np.array([4, 2])}  # fmt: skip
    found = pictures.confusion(arrays)
    assert found["columns"] == ["a", "b"] and found["rows"][0]["cells"] == [0.75, 0.25]
    arrays["confusion"][1, 2] = 2
    found = pictures.confusion(arrays)
    assert found["columns"] == ["a", "b", "any other"] and found["rows"][1]["cells"] == [0, 0.5, 0.5]


def test_smoothing_keeps_lines_straight_and_means_noise_out():
    line = np.linspace(3, 5, 100)
    np.testing.assert_allclose(plots.smooth(line), line, atol=1e-12)
    noise = np.random.default_rng(0).normal(size=400)
    assert plots.smooth(noise).std() < 0.4
    assert plots.smooth(noise)[0] == noise[0]


@pytest.mark.parametrize("value, text", [(0, "0"), (1234, "1.234k"), (2.5e6, "2.5M"), (0.05, "0.05"), (3e-5, "3e-5"), (-1500, "-1.5k")])
def test_ticks_are_short(value, text):
    assert plots.short(value) == text


@pytest.mark.parametrize(
    "name, value, text",
    [("img2txt/recall@1", 0.5555, "55.5%"), ("loss", 1.23456, "1.235"), ("img2txt/mean_rank", 12.04, "12.0"), ("count/texts", 500.0, "500"),
     ("rsum", 321.98, "322.0"), ("loss", None, "–"), ("accuracy@1", math.pi / 10, "31.4%")],
)  # fmt: skip
def test_values_have_the_digits_of_their_kind(name, value, text):
    assert run_files.readable(name, value) == text
