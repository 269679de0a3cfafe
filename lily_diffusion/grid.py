"""Sheets of labelled pictures: what the demo, the command line, validation and the benchmarks show their images on."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

INK, FAINT, PAPER = (30, 30, 34), (110, 110, 118), (255, 255, 255)
GAP, MARGIN = 10, 24  # pixels between cells, and around everything
TEXT_SIZE = 18  # pixels; the title is half as large again
LABEL_WIDTH = 200  # pixels, the column of row labels at its widest


def labelled_grid(
    images: Sequence[Sequence[Image.Image]],
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    *,
    scale: int | None = None,
    title: str | None = None,
) -> Image.Image:
    """Set rows of pictures of one size on a white sheet, each row and column with its label.

    Args:
        images: rows of pictures.
        row_labels: one for each row; long ones are wrapped. All empty: no room is kept for them.
        column_labels: one for each column, above it. All empty: as above.
        scale: enlarge every picture by this whole factor. ``None``: small ones so that cells are about 192 to 256
            pixels wide, and large ones are shrunk to 512.
        title: a line above everything.

    Raises:
        ValueError: there is no picture, rows have different lengths, a label is missing, sizes differ, or `scale` < 1.
    """
    _check(images, row_labels, column_labels, scale)
    pictures = [[_enlarge(picture.convert("RGB"), scale) for picture in row] for row in images]
    cell_width, cell_height = pictures[0][0].size
    font, bold = ImageFont.load_default(TEXT_SIZE), ImageFont.load_default(TEXT_SIZE * 1.5)
    title_lines = _wrap(title, bold, MARGIN + len(pictures[0]) * (cell_width + GAP)) if title else []
    heads = [_wrap(label, font, cell_width) for label in column_labels]
    sides = [_wrap(label, font, LABEL_WIDTH) for label in row_labels]
    side_width = max((_width(line, font) for lines in sides for line in lines), default=0)
    left = MARGIN + (side_width + GAP if side_width else 0)
    head_top = MARGIN + _height(title_lines, bold) + (GAP if title_lines else 0)
    top = head_top + max(_height(lines, font) for lines in heads) + (GAP if any(heads) else 0)
    row_height = max(cell_height, *(_height(lines, font) for lines in sides)) + GAP

    width = left + len(pictures[0]) * (cell_width + GAP) - GAP + MARGIN
    sheet = Image.new("RGB", (width, top + len(pictures) * row_height - GAP + MARGIN), PAPER)
    pen = ImageDraw.Draw(sheet)
    _write(pen, title_lines, bold, (MARGIN, MARGIN), INK)
    for column, lines in enumerate(heads):
        x = left + column * (cell_width + GAP) + cell_width // 2
        _write(pen, lines, font, (x, top - GAP - _height(lines, font)), FAINT, anchor="ma")
    for row, lines in enumerate(sides):
        y = top + row * row_height
        _write(pen, lines, font, (MARGIN, y + (row_height - GAP - _height(lines, font)) // 2), INK)
        for column, picture in enumerate(pictures[row]):
            sheet.paste(picture, (left + column * (cell_width + GAP), y))
    return sheet


def contact_sheet(
    images: Sequence[Image.Image],
    captions: Sequence[str],
    *,
    columns: int = 6,
    scale: int | None = None,
    title: str | None = None,
) -> Image.Image:
    """Set pictures of one size in `columns` columns, each with its own caption beneath it.

    Raises:
        ValueError: as `labelled_grid`.
    """
    _check([images], [""], captions, scale)
    pictures = [_enlarge(picture.convert("RGB"), scale) for picture in images]
    width, height = pictures[0].size
    font = ImageFont.load_default(TEXT_SIZE)
    notes = [_wrap(caption, font, width) for caption in captions]
    foot = max(_height(lines, font) for lines in notes) + (GAP // 2 if any(notes) else 0)
    columns = min(columns, len(pictures))
    blank = Image.new("RGB", (width, height + foot), PAPER)
    cells = []
    for picture, lines in zip(pictures, notes, strict=True):
        cell = blank.copy()
        cell.paste(picture)
        _write(ImageDraw.Draw(cell), lines, font, (width // 2, height + GAP // 2), FAINT, anchor="ma")
        cells.append(cell)
    cells += [blank] * (-len(cells) % columns)
    rows = [cells[i : i + columns] for i in range(0, len(cells), columns)]
    return labelled_grid(rows, [""] * len(rows), [""] * columns, scale=1, title=title)


def _check(images, row_labels, column_labels, scale) -> None:
    if scale is not None and scale < 1:
        raise ValueError(f"the scale of a grid must be at least 1, not {scale}")
    if not images or not images[0]:
        raise ValueError("a grid needs at least one picture")
    lengths = [len(row) for row in images]
    if len(set(lengths)) > 1:
        raise ValueError(f"every row of a grid needs the same number of pictures, but the rows have {lengths}")
    if (len(row_labels), len(column_labels)) != (len(images), lengths[0]):
        raise ValueError(
            f"a grid of {len(images)} rows and {lengths[0]} columns needs as many labels, "
            f"not {len(row_labels)} and {len(column_labels)}"
        )
    sizes = sorted({picture.size for row in images for picture in row})
    if len(sizes) > 1:
        raise ValueError(f"every picture of a grid needs the same size, but there are {sizes}")


def _enlarge(picture: Image.Image, scale: int | None) -> Image.Image:
    """Whole factors keep pixels square and sharp, so tiny pictures stay what they are."""
    if scale is None and picture.width > 512:
        return picture.resize((512, round(512 * picture.height / picture.width)), Image.Resampling.LANCZOS)
    factor = scale or max(1, round(208 / picture.width))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.LANCZOS)


def _wrap(text: str, font, width: int) -> list[str]:
    """Break at spaces; a word that is wider than a line is cut."""
    lines: list[str] = []
    for word in text.split():
        if lines and _width(f"{lines[-1]} {word}", font) <= width:
            lines[-1] += f" {word}"
            continue
        while _width(word, font) > width and len(word) > 1:
            cut = max(i for i in range(1, len(word)) if i == 1 or _width(word[:i], font) <= width)
            lines.append(word[:cut])
            word = word[cut:]
        lines.append(word)
    return lines


def _width(text: str, font) -> int:
    return int(font.getlength(text)) + 1


def _height(lines: Sequence[str], font) -> int:
    return len(lines) * int(font.size * 1.3)


def _write(pen, lines, font, corner, ink, anchor: str = "la") -> None:
    x, y = corner
    for i, line in enumerate(lines):
        pen.text((x, y + i * int(font.size * 1.3)), line, ink, font, anchor=anchor)
