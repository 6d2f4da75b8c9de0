"""Curves as SVG text in the page's own colours, so that they follow its light and dark theme."""

import io
import itertools
import re
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

# Placeholder colours that no plot uses otherwise, and the page's variable that replaces each.
THEME = {"#0a0b0c": "var(--soft)", "#0d0e0f": "var(--line)"} | {f"#{n}0000{n}": f"var(--s{n})" for n in range(1, 9)}
INK, LINE, *SERIES = THEME
STYLE = {
    "svg.fonttype": "none", "font.size": 9, "text.color": INK, "axes.edgecolor": LINE, "axes.labelcolor": INK, "xtick.color": INK,
    "ytick.color": INK, "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False, "axes.grid": True,
    "axes.grid.axis": "y", "grid.color": LINE, "grid.linewidth": 0.8, "xtick.major.size": 0, "ytick.major.size": 0,
    "lines.linewidth": 1.6, "lines.solid_capstyle": "round", "axes.axisbelow": True,
}  # fmt: skip
SMOOTHED_FROM = 40  # points; shorter curves are drawn as they are


def curves(lines: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, share: bool = False, goal: float | None = None) -> Markup:
    """Lines over steps.

    Args:
        lines: (steps, values) by name, in the order of the page's eight series colours; one without values leaves its colour out.
        share: values are fractions, shown as percentages.
        goal: a dashed level.
    """
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": " ".join(lines)}):
        figure = Figure(figsize=(3.6, 1.9), layout="constrained")
        axes = figure.add_subplot()
        for color, (steps, values) in zip(itertools.cycle(SERIES), lines.values(), strict=False):
            _line(axes, np.asarray(steps), np.asarray(values, float), color)
        if goal is not None:
            axes.axhline(goal, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(FuncFormatter(short))
        axes.yaxis.set_major_formatter(FuncFormatter((lambda y, _: f"{100 * y:.4g}%") if share else short))
        axes.margins(x=0.02)
        return _svg(figure)


def paths(lines: Mapping[str, tuple[Sequence[float], Sequence[float]]], x: str, y: str) -> Markup:
    """How two quantities moved together: a line of (x values, y values) by name, its end marked, with the names of the axes."""
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": " ".join(lines), "axes.grid.axis": "both"}):
        figure = Figure(figsize=(3.6, 2.6), layout="constrained")
        axes = figure.add_subplot(xlabel=x, ylabel=y)
        for color, (across, up) in zip(itertools.cycle(SERIES), lines.values(), strict=False):
            axes.plot(across, up, color=color, alpha=0.45, linewidth=1.1, marker="o", markersize=2)
            axes.plot(across[-1:], up[-1:], color=color, linewidth=0, marker="o", markersize=6)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.margins(0.1)
        return _svg(figure)


def _line(axes, steps: np.ndarray, values: np.ndarray, color: str) -> None:
    if len(values) >= SMOOTHED_FROM:
        axes.plot(steps, values, color=color, alpha=0.3, linewidth=0.9)
        axes.plot(steps, smooth(values), color=color)
    else:
        marker = {"marker": "o", "markersize": 3.2} if len(values) <= 25 else {}
        axes.plot(steps, values, color=color, **marker)


def smooth(values: np.ndarray) -> np.ndarray:
    """Centred mean over a twentieth of the points; at the ends over as many as there are on both sides."""
    half = max(1, len(values) // 40)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    reach = np.minimum(half, np.minimum(at, len(values) - 1 - at))
    return (sums[at + reach + 1] - sums[at - reach]) / (2 * reach + 1)


def short(value: float, _=None) -> str:
    """A number as an axis has room for it: 1.2k, 0.05, 3e-4. The second argument is a tick's position, which does not matter."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}" if value == 0 or abs(value) >= 1e-3 else re.sub(r"e-0?", "e-", f"{value:.2g}")


def _svg(figure: Figure) -> Markup:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r' id="(?:figure|axes|patch|line2d|text|xtick|ytick|matplotlib\.axis)_\d+"', "", text)
    for placeholder, variable in THEME.items():
        text = text.replace(placeholder, variable)
    return Markup(re.sub(r'\s*xmlns(:\w+)?="[^"]*"', "", text))
