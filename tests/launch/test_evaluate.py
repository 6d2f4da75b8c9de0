"""The command line of launch.evaluate for suites and for comparing results, in processes of its own."""

import json

import pytest

from tests.launch.test_commands import run
from tests.launch.test_embed import model

ROWS = [("a list of the key", "key of a list", 4.5), ("sort the set", "map and dict", 0.5), ("item in a map", "a map item", 4.0)]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """A toy model of another library, a published set in miniature, and what the suite says of them."""
    folder = tmp_path_factory.mktemp("suite")
    model(folder / "model")
    (folder / "data" / "stsb_mt_p").mkdir(parents=True)
    (folder / "data" / "stsb_mt_p" / "stsb-en-test.csv").write_text("".join(f"{a},{b},{score}\n" for a, b, score in ROWS))
    suite = f"configs/suites/local_text.py:path={folder / 'data'}"
    asked = [f"--suite={suite}", f"--model=toy={folder / 'model'}", f"--output={folder / 'out'}", "--evals=stsb_en,trec"]
    return folder, run("evaluate", *asked)


def test_a_model_of_another_library_gets_its_table(evaluated):
    folder, (code, out, err) = evaluated
    assert code == 0, err
    assert "| stsb_en | sts | cosine_spearman | 3 |" in out and out.strip() == (folder / "out" / "table.md").read_text().strip()
    assert "trec is left out for toy: suite.tasks.trec.data.options.path: there is no" in err
    result = json.loads((folder / "out" / "toy" / "stsb_en.json").read_text())
    view = result["settings"]["views"]["text"]
    assert view["case"] == "ignored" and view["padding"] == "masked" and len(view["tokenizer"]) == 16 and view["dtype"] == "float32"
    assert result["settings"]["inputs"]["text"]["values"] == 6 and (folder / "out" / "toy" / "stsb_en.items.npz").exists()


def test_results_are_compared(evaluated):
    path = evaluated[0] / "out" / "toy" / "stsb_en.json"
    code, out, err = run("evaluate", f"--compare={path},{path}")
    assert code == 0 and out == "The scores are the same.\n", err


def test_a_model_alone_is_one_line_and_code_3():
    code, _, err = run("evaluate", "--model=a")
    assert code == 3 and "give --workdir, the folder of a training run; or --suite with --model" in err and "Traceback" not in err
