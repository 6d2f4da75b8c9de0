"""Fixed position tables and the resizing of learned ones."""

import numpy as np


def sincos_2d(height: int, width: int, features: int, temperature: float = 10_000.0) -> np.ndarray:
    """Sine-cosine table `[height * width, features]`, rows in reading order, channels [sin x, cos x, sin y, cos y].

    Raises:
        ValueError: `features` is not a multiple of 4.

    Source: big_vision's `posemb_sincos_2d`; the exponent divides by features / 4 - 1.
    """
    if features % 4 or features < 8:
        raise ValueError(
            f"a sincos2d table needs a width that is a multiple of 4 and at least 8, not {features}; change the tower's options.width."
        )
    y, x = np.mgrid[:height, :width]
    omega = temperature ** -(np.arange(features // 4) / (features // 4 - 1))
    x, y = (np.outer(axis.ravel(), omega) for axis in (x, y))
    return np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=1).astype(np.float32)
