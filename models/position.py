"""Fixed position tables: sines and cosines of places, rotary angles and their scalings, buckets of distances."""

import math
from collections.abc import Mapping

import numpy as np

from core.config import ConfigError, bind, check_section, choose


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


def rope(length: int, head_dim: int, theta: float, scaling: Mapping | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine `[length, head_dim / 2]` of the angle of each position: position * theta^(-2i / head_dim).

    Made in float64: at position 8,000 a float32 angle is off by 5e-4.

    Args:
        length: positions from 0 on.
        head_dim: features of a head, even; features i and i + head_dim / 2 turn together.
        theta: base of the wavelengths.
        scaling: None or empty, or `{name, options}` with a name in `SCALINGS`.

    Raises:
        ConfigError: an odd `head_dim`, or a scaling that is none.

    Source: Su et al. 2021 (arXiv:2104.09864), in the half-split form of most released weights.
    """
    if head_dim % 2:
        raise ConfigError(f"rotary positions need an even head width, not {head_dim}; change the tower's options.width, heads or head_dim.")
    frequencies, factor = theta ** -(np.arange(0, head_dim, 2) / head_dim), 1.0
    if scaling:
        key = "the tower's options.rope_scaling"
        check_section(scaling, ("name", "options"), key)
        scale = bind(choose(SCALINGS, scaling["name"], f"{key}.name"), scaling["options"], f"{key}.options")
        frequencies, factor = scale(frequencies, theta)
    angle = np.outer(np.arange(length), frequencies)
    return (factor * np.cos(angle)).astype(np.float32), (factor * np.sin(angle)).astype(np.float32)


def linear(frequencies: np.ndarray, theta: float, *, factor: float = 1.0) -> tuple[np.ndarray, float]:
    """Positions divided by `factor`. Source: Chen et al. 2023 (arXiv:2306.15595)."""
    return frequencies / factor, 1.0


def ntk(frequencies: np.ndarray, theta: float, *, factor: float = 1.0) -> tuple[np.ndarray, float]:
    """A larger base: the longest wave grows by `factor`, the shortest stays. Source: bloc97 2023, "NTK-aware" scaling of LLaMA."""
    dim = 2 * len(frequencies)
    return (theta * factor ** (dim / (dim - 2))) ** -(np.arange(0, dim, 2) / dim), 1.0


def llama3(
    frequencies: np.ndarray, theta: float,
    *, factor: float = 8.0, low_freq_factor: float = 1.0, high_freq_factor: float = 4.0, original_length: int = 8192,
) -> tuple[np.ndarray, float]:  # fmt: skip
    """Waves that fit `original_length` often stay, those that hardly fit are divided by `factor`, those between are blended.

    Source: Llama 3.1's released code.
    """
    turns = original_length * frequencies / (2 * np.pi)
    stay = np.clip((turns - low_freq_factor) / (high_freq_factor - low_freq_factor), 0, 1)
    return frequencies * (stay + (1 - stay) / factor), 1.0


def yarn(
    frequencies: np.ndarray, theta: float,
    *, factor: float = 4.0, original_length: int = 32_768, beta_fast: float = 32.0, beta_slow: float = 1.0,
    attention_factor: float | None = None, truncate: bool = True,
) -> tuple[np.ndarray, float]:  # fmt: skip
    """Waves that turn `beta_fast` times within `original_length` stay, those below `beta_slow` are divided by `factor`; scores grow.

    Source: Peng et al. 2023 (YaRN, arXiv:2309.00071), with its bounds rounded outwards unless `truncate` is False.
    """
    dim = 2 * len(frequencies)
    place = lambda turns: dim * math.log(original_length / (turns * 2 * math.pi)) / (2 * math.log(theta))
    low, high = place(beta_fast), place(beta_slow)
    low, high = (math.floor(low), math.ceil(high)) if truncate else (low, high)
    low, high = max(low, 0), min(high, dim - 1)
    divided = np.clip((np.arange(dim // 2) - low) / (high - low or 0.001), 0, 1)
    grow = 0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0
    return frequencies * (1 - divided + divided / factor), grow if attention_factor is None else attention_factor


SCALINGS = {"linear": linear, "llama3": llama3, "ntk": ntk, "yarn": yarn}


def relative_buckets(length: int, buckets: int = 32, max_distance: int = 128) -> np.ndarray:
    """Which of `buckets` a key's distance from a query falls in, [length, length]: half of them for keys after it.

    Near distances have buckets of their own, far ones share them by logarithm.
    Source: Raffel et al. 2020 (T5, arXiv:1910.10683), bidirectional; in float32, which decides at the bounds.
    """
    away = np.arange(length)[:, None] - np.arange(length)[None, :]
    half = buckets // 2
    exact = half // 2
    near = np.abs(away)
    ratio = np.log(np.maximum(near, 1).astype(np.float32) / np.float32(exact)) / np.float32(math.log(max_distance / exact))
    far = np.minimum(exact + (ratio * np.float32(half - exact)).astype(np.int32), half - 1)
    return np.where(away < 0, half, 0) + np.where(near < exact, near, far)
