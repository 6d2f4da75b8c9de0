"""What the notebooks in `launch/notebooks/` have in common: a kernel's set-up, live curves, images beside what they were found for.

The functions they show (`training.fit`, `evals.evaluate`, `retrieval.embed`, `retrieval.search`) need none of it.
"""

import io
import pathlib
import shutil
import subprocess
import sys
import textwrap
import time
import warnings
from collections.abc import Sequence
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np

from launch import process

ROOT = pathlib.Path(__file__).resolve().parents[1]
PRELOADED = {"numpy": "numpy", "PIL": "pillow", "matplotlib": "matplotlib", "jax": "jax"}  # modules that Colab may have imported
EVERY_SECONDS = 1.0  # between two drawings: each takes about a tenth of that on a slow core
RIGHT, WRONG, QUIET, LINES = "#2e8b57", "#c0504d", "#999999", ("#1f6fb2", "#d1762b", "#2e8b57", "#8a5aa8")


def start() -> None:
    """Prepares the kernel: on Colab the pinned packages, everywhere logging and the compilation cache.

    Raises:
        RuntimeError: Colab had loaded a package before its pinned version was installed; restarting the session is the cure.
    """
    if "google.colab" in sys.modules:
        _install("requirements-gpu.txt" if shutil.which("nvidia-smi") else "requirements.txt")
    warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm misses a package for bars that nothing here draws
    process.start()


def _install(requirements: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "-r", str(ROOT / requirements)], check=True)
    loaded = {name: sys.modules[name].__version__ for name in PRELOADED if name in sys.modules}
    if stale := [name for name, version in loaded.items() if version != metadata.version(PRELOADED[name])]:
        raise RuntimeError(f"{', '.join(stale)} had been loaded in another version: choose Runtime > Restart session, then run all cells.")


class Curves:
    """Draws logged metrics in the cell while training goes on: `fit(config, workdir, on_metrics=Curves(steps, "train/loss"))`."""

    def __init__(self, steps: int, *names: str):
        """Draws nothing yet.

        Args:
            steps: of the whole run; where the axis ends.
            names: metrics, a panel each.
        """
        self._steps, self._names, self._rows, self._drawn, self._display = steps, names, [], 0.0, None

    def __call__(self, row: dict[str, Any]) -> None:
        """Takes one logged step."""
        self._rows.append(row)
        if time.monotonic() - self._drawn >= EVERY_SECONDS or row["step"] == self._steps:
            self._draw()
            self._drawn = time.monotonic()

    def _draw(self) -> None:
        from IPython.display import display

        lines = {name: {"": ([row["step"] for row in self._rows], [row[name] for row in self._rows])} for name in self._names}
        drawn = curves(lines, self._steps)
        if self._display is None:
            self._display = display(drawn, display_id=True)
        else:
            self._display.update(drawn)


def curves(panels: dict[str, dict[str, tuple[Sequence[int], Sequence[float]]]], steps: int):
    """A picture of panels side by side.

    Args:
        panels: by title, lines of (steps, values) by name.
        steps: where the axis ends.
    """
    from matplotlib.figure import Figure

    from evals.plots import short, smooth

    figure = Figure(figsize=(4.4 * len(panels), 2.7), layout="constrained")
    for axes, (title, lines) in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels.items(), strict=True):
        for colour, (name, (across, up)) in zip(LINES * len(lines), lines.items(), strict=False):
            up = np.array(up, float)
            axes.plot(across, up, color=colour, alpha=0.3, linewidth=1)
            axes.plot(across, smooth(up), color=colour, linewidth=1.8, label=name)
        axes.set_title(title, fontsize=10)
        axes.set_xlim(0, steps)
        axes.set_xlabel("step", fontsize=9)
        axes.yaxis.set_major_formatter(short)
        axes.tick_params(labelsize=8)
        axes.grid(axis="y", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        if any(lines):
            axes.legend(frameon=False, fontsize=8)
    return _picture(figure)


class Tile(NamedTuple):
    """An image, or none for a text alone, with words below; framed in green where `right`, in red where it is False."""

    image: np.ndarray | None
    words: str
    right: bool | None = None


def show(rows: Sequence[Sequence[Tile]], side: float = 1.15):
    """A picture of rows of tiles: the query first, then what was found for it.

    Args:
        rows: of tiles.
        side: of one tile, inches.
    """
    from matplotlib.figure import Figure

    columns = max(map(len, rows))
    figure = Figure(figsize=(columns * side * 1.15, len(rows) * side * 1.45), layout="constrained")
    for axes_row, row in zip(np.atleast_2d(figure.subplots(len(rows), columns, squeeze=False)), rows, strict=True):
        for axes, tile in zip(axes_row, (*row, *[None] * (columns - len(row))), strict=True):
            axes.set_xticks([]), axes.set_yticks([])
            axes.spines[:].set_visible(False)
            if tile is not None:
                _draw(axes, tile)
    return _picture(figure)


def show_found(queries: Sequence[str], rows: np.ndarray, images: Sequence[np.ndarray], texts: Sequence[str]):
    """A picture of what texts found: a row for each, framed in green where an image's own text is the query.

    Args:
        queries: texts.
        rows: of the images found for each [Q k], as `retrieval.search` gives them.
        images: that were searched.
        texts: of the images.
    """
    tiles = [[Tile(images[row], texts[row], texts[row] == query) for row in best] for query, best in zip(queries, rows, strict=True)]
    return show([[Tile(None, query), *found] for query, found in zip(queries, tiles, strict=True)])


def _draw(axes, tile: Tile) -> None:
    if tile.image is None:
        axes.text(0.5, 0.5, textwrap.fill(tile.words, 14), ha="center", va="center", fontsize=9, weight="bold", transform=axes.transAxes)
        return
    axes.imshow(tile.image, cmap="gray" if tile.image.shape[-1] == 1 else None, vmin=0, vmax=255)
    axes.set_xlabel(textwrap.fill(tile.words, 19), fontsize=7)
    colour = QUIET if tile.right is None else RIGHT if tile.right else WRONG
    axes.spines[:].set(visible=True, color=colour, linewidth=1 if tile.right is None else 2.5)


def _picture(figure):
    from IPython.display import Image

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return Image(buffer.getvalue())
