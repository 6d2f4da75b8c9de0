"""README and docs: what they name exists, their commands parse, their examples work, and every loss has a card."""

import ast
import importlib
import inspect
import pathlib
import re
import runpy
import sys
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from claims import harness
from configs import glyphs
from core.config import options_of
from core.watchdog import LOST_PEER
from evals import EVALUATORS, job
from input_pipeline import SOURCES, batching, transforms
from launch import process
from losses import LOSSES
from losses.entries import entries
from models import TOWERS, dual, heads
from tests.evals import test_contracts as eval_contracts
from tests.evals import toys as eval_toys
from tests.input_pipeline import test_sources as source_contracts
from tests.losses import test_contracts as loss_contracts
from tests.models import test_contracts as model_contracts
from tests.models import toys as model_toys
from training import carries, optimizer

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
CARDS = {path.stem: path for path in PAGES if path.parent.name == "losses"}
FENCE = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.M | re.S)
PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def blocks(page):
    """(language, title, text) of each fenced block."""
    return FENCE.findall(page.read_text())


def prose(page):
    """The page without its fenced blocks."""
    return FENCE.sub("", page.read_text())


def spans(page):
    """What stands between single backticks."""
    return re.findall(r"`([^`\n]+)`", prose(page))


HOW_TO = blocks(ROOT / "docs" / "how_to_add.md")
NEW_FILES = {title for _, title, _ in HOW_TO if title != "config" and not (ROOT / title).exists()}
NEW_FILES |= {"docs/losses/hardest.md"}  # what the page asks its reader to write


