"""Every family: its config and its table say the same in both directions, and each tensor is used once."""

import json

import numpy as np
import pytest

import interop
from core.config import ConfigError
from core.paths import by_path
from core.workdir import write_json
from interop import hf, inputs, mapping, open_clip, tensors
from interop.imported import shapes
from tests.interop import toys


def test_every_family_has_a_toy():
    assert {hf.FAMILIES[name].__name__ for name in toys.TOWERS} == {module.__name__ for module in hf.MODULES}


@pytest.mark.parametrize("name", toys.TOWERS)
def test_out_and_in_is_the_identity(name, tmp_path):
    made = interop.read(toys.folder(name, tmp_path))
    expected, towers = toys.params(toys.model(name)), toys.model(name)["towers"]
    found = by_path(made.params)
    assert set(found) == set(expected)
    for path, array in found.items():
        if path in ("log_logit_scale", "logit_bias") and name not in ("clip", "siglip", "siglip2"):
            continue  # a text encoder's file has none: it starts at the temperature of the config
        assert array.dtype == np.float32 and array.shape == expected[path].shape
        np.testing.assert_array_equal(array, expected[path], err_msg=path)
    written = tensors.read(tmp_path)
    assert sorted(made.used) == sorted(written), "each tensor is used exactly once"
    if name != "clip":  # whose pixel statistics are the family's, where no file states others
        assert made.model["towers"] == towers


def test_open_clip_out_and_in_is_the_identity(tmp_path):
    made = interop.read(toys.open_clip_folder(tmp_path))
    for path, array in toys.params(toys.model("clip")).items():
        np.testing.assert_array_equal(by_path(made.params)[path], array, err_msg=path)
    assert made.model["towers"] == toys.model("clip")["towers"]


def test_pixel_statistics_come_from_the_folder(tmp_path):
    toys.folder("clip", tmp_path)
    content = {"image_processor": {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}}
    (tmp_path / "processor_config.json").write_text(json.dumps(content))
    options = interop.read(tmp_path).model["towers"]["image"]["options"]
    assert options["pixel_mean"] == [0.1, 0.2, 0.3] and options["pixel_std"] == [0.4, 0.5, 0.6]


def test_inputs_are_those_of_the_family(tmp_path):
    transforms = interop.read(toys.folder("siglip", tmp_path)).transforms
    assert transforms == {
        "image": {"name": "resize", "options": {"height": 8, "width": 8}},
        "text": {"name": "tokenize", "options": {"length": 6}},
    }


@pytest.mark.parametrize("name", ["resize", "random_crop", "stack"])
def test_a_model_trained_on_random_crops_is_exported_with_the_crop_of_its_evaluation(name):
    for crop in (True, False):
        stated = {"text": {"name": "tokenize", "options": {}}, "image": {"name": name, "options": {"crop": crop}}}
        found = inputs.how_images(toys.model("clip"), stated)
        assert found == {"crop": crop and name != "stack", "kernel": "bicubic", "centre": "floor"}


def test_kernels_and_budgets_are_the_folder_s(tmp_path):
    write_json(toys.folder("siglip2", tmp_path) / "preprocessor_config.json", {"resample": 2, "max_num_patches": 40})
    assert interop.read(tmp_path).transforms["image"] == {
        "name": "patches",
        "options": {"patch": 4, "budget": 40, "channels": 3, "kernel": "bilinear"},
    }
    write_json(tmp_path / "preprocessor_config.json", {"resample": 1})
    with pytest.raises(ConfigError, match="states a resample of 1 for images; known ones are: {2: 'bilinear', 3: 'bicubic'}"):
        interop.read(tmp_path)


@pytest.mark.parametrize(
    "stated, found",
    [
        ({}, dict(crop=True, centre="round")),
        (dict(resize_mode="squash", interpolation="bilinear"), dict(kernel="bilinear")),
        (dict(resize_mode="longest"), None),
    ],
    ids=str,
)
def test_open_clip_s_words_for_images(stated, found, tmp_path):
    file = toys.open_clip_folder(tmp_path) / open_clip.CONFIG
    write_json(file, json.loads(file.read_text()) | {"preprocess_cfg": stated})
    if found is None:
        with pytest.raises(ConfigError, match="preprocess_cfg.resize_mode 'longest'; known ones are: shortest, squash"):
            interop.read(tmp_path)
    else:
        assert interop.read(tmp_path).transforms["image"]["options"] == {"height": 8, "width": 8, **found}


@pytest.mark.parametrize("name, prefix", [("bert", "bert."), ("bert", "0.auto_model."), ("clip", "model."), ("siglip", "siglip.")])
def test_prefixes_and_buffers_of_old_files(name, prefix, tmp_path):
    toys.folder(name, tmp_path)
    old = {prefix + key: array for key, array in tensors.read(tmp_path).items()}
    old = {key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): a for key, a in old.items()}
    buffer = f"{prefix}embeddings.position_ids" if name == "bert" else f"{prefix}text_model.embeddings.position_ids"
    tensors.write(tmp_path / "model.safetensors", old | {buffer: np.arange(6)[None]})
    made = interop.read(tmp_path)
    assert sorted(made.used) == sorted(old)
    path = "towers_text/token_embedding"
    np.testing.assert_array_equal(by_path(made.params)[path], toys.params(toys.model(name))[path])


