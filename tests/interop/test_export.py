"""Folders for other libraries: what goes out comes in again, and nothing stays behind when it does not."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import interop
from core.checkpoint import Checkpoints
from core.config import ConfigError, plain
from core.paths import by_path
from core.workdir import write_json
from input_pipeline.tokenize import train_bpe
from interop import export, golden, hf_clip
from interop.card import card
from interop.imported import Imported
from models import cut
from tests import tiny
from tests.interop import toys

ROOT = pathlib.Path(__file__).resolve().parents[2]
CASES = {
    "hf_clip": ("clip", {}),
    "hf_siglip": ("siglip", {}),
    "hf_siglip2": ("siglip2", {}),
    "open_clip": ("clip", {}),
    "hf_bert": ("roberta", dict(text=dict(pooling="cls"))),
    "sentence_transformers": ("bert", dict(text=dict(embed_dim=3, projection_bias=True, projection_activation="tanh", pooling="max"))),
}


@pytest.mark.parametrize("format", CASES)
def test_what_goes_out_comes_in_again(format, tmp_path):
    name, changes = CASES[format]
    source = toys.imported(name, **changes)
    export.write(source, tmp_path / "out", format, card="# a card\n")
    back = interop.read(tmp_path / "out")
    expected = by_path(source.params)
    for path, array in by_path(back.params).items():
        if path not in export.FREE or name in ("clip", "siglip", "siglip2"):
            np.testing.assert_array_equal(array, expected[path], err_msg=path)
    assert (tmp_path / "out" / "README.md").read_text() == "# a card\n"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    golden = np.load(tmp_path / "out" / "golden.npz", allow_pickle=False)
    np.testing.assert_allclose(np.linalg.norm(golden["text_vectors"], axis=1), 1, rtol=1e-5)
    assert ("images" in golden) == ("image" in source.model["towers"])


@pytest.mark.parametrize(
    "name, format, images",
    [
        ("clip", "hf_clip", dict(crop=True, kernel="bilinear")),
        ("clip", "open_clip", dict(crop=True, centre="round", kernel="bilinear")),
        ("siglip2", "hf_siglip2", dict(budget=7, kernel="bicubic")),
    ],
)
def test_images_are_prepared_alike_on_the_other_side(name, format, images, tmp_path, caplog):
    source = toys.imported(name)
    source.transforms["image"] = {"name": "patches" if "budget" in images else "resize", "options": images}
    export.write(source, tmp_path / "out", format)
    assert images.items() <= interop.read(tmp_path / "out").transforms["image"]["options"].items() and not caplog.records


def test_a_centre_that_no_file_can_state_is_said(tmp_path, caplog):
    source = toys.imported("clip")
    source.transforms["image"] = {"name": "resize", "options": dict(crop=True, centre="round")}
    export.write(source, tmp_path / "out", "hf_clip")
    assert "images were cut with centre='round', but the other library does 'floor'" in caplog.text


def with_tokenizer(eos_id=None):
    """The CLIP with a tokenizer of its own, whose texts end with the id 2."""
    tokenizer = train_bpe(["a cat", "a dog and a cat"], vocab_size=300)
    source = toys.imported("clip", text=dict(vocab_size=300, length=16, eos_id=tokenizer.eos_id if eos_id is None else eos_id))
    return Imported(source.model, source.params, tokenizer, {"text": {"name": "tokenize", "options": {"length": 12}}}, (), {})


TEXTS = ["A cat and a dog", "", "naïve 北京 " * 9]


def test_the_tokenizer_goes_along(tmp_path):
    source = with_tokenizer()
    export.write(source, tmp_path / "out", "open_clip")
    back = interop.read(tmp_path / "out")
    for found, expected in zip(back.tokenizer(TEXTS, 12), source.tokenizer(TEXTS, 12), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_clip_s_texts_do_not_end_with_2(tmp_path):
    """transformers takes an end of text of 2 for a mistake of old files; the id changes places with the tokenizer's largest."""
    source = with_tokenizer()
    assert source.tokenizer.eos_id == 2
    export.write(source, tmp_path / "out", "hf_clip")
    back, last = interop.read(tmp_path / "out"), source.tokenizer.vocab_size - 1
    assert back.model["towers"]["text"]["options"]["eos_id"] == last == back.tokenizer.eos_id
    ids, mask = source.tokenizer(TEXTS, 12)
    found, found_mask = back.tokenizer(TEXTS, 12)
    np.testing.assert_array_equal(np.where(ids == 2, last, np.where(ids == last, 2, ids)), found)
    np.testing.assert_array_equal(mask, found_mask)
    assert back.transforms["text"]["options"]["length"] == 12
    with pytest.raises(ConfigError, match="without a tokenizer ids cannot change"):
        export.write(toys.imported("clip", text=dict(eos_id=2)), tmp_path / "other", "hf_clip")


