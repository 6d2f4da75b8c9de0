"""The command line of launch.embed, in processes of its own: vectors, a kill in the middle, one-line mistakes."""

import json
import signal
import time

import numpy as np
import pytest

import retrieval
from retrieval import shards
from tests.interop import toys
from tests.launch.test_commands import run, start

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"list map sort a the key of and in to item set dict str int".split()]


def model(path, seed=0):
    toys.folder("bert", path, seed)
    (path / "vocab.txt").write_text("\n".join(WORDS[:20]) + "\n")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, texts, and the vectors that a run without trouble makes of them."""
    folder = tmp_path_factory.mktemp("embed")
    model(folder / "model")
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS[5:], n % 7)) for n in range(600)]
    (folder / "texts.jsonl").write_text("".join(json.dumps({"body": text}) + "\n" for text in texts) + "{half a line")
    code, _, err = run("embed", *arguments(folder, "whole"))
    assert code == 0, err
    return folder, texts


def arguments(folder, output, name="model"):
    return [
        f"--model={folder / name}", f"--input={folder / 'texts.jsonl'}", f"--output={folder / output}", "--column=body",
        "--shard_rows=20", "--tokens=64",
    ]  # fmt: skip


def test_vectors_are_those_of_the_model_in_order(folder):
    folder, texts = folder
    ids, vectors = shards.read(folder / "whole")
    assert ids == [str(n) for n in range(600)] and len(vectors) == 31
    np.testing.assert_allclose(np.concatenate(vectors), retrieval.load(folder / "model").encode(texts), atol=1e-5)
    manifest = json.loads((folder / "whole" / "manifest.json").read_text())
    assert manifest["counts"] == {"rows": 601, "vectors": 600, "bad": 1}
    assert manifest["made_by"]["model"]["fingerprint"] == retrieval.load(folder / "model").fingerprint()


def test_killed_and_started_again_gives_the_same_bytes(folder):
    folder, _ = folder
    process, manifest = start("embed", *arguments(folder, "again")), folder / "again" / "manifest.json"
    deadline = time.monotonic() + 120
    while not manifest.exists() or not json.loads(manifest.read_text())["shards"]:
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()[1]
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not json.loads(manifest.read_text())["complete"]
    code, _, err = run("embed", *arguments(folder, "again"))
    assert code == 0 and "1 of 601 rows are bad" in err and "600 vectors of width 8" in err, err
    made, expected = (
        {p.name: p.read_bytes() for p in (folder / name).iterdir() if p.suffix not in (".tmp", "")} for name in ("again", "whole")
    )
    assert made == expected


def test_another_model_in_the_same_folder_is_one_line_and_code_3(folder):
    folder, _ = folder
    model(folder / "other", seed=1)
    before = (folder / "whole" / "manifest.json").read_bytes()
    code, _, err = run("embed", *arguments(folder, "whole", "other"))
    assert code == 3 and "made_by.model.fingerprint" in err and "Choose another --output" in err, err
    assert "Traceback" not in err and len([line for line in err.splitlines() if "made_by" in line]) == 1
    assert (folder / "whole" / "manifest.json").read_bytes() == before


def test_a_column_that_no_row_has_is_one_line_and_code_3(folder):
    folder, _ = folder
    code, _, err = run("embed", *arguments(folder, "none"), "--column=txt")
    assert code == 3 and "none of the 601 rows" in err and "no 'txt'; there are: body. Is --column right?" in err, err
    assert "Traceback" not in err
