"""Bilinear sampling by definition: pixel centres at half integers, 0 outside."""

import math

import numpy as np


def move(image: np.ndarray, right: float, down: float, factor: float, degrees: float) -> np.ndarray:
    """Scales and turns [H W] clockwise about its centre, then moves it by (right, down) pixels; float64."""
    height, width = image.shape
    out = np.zeros((height, width))
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    for row in range(height):
        for column in range(width):
            x, y = column + 0.5 - width / 2 - right, row + 0.5 - height / 2 - down
            u, v = (cos * x + sin * y) / factor + width / 2 - 0.5, (-sin * x + cos * y) / factor + height / 2 - 0.5
            for i in (math.floor(v), math.floor(v) + 1):
                for j in (math.floor(u), math.floor(u) + 1):
                    if 0 <= i < height and 0 <= j < width:
                        out[row, column] += (1 - abs(v - i)) * (1 - abs(u - j)) * image[i, j]
    return out
