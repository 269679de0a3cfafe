"""A picture of what the routers do: a cell for each layer and denoising step, a bar for each layer's mean mixture."""

from __future__ import annotations

import colorsys
import functools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from .sharing import in_feed_forward

Colour = tuple[int, int, int]
INK, FAINT, PAPER, FRAME = (30, 30, 34), (100, 100, 108), (255, 255, 255), (214, 214, 220)
HUES: list[Colour] = [(0, 98, 178), (222, 94, 0), (0, 148, 104), (158, 58, 156), (196, 152, 0), (190, 30, 60)]
TITLE, HEAD, TEXT = 25, 18, 15  # sizes of the letters in pixels
MARGIN, GAP = 28, 12
ROW = 19  # pixels from one layer to the next, with a line of one pixel between them
SECTION = 24  # pixels, the line with a section's name
MAP_WIDTH = 170  # pixels, at most; the width of a step is a whole number of pixels, at least 2
SHARES_WIDTH = 60  # pixels
LEGEND = (1.0, 0.99, 0.95, 0.9, 0.75, 0.5, 0.0)  # entropies that it shows
SWATCH = (44, 18)  # pixels
HOW_TO_READ = (
    "Each row is a layer, each column a denoising step. The colour says which expert counts most, and its strength how "
    "decided the router is: white where all experts count equally (entropy 1), full colour where one does everything "
    "(entropy 0). The bars show the share of each expert over all steps. Layers on two sides of a dark line have "
    "different experts: expert 1 above it is not expert 1 below it."
)


class Layer(NamedTuple):
    """What is drawn of one layer under one prompt."""

    column: str  # the projection, such as "to_q"
    section: str  # the kind of attention, such as "attn1": the rows of a section stand together
    block: str  # such as "down_blocks.0"
    number: str  # its place in the block, such as "1.0"
    group: str  # layers of one group share their experts
    usage: Sequence[Sequence[float]]  # (steps, num_B) probabilities
    entropy: Sequence[float]  # (steps,) from 0 to 1

    @property
    def row(self) -> tuple[str, str, str]:
        return (self.section, self.block, self.number)


class Panel(NamedTuple):
    """One heat map: a caption, such as the prompt, and its layers in forward order."""

    caption: str
    layers: Sequence[Layer]


def places_of(layers: Mapping[str, str]) -> dict[str, tuple[str, str, str]]:
    """Layer -> (section, block, number) for people to read, from full names and their projections.

    "down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_out.0" with projection "to_out.0" becomes
    ("attn2", "down_blocks.0", "1.0"), "transformer_blocks.7.ff.net.2" becomes ("ff", "transformer_blocks", "7").
    Where two layers would come to the same place, the block is the whole name.
    """
    ends = {layer: in_feed_forward(layer).partition(".")[2] or projection for layer, projection in layers.items()}
    names = {layer: layer.removesuffix(end).strip(".") for layer, end in ends.items()}
    places = {name: _place_of(name) for name in dict.fromkeys(names.values())}
    count = Counter(places.values())
    for name, (section, *_) in places.items():
        if count[places[name]] > 1:
            places[name] = (section, name, "")
    return {layer: places[name] for layer, name in names.items()}


def _place_of(name: str) -> tuple[str, str, str]:
    block, *rest = name.split(".")
    numbers = [part for part in rest if part.isdigit()]
    section = next((part for part in reversed(rest) if not part.isdigit()), block)
    if len(numbers) > 1 and rest[0].isdigit():
        block = f"{block}.{numbers.pop(0)}"
    return section, block, ".".join(numbers)


def colour_of(expert: int) -> Colour:
    """The full colour of an expert, numbered from 0."""
    if expert < len(HUES):
        return HUES[expert]
    hue, saturation, value = expert * 0.618 % 1 + 0.48, (0.9, 0.4, 0.7)[expert % 3], (0.8, 0.5)[expert % 2]
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def cell_colour(probabilities: Sequence[float], entropy: float) -> Colour:
    """The likeliest expert's colour on white, at strength ``sqrt(1 - entropy)``.

    Near an even mixture the entropy falls with the square of the distance from it; the root makes the strength fall
    with the distance itself.
    """
    strength = math.sqrt(min(1.0, max(0.0, 1 - entropy)))
    full = colour_of(max(range(len(probabilities)), key=probabilities.__getitem__))
    red, green, blue = (round(255 + strength * (part - 255)) for part in full)
    return red, green, blue


