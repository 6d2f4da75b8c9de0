"""Suites over models of known quality: what is computed, what is not computed twice, and what the table says of it."""

import zlib

import numpy as np
import pytest
from ml_collections import ConfigDict

from core.config import ConfigError
from core.workdir import read_json
from evals import board, encoders, statistics, suite
from input_pipeline import EVAL_SETS
from tests.evals import toys


class Toy(toys.Toy):
    """The toy set as configs name sets, by keyword."""

    def __init__(self, *, path: str = ".", scripts: int = 5):
        super().__init__(scripts=scripts)


@pytest.fixture(autouse=True)
def toy_set(monkeypatch):
    monkeypatch.setitem(EVAL_SETS, "toy", Toy)


def config(**tasks):
    said = dict(source="made here", licence="none", protocol="ours")
    entry = lambda type, name, **options: dict(type=type, name=name, data=dict(name="toy", options={}), options=options, **said)
    made = ConfigDict()
    made.name, made.bootstrap, made.references = "toy", dict(number=200, seed=0, level=0.95), ("constant", "random")
    made.tasks = dict(
        search=entry("retrieval", "ranking", query="image", passage="text", ks=(1, 5)),
        alike=entry("sts", "sts", first="image"),
        mine=entry("bitext", "bitext", source="image"),
    ) | {label: said | task for label, task in tasks.items()}  # fmt: skip
    return made


def model(kind, name=None):
    made_by = {"fingerprint": name or kind, "weights": "params"}
    if kind == "perfect":
        return encoders.Encoders(toys.perfect(toys.Toy()), made_by)
    # Of what is asked and nothing else: a second run must be the first one again.
    seed = lambda values: (zlib.crc32(repr(list(values)).encode()), int(kind))
    rows = lambda values: np.random.default_rng(seed(values)).normal(size=(len(values), 16)).astype(np.float32)
    return encoders.Encoders(dict(image=rows, text=rows), made_by)


def evaluate(made, output, models):
    for name, encode in models.items():
        suite.run(made, name, encode, output)
    suite.references(made, output)
    return board.write(made, output)


@pytest.fixture
def done(tmp_path):
    made = config()
    text = evaluate(made, tmp_path, {"best": model("perfect"), "guess": model("1"), "guess2": model("2")})
    return tmp_path, read_json(tmp_path / "suite.json"), text


def test_scores_intervals_means_and_ranks(done):
    folder, found, _ = done
    assert set(found["tasks"]) == {"search", "alike", "mine"} and set(found["models"]) == {"best", "guess", "guess2", "constant", "random"}
    best = found["models"]["best"]
    assert best["scores"] == pytest.approx({"search": 1, "alike": 1, "mine": 1}) and (best["place"], best["borda"]) == (1, 6.0)
    assert best["types"] == pytest.approx({"retrieval": 1, "sts": 1, "bitext": 1}) and best["of"] == 3
    for name in ("guess", "guess2"):
        one = found["models"][name]
        assert one["mean"] == pytest.approx(np.mean(list(one["scores"].values())))
        with np.load(folder / name / "mine.items.npz", allow_pickle=False) as stored:
            assert one["intervals"]["mine"] == pytest.approx(statistics.interval(stored["items"], number=200))
    assert sum(found["models"][name]["borda"] for name in ("best", "guess", "guess2")) == 3 * 3  # T n (n - 1) / 2


def test_references_score_what_ties_and_chance_are_worth(done):
    models = done[1]["models"]
    constant, drawn = models["constant"], models["random"]
    assert constant["reference"] and "place" not in constant and constant["scores"]["alike"] is None and constant["of"] == 2
    assert constant["scores"]["mine"] == pytest.approx(3 / 60 * 6 / 63)  # everyone takes the first target
    assert constant["scores"]["search"] == pytest.approx(sum(1 / r for r in range(1, 11)) / 20)
    assert drawn["scores"]["search"] == pytest.approx(constant["scores"]["search"], abs=0.1) and abs(drawn["scores"]["alike"]) < 0.4


def test_pairs_of_models_are_tested_on_the_same_items(done):
    folder, found, _ = done
    assert [(pair["first"], pair["second"]) for pair in found["pairs"]] == [("best", "guess"), ("best", "guess2"), ("guess", "guess2")]
    test = found["pairs"][0]["tasks"]["mine"]
    assert test["difference"] == pytest.approx(found["models"]["guess"]["scores"]["mine"] - 1) and test["interval"][1] < 0
    assert test["p"] == pytest.approx(2 / 201) and test["p"] <= test["p_holm"] <= 3 * test["p"]