def names_in(path):
    """Every function and class of a file, methods as `Class.method`."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
            found |= {f"{node.name}.{inner.name}" for inner in ast.walk(node) if inner is not node and isinstance(inner, ast.FunctionDef)}
    return found


def titles(page):
    """Where links into a page may lead."""
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in re.findall(r"^#+ (.+)$", prose(page), re.M)}


@PAGE
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)]+)\)", prose(page)):
        name, _, title = target.partition("#")
        other = page.parent / name if name else page
        assert other.exists() and (not title or title in titles(other)), target


@PAGE
def test_files_and_functions_exist(page):
    """A span such as `core/mesh.py`, `tests/oracles/` or `training/step.py:make_step`."""
    for span in spans(page):
        match = re.fullmatch(r"(\.?/?[\w.-]+(?:/[\w.-]+)*(?:\.(?:py|sh|md|txt|toml)|/))(?::([\w.]+))?", span)
        if match is None or span in NEW_FILES or span.startswith("W/"):
            continue
        path, name = ROOT / match[1], match[2]
        assert path.exists() or (ROOT / "configs" / match[1]).exists(), span
        assert name is None or name in names_in(path), span


@PAGE
def test_tests_that_are_named_exist(page):
    every = {name for path in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"^def (\w+)", path.read_text(), re.M)}
    assert not {span for span in spans(page) if re.fullmatch(r"test_\w+", span)} - every


@PAGE
def test_config_keys_exist(page):
    config = glyphs.get_config()
    for span in spans(page):
        section = config
        for name in span.split(".")[1:] if re.fullmatch(r"config(\.[\w<>]+)+", span) else ():
            if name.startswith("<"):
                break
            assert name in section, span
            section = section[name]


@PAGE
def test_names_of_the_workdir_stand_in_the_code(page):
    code = "".join(
        path.read_text() for folder in ("core", "training", "evals", "retrieval", "launch") for path in (ROOT / folder).glob("*.py")
    )
    for span in spans(page):
        match = re.fullmatch(r"W/([\w.]+)/?(.*)", span)
        assert match is None or re.search(rf"\b{re.escape(match[1].split('.')[0])}\b", code), span


def commands(page):
    """(module, words) of each `python -m` line, comments left out."""
    for language, _, text in blocks(page):
        for line in text.splitlines() if language == "bash" else ():
            if match := re.match(r"python -m ([\w.]+)(.*)", line.split("#")[0]):
                yield match[1], match[2].split()


@PAGE
def test_commands_have_a_module_and_its_flags(page):
    for module, words in commands(page):
        path = ROOT / module.replace(".", "/")
        text = (path / "__main__.py" if path.is_dir() else path.with_suffix(".py")).read_text()
        flags = set(re.findall(r"DEFINE_\w+\(\"(\w+)\"", text))
        names = [word.removeprefix("--").split("=")[0] for word in words]
        assert all(word.startswith("--") for word in words)
        assert {name.split(".")[0] for name in names} <= flags, (module, names)
        if module == "launch.train":
            path, _, argument = dict(zip(names, words, strict=True))["config"].removeprefix("--config=").partition(":")
            section = importlib.import_module(path.removesuffix(".py").replace("/", ".")).get_config(argument)
            for name in [n for n in names if "." in n]:
                value = section
                for part in name.split(".")[1:]:
                    assert part in value, name
                    value = value[part]


@PAGE
def test_flags_and_variables_in_the_text_exist(page):
    code = "".join(path.read_text() for path in (ROOT / "launch").rglob("*") if path.suffix in (".py", ".sh"))
    text = page.read_text()
    known = set(re.findall(r"DEFINE_\w+\(\"(\w+)\"", code))
    assert {span[2:] for span in spans(page) if re.fullmatch(r"--\w+", span)} <= known
    assert all(name in code for name in re.findall(r"\bTANDEM_\w+", text))


def test_exit_codes_are_those_of_the_launchers():
    listed = {int(code) for code in re.findall(r"^\| (\d+) \| [a-z]", (ROOT / "README.md").read_text(), re.M)}
    assert listed == {process.DONE, process.CONFIG_ERROR, process.BAD_LOSS, LOST_PEER, process.STOPPED}


def test_the_map_lists_every_folder():
    listed = set(re.findall(r"^\| `(\w+)/` \|", (ROOT / "README.md").read_text(), re.M))
    packages = {path.parent.name for path in ROOT.glob("*/*.py")}
    assert packages - {"tests", "benchmarks", "claims", "interop"} <= listed


def test_every_loss_has_a_card_and_every_card_a_loss():
    assert set(CARDS) == set(LOSSES)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_a_card_lists_all_options_with_their_defaults_and_all_arrays(name):
    listed = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", CARDS[name].read_text(), re.M))
    assert {option: ast.literal_eval(default) for option, default in listed.items()} == options_of(LOSSES[name])
    arrays = [p.name for p in inspect.signature(LOSSES[name]).parameters.values() if p.kind is not p.KEYWORD_ONLY]
    assert not set(arrays) - set(spans(CARDS[name]))


# The examples of docs/how_to_add.md.


@pytest.fixture
def example(monkeypatch):
    """Runs the example of a title, as a new module or at the end of the file that exists, and gives its names."""

    def execute(title):
        (text,) = [text for language, found, text in HOW_TO if language == "python" and found == title]
        module = types.ModuleType(f"example_{pathlib.Path(title).stem}")
        if (ROOT / title).exists():
            vars(module).update(vars(importlib.import_module(title.removesuffix(".py").replace("/", "."))))
        monkeypatch.setitem(sys.modules, module.__name__, module)
        module.__name__ = f"example_{pathlib.Path(title).stem}"
        exec(compile(text, title, "exec"), vars(module))
        return module

    return execute


def changed(title):
    """`configs/glyphs.py` after the config lines that follow an example."""
    position = [found for _, found, _ in HOW_TO].index(title)
    _, kind, text = HOW_TO[position + 1]
    assert kind == "config"
    config = glyphs.get_config()
    with config.unlocked():
        exec(text, {"config": config})
    return config


def test_the_loss_keeps_the_contracts(example, monkeypatch):
    monkeypatch.setitem(LOSSES, "hardest", example("losses/hardest.py").hardest)
    loss_contracts.test_options_have_defaults("hardest")
    loss_contracts.test_value_and_gradients_ignore_the_mesh("hardest", {}, (2, 2, 2))
    loss_contracts.test_gradients_are_finite_where_embeddings_collapse("hardest", {}, "float32")
    loss_contracts.test_padding_changes_nothing("hardest", {})
    loss_contracts.test_permuting_pairs_permutes_losses("hardest", {})
    loss_contracts.test_a_nan_embedding_is_never_hidden("hardest", {})
    loss_contracts.test_float64_stays_float64("hardest", {})
    loss_contracts.test_fewer_passages_than_queries_are_refused("hardest")
    for option in ("matmul_dtype", "negatives"):
        loss_contracts.test_an_unknown_choice_names_the_key("hardest", option)
    (entry,) = entries(changed("losses/hardest.py").losses)
    assert entry.call.keywords == {"margin": 0.05, "matmul_dtype": "float32"}


def test_the_loss_of_two_orthonormal_pairs(example):
    """The own cosine is 1, the rival's 0."""
    eye = jnp.eye(2)
    value, weight, _ = loss_contracts.call(
        example("losses/hardest.py").hardest, dict(zq=eye, zp=eye, logit_scale=jnp.float32(5)), margin=0.2
    )
    np.testing.assert_allclose(value, np.logaddexp(0, 5 * (0.2 - 1)), rtol=1e-6)
    np.testing.assert_array_equal(weight, 1)