def test_a_tokenizer_that_does_not_match_is_refused(tmp_path):
    export.write(with_tokenizer(), tmp_path / "out", "hf_clip")
    for key, message in (("eos_token_id", "ends texts with"), ("vocab_size", "tokens, but config.json states a vocab_size of 3 for")):
        file = tmp_path / "out" / "config.json"
        whole = file.read_text()
        content = json.loads(whole)
        content["text_config"][key] = 3
        file.write_text(json.dumps(content))
        with pytest.raises(ConfigError, match=f"the tokenizer in .* {message}"):
            interop.read(tmp_path / "out")
        file.write_text(whole)


def test_vectors_that_differ_leave_nothing_behind(tmp_path, monkeypatch):
    config = hf_clip.config
    monkeypatch.setattr(
        hf_clip, "config", lambda model: config(model) | {"text_config": config(model)["text_config"] | {"hidden_act": "relu"}}
    )
    with pytest.raises(ConfigError, match=r"differ from the source's by .*\"text\": .* more than 1e-05; nothing was exported"):
        export.write(toys.imported("clip"), tmp_path / "out", "hf_clip")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name, changes, format, message",
    [
        ("clip", dict(image=dict(pre_norm=False)), "hf_clip", r"CLIPModel cannot hold this tower: pre_norm = False \(needs True\)"),
        ("clip", {}, "hf_siglip", "SiglipModel cannot hold this tower: pooling = 'cls'"),
        ("clip", {}, "sentence_transformers", "holds one tower of bert, decoder, modernbert, but this model has .*--format=hf_clip"),
        ("bert", {}, "hf_clip", "the format holds one 'vit' tower, but this model has {'text': 'bert'}"),
        ("bert", dict(text=dict(bottleneck=2)), "hf_bert", "towers text have a bottleneck adapter .* no format has a place for"),
        ("bert", dict(text=dict(embed_dim=4)), "hf_bert", "no place for parameters of this model: towers_text/projection/kernel"),
        ("bert", dict(text=dict(pooling="attention")), "sentence_transformers", "no place for parameters .* towers_text/pool/key"),
        ("clip", dict(text=dict(activation="gelu")), "open_clip", "quick_gelu holds for both towers"),
        ("siglip", {}, "open_clip", "none has width, layers, heads, hidden width"),
        ("clip", {}, "onnx", "--format is 'onnx', which is not among: hf_bert"),
    ],
)
def test_what_a_format_cannot_hold_is_named(name, changes, format, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        export.write(toys.imported(name, **changes), tmp_path / "out", format)
    assert not list(tmp_path.iterdir())


def test_a_folder_in_use_and_a_wrong_dimension_are_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match="exists already"):
        export.write(toys.imported("bert"), tmp_path, "hf_bert")
    with pytest.raises(ConfigError, match="--truncate_dim is 9, but vectors have 8 values"):
        export.write(toys.imported("bert"), tmp_path / "out", "sentence_transformers", truncate_dim=9)
    with pytest.raises(ConfigError, match="tower text ends in a projection to nothing: it has none, which has no first 4 values"):
        export.write(toys.imported("bert"), tmp_path / "out", "hf_bert", truncate_dim=4)


def test_one_tower_of_a_model(tmp_path):
    towers = toys.imported("clip")
    image = export.part(towers, "image")
    assert set(image.model["towers"]) == set(image.model["views"]) == {"image"} and "towers_text" not in image.params
    with pytest.raises(ConfigError, match="--tower is 'audio'"):
        export.part(towers, "audio")


