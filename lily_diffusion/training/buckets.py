"""Aspect ratio buckets: the rectangles that pictures are trained in, and which of them a picture falls into."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction

from .errors import TrainingError

Bucket = tuple[int, int]  # (height, width) in pixels

WIDEST = 2  # the longer edge of an automatic bucket against the shorter one, at most
STEPS = 16  # automatic buckets differ by about a sixteenth of the resolution: 64 pixels for 1024


def parse_buckets(text: str, multiple: int) -> list[Bucket]:
    """Read "h1,w1;h2,w2", in the order given and each once; edges are multiples of `multiple` pixels.

    Raises:
        TrainingError: a part is not two whole numbers, or an edge does not go into whole latents.
    """
    buckets = [_parse(part.strip(), multiple) for part in text.split(";") if part.strip()]
    if not buckets:
        raise TrainingError("--aspect_ratio_buckets names no bucket; write heights and widths such as 512,512;640,384")
    return list(dict.fromkeys(buckets))


def automatic_buckets(resolution: int, multiple: int, sizes: Iterable[tuple[int, int]]) -> list[Bucket]:
    """The buckets of about ``resolution**2`` pixels, none wider or taller than 2 to 1, that pictures fall into.

    Args:
        resolution: edge of the square among them, in pixels; rounded to a multiple.
        multiple: every edge is a multiple of this.
        sizes: (width, height) of each picture, as it is shown.

    Returns:
        Buckets from the tallest to the widest.
    """
    step = multiple * max(1, round(resolution / STEPS / multiple))
    square = multiple * max(1, round(resolution / multiple))
    cells = (square / step) ** 2
    candidates = {(square, square)}
    for long in range(1, math.ceil(math.sqrt(WIDEST * cells)) + 1):
        short = max(1, round(cells / long))
        if short <= long <= WIDEST * short:
            candidates |= {(long * step, short * step), (short * step, long * step)}
    ordered = sorted(candidates, key=lambda bucket: (Fraction(bucket[1], bucket[0]), bucket))
    used = {nearest_bucket(size, ordered) for size in sizes}
    return [bucket for bucket in ordered if bucket in used]


def nearest_bucket(size: tuple[int, int], buckets: Sequence[Bucket]) -> Bucket:
    """The bucket whose aspect ratio is nearest to that of a picture of `size` (width, height), on a log scale.

    Of several that are as near, the largest for which the picture need not be enlarged, else the smallest; of several
    that are as large, the first.
    """
    width, height = size

    def distance(bucket: Bucket) -> tuple[Fraction, bool, int]:
        tall, wide = bucket
        ratio = Fraction(wide * height, tall * width)  # exact, so that every machine finds the same ties
        enlarged = wide > width or tall > height
        return max(ratio, 1 / ratio), enlarged, tall * wide if enlarged else -tall * wide

    return min(buckets, key=distance)


def _parse(part: str, multiple: int) -> Bucket:
    try:
        height, width = (int(edge) for edge in part.split(","))
    except ValueError:
        raise TrainingError(
            f"--aspect_ratio_buckets: {part!r} is not a height and a width; write them such as 512,512;640,384"
        ) from None
    near = tuple(max(1, round(edge / multiple)) * multiple for edge in (height, width))
    if near != (height, width):
        raise TrainingError(
            f"--aspect_ratio_buckets: {height},{width} is not in multiples of {multiple}, a latent's edge; "
            f"take {near[0]},{near[1]}"
        )
    return height, width