def test_the_tower_keeps_the_contracts(example, monkeypatch):
    name = "pixel_mlp"
    monkeypatch.setitem(TOWERS, name, example("models/pixel_mlp.py").PixelMlp)
    monkeypatch.setitem(model_toys.OPTIONS, name, dict(image_size=8, channels=2, width=16, embed_dim=8))
    # The others compile for seconds; whoever pastes the example runs them all.
    model_contracts.test_options_have_defaults(name)
    model_contracts.test_embed_dim_0_returns_the_pooled_state(name)
    model_contracts.test_every_parameter_has_logical_axes(name)
    model = dual.build(changed("models/pixel_mlp.py").model, vocab_size=1024)
    images = jnp.zeros((2, 32, 32, 1), jnp.uint8).at[1, 3].set(255)
    with pytest.raises(ValueError, match="capture"):
        jax.eval_shape(lambda: model.init(jax.random.key(0), {"image": images}, capture={"image": ("tokens",)}))
    z = jax.jit(lambda batch: model.init_with_output(jax.random.key(0), batch)[0])({"image": images})["z_image"]
    np.testing.assert_allclose(jnp.linalg.norm(z, axis=1), 1, rtol=1e-5)


def test_the_source_keeps_the_contracts(example, monkeypatch):
    bars = example("input_pipeline/sources/bars.py").Bars
    monkeypatch.setitem(SOURCES, "bars", bars)
    for source in (bars(), bars(split="test", size=9)):
        source_contracts.test_records_have_the_agreed_fields(source)
        source_contracts.test_captions_are_listed_once_and_in_a_fixed_order(source)
        source_contracts.test_the_retrieval_task_is_complete(source)
        source_contracts.test_the_classification_task_is_complete(source)
    config = changed("input_pipeline/sources/bars.py")
    made = batching.make_sources(config.data)
    job.check(config)
    config.data.global_batch = 4
    with batching.batches(config.data, made, batching.make_tokenizer(config.data, made), seed=0) as rows:
        batch = next(rows)
    assert batch["image"].shape == (4, 32, 32, 1) and batch["text"].shape[0] == 4 and batch["id"].max() < 2


def test_the_transform_is_random_in_training_only(example, monkeypatch):
    invert = example("input_pipeline/image_transforms.py").invert
    monkeypatch.setitem(transforms.TRANSFORMS, "invert", invert)
    bound = transforms.bind_transforms(changed("input_pipeline/image_transforms.py").data.transforms)["image"]
    images = [np.full((2, 2, 1), 10, np.uint8)] * 400
    rngs = [np.random.default_rng(i) for i in range(400)]
    inverted = bound(images, rngs, None)[""][:, 0, 0, 0] == 245
    assert 60 <= inverted.sum() <= 140  # a quarter of 400, give or take 4.6 standard deviations
    np.testing.assert_array_equal(bound(images, None, None)[""], 10)


