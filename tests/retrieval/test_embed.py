"""A trained run as an encoder of raw values."""

import jax
import numpy as np
import pytest
from PIL import Image

import retrieval
from core import mesh as meshes
from core.workdir import claim_config
from input_pipeline.sources.digits import Digits
from tests import tiny


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    made = tiny.config(optimizer__ema_decay=0.5, optimizer__freeze=("^towers_text/token_embedding",))
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


def test_batches_and_padding_change_nothing(encoder):
    images = list(Digits(split="test").retrieval().images[:11])
    whole = encoder.encode(images, batch=16)
    np.testing.assert_allclose(encoder.encode(images, batch=8), whole, atol=1e-6)
    np.testing.assert_allclose(np.concatenate([encoder.encode(images[:4]), encoder.encode(images[4:])]), whole, atol=1e-6)
    assert encoder.encode([], view="image").shape == (0, 16)


def test_images_come_as_arrays_pictures_or_files(encoder, tmp_path):
    image = np.asarray(Digits(split="test").retrieval().images[0])
    Image.fromarray(image[..., 0]).save(tmp_path / "digit.png")
    expected = encoder.encode([image])
    for value in (image[..., 0], Image.fromarray(image[..., 0]), tmp_path / "digit.png", str(tmp_path / "digit.png")):
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
    made = retrieval.embed.as_image(image, 8, channels)
    assert made.shape == (8, 8, channels) and made.dtype == np.uint8
    if shape[:2] == (8, 8):
        assert (made == image.reshape(8, 8, 1)).all()


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
