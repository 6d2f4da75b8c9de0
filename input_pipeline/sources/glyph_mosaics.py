"""Characters of `glyphs`, each with a mosaic of several: boxes with names that are exact without anybody drawing them."""

from typing import Any

import numpy as np

from input_pipeline import canvas
from input_pipeline.image import resize
from input_pipeline.sources.glyphs import Glyphs

SEED = 20_241  # of the mosaics that evaluation sees


class GlyphMosaics(Glyphs):
    """The records of `glyphs`, with a mosaic of other characters of the split, drawn anew in each epoch.

    Beside the columns of `glyphs` there are `canvas` uint8 [size size 1], a grid of images shrunk to fill it, and of its K tiles, row by
    row: `tiles` (names), `tiles_id`, `tiles_pixel_id` int32 [K] (numbers as those of `id` and `pixel_id`, of one source alone) and
    `boxes` float32 [K 4] (left, top, right, bottom, in shares of the canvas). K is that of the largest grid; a smaller one is
    followed by empty names whose boxes have no area.

    Args:
        split: as in `Glyphs`.
        size: side of images and canvases in pixels; a multiple of every grid.
        heldout: as in `Glyphs`.
        only: likewise.
        grids: tiles along a side, one of which each mosaic draws; (2, 3, 4) is published, for larger images.

    Raises:
        ValueError: as `Glyphs`, or grids that do not divide the size.
    """

    def __init__(self, *, split: str = "train", size: int = 32, heldout: int = 500, only: tuple = (), grids: tuple = (2,)):
        if not grids or any(grid < 1 or size % grid for grid in grids):
            raise ValueError(f"grids {tuple(grids)} do not divide {size} pixels; set options.grids to divisors of options.size.")
        super().__init__(split=split, size=size, heldout=heldout, only=only)
        self._grids, self._size = tuple(grids), size

    def __getitem__(self, i: int) -> dict[str, Any]:
        return self.read(i, None)

    def read(self, i: int, rng: np.random.Generator | None) -> dict[str, Any]:
        """Record i; `rng` draws its mosaic, which without it is always the same one."""
        rng = np.random.default_rng((SEED, i)) if rng is None else rng
        grid, most = self._grids[int(rng.integers(len(self._grids)))], max(self._grids) ** 2
        rows = rng.integers(len(self), size=grid * grid)
        side, spare = self._size // grid, most - grid * grid
        small = [resize(self._images[row], side, side) if grid > 1 else self._images[row] for row in rows]
        numbers = lambda of: np.pad(of[rows].astype(np.int32), (0, spare))
        return super().__getitem__(i) | {
            "canvas": canvas.assemble(small, grid),
            "tiles": [*(self._names[self._id[row]] for row in rows), *[""] * spare],
            "tiles_id": numbers(self._id),
            "tiles_pixel_id": numbers(self._pixel_id),
            "boxes": np.pad(canvas.boxes(grid, grid), ((0, spare), (0, 0))),
        }
