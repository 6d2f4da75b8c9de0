"""The notebooks: stored without outputs; each runs from top to bottom in a fresh kernel and reaches what it says."""

import ast
import importlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from launch import notebook

ROOT = pathlib.Path(__file__).resolve().parents[2]
PATHS = sorted((ROOT / "launch" / "notebooks").glob("*.ipynb"))
EACH = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
MINUTES = 15  # for a cell that hangs: the whole notebooks took 82 to 270 s on two cores that other jobs shared
# What each leaves, as an expression over its names, and what must hold of that. Margins lie between what was measured and chance.
RESULTS = {
    "1_glyphs": (  # 0.355 of 3,574 pictures; chance 0.002
        'dict(recall=found["unseen"].metrics["img2txt/recall@1"], searched=best.rows.shape, last=run.metrics[-1]["step"])',
        lambda recall, searched, last: recall > 0.2 and searched == [6, 3] and last == 240,
    ),
    "2_code_search": (  # 0.499 after 0.461; BM25 0.462
        """dict(
            gain=after.metrics["mrr@10"] - before.metrics["mrr@10"], after=after.metrics["mrr@10"], control=after.metrics["bm25/mrr@10"],
            changed=float(np.abs(again - embed(encoder, corpus[:8], "passage")).max()),
        )""",
        lambda gain, after, control, changed: gain > 0.01 and after > control and changed < 1e-5,
    ),
    "3_your_images": (  # 0.887 of 124 pictures; chance 0.021
        'dict(recall=found.metrics["img2txt/recall@1"], noted=(ROOT / "runs/notebook_numbers_broken/bad_records.jsonl").read_text())',
        lambda recall, noted: recall > 0.6 and json.loads(noted.splitlines()[0])["kind"] == "truncated",
    ),
    "4_compare": (  # 0.159, from 0.105 to 0.213
        "dict(seeds=len(items), judged=judged)",
        lambda seeds, judged: seeds == 5 and judged["interval"][0] > 0 and judged["mean"] > 0.05,
    ),
}


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def sources(path, kind="code"):
    return ["".join(cell["source"]) for cell in read(path)["cells"] if cell["cell_type"] == kind]


def test_there_are_four_and_all_are_run():
    assert {path.stem for path in PATHS} == set(RESULTS) and len(PATHS) == 4


@EACH
def test_nothing_of_a_run_is_stored(path):
    stored = read(path)
    assert (stored["nbformat"], stored["nbformat_minor"]) == (4, 5)
    assert all(cell["metadata"] == {} for cell in stored["cells"])
    code = [cell for cell in stored["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert len({cell["id"] for cell in stored["cells"]}) == len(stored["cells"])


@EACH
def test_no_path_of_one_machine_stands_in_it(path):
    text = "\n".join(sources(path) + sources(path, "markdown")).replace('"/content/tandem"', "")
    assert not re.findall(r"(?<![\w.\"')])/(?:[a-z]+/)+|[A-Z]:\\", text)


@EACH
def test_the_first_cell_is_the_same_and_every_import_exists(path):
    first, *others = sources(path)
    assert first == sources(PATHS[0])[0]
    for node in (node for text in [first, *others] for node in ast.walk(ast.parse(text))):
        if isinstance(node, ast.ImportFrom) and node.module != "IPython.display":  # which every kernel has
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name) or importlib.util.find_spec(f"{node.module}.{alias.name}"), (node.module, alias.name)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)


def test_every_folder_that_is_named_is_there():
    text = "\n".join(text for path in PATHS for text in sources(path, "markdown"))
    for name in re.findall(r"(?<![\w/])((?:docs|configs|launch|losses|models|claims)/[\w./]*)", text):
        assert (ROOT / name.rstrip(".")).exists(), name


COLAB = """
import importlib.metadata, pathlib, shutil, subprocess, sys, types
for name in ("google", "google.colab"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["google.colab"].output = None  # which jax asks for
calls = []
def run(words, check):
    calls.append(words)
    if words[0] == "git":
        shutil.copytree(words[-2], words[-1], ignore=shutil.ignore_patterns(".*", "runs", "tests", "benchmarks"))
subprocess.run = run
shutil.which = lambda name: None
try:
    exec(sys.argv[1].replace("REPOSITORY = ", "REPOSITORY = '' and "))
except ValueError as error:
    print(error)
exec(sys.argv[1])
import training
assert pathlib.Path(training.__file__).is_relative_to(ROOT) and pathlib.Path.cwd() == ROOT
assert [words[0] for words in calls] == ["git", sys.executable], calls
assert calls[1][1:] == ["-m", "pip", "install", "--quiet", "-r", str(ROOT / "requirements.txt")], calls
import numpy
numpy.__version__ = "1.0"
try:
    notebook.start()
except RuntimeError as error:
    print(error)
"""


