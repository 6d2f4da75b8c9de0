"""A trained run as an encoder of raw values."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from PIL import Image

import interop
import retrieval
from core import mesh as meshes
from core.config import ConfigError
from core.paths import by_path
from core.workdir import claim_config
from input_pipeline import transforms
from input_pipeline.sources.digits import Digits
from tests import tiny


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    made = tiny.config(optimizer__ema_decay=0.5, optimizer__freeze=("^towers_image/position",))
    lora = dict(name="lora", patterns=("attention/qkv_kernel/q",), train=("projection",), options=dict(rank=2, init="normal"))
    made.model.adapters = dict(text=lora)
    claim_config(workdir, made)
    tiny.train(made, workdir)
    return workdir


@pytest.fixture(scope="module")
def encoder(workdir):
    return retrieval.load(workdir)


def test_vectors_have_length_one(encoder):
    texts = encoder.encode(["the handwritten digit three", "", "x" * 5000])
    assert texts.shape == (3, 16) and texts.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(texts, axis=1), 1.0, atol=1e-5)
    assert encoder.encode("the handwritten digit three").shape == (16,)
    np.testing.assert_array_equal(retrieval.embed(encoder, ["the handwritten digit three"]), texts[:1])


def test_embed_opens_a_run(workdir, encoder):
    np.testing.assert_allclose(retrieval.embed(workdir, "seven", "text", step=4), retrieval.load(workdir, 4).encode("seven"), atol=1e-6)
    with pytest.raises(FileNotFoundError, match="no committed checkpoint of step 3"):
        retrieval.embed(workdir, "seven", step=3)


def test_batches_and_padding_change_nothing(encoder):
    images = list(Digits(split="test").retrieval().images[:11])
    whole = encoder.encode(images, batch=16)
    np.testing.assert_allclose(encoder.encode(images, batch=8), whole, atol=1e-6)
    np.testing.assert_allclose(np.concatenate([encoder.encode(images[:4]), encoder.encode(images[4:])]), whole, atol=1e-6)
    assert encoder.encode([], view="image").shape == (0, 16)


def test_positions_of_images_add_up_to_their_vectors(encoder):
    images = list(Digits(split="test").retrieval().images[:6])
    narrow = encoder.smaller(truncate_dim=5)
    dense = narrow.dense(images, "image", batch=4)
    mean = dense.mean(1)
    np.testing.assert_allclose(mean / np.linalg.norm(mean, axis=1, keepdims=True), narrow.encode(images), atol=1e-5)
    assert dense.shape == (6, 4, 5)
    with pytest.raises(ConfigError, match="view 'text' does not read images"):
        encoder.dense(["seven"], "text")


def test_texts_are_encoded_as_if_alone_and_in_their_order(encoder):
    texts = ["digit " * n + str(n) for n in np.random.default_rng(0).permutation(12)] + [""]
    alone = np.stack([encoder.encode(text) for text in texts])
    counted = []
    np.testing.assert_allclose(encoder.encode(texts, tokens=32, done=counted.append), alone, atol=1e-6)
    assert sum(counted) == len(texts) and len(counted) > 1
    # As the model itself has it, all padded to the full length.
    ids, mask = (jnp.asarray(array) for array in encoder._arrays("text", texts))
    whole = encoder._model.apply({"params": encoder.params}, "text", ids, mask, method="encode")["embedding"]
    assert ids.shape == (13, 16)
    np.testing.assert_allclose(alone, whole, atol=1e-6)


def test_more_texts_than_are_sorted_together(encoder, monkeypatch):
    texts = ["digit " * (n % 5) + str(n) for n in range(25)]
    whole = encoder.encode(texts)
    monkeypatch.setattr(retrieval.encoder, "WINDOW", 8)
    np.testing.assert_allclose(encoder.encode(texts), whole, atol=1e-6)


def test_a_prompt_stands_before_the_text(encoder):
    np.testing.assert_array_equal(encoder.encode(["three"], prompt="the digit "), encoder.encode(["the digit three"]))
    with pytest.raises(ConfigError, match="view 'image' reads no texts, and only they take a prompt"):
        encoder.encode([np.zeros((8, 8), np.uint8)], prompt="a photo of ")


def test_a_cut_vector_is_the_start_of_the_whole_at_length_one(workdir, encoder):
    whole, cut = encoder.encode(["a", "the digit nine"]), retrieval.load(workdir, truncate_dim=4)
    made = cut.encode(["a", "the digit nine"])
    np.testing.assert_allclose(made, whole[:, :4] / np.linalg.norm(whole[:, :4], axis=1, keepdims=True), atol=1e-6)
    assert (cut.dim, cut.encode([], view="text").shape) == (4, (0, 4)) and cut.describe("text") != encoder.describe("text")
    np.testing.assert_array_equal(encoder.smaller(layers=1, truncate_dim=4).encode(["a", "the digit nine"]), made)  # one layer is all
    with pytest.raises(ConfigError, match="truncate_dim is 17, but the model's vectors have 16 values; choose 1 to 16"):
        retrieval.load(workdir, truncate_dim=17)


def test_another_precision_is_close(workdir, encoder):
    texts, low = ["a", "the digit nine"], retrieval.load(workdir, dtype="bfloat16")
    cosines = (encoder.encode(texts) * low.encode(texts)).sum(1)
    assert (cosines > 0.999).all() and (cosines < 1 - 1e-7).any()  # bfloat16 keeps 8 bits


def saved_params(path):
    with ocp.StandardCheckpointer() as checkpointer:
        return by_path(checkpointer.restore(path))


def test_adapters_are_added_to_their_matrices(workdir, encoder):
    folder = workdir / "checkpoints"
    kernel = "towers_text/blocks/block_0/attention/qkv_kernel"
    last, first = (by_path(retrieval.load(workdir, step, weights="params").params) for step in (6, 2))
    assert not [path for path in last if path.startswith("adapters/")]
    saved = saved_params(folder / "6" / "params")
    delta = 4.0 * np.einsum(
        "wr,rhd->whd",
        saved["adapters/text/blocks/block_0/attention/qkv_kernel/q/a"],
        saved["adapters/text/blocks/block_0/attention/qkv_kernel/q/b"],
    )
    np.testing.assert_allclose(last[kernel][:, 0], saved[kernel][:, 0] + delta, atol=1e-6)
    np.testing.assert_array_equal(last[kernel][:, 1:], first[kernel][:, 1:])  # without an adapter: frozen
    assert (np.asarray(last[kernel][:, 0]) != np.asarray(first[kernel][:, 0])).any()


def test_images_come_as_arrays_pictures_or_files(encoder, tmp_path):
    image = np.asarray(Digits(split="test").retrieval().images[0])
    Image.fromarray(image[..., 0]).save(tmp_path / "digit.png")
    expected = encoder.encode([image])
    path = tmp_path / "digit.png"
    for value in (image[..., 0], Image.fromarray(image[..., 0]), path, str(path), path.read_bytes()):
        np.testing.assert_array_equal(encoder.encode([value]), expected)
    coloured = np.repeat(image, 3, axis=-1)
    np.testing.assert_allclose(encoder.encode([coloured]), expected, atol=1e-5)  # grey stays grey
    opaque = np.concatenate([coloured, np.full((8, 8, 1), 255, np.uint8)], axis=-1)
    np.testing.assert_allclose(encoder.encode([opaque]), expected, atol=1e-5)
    assert encoder.encode([np.zeros((20, 30), np.uint8)]).shape == (1, 16)  # resized


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1), (5, 9, 3), (5, 9, 4)])
def test_images_of_any_form_become_the_towers(channels, shape):
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    made = retrieval.encoder.as_image(image, 8, channels)
    assert made.shape == (8, 8, channels) and made.dtype == np.uint8
    if shape[:2] == (8, 8):
        assert (made == image.reshape(8, 8, 1)).all()


@pytest.mark.parametrize("how", [dict(), dict(crop=True), dict(crop=True, kernel="bilinear", centre="round")])
def test_a_file_is_prepared_as_the_transform_would(how, tmp_path):
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (33, 40, 3), np.uint8))
    photo.save(tmp_path / "photo.png")
    made = retrieval.encoder.as_image(tmp_path / "photo.png", 8, 3, **how)
    (wanted,) = transforms.resize([(tmp_path / "photo.png").read_bytes()], None, None, height=8, width=8, channels=3, **how)[""]
    np.testing.assert_array_equal(made, wanted)


def test_other_values_are_refused(encoder):
    with pytest.raises(ValueError, match=r"uint8 \[H W\] or \[H W C\] with C of 1, 3 or 4, not float64"):
        encoder.encode([np.zeros((8, 8))])
    with pytest.raises(ValueError, match="no view 'query'; this model has image, text"):
        encoder.encode(["a"], view="query")


def test_the_mesh_does_not_matter(workdir, encoder):
    alone = retrieval.load(workdir, mesh=meshes.make(devices=jax.devices()[:1]))
    np.testing.assert_allclose(alone.encode(["a 3 written by hand"]), encoder.encode(["a 3 written by hand"]), atol=1e-6)


def test_averages_by_default_and_parameters_on_request(workdir, encoder):
    raw = retrieval.load(workdir, weights="params")
    assert (encoder.weights, raw.weights) == ("ema", "params") and encoder.fingerprint() != raw.fingerprint()
    assert retrieval.load(workdir, 2).fingerprint() != encoder.fingerprint()
    assert retrieval.load(workdir).fingerprint() == encoder.fingerprint()


def test_what_is_not_there_is_named(workdir, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no config.json; give the --workdir of a training run"):
        retrieval.load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no committed checkpoint of step 3; there are: \[2, 4, 6\]"):
        retrieval.load(workdir, 3)


def starting(workdir, **init):
    """A config whose text tower starts from a run, with adapters merged and averages laid over what was frozen."""
    made = tiny.config(data__tokenizer=dict(name="saved", options=dict(path=str(workdir / "tokenizer"))))
    made.model.towers.text = dict(name="text", options=dict(dropout=0.1), init=dict(format="tandem", path=str(workdir), keep=()) | init)
    return interop.resolve(made)


def test_a_tower_starts_from_a_run(workdir, encoder, tmp_path):
    made = starting(workdir)
    run = tiny.prepare(made, tmp_path)
    found, expected = run.initial(), by_path(encoder.params)
    assert set(found) == {path for path in expected if path.startswith("towers_text/")}
    for path, array in found.items():
        np.testing.assert_array_equal(array, expected[path], err_msg=path)
    assert made.model.towers.text.options.dropout == 0.1 and made.model.towers.text.options.width == 16
    assert interop.read(workdir).tokenizer.same_ids(run.data.tokenizer)


def test_a_tower_starts_from_an_earlier_checkpoint_but_for_what_it_keeps(workdir):
    made = starting(workdir, path=str(workdir / "checkpoints" / "2"), keep=("projection/",))
    found, expected = interop.initial(made), by_path(retrieval.load(workdir, 2).params)
    assert "towers_text/projection/kernel" not in found
    np.testing.assert_array_equal(found["towers_text/token_embedding"], expected["towers_text/token_embedding"])
    with pytest.raises(FileNotFoundError, match="no committed checkpoint of step 3"):
        interop.initial(starting(workdir, path=str(workdir / "checkpoints" / "3")))
    with pytest.raises(FileNotFoundError, match="towers.text.init.path: .*nowhere holds no config.json of a run; give the --workdir"):
        starting(workdir, path=str(workdir / "nowhere"))


def test_a_tower_refuses_a_run_that_read_other_ids(workdir, tmp_path):
    made = starting(workdir, path=str(workdir / "checkpoints" / "2"))
    made.data.tokenizer = dict(name="bpe", options=dict(vocab_size=300))
    cure = f"set config.data.tokenizer to dict(name='saved', options=dict(path='{workdir}/tokenizer'))"
    with pytest.raises(ConfigError, match=rf"other token ids .*{re.escape(cure)}"):
        tiny.prepare(made, tmp_path).initial()
