"""X/Y/Z grids: a picture for every combination of the axes' values, on one sheet with legends."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path

from PIL import Image

from lily_diffusion.grid import PAPER, labelled_grid
from ui.judge.axes import Axis, read_axis
from ui.keeping.recipe import Recipe, png_info
from ui.messages import Order
from ui.pipeline import drawing
from ui.pipeline.jobs import Job, Stopped, seeded
from ui.pipeline.orders import SessionError, recipe_of
from ui.session import Session

MAX_CELLS = 64
GRID_KEY = "lily_grid"  # PNG text: the axes and their values
BLANK = (238, 238, 242)
PREVIEW_EDGE = 128  # pixels of a cell on the sheet that grows on the page

Place = tuple[int, int, int]  # number of the value on X, on Y, on Z


@dataclass(frozen=True)
class Grid:
    """A grid that is to be drawn: three axes (those not wanted have one value) and an order for every place."""

    axes: tuple[Axis, Axis, Axis]
    orders: dict[Place, Order]  # in the order in which they are drawn: the cheapest axis innermost


@dataclass(frozen=True)
class Sheet:
    """A grid so far. ``path`` is the saved sheet when it is over, or None before that (``image`` is then small)."""

    image: Image.Image
    path: Path | None
    cells: int
    wanted: int


def plan(session: Session, order: Order, axes: Sequence[tuple[str, str]]) -> Grid:
    """Read up to three axes (name, values) and check every cell's order before anything is drawn.

    Raises:
        SessionError, AdapterFolderError: an axis cannot be read, there are too many cells, or one cannot be drawn.
    """
    order = seeded(order)
    names = [name for name, _ in axes if name]
    if not names:
        raise SessionError("Choose what varies along X.")
    if twice := [name for name in names if names.count(name) > 1]:
        raise SessionError(f"'{twice[0]}' is on two axes. Choose another for one of them.")
    read = [read_axis(session, order, name, text or "") for name, text in axes]
    weighed = [axis for axis in read if axis.sets_weight_of]
    if clash := [b for a, b in combinations(weighed, 2) if a.sets_weight_of == b.sets_weight_of]:
        raise SessionError(f"'{clash[0].name}' sets the same weight as another axis. Choose one of them.")
    x, y, z = read
    cells = len(x.values) * len(y.values) * len(z.values)
    if cells > MAX_CELLS:
        raise SessionError(f"This grid has {cells} pictures; at most {MAX_CELLS} are drawn. Take fewer values.")
    applied = sorted((2, 1, 0), key=lambda i: read[i] not in weighed)  # blocks are switched off in a weight that is set
    loops = sorted(range(3), key=lambda i: read[i].cost, reverse=True)  # the outermost first
    orders = {}
    for counted in product(*(range(len(read[i].values)) for i in loops)):
        place = {axis: number for axis, number in zip(loops, counted, strict=True)}
        one = order
        for axis in applied:
            one = read[axis].values[place[axis]].apply(one)
        recipe_of(one, session.base, session.adapters, session.reason)
        orders[place[0], place[1], place[2]] = one
    return Grid((x, y, z), orders)


def draw_grid(job: Job, grid: Grid) -> None:
    """Draw the cells, telling a growing `Sheet` after each, and save the sheet; also when stopped after some."""
    cells: dict[Place, Image.Image] = {}
    recipe = None
    job.pictures = len(grid.orders)
    try:
        for place, order in grid.orders.items():
            drawn = job.draw(order)
            cells[place], recipe = drawn.image, recipe or drawn.recipe
            if len(cells) < len(grid.orders):
                job.tell(Sheet(sheet(grid, cells, PREVIEW_EDGE), None, len(cells), len(grid.orders)))
    except Stopped:
        if recipe is None:
            raise
    if recipe is not None:
        whole = sheet(grid, cells)
        path = save(whole, recipe, grid, job.session.output_dir)
        job.tell(Sheet(whole, path, len(cells), len(grid.orders)))


def sheet(grid: Grid, cells: dict[Place, Image.Image], edge: int | None = None) -> Image.Image:
    """All that is drawn so far with legends, one plane of Z below the other; ``edge``: the cells' longest, pixels."""
    x, y, z = grid.axes
    width = max(image.width for image in cells.values())
    height = max(image.height for image in cells.values())
    blank = Image.new("RGB", (width, height), BLANK)
    scale = min(1.0, edge / max(width, height)) if edge else 1.0

    def cell(place: Place) -> Image.Image:
        image = cells.get(place, blank)
        return image if scale == 1 else image.resize((round(width * scale), round(height * scale)))

    planes = []
    for k in range(len(z.values)):
        rows = [[cell((i, j, k)) for i in range(len(x.values))] for j in range(len(y.values))]
        planes.append(
            labelled_grid(rows, [v.label for v in y.values], [v.label for v in x.values], title=z.values[k].label)
        )
    whole = Image.new("RGB", (max(p.width for p in planes), sum(p.height for p in planes)), PAPER)
    top = 0
    for plane in planes:
        whole.paste(plane, (0, top))
        top += plane.height
    return whole


def save(image: Image.Image, recipe: Recipe, grid: Grid, output_dir: Path) -> Path:
    """Save with the first cell's recipe, and the axes as JSON in the PNG text ``lily_grid``."""
    path = drawing.save(image, recipe, output_dir)
    chunks = png_info(recipe)
    axes = {letter: axis for letter, axis in zip("xyz", grid.axes, strict=True) if axis.name}
    about = {letter: {"axis": a.name, "values": [v.label for v in a.values]} for letter, a in axes.items()}
    chunks.add_text(GRID_KEY, json.dumps(about))
    hidden = path.with_name(f".{path.name}.part")
    try:
        image.save(hidden, format="PNG", pnginfo=chunks)
        os.replace(hidden, path)
    finally:
        hidden.unlink(missing_ok=True)
    return path
