"""Images of any shape through Siglip2Model and its image processor, in and out."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

torch = pytest.importorskip("torch")

import interop  # noqa: E402
from input_pipeline.transforms import patches  # noqa: E402
from interop import export  # noqa: E402
from models import dual  # noqa: E402
from tests.parity import clip_models as reference  # noqa: E402

pytestmark = pytest.mark.parity
SHAPES = [(40, 30), (21, 93), (12, 12), (3, 160), (1, 1), (300, 299)]


def photographs():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in SHAPES]


def theirs(processor, model):
    """Their inputs, unit vectors of images and of token ids."""
    made = processor([Image.fromarray(photo) for photo in photographs()], return_tensors="pt")
    ids = torch.tensor(reference.inputs()[1], dtype=torch.long)
    with torch.no_grad():
        found = [model.get_image_features(**made), model.get_text_features(input_ids=ids)]
    return made, [torch.nn.functional.normalize(getattr(z, "pooler_output", z), dim=-1).numpy() for z in found]


def ours(imported):
    """Arrays of the same images, unit vectors of images and of token ids."""
    made = patches(photographs(), None, None, **imported.transforms["image"]["options"])
    model, ids = dual.build(ConfigDict(imported.model)), reference.inputs()[1]
    run = jax.jit(lambda params, batch: model.apply({"params": params}, batch))
    images = run(imported.params, {"image": made[""], "image_mask": made["_mask"]})["z_image"]
    return made, [images, run(imported.params, {"text": ids})["z_text"]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the library writes of a toy model with random weights."""
    from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

    path = tmp_path_factory.mktemp("siglip2")
    model = reference.siglip2()
    model.save_pretrained(path)
    processor = Siglip2ImageProcessorPil(patch_size=4, max_num_patches=14)
    processor.save_pretrained(path)
    return path, theirs(processor, model)


def test_images_and_vectors_are_theirs(folder):
    path, (expected, vectors) = folder
    made, found = ours(interop.read(path))
    np.testing.assert_array_equal(made["_mask"], expected["pixel_attention_mask"].numpy().astype(bool))
    pixels = made[""][:, :, :-2].reshape(len(SHAPES), 14, -1) / 127.5 - 1
    np.testing.assert_allclose(np.where(made["_mask"][..., None], pixels, 0), expected["pixel_values"].numpy(), rtol=0, atol=1e-6)
    places = made[""][:, :, -2:, 0].max(axis=1) + 1
    np.testing.assert_array_equal(places, expected["spatial_shapes"].numpy())
    for z, expected_z in zip(found, vectors, strict=True):
        np.testing.assert_allclose(z, expected_z, rtol=0, atol=1e-5)
        assert np.ptp(expected_z, axis=0).min() > 1e-3, "rows must differ for the comparison to say something"


def test_what_they_wrote_goes_out_again(folder, tmp_path):
    from transformers import AutoImageProcessor, Siglip2Model

    path, (_, vectors) = folder
    export.write(interop.read(path), tmp_path / "out", "hf_siglip2")
    processor = AutoImageProcessor.from_pretrained(tmp_path / "out", backend="pil")
    model = Siglip2Model.from_pretrained(tmp_path / "out").eval()
    for found, expected in zip(theirs(processor, model)[1], vectors, strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    golden = np.load(tmp_path / "out" / "golden.npz", allow_pickle=False)
    pixels, mask = golden["images"], torch.tensor(golden["image_mask"].astype(np.int64))
    with torch.no_grad():
        z = model.get_image_features(
            pixel_values=torch.tensor(pixels[:, :, :-2].reshape(*pixels.shape[:2], -1) / 127.5 - 1, dtype=torch.float32),
            pixel_attention_mask=mask,
            spatial_shapes=torch.tensor(pixels[:, :, -2:, 0].max(axis=1).astype(np.int64) + 1),
        )
    z = getattr(z, "pooler_output", z).numpy()
    np.testing.assert_allclose(z / np.linalg.norm(z, axis=1, keepdims=True), golden["image_vectors"], rtol=0, atol=1e-5)