def test_the_table_says_it_all(done):
    text = done[2]
    lines = text.splitlines()
    assert lines[0].split("|")[5].strip() == "best" and "| constant | random |" in lines[0]
    (row,) = [line for line in lines if line.startswith("| alike ")]
    assert "| sts | cosine_spearman | 60 | 1.0000 [1.000, 1.000] |" in row and row.rstrip(" |").endswith(row.split("|")[-2].strip())
    assert "| Borda rank |" in text and "1 (6 points)" in text and "guess against best: higher on 0, lower on 3" in text
    assert text == (done[0] / "table.md").read_text()


def test_a_result_is_made_once_and_a_lost_or_changed_one_again(done, caplog):
    folder, made = done[0], config()
    assert suite.run(made, "guess", model("1"), folder) == []
    (folder / "guess" / "mine.json").unlink()
    assert suite.run(made, "guess", model("1"), folder) == [folder / "guess" / "mine.json"]
    made.tasks.search.options.k = 5
    made.tasks.search.options.primary = "mrr@5"
    assert suite.run(made, "guess", model("1"), folder) == [folder / "guess" / "search.json"]
    assert suite.run(made, "guess", model("1"), folder) == []


def test_items_that_differ_are_not_paired(done):
    folder, made = done[0], config()
    made.tasks.mine.data.options.scripts = 4  # the same texts: the digest is the same
    made.tasks.alike.cut = dict(items=30)
    suite.run(made, "guess", model("1"), folder)
    pairs = board.collect(made, folder)["pairs"]
    assert set(pairs[0]["tasks"]) == {"search", "mine"} and set(pairs[1]["tasks"]) == {"search", "alike", "mine"}  # best and guess2


def test_another_model_of_the_same_name_is_refused(done):
    with pytest.raises(
        ConfigError, match="holds results of another model: guess.fingerprint: '1' -> 'x'. Give this one a name, --model=NAME"
    ):
        suite.run(config(), "guess", model("1", name="x"), done[0])


def test_what_a_model_cannot_read_or_is_not_there_is_missing(tmp_path, caplog):
    toy = dict(name="toy", options=dict(path=str(tmp_path / "none")))
    made = config(away=dict(type="sts", name="sts", data=toy, options=dict(first="image")))
    blind = model("perfect")
    del blind["image"]
    text = evaluate(made, tmp_path / "out", {"blind": blind, "best": model("perfect")})
    found = read_json(tmp_path / "out" / "suite.json")
    assert "needs a view 'image'; this model has text" in found["models"]["blind"]["missing"]["search"]
    assert "there is no " in found["models"]["best"]["missing"]["away"] and "away is left out for best" in caplog.text
    assert (found["models"]["blind"]["borda"], found["models"]["blind"]["mean"]) == (0.0, None) and "missing" in text


def test_a_bag_of_words_reads_any_text_alike_whatever_its_order():
    encode = encoders.hashed_words()["text"]
    rows = encode(["The cat saw a dog.", "a DOG saw the cat", "the cat", "", "?!"])
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-6)
    assert rows[0] @ rows[1] == pytest.approx(1) and rows[0] @ rows[2] == pytest.approx(2 / np.sqrt(10)) and rows[3] @ rows[4] == 1


def test_roles_find_a_view_that_stands_in():
    text = lambda values: values
    encode = encoders.Encoders({"text": text}, {})
    assert encode["query"] is text and encode["passage"] is text and encode.view("query") == "text"
    both = encoders.Encoders({"query": 1, "passage": 2}, {})
    assert (both["query"], both["passage"], both["text"]) == (1, 2, 2)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(type="stss"), "suite.tasks.alike.type is 'stss', which is not among: bitext"),
        (dict(name="st"), "suite.tasks.alike.name is 'st', which is not among: .* Did you mean 'sts'"),
        (dict(licence=""), "suite.tasks.alike.licence is empty; say whose data it is"),
        (dict(cut=dict(rows=1)), "suite.tasks.alike.cut.rows is not a key"),
        (dict(sourse="x"), "suite.tasks.alike.sourse is not a key.* Did you mean 'source'"),
    ],
)
def test_mistakes_in_a_suite_are_found_before_anything_runs(change, message):
    made = config()
    made.tasks.alike.update(change)
    with pytest.raises(ConfigError, match=message):
        suite.check(made)


def test_models_are_named_by_folder_or_by_hand(tmp_path):
    assert suite.named([f"{tmp_path}/a", f"b={tmp_path}/a"]) == {"a": tmp_path / "a", "b": tmp_path / "a"}
    with pytest.raises(ConfigError, match=r"'a' does not name .*/b/a in the table; give it one without slashes"):
        suite.named([f"{tmp_path}/a", f"{tmp_path}/b/a"])


def test_no_result_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no result of toy; evaluate a model on it first"):
        board.collect(config(), tmp_path)