def test_prompts_and_dimension_are_told(tmp_path):
    source = toys.imported("bert")
    source.transforms["text"] = {"name": "tokenize", "options": {"length": 5, "prompt": "say: ", "pool_prompt": False}}
    export.write(source, tmp_path / "out", "sentence_transformers", truncate_dim=4)
    read = lambda name: json.loads((tmp_path / "out" / name).read_text())
    settings = read("config_sentence_transformers.json")
    assert settings["prompts"] == {"text": "say: "} and settings["default_prompt_name"] == "text" and settings["truncate_dim"] == 4
    assert read("1_Pooling/config.json")["include_prompt"] is False and read("sentence_bert_config.json")["max_seq_length"] == 5
    assert read("sentence_bert_config.json")["model_args"] == {"add_pooling_layer": False}  # else the library draws one, and says so
    back = interop.read(tmp_path / "out")
    assert back.transforms["text"]["options"] == {"length": 5, "prompt": "say: ", "pool_prompt": False} and back.truncate_dim == 4


def test_a_card_says_what_the_run_says():
    model = toys.model("bert")
    model["towers"]["text"]["init"] = {"path": "/models/MiniLM-L6/"}
    losses = {"main": {"name": "infonce"}, "matmul_dtype": "float32"}
    config = {"data": {"sources": {"a": {"name": "pairs", "weight": 1.0}}, "global_batch": 64}, "losses": losses, "seed": 3}
    run = {"step": 500, "config": config | {"optimizer": {"name": "adamw", "learning_rate": 0.1}}}
    result = {"label": "held_out", "primary": {"name": "q2p/mrr@10", "value": 0.5}, "metrics": {"q2p/mrr@10": 0.5}, "count": 7}
    text = card("mine", "sentence_transformers", model, run, [result])
    header = dict(line.split(": ", 1) for line in text.split("---")[1].strip().splitlines())
    found = {key: json.loads(value) for key, value in header.items()}
    assert found["library_name"] == "sentence-transformers" and found["base_model"] == ["MiniLM-L6"] and found["datasets"] == ["pairs"]
    assert found["model-index"][0]["results"][0]["metrics"] == [{"type": "q2p/mrr@10", "value": 0.5}]
    assert "500 steps of 64 examples" in text and "| held_out | q2p/mrr@10 | 0.5000 | 7 |" in text


def run_folder(workdir):
    """What a run of 5 steps would have left: a CLIP-like model of the digits, with its tokenizer, checkpoint and one result."""
    source, made = with_tokenizer(), tiny.config()
    for label, entry in source.model["towers"].items():
        made.model.towers[label] = dict(name=entry["name"], options=entry["options"])
    made.data.transforms.text.options.length = 12
    write_json(workdir / "config.json", plain(made))
    (workdir / "tokenizer").mkdir()
    source.tokenizer.save(workdir / "tokenizer")
    checkpoints = Checkpoints(workdir / "checkpoints", keep_last=1, keep_every_steps=None)
    checkpoints.save(5, {"params": source.params}, position=5, meta={})
    checkpoints.close()
    result = {"label": "test", "primary": {"name": "accuracy", "value": 0.25}, "metrics": {"accuracy": 0.25}, "count": 9}
    write_json(workdir / "evals" / "5" / "test.json", result)
    return source


def test_the_command_writes_a_run_s_model(tmp_path):
    source = run_folder(tmp_path / "run")
    command = [sys.executable, "-m", "launch.export", f"--workdir={tmp_path / 'run'}", f"--output={tmp_path / 'out'}", "--format=open_clip"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    back = interop.read(tmp_path / "out")
    path = "towers_text/token_embedding"
    np.testing.assert_array_equal(by_path(back.params)[path], by_path(source.params)[path])
    text = (tmp_path / "out" / "README.md").read_text()
    assert text.startswith("---\nlibrary_name") and "for 5 steps of 16 examples" in text and "| test | accuracy | 0.2500 | 9 |" in text


def test_a_model_is_written_with_fewer_layers_and_narrower_vectors(tmp_path):
    """The writer compares vectors with those that it read back; here, what they are."""
    source = toys.imported("clip")
    model, params = cut.to_layers(source.model, source.params, 1)
    export.write(dataclasses.replace(source, model=model, params=params), tmp_path / "out", "hf_clip", truncate_dim=2)
    options = {label: tower["options"] for label, tower in interop.read(tmp_path / "out").model["towers"].items()}
    assert {(o["layers"], o["embed_dim"]) for o in options.values()} == {(1, 2)}
    found = dict(np.load(tmp_path / "out" / "golden.npz", allow_pickle=False))
    shallow = dataclasses.replace(source, model=model, params=params)
    whole = golden.encode(shallow, "text", found["ids"], found["mask"])[:, :2]
    np.testing.assert_allclose(found["text_vectors"], whole / np.linalg.norm(whole, axis=1, keepdims=True), atol=1e-5)