@pytest.mark.parametrize("name", toys.TOWERS)
def test_rates_of_dropout_are_those_of_the_file(name):
    family, made = hf.FAMILIES[name], toys.model(name)
    for entry in made["towers"].values():
        entry["options"] |= dict(attention_dropout=0.25)
    stated = family.config(made)
    assert {entry["options"]["attention_dropout"] for entry in family.model(stated)["towers"].values()} == {0.25}
    silent = {key: value for key, value in stated.items() if "dropout" not in key}
    silent |= {key: {k: v for k, v in value.items() if "dropout" not in k} for key, value in stated.items() if key.endswith("_config")}
    usual = 0.1 if family.__name__ == "interop.hf_bert" else 0.0  # the library's, where a file says nothing
    assert {entry["options"]["attention_dropout"] for entry in family.model(silent)["towers"].values()} == {usual}


def change(path, edit):
    found = tensors.read(path)
    edit(found)
    tensors.write(path / "model.safetensors", found)


def configure(path, **values):
    config = json.loads((path / "config.json").read_text())
    for key, value in values.items():
        section, _, name = key.rpartition("__")
        (config[section] if section else config)[name] = value
    (path / "config.json").write_text(json.dumps(config))


LAYER = "vision_model.encoder.layers.1.mlp.fc2.bias"


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda p: change(p, lambda t: t.pop(LAYER)), rf"lacks tensors: {LAYER}; .*its config's vision_config.intermediate_size"),
        (lambda p: change(p, lambda t: t.update(extra=np.ones(2))), "that no parameter takes: extra; it may be of another"),
        (lambda p: configure(p, vision_config__num_hidden_layers=1), r"takes: vision_model.encoder.layers.1.*num_hidden_layers"),
        (
            lambda p: configure(p, text_config__vocab_size=21),
            r"token_embedding.weight is \[20, 8\] where \[21, 8\] is needed \(text_config.vocab_size",
        ),
        (
            lambda p: configure(p, vision_config__image_size=12),
            r"position_embedding.weight is \[5, 8\] where \[10, 8\] .*vision_config.image_size",
        ),
        (lambda p: configure(p, model_type="t5"), "states model_type 't5'; readable ones are: bert, "),
        (lambda p: configure(p, text_config__hidden_act="gelu_fast"), "hidden_act 'gelu_fast'; known ones are: gelu, "),
        (lambda p: configure(p, text_config__hidden_size="eight"), "config.json holds a value of another kind than its key has"),
        (lambda p: configure(p, text_config__num_attention_heads=0), "gives tower text a heads of 0; get the file anew"),
        (lambda p: (p / "config.json").write_bytes(b"<html>\xff"), "config.json is not JSON"),
        (lambda p: (p / "config.json").write_text("[1]"), "config.json holds no keys with values"),
        (lambda p: (p / "tokenizer.json").write_text("{]"), "the tokenizer in .* cannot be read: .*tokenizer.json"),
        (lambda p: (p / "tokenizer_config.json").write_text("{]"), "the tokenizer in .* cannot be read"),
        (lambda p: (p / "modules.json").write_text('[{"idx": 0}]'), "modules.json is no list of modules, each with a type and a path"),
        (lambda p: configure(p, vision_config__image_size=[8, 12]), r"vision_config.image_size \[8, 12\]; only squares"),
    ],
)
def test_what_does_not_fit_is_named(damage, message, tmp_path):
    damage(toys.folder("clip", tmp_path))
    with pytest.raises(ConfigError, match=message):
        interop.read(tmp_path)


def test_another_architecture_is_named(tmp_path):
    toys.folder("bert", tmp_path)
    (tmp_path / "config.json").write_text((toys.folder("clip", tmp_path / "clip") / "config.json").read_text())
    with pytest.raises(ConfigError, match="lacks tensors: logit_scale, .* and .* more; it holds, for example, embeddings"):
        interop.read(tmp_path)


@pytest.mark.parametrize(
    "path, message",
    [
        ("vision_cfg.qk_norm", "vision_cfg.qk_norm = True; towers of that kind cannot be read"),
        ("vision_cfg.layers", r"layers \[1, 2\]: a ResNet"),
        ("text_cfg.hf_model_name", "text_cfg.hf_model_name = 'x'"),
        ("text_cfg.pool_type", "pool_type 'mean'; readable ones are: argmax, eos, last, first"),
        ("vision_cfg.timm_model_name", "timm's 'convnext' .* only vit_<base"),
    ],
)
def test_open_clip_s_other_towers_are_refused(path, message, tmp_path):
    toys.open_clip_folder(tmp_path)
    file = tmp_path / "open_clip_config.json"
    content = json.loads(file.read_text())
    section, name = path.split(".")
    values = {"qk_norm": True, "layers": [1, 2], "hf_model_name": "x", "pool_type": "mean", "timm_model_name": "convnext"}
    content["model_cfg"][section][name] = values[name]
    file.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=message):
        interop.read(tmp_path)


def test_a_state_dict_alone_is_refused(tmp_path):
    (toys.open_clip_folder(tmp_path) / "open_clip_config.json").unlink()
    with pytest.raises(FileNotFoundError, match="how many heads"):
        interop.read(tmp_path / "open_clip_model.safetensors", "open_clip")
    with pytest.raises(ConfigError, match="looks like none of the formats tandem, sentence_transformers, hf, open_clip, big_vision"):
        interop.read(tmp_path)


def test_a_parameter_without_a_rule_is_named():
    made = toys.model("clip")
    made["towers"]["text"]["options"]["projection_bias"] = True
    with pytest.raises(ConfigError, match="no counterpart in the format: towers_text/projection/bias"):
        mapping.read(hf.FAMILIES["clip"].rules(made), {}, shapes(made), "toy")
