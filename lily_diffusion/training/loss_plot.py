"""``loss.png``: how the losses went, in one look. matplotlib is in the `train` extra; without it nothing is drawn."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np

from .history import History, noise_level

FILE_NAME = "loss.png"
SIZE, DOTS_PER_INCH = (9.0, 5.0), 100  # 900 x 500 pixels
INK, FAINT, RULE = "#1e1e22", "#6e6e76", "#dcdce2"
RAW, TREND = "#c6d5ea", "#1f5fa8"
LEGEND: dict[str, Any] = {"fontsize": 9, "labelcolor": INK, "handlelength": 1.4, "frameon": False}
LEVELS = ("#f2b134", "#e4703a", "#b5385f", "#5b2a86")  # from little noise to much


def plot_notes() -> list[str]:
    """A note for the beginning of a run whose losses cannot be drawn."""
    if importlib.util.find_spec("matplotlib") is not None:
        return []
    return [f"{FILE_NAME} is not drawn, only loss.csv written: pip install matplotlib"]


def draw_losses(history: History) -> Path | None:
    """Draw ``loss.png`` beside ``loss.csv``, under a temporary name first; None: no matplotlib, or nothing to draw."""
    if plot_notes() or not history.column("loss")[0]:
        return None
    path = history.path.with_name(FILE_NAME)
    temporary = path.with_name(f".{FILE_NAME}.writing")
    loss_figure(history).savefig(temporary, format="png", facecolor="white")
    os.replace(temporary, path)
    return path


def loss_figure(history: History) -> Any:
    """The losses of every step with their trend; beside them, once measured twice, the held-out losses by noise level.

    Held-out losses differ tenfold between noise levels, so they are shown as changes since the first measurement.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(SIZE, dpi=DOTS_PER_INCH, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12, wspace=0.04))
    FigureCanvasAgg(figure)  # no window, and no state that is shared with other figures
    columns = [name for name in history.held_out_columns() if len(history.column(name)[0]) > 1]
    axes = figure.subplots(
        1, 2 if columns else 1, squeeze=False, gridspec_kw={"width_ratios": [3, 2][: 1 + bool(columns)]}
    )
    _draw_training(axes[0, 0], history)
    if columns:
        _draw_held_out(axes[0, 1], history, columns)
    return figure


def _draw_training(axes: Any, history: History) -> None:
    steps, losses = history.column("loss")
    dense = len(steps) > 1
    axes.plot(steps, losses, color=RAW, linewidth=0.8, marker="" if dense else "o", label="each step")
    axes.plot(*history.column("smoothed_loss"), color=TREND, linewidth=2.2, label="trend")
    top = 1.05 * float(np.quantile(losses, 0.99))  # a spike or two must not press all else to the ground
    axes.set_ylim(0, top if top > 0 else 1)
    axes.set_xlim(min(0, steps[0]) if steps[0] <= 1 else steps[0], max(steps[-1], steps[0] + 1))
    trend = history.column("smoothed_loss")[1]
    _dress(axes, "Training loss" + (f", trend now {trend[-1]:.4f}" if trend else ""))
    axes.legend(**LEGEND, loc="upper right")


def _draw_held_out(axes: Any, history: History, columns: list[str]) -> None:
    for place, name in enumerate(columns):
        steps, losses = history.column(name)
        change = [100 * (loss / losses[0] - 1) for loss in losses]
        colour = LEVELS[round(place * (len(LEVELS) - 1) / max(1, len(columns) - 1))]
        label = f"{noise_level(name):g}: {losses[-1]:.4f}"
        axes.plot(steps, change, color=colour, linewidth=1.8, marker="o", markersize=3.5, label=label)
    axes.axhline(0, color=FAINT, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
    axes.margins(y=0.2)
    axes.yaxis.set_major_formatter(lambda change, _: f"{change:+g}%" if change else "0%")
    _dress(axes, "Held-out loss, change from the first")
    below = {"loc": "upper left", "bbox_to_anchor": (0, -0.13), "ncols": 2, "title": "noise level: loss now"}
    legend = axes.legend(**LEGEND, **below, title_fontsize=9, alignment="left", borderpad=0)
    legend.get_title().set_color(FAINT)


def _dress(axes: Any, title: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title(title, loc="left", color=INK, fontsize=11, pad=10)
    axes.set_xlabel("step", color=FAINT, fontsize=10)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True))
    axes.tick_params(colors=FAINT, labelsize=9, length=0)
    axes.grid(axis="y", color=RULE, linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(RULE)
