"""Towers that start from somebody's weights, and tables brought to another size."""

import copy
import json
import logging

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

import interop
from core.config import ConfigError
from interop import resize
from interop.imported import shapes
from tests.interop import toys

HIDDEN = "towers_image/blocks/block_1/mlp/fc_in/kernel"


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return toys.folder("clip", tmp_path_factory.mktemp("clip"))


def config(path, keep=(), label="image", name="vit", format="hf", **options):
    """A run's config whose one tower starts from the folder."""
    towers = {label: dict(name=name, options=options, init=dict(format=format, path=str(path), keep=keep))}
    model = dict(towers=towers, views={"image" if label == "image" else "text": label}, temperature_init=0.07, logit_bias_init=None)
    return ConfigDict(dict(model=model)).lock()


def started(made):
    resolved = interop.resolve(made)
    return resolved, interop.initial(resolved)


def test_options_are_stated_in_full_and_the_config_is_left_as_it_was(clip):
    made = config(clip, dropout=0.1)
    before = copy.deepcopy(made)
    resolved, found = started(made)
    assert made == before
    options = resolved.model.towers.image.options.to_dict()
    assert options == toys.model("clip")["towers"]["image"]["options"] | dict(
        dropout=0.1, pixel_mean=options["pixel_mean"], pixel_std=options["pixel_std"]
    )
    assert interop.resolve(resolved) == resolved and resolved.is_locked
    expected = toys.params(toys.model("clip"))
    wanted = {path for path in shapes(resolved.model.to_dict()) if path.startswith("towers_image/")}
    assert set(found) == wanted
    for path, array in found.items():
        np.testing.assert_array_equal(array, expected[path])


def test_another_label_finds_the_tower_of_its_kind(clip):
    _, found = started(config(clip, label="words", name="text"))
    np.testing.assert_array_equal(found["towers_words/token_embedding"], toys.params(toys.model("clip"))["towers_text/token_embedding"])


def test_keep_leaves_parameters_as_initialised(clip):
    _, found = started(config(clip, keep=("projection", "block_1/"), embed_dim=3))
    assert "towers_image/projection/kernel" not in found and HIDDEN not in found
    _, found = started(config(clip, keep=("block_1/",), layers=1))
    assert HIDDEN not in found


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(keep=("blocks/block_7",)), "init.keep holds 'blocks/block_7', which matches no parameter"),
        (dict(embed_dim=3), r"projection/kernel \[8, 4\] instead of \[8, 3\]; set config.model.towers.image.options to those"),
        (dict(embed_dim=0), "holds, but the tower has no place for, towers_image/projection/kernel; .* 'projection/kernel'"),
        (dict(patch_bias=True), "lacks towers_image/patch_bias; .* to config.model.towers.image.init.keep"),
        (dict(name="naflex"), "a naflex tower has no class token"),
        (dict(name="resnet"), "name is 'resnet', but .* holds {'image': 'vit', 'text': 'text'}; set it to 'text' or 'vit'"),
        (dict(format="hugging_face"), "format is 'hugging_face', which is not among: big_vision, hf, open_clip"),
    ],
    ids=str,
)
def test_mistakes_name_the_key(options, message, clip):
    with pytest.raises(ConfigError, match=message):
        started(config(clip, **options))


def test_naflex_starts_from_a_square_vit(tmp_path):
    toys.folder("siglip", tmp_path)
    resolved, found = started(config(tmp_path, name="naflex", grid=4))
    options, expected = resolved.model.towers.image.options, toys.params(toys.model("siglip"))
    assert options.pooling == "attention" and "image_size" not in options
    table = found.pop("towers_image/position_embedding")
    np.testing.assert_array_equal(table, resize.grid(expected["towers_image/position_embedding"], 4))
    for path, array in found.items():
        np.testing.assert_array_equal(array, expected[path])


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="config.model.towers.image.init.path: .*absent"):
        started(config(tmp_path / "absent"))


def test_tables_are_resized_with_one_line(clip, caplog):
    expected = toys.params(toys.model("clip"))
    with caplog.at_level(logging.INFO, "interop"):
        _, found = started(config(clip, image_size=16))
        _, words = started(config(clip, label="text", name="text", length=9))
    lines = [record.getMessage() for record in caplog.records if "position table" in record.getMessage()]
    assert lines == [
        "towers_image/position_embedding: position table of 2 x 2 patches resized to 4 x 4",
        "towers_text/position_embedding: position table of 6 tokens changed to 9",
    ]
    table = expected["towers_image/position_embedding"]
    assert found["towers_image/position_embedding"].shape == (1, 17, 8)
    np.testing.assert_array_equal(found["towers_image/position_embedding"], resize.grid(table, 4, first=1))
    np.testing.assert_array_equal(words["towers_text/position_embedding"], resize.line(expected["towers_text/position_embedding"], 9))


def test_roberta_s_rows_before_the_first_token_stay(tmp_path):
    toys.folder("roberta", tmp_path)
    _, found = started(config(tmp_path, label="text", name="bert", length=4))
    expected = toys.params(toys.model("roberta"))["towers_text/position_embedding"]
    np.testing.assert_array_equal(found["towers_text/position_embedding"], expected[:6])


@pytest.mark.parametrize("side", [2, 3, 5, 8])
@pytest.mark.parametrize("first", [0, 1])
def test_a_grid_is_resized_as_jax_resizes_images(side, first):
    table = np.random.default_rng(0).standard_normal((1, first + 25, 3)).astype(np.float32)
    found = resize.grid(table, side, first)
    expected = jax.image.resize(table[0, first:].reshape(5, 5, 3), (side, side, 3), "cubic").reshape(-1, 3)
    np.testing.assert_array_equal(found[:, :first], table[:, :first])
    np.testing.assert_allclose(found[0, first:], expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("length", [3, 6, 7, 13])
def test_a_line_is_cut_or_interpolated(length):
    """A table whose rows are their place: what shrinks is cut; what grows rises from the first row to the last."""
    table = np.arange(6, dtype=np.float32)[:, None] * np.ones((1, 2), np.float32)
    found = resize.line(table, length)
    assert found.shape == (length, 2) and found.dtype == np.float32
    if length <= 6:
        np.testing.assert_array_equal(found, table[:length])
    else:
        by_hand = [min(max((i + 0.5) * 6 / length - 0.5, 0), 5) for i in range(length)]
        np.testing.assert_allclose(found[:, 0], by_hand, rtol=1e-6)


def test_a_tower_starts_from_the_first_tower_of_a_sentence_transformers_folder(tmp_path):
    toys.folder("bert", tmp_path)
    (tmp_path / "modules.json").write_text(json.dumps([{"type": "sentence_transformers.models.Transformer", "path": ""}]))
    with pytest.raises(ConfigError, match="lists no Pooling"):
        started(config(tmp_path, label="text", name="bert", format="sentence_transformers"))


def test_a_tower_that_reads_one_token_has_its_shapes():
    options = dict(vocab_size=9, length=1, width=8, layers=0, heads=2, embed_dim=4, causal=False, pooling="mean")
    found = shapes(
        dict(towers=dict(text=dict(name="text", options=options)), views=dict(text="text"), temperature_init=0.07, logit_bias_init=None)
    )
    assert found["towers_text/token_embedding"] == (9, 8)
