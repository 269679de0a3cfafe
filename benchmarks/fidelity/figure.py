"""The picture of what was measured: similarity against bytes, with the frontier drawn, and against drift."""

from __future__ import annotations

from typing import Any

from benchmarks.fidelity.no_more_drift import is_ours

INK, OURS, THEIRS, RULE = "#1e1e22", "#c2410c", "#64748b", "#d4d4d8"
MARKS = {"least": " ··", "tiny": " ·", "small": "", "medium": " +"}
SHOWN = (1e4, 5e6)  # bytes: what is smaller or larger is named below the picture
LINE, WIDTH = 13, 110  # pixels that a label takes


def frontier(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows that no other beats in both bytes and similarity, by bytes."""
    kept: list[dict[str, Any]] = []
    for row in sorted(rows, key=lambda row: (row["bytes"], -row["similarity"])):
        if not kept or row["similarity"] > kept[-1]["similarity"]:
            kept.append(row)
    return kept


def figure(rows: list[dict[str, Any]], others: list[dict[str, Any]]) -> Any:
    """Draw ``rows``, each method at its best learning rate, and in the right half ``others`` too, at other rates."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    drawing = Figure((15.0, 7.0), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(drawing)
    by_bytes, by_drift = drawing.subplots(1, 2, sharey=True)
    beyond = [row for row in rows if not SHOWN[0] < row["bytes"] < SHOWN[1]]
    rows = [row for row in rows if row not in beyond]
    edge = frontier(rows)
    by_bytes.step([r["bytes"] for r in edge], [r["similarity"] for r in edge], where="post", color=RULE, linewidth=6)
    for row in rows:
        colour = _colour(row)
        by_bytes.plot(row["bytes"], row["similarity"], "o", color=colour, markersize=6)
        same = [r for r in others if (r["method"], r["budget"]) == (row["method"], row["budget"])]
        line = sorted([row, *same], key=lambda r: r["rate"])
        by_drift.plot([r["drift"] for r in line], [r["similarity"] for r in line], "-", color=colour, linewidth=1)
        by_drift.plot([r["drift"] for r in same], [r["similarity"] for r in same], "o", color=colour, markersize=3)
        by_drift.plot(row["drift"], row["similarity"], "o", color=colour, markersize=6)
    by_bytes.set_xscale("log")
    by_bytes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    by_bytes.xaxis.set_major_formatter(lambda bytes_, _: f"{bytes_ / 1e3:,.0f}")
    by_bytes.xaxis.set_minor_formatter(NullFormatter())
    by_bytes.set_xlabel("size of the file, kB", color=INK)
    by_bytes.set_ylabel("similarity to unseen pictures of the subject", color=INK)
    by_bytes.set_title(
        "Above and to the left is better; the line is what nothing beats (·· least budget, · tiny, + medium)",
        color=INK,
        fontsize=10,
    )
    by_drift.set_xlabel("drift of pictures of other things", color=INK)
    by_drift.set_title("Above and to the left is better; lines join learning rates", color=INK, fontsize=10)
    for axes in (by_bytes, by_drift):
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.12, y=0.08)
    named = "; ".join(
        f"{row['method']}: {row['similarity']:.3f} at {row['bytes'] / 1e3:,.0f} kB, drift {row['drift']:.3f}"
        for row in beyond
    )
    drawing.supxlabel(f"Not in the picture: {named}" if beyond else "", color=THEIRS, fontsize=9)
    canvas.draw()  # places the axes
    _label(by_bytes, rows, "bytes")
    _label(by_drift, rows, "drift")
    return drawing


def _label(axes: Any, rows: list[dict[str, Any]], across: str) -> None:
    """Write the methods' names beside their points, from below to above, each clear of those before it."""
    taken: list[tuple[float, float]] = []
    for row in sorted(rows, key=lambda row: row["similarity"]):
        x, y = axes.transData.transform((row[across], row["similarity"]))
        height = y
        for left, bottom in sorted(taken, key=lambda place: place[1]):
            if abs(left - x) < WIDTH and abs(bottom - height) < LINE:
                height = bottom + LINE
        taken.append((x, height))
        points = 72 / axes.figure.dpi
        axes.annotate(
            row["method"] + MARKS[row["budget"]], (row[across], row["similarity"]), (12, (height - y) * points),
            textcoords="offset points", color=_colour(row), fontsize=8, va="center",
            arrowprops={"arrowstyle": "-", "color": _colour(row), "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2},
        )  # fmt: skip


def _colour(row: dict[str, Any]) -> str:
    return OURS if is_ours(row["method"]) else THEIRS
