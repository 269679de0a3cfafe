"""The loss of a training as a small drawing: every step faint, the trend strong, in the colours of the page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

WIDTH, HEIGHT = 600, 160  # units of the drawing
MAX_POINTS = 400

CSS = """
.loss-chart svg { width: 100%; height: 170px; display: block; }
.loss-chart polyline { fill: none; vector-effect: non-scaling-stroke; }
.loss-chart .each { stroke: var(--body-text-color-subdued); stroke-width: 1; opacity: 0.45; }
.loss-chart .trend { stroke: var(--color-accent); stroke-width: 2.5; }
.loss-chart line { stroke: var(--border-color-primary); vector-effect: non-scaling-stroke; }
.loss-chart .ends { display: flex; justify-content: space-between; font-size: 0.8rem;
                    color: var(--body-text-color-subdued); }
"""


def loss_chart(curve: Sequence[tuple[int, float, float]], steps: int) -> str:
    """Return HTML of (step, loss, trend) points over ``steps`` steps; empty while there are fewer than two.

    The highest hundredth of the losses is cut off, so that one spike does not press all else to the ground.
    """
    if len(curve) < 2:
        return ""
    losses = sorted(loss for _, loss, _ in curve)
    top = 1.1 * max(losses[int(0.99 * (len(losses) - 1))], max(trend for *_, trend in curve), 1e-9)
    every = -(-len(curve) // MAX_POINTS)
    points = [*curve[:-1:every], curve[-1]]
    each = _line(((step, loss) for step, loss, _ in points), steps, top, "each")
    trend = _line(((step, trend) for step, _, trend in points), steps, top, "trend")
    now = f"trend of the loss, now {curve[-1][2]:.4f}"
    return (
        f'<div class="loss-chart"><div class="ends"><span>{now}</span><span>top: {top:.3g}</span></div>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" aria-label="{now}">'
        f'<line x1="0" y1="{HEIGHT}" x2="{WIDTH}" y2="{HEIGHT}"/>{each}{trend}</svg>'
        f'<div class="ends"><span>step 0</span><span>step {steps}</span></div></div>'
    )


def _line(points: Iterable[tuple[int, float]], steps: int, top: float, kind: str) -> str:
    places = " ".join(f"{WIDTH * x / steps:.1f},{HEIGHT * (1 - min(y / top, 1)):.1f}" for x, y in points)
    return f'<polyline class="{kind}" points="{places}"/>'
