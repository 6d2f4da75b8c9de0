"""Images of any shape through a NaFlex tower, from the folder of another library."""

import numpy as np

import retrieval
from tests.interop import toys


def test_each_image_is_encoded_in_its_shape(tmp_path):
    encoder = retrieval.load(toys.folder("siglip2", tmp_path))
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((8, 8, 3), (6, 40, 3), (40, 6), (1, 1), (9, 12, 4))]
    whole = encoder.encode(images)
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(np.concatenate([encoder.encode([image], batch=5) for image in images]), whole, atol=1e-6)
    assert np.abs(encoder.encode([images[1].transpose(1, 0, 2)], batch=5) - whole[1]).max() > 1e-3