def test_the_evaluator_keeps_the_contracts(example, monkeypatch):
    name = "reciprocal_rank"
    monkeypatch.setitem(EVALUATORS, name, example(f"evals/{name}.py").reciprocal_rank)
    for table, value in (("OPTIONS", {}), ("DATA", eval_contracts.TOY), ("CHANCE", {"img2txt/mrr": sum(1 / r for r in range(1, 21)) / 20})):
        monkeypatch.setitem(getattr(eval_contracts, table), name, value)
    for kind in ("perfect", "constant"):
        eval_contracts.test_result_is_plain(name, kind)
    eval_contracts.test_random_rankings_score_chance(name)
    eval_contracts.test_better_models_score_better_in_the_primary_metric(name)
    for view in ("image", "text"):
        eval_contracts.test_embeddings_that_are_not_finite_are_refused(name, view)
    eval_contracts.test_options_have_defaults_that_bind(name)
    value = lambda kind: eval_contracts.run(name, getattr(eval_toys, kind)(eval_contracts.TOY)).metrics["img2txt/mrr"]
    assert value("perfect") == 1 and value("constant") == pytest.approx(1 / 20)
    job.check(changed(f"evals/{name}.py"))


def test_the_optimizer_decays_what_the_mask_says(example, monkeypatch):
    monkeypatch.setitem(optimizer.OPTIMIZERS, "nadamw", example("training/optimizer.py").nadamw)
    config = changed("training/optimizer.py").optimizer
    config.warmup_steps = 0
    tx = optimizer.make(config, 10, ["dense/kernel", "dense/bias"])
    params = {"dense/kernel": jnp.ones(2), "dense/bias": jnp.ones(2)}
    state = tx.init(params)
    for _ in range(2):  # the rate of the very first step is 0
        updates, state = jax.jit(tx.update)(jax.tree.map(jnp.zeros_like, params), state, params)
    assert (updates["dense/kernel"] < 0).all() and (updates["dense/bias"] == 0).all()


def test_the_carry_follows_its_rows(example, monkeypatch):
    monkeypatch.setitem(carries.CARRIES, "centres", example("training/carries.py").Centres)
    (found,) = carries.make(changed("training/carries.py").train.carries)
    shapes = dict(z_image=jax.ShapeDtypeStruct((3, 2), "float32"), id=jax.ShapeDtypeStruct((3,), "int32"))
    state = carries.init([found], shapes)
    arrays = dict(z_image=jnp.array([[1.0, 0.0], [0.0, 1.0], [3.0, 4.0]]), id=jnp.array([7, 7, 2]))
    named = carries.named(carries.update([found], state, arrays))
    assert set(named) == {"centre_z"}
    np.testing.assert_allclose(named["centre_z"][jnp.array([7, 2, 0])], 0.01 * np.array([[0.5, 0.5], [3, 4], [0, 0]]), rtol=1e-5)


def test_the_head_maps_all_its_inputs(example, monkeypatch):
    monkeypatch.setitem(heads.HEADS, "linear", example("models/heads.py").Linear)
    (head,) = heads.make(changed("models/heads.py").model)
    arrays = dict(z_image=jnp.eye(3, 5), z_text=jnp.eye(3, 5))
    params = jax.tree.map(jnp.ones_like, nn.unbox(head.init(jax.random.key(0), arrays)))
    found = head.apply(params, arrays)
    assert params["linear"]["kernel"].shape == (5, 16) and set(found) == {"small_image", "small_text"}
    np.testing.assert_allclose(found["small_text"], 0.25, rtol=1e-5)


@pytest.mark.many_processes  # compiles and trains
def test_the_claim_can_be_measured(tmp_path):
    path = tmp_path / "T01_moved.py"
    path.write_text(next(text for _, title, text in HOW_TO if title == f"claims/{path.name}"))
    claim = runpy.run_path(str(path))["CLAIM"]
    found = harness.measure("T01", claim, tmp_path, seeds=2, quick=True)
    assert set(found["arms"]) == {"moved", "still"} and found["items"] > 300 and found["verdict"] == "underpowered"
    assert found["arms"]["moved"] != found["arms"]["still"]
