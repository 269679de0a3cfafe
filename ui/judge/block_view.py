"""The block view: how much a picture changes when one block of an adapter is switched off, block by block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from lily_diffusion.heat_map import FAINT, FRAME, INK, PAPER
from ui.messages import Order
from ui.pipeline import drawing
from ui.pipeline.blocks import blocks, weighted, without
from ui.pipeline.jobs import MAGNIFIED, Job, difference, distance, first_adapter, seeded
from ui.pipeline.orders import SessionError

THUMB = 112  # pixels, the longer edge of the small pictures
BAR = 300  # pixels, the longest bar
NAMES = 190  # pixels
MARGIN, GAP, TEXT, TITLE = 28, 12, 16, 24
BAR_COLOUR = (109, 74, 196)


@dataclass(frozen=True)
class Without:
    """The picture with one block off, and its distance from the picture with all blocks."""

    block: str
    image: Image.Image
    distance: float


@dataclass(frozen=True)
class Blocks:
    """What is known so far; ``path`` is the saved sheet when all is done."""

    sheet: Image.Image
    path: Path | None
    rows: tuple[Without, ...]
    wanted: int

    @property
    def sentence(self) -> str:
        """What the sheet shows, in words."""
        ranked = sorted(self.rows, key=lambda row: row.distance, reverse=True)
        if not ranked or not ranked[0].distance:
            return "No block makes a difference to this picture so far."
        idle = [row.block for row in ranked if row.distance < 0.05 * ranked[0].distance]
        rest = f" {', '.join(idle)} could be left out with little change." if idle else ""
        return (
            f"Block {ranked[0].block} matters most: without it the picture changes by {ranked[0].distance:.1%} of the "
            f"brightness range.{rest}"
        )


def view(job: Job, order: Order) -> None:
    """Tell a growing `Blocks` for the adapter that the order names first; the last one's sheet is saved.

    Raises:
        SessionError, AdapterFolderError: the order cannot be met, or the adapter has no blocks.
    """
    order = seeded(order)
    adapter_id = first_adapter(order)
    weight = (order.weights or {})[adapter_id]
    file = job.session.adapters.get(adapter_id)
    names = blocks(job.session, adapter_id)
    if not weight:
        raise SessionError(f"The adapter '{file.name}' has the weight 0. Give it another one to look at its blocks.")
    job.pictures = len(names) + 1
    full = job.draw(order, save=False)
    rows: list[Without] = []
    for name in names:
        less = replace(order, weights=weighted(order, adapter_id, without(weight, [name])))
        image = job.draw(less, save=False).image
        rows.append(Without(name, image, distance(image, full.image)))
        title = f"The picture without one block of '{file.name}', seed {full.recipe.seed}"
        sheet = block_sheet(full.image, rows, title)
        last = len(rows) == len(names)
        path = drawing.save(sheet, full.recipe, job.session.output_dir) if last else None
        job.tell(Blocks(sheet, path, tuple(rows), len(names)))


def block_sheet(full: Image.Image, rows: Sequence[Without], title: str) -> Image.Image:
    """One row a block: its name, the picture without it, the difference from the full picture, and a bar."""
    thumb = _thumb(full)
    width, height = thumb.size
    x = [MARGIN, MARGIN + NAMES, MARGIN + NAMES + width + GAP, MARGIN + NAMES + 2 * (width + GAP)]
    top = MARGIN + TITLE * 2
    size = (x[3] + BAR + 90 + MARGIN, top + TEXT * 2 + (len(rows) + 1) * (height + GAP) + MARGIN)
    sheet = Image.new("RGB", size, PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(TEXT)
    pen.text((MARGIN, MARGIN), title[:90], INK, ImageFont.load_default(TITLE))
    heads = ("block off", "picture", f"difference x {MAGNIFIED}", "how much the picture changes")
    for left, head in zip(x, heads, strict=True):
        pen.text((left, top), head, FAINT, font)
    y = top + TEXT * 2
    longest = max((row.distance for row in rows), default=0.0) or 1.0
    pen.text((MARGIN, y + height // 2), "none", INK, font, anchor="lm")
    sheet.paste(thumb, (x[1], y))
    for row in rows:
        y += height + GAP
        pen.text((MARGIN, y + height // 2), row.block[:24], INK, font, anchor="lm")
        sheet.paste(_thumb(row.image), (x[1], y))
        sheet.paste(_thumb(difference(row.image, full)), (x[2], y))
        middle, bar = y + height // 2, round(BAR * row.distance / longest)
        pen.rectangle((x[3], middle - 12, x[3] + BAR, middle + 12), outline=FRAME)
        if bar:
            pen.rectangle((x[3], middle - 12, x[3] + bar, middle + 12), BAR_COLOUR)
        pen.text((x[3] + BAR + GAP, middle), f"{row.distance:.1%}", INK, font, anchor="lm")
    return sheet


def _thumb(image: Image.Image) -> Image.Image:
    """At most THUMB pixels wide and high; small pictures are enlarged to that."""
    scale = THUMB / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