@pytest.mark.notebooks
def test_on_colab_the_first_cell_brings_code_and_packages(tmp_path):
    first = sources(PATHS[0])[0].replace('REPOSITORY = ""', f"REPOSITORY = {str(ROOT)!r}")
    first = first.replace("/content/tandem", str(tmp_path / "tandem"))
    done = subprocess.run([sys.executable, "-c", COLAB, first], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "fill in REPOSITORY" in done.stdout
    assert "numpy had been loaded in another version: choose Runtime > Restart session" in done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """The code in a folder of its own, so that no earlier run is gone on with."""
    folder = tmp_path_factory.mktemp("checkout") / "tandem"
    return shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".*", "__pycache__", "runs", "tests", "downloads", "exported"))


def kernel_environment():
    """Without the suite's own: programs at full speed, one device."""
    return {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"} | {"JAX_PLATFORMS": "cpu"}


@pytest.mark.notebooks
@EACH
def test_it_runs_from_top_to_bottom(path, checkout):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    stored = nbformat.read(path, as_version=4)
    wanted, check = RESULTS[path.stem]
    stored.cells.append(nbformat.v4.new_code_cell(f"import json\nprint(json.dumps({wanted}))"))  # as a reader could add
    client = nbclient.NotebookClient(
        stored, timeout=60 * MINUTES, kernel_name="python3", resources={"metadata": {"path": str(checkout / "launch" / "notebooks")}}
    )
    client.execute(env=kernel_environment())
    found = json.loads(stored.cells[-1].outputs[-1].text)
    assert check(**found), found
    warned = [out.text for cell in stored.cells for out in cell.get("outputs", []) if out.output_type == "stream" and "Warning" in out.text]
    assert not warned


LONG = """
import sys
sys.path.insert(0, "../..")
from configs import digits
from training import fit
config = digits.get_config()
config.train.steps, config.checkpoint.every_steps, config.log.every_steps, config.data.workers = 400, 400, 5, 1
rows = []
run = fit(config, "../../runs/interrupted", on_metrics=lambda row: rows.append(row["step"]))
"""


@pytest.mark.notebooks
def test_a_cell_that_is_interrupted_saves_and_run_again_goes_on(checkout):
    """With a real kernel, its interrupt, and workers of the input pipeline, which start from a process without flags."""
    manager = pytest.importorskip("jupyter_client").manager
    kernels, client = manager.start_new_kernel(kernel_name="python3", cwd=str(checkout / "launch" / "notebooks"), env=kernel_environment())
    workdir = checkout / "runs" / "interrupted"
    try:
        asked = client.execute(LONG)
        until = time.monotonic() + 120
        while not (workdir / "metrics.jsonl").exists() and time.monotonic() < until:
            time.sleep(0.05)
        kernels.interrupt_kernel()
        reply = answer(client, asked)
        assert reply["status"] == "error" and reply["ename"] == "Stopped" and "run the same again to go on" in reply["evalue"]
        step = int(re.search(r"after step (\d+) of 400", reply["evalue"])[1])
        assert 5 <= step < 400 and not (workdir / "done.json").exists()
        reply = answer(client, client.execute(LONG + "assert rows == list(range(5, 401, 5)), rows"))
        assert reply["status"] == "ok", reply
        assert read(workdir / "done.json") == {"step": 400, "exit_code": 0}
        starts = read(workdir / "goodput.json")["starts"]
        assert [start["first_step"] for start in starts] == [0, step]
    finally:
        client.stop_channels()
        kernels.shutdown_kernel(now=True)


def answer(client, asked):
    """The reply to one request."""
    while True:
        reply = client.get_shell_msg(timeout=180)
        if reply["parent_header"]["msg_id"] == asked:
            return reply["content"]


def test_pictures_are_drawn_of_what_there_is(monkeypatch):
    """Without IPython, which only a kernel has: the picture's bytes."""
    monkeypatch.setattr(notebook, "_picture", lambda figure: figure)
    figure = notebook.curves({"loss": {"a": ([1, 2], [3.0, None]), "b": ([1], [2.0])}, "recall": {"": ([], [])}}, steps=10)
    assert [axes.get_title() for axes in figure.axes] == ["loss", "recall"] and figure.axes[0].get_xlim() == (0, 10)
    image = np.zeros((4, 4, 1), np.uint8)
    shown = notebook.show([[notebook.Tile(None, "a query")], [notebook.Tile(image, "right", True), notebook.Tile(image, "wrong", False)]])
    colours = [axes.spines["top"].get_edgecolor() for axes in shown.axes[2:]]
    assert colours[0] != colours[1] and [len(axes.images) for axes in shown.axes] == [0, 0, 1, 1]