class Layout:
    """Where everything stands, in pixels, for panels that all show the same layers.

    Attributes:
        columns: section -> its projections, from left to right.
        rows: (section, block, number) from top to bottom, section by section.
        tops: y of each panel's caption.
        size: (width, height) of the sheet.
    """

    def __init__(self, panels: Sequence[Panel], title: str, note: str) -> None:
        layers = panels[0].layers
        self.steps, self.experts = len(layers[0].usage), len(layers[0].usage[0])
        self.sections = list(dict.fromkeys(layer.section for layer in layers))
        self.columns: dict[str, list[str]] = {section: [] for section in self.sections}
        for section, column in dict.fromkeys((layer.section, layer.column) for layer in layers):
            self.columns[section].append(column)
        self.rows = sorted(dict.fromkeys(layer.row for layer in layers), key=lambda row: self.sections.index(row[0]))
        self.step = max(2, MAP_WIDTH // self.steps)
        self.block_width = max(_width(row[1]) for row in self.rows)
        self.left = MARGIN + GAP + self.block_width + GAP + max(_width(row[2]) for row in self.rows) + GAP
        self.pitch = self.step * self.steps + GAP // 2 + SHARES_WIDTH + 2 * GAP
        self.abreast = max(map(len, self.columns.values()))
        width = max(self.left + self.abreast * self.pitch - 2 * GAP + MARGIN, 820)
        self.titles = _wrap(title, TITLE, width - 2 * MARGIN)
        self.notes = _wrap(note, TEXT, width - 2 * MARGIN)
        self.legend_top = MARGIN + len(self.titles) * _line(TITLE) + len(self.notes) * _line(TEXT) + GAP
        self.legend_left = MARGIN + _width("expert 99") + GAP
        self.advice_left = self.legend_left + len(LEGEND) * SWATCH[0] + 2 * GAP
        self.advice = _wrap(HOW_TO_READ, TEXT, width - MARGIN - self.advice_left)
        legend = max((self.experts + 1) * (SWATCH[1] + 2), len(self.advice) * _line(TEXT))
        self.tops, top = [], self.legend_top + legend + 2 * GAP
        self.captions = [_wrap(panel.caption, HEAD, width - 2 * MARGIN) for panel in panels]
        body = len(self.rows) * ROW + len(self.sections) * SECTION + _line(TEXT)
        for caption in self.captions:
            self.tops.append(top)
            top += len(caption) * _line(HEAD) + body + 3 * GAP
        self.size = (width, top - 3 * GAP + MARGIN)

    def x(self, column: int, step: int = 0) -> int:
        """Left edge of a step in a column, both counted from 0."""
        return self.left + column * self.pitch + step * self.step

    def x_of(self, layer: Layer, step: int = 0) -> int:
        """Left edge of a step, counted from 0, in a layer's row."""
        return self.x(self.columns[layer.section].index(layer.column), step)

    def y(self, panel: int, row: tuple[str, str, str]) -> int:
        """Top edge of a layer's row; above those of a section is a line with its name and its projections'."""
        top = self.tops[panel] + len(self.captions[panel]) * _line(HEAD)
        return top + self.rows.index(row) * ROW + (self.sections.index(row[0]) + 1) * SECTION

    def cell(self, panel: int, layer: Layer, step: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom pixel of a cell, all inside it."""
        x, y = self.x_of(layer, step), self.y(panel, layer.row)
        return x, y, x + self.step - 1, y + ROW - 2

    def shares(self, panel: int, layer: Layer) -> tuple[int, int]:
        """Left top corner of a layer's bar, which is SHARES_WIDTH wide."""
        return self.x_of(layer, self.steps) + GAP // 2, self.y(panel, layer.row)


def routing_map(panels: Sequence[Panel], *, title: str, note: str = "") -> Image.Image:
    """Draw one heat map for each panel, under a title and a legend that says how to read them.

    Args:
        panels: all with the same layers in the same order, the same steps and the same number of experts.
        title: the first line.
        note: smaller lines beneath it, such as what was run.

    Raises:
        ValueError: there is nothing to draw, or the panels or layers do not fit together.
    """
    _check(panels)
    layout = Layout(panels, title, note)
    sheet = Image.new("RGB", layout.size, PAPER)
    pen = ImageDraw.Draw(sheet)
    _write(pen, (MARGIN, MARGIN), layout.titles, TITLE, INK)
    _write(pen, (MARGIN, MARGIN + len(layout.titles) * _line(TITLE)), layout.notes, TEXT, FAINT)
    _draw_legend(pen, layout)
    for number, panel in enumerate(panels):
        _write(pen, (MARGIN, layout.tops[number]), layout.captions[number], HEAD, INK)
        _draw_names(pen, layout, number)
        _draw_cells(pen, layout, number, panel)
    return sheet


def _draw_legend(pen: ImageDraw.ImageDraw, layout: Layout) -> None:
    left, top, (wide, high) = layout.legend_left, layout.legend_top, SWATCH
    _write(pen, (MARGIN, top), ["entropy"], TEXT, FAINT)
    for i, entropy in enumerate(LEGEND):
        pen.text((left + i * wide + wide // 2, top), f"{entropy:g}", FAINT, _font(TEXT), anchor="ma")
    for expert in range(layout.experts):
        y = top + (expert + 1) * (high + 2)
        _write(pen, (MARGIN, y), [f"expert {expert + 1}"], TEXT, INK)
        one = [float(other == expert) for other in range(layout.experts)]
        for i, entropy in enumerate(LEGEND):
            box = (left + i * wide, y, left + (i + 1) * wide - 1, y + high - 1)
            pen.rectangle(box, cell_colour(one, entropy))
        pen.rectangle((left - 1, y - 1, left + len(LEGEND) * wide, y + high), outline=FRAME)
    _write(pen, (layout.advice_left, top), layout.advice, TEXT, INK)


def _draw_names(pen: ImageDraw.ImageDraw, layout: Layout, panel: int) -> None:
    """Sections with their projections, unless they are those above; steps below; blocks (once a run) and numbers."""
    last, before = layout.rows[-1], ("", "", "")
    foot = layout.y(panel, last) + ROW + 2
    for column in range(layout.abreast):
        x, right = layout.x(column), layout.x(column, layout.steps)
        _write(pen, (x, foot), ["step 1"], TEXT, FAINT)
        pen.text((right, foot), str(layout.steps), FAINT, _font(TEXT), anchor="ra")
        _write(pen, (right + GAP // 2, foot), ["shares"], TEXT, FAINT)
    for row in layout.rows:
        y = layout.y(panel, row)
        if row[0] != before[0]:
            _write(pen, (MARGIN, y - SECTION), [row[0]], TEXT, INK)
            columns = layout.columns[row[0]]
            for i, name in enumerate(columns if columns != layout.columns.get(before[0]) else []):
                _write(pen, (layout.x(i), y - SECTION), [name], TEXT, INK)
        if row[:2] != before[:2]:
            _write(pen, (MARGIN + GAP, y), [row[1]], TEXT, FAINT)
        _write(pen, (MARGIN + GAP + layout.block_width + GAP, y), [row[2]], TEXT, FAINT)
        before = row


def _draw_cells(pen: ImageDraw.ImageDraw, layout: Layout, panel: int, shown: Panel) -> None:
    above: dict[str, Layer] = {}
    for layer in sorted(shown.layers, key=lambda layer: layout.rows.index(layer.row)):
        left, top = layout.x_of(layer), layout.y(panel, layer.row)
        pen.rectangle((left - 1, top - 1, layout.x_of(layer, layout.steps), top + ROW - 1), outline=FRAME)
        for step, (probabilities, entropy) in enumerate(zip(layer.usage, layer.entropy, strict=True)):
            pen.rectangle(layout.cell(panel, layer, step), cell_colour(probabilities, entropy))
        _draw_shares(pen, layer, *layout.shares(panel, layer))
        neighbour = above.get(layer.column)
        if neighbour and neighbour.section == layer.section and neighbour.group != layer.group:
            pen.line((left - 1, top - 1, layout.shares(panel, layer)[0] + SHARES_WIDTH - 1, top - 1), INK)
        above[layer.column] = layer


def _draw_shares(pen: ImageDraw.ImageDraw, layer: Layer, x: int, y: int) -> None:
    done = 0.0
    for expert, probabilities in enumerate(zip(*layer.usage, strict=True)):
        start, done = done, done + sum(probabilities) / len(probabilities)
        left, right = round(start * SHARES_WIDTH), round(done * SHARES_WIDTH)
        if right > left:
            pen.rectangle((x + left, y, x + right - 1, y + ROW - 2), colour_of(expert))


def _check(panels: Sequence[Panel]) -> None:
    if not panels or not panels[0].layers:
        raise ValueError("a routing map needs at least one panel with at least one layer")
    names = [(layer.column, *layer.row) for layer in panels[0].layers]
    if len(set(names)) < len(names):
        raise ValueError(f"two layers of a routing map have the same place: {len(names)} have {len(set(names))} places")
    if any([(layer.column, *layer.row) for layer in panel.layers] != names for panel in panels):
        raise ValueError("all panels of a routing map need the same layers in the same order")
    shapes = {(len(x.usage), len(x.entropy), len(row)) for p in panels for x in p.layers for row in x.usage or [()]}
    steps, entropies, experts = next(iter(shapes))
    if len(shapes) > 1 or steps != entropies or not steps or not experts:
        raise ValueError(
            f"all layers of a routing map need the same steps, experts and entropies, not {sorted(shapes)}"
        )
    rows = [row for panel in panels for layer in panel.layers for row in layer.usage]
    odd = [row for row in rows if min(row) < 0 or not abs(sum(row) - 1) < 0.02]  # half precision rounds
    if odd:
        raise ValueError(f"{len(odd)} of {len(rows)} mixtures of a routing map are no probabilities, first {odd[0]}")


@functools.cache
def _font(size: int):
    return ImageFont.load_default(size)


def _line(size: int) -> int:
    return int(size * 1.3)


def _width(text: str, size: int = TEXT) -> int:
    return int(_font(size).getlength(text)) + 1


def _wrap(text: str, size: int, width: int) -> list[str]:
    """Break at spaces; an overlong word is left."""
    lines: list[str] = []
    for word in text.split():
        if lines and _width(f"{lines[-1]} {word}", size) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _write(pen: ImageDraw.ImageDraw, corner: tuple[int, int], lines: Sequence[str], size: int, ink: Colour) -> None:
    for i, line in enumerate(lines):
        pen.text((corner[0], corner[1] + i * _line(size)), line, ink, _font(size))
