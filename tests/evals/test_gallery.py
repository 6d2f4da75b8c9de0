"""What a report shows of images."""

import io

import numpy as np
from PIL import Image

from evals import gallery


def test_files_and_arrays_of_all_sizes_share_an_array():
    file, rng = io.BytesIO(), np.random.default_rng(0)
    photo = rng.integers(0, 256, (200, 100, 3), dtype=np.uint8)
    Image.fromarray(photo).save(file, "PNG")
    grey = rng.integers(0, 256, (8, 12, 1), dtype=np.uint8)
    found = gallery.thumbnails([file.getvalue(), grey, photo])
    assert found.shape == (3, 67, 34, 3) and found.dtype == np.uint8
    np.testing.assert_array_equal(found[0], photo[::3, ::3])
    np.testing.assert_array_equal(found[2], found[0])
    np.testing.assert_array_equal(found[1, :8, :12], np.repeat(grey, 3, 2))
    assert not found[1, 8:].any() and not found[1, :, 12:].any()
