"""Aspect ratio buckets: reading a list of them, making one, and finding the bucket of a picture."""

from __future__ import annotations

import math

import pytest

from lily_diffusion.training import TrainingError
from lily_diffusion.training.buckets import automatic_buckets, nearest_bucket, parse_buckets

EVERY_SHAPE = [(width, height) for width in range(10, 400, 7) for height in range(10, 400, 7)]


def test_a_list_is_read_in_its_order_and_each_bucket_once():
    assert parse_buckets(" 64, 32;32,64 ;64,32; ", 16) == [(64, 32), (32, 64)]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "names no bucket; write heights and widths such as 512,512"),
        (" ; ", "names no bucket"),
        ("512", "'512' is not a height and a width"),
        ("512,512;64,x", "'64,x' is not a height and a width; write them such as 512,512;640,384"),
        ("512,512,512", "is not a height and a width"),
        ("512x512", "'512x512' is not a height and a width"),
        ("500,384", "500,384 is not in multiples of 16, a latent's edge; take 496,384"),
        ("0,384", "take 16,384"),
        ("-32,384", "take 16,384"),
    ],
)
def test_what_is_wrong_with_a_list_is_said(text, sentence):
    with pytest.raises(TrainingError, match=sentence):
        parse_buckets(text, 16)


@pytest.mark.parametrize(("resolution", "multiple"), [(64, 8), (512, 8), (512, 16), (1024, 32), (1000, 8), (768, 64)])
def test_automatic_buckets_have_the_square_s_area_and_are_at_most_two_to_one(resolution, multiple):
    buckets = automatic_buckets(resolution, multiple, EVERY_SHAPE)
    assert (resolution, resolution) in buckets and 5 <= len(buckets) <= 17
    assert all(height % multiple == width % multiple == 0 for height, width in buckets)
    assert all(0.9 < height * width / resolution**2 < 1.1 for height, width in buckets)
    assert all(max(bucket) <= 2 * min(bucket) for bucket in buckets)
    assert set(buckets) == {(width, height) for height, width in buckets}
    assert max(width / height for height, width in buckets) > 1.7


def test_those_of_1024_pixels_are_the_ones_that_sdxl_was_trained_on():
    buckets = automatic_buckets(1024, 8, EVERY_SHAPE)
    assert {(1024, 1024), (1152, 896), (1216, 832), (1344, 768)} <= set(buckets)


def test_only_buckets_that_a_picture_falls_into_are_there():
    assert automatic_buckets(512, 8, [(100, 100), (3000, 3001)]) == [(512, 512)]
    assert automatic_buckets(512, 8, [(100, 200), (200, 100)]) == [(704, 384), (384, 704)]


def test_a_picture_falls_into_the_bucket_of_the_nearest_log_ratio():
    buckets = automatic_buckets(512, 8, EVERY_SHAPE)
    for width, height in EVERY_SHAPE[::5]:
        distances = [abs(math.log(w * height / (h * width))) for h, w in buckets]
        h, w = nearest_bucket((width, height), buckets)
        assert abs(math.log(w * height / (h * width))) == pytest.approx(min(distances))
    assert nearest_bucket((10, 1000), buckets) == (704, 384)


def test_ties_are_decided_the_same_way_everywhere():
    tall, wide = (64, 32), (32, 64)
    assert nearest_bucket((50, 50), [tall, wide]) == tall and nearest_bucket((50, 50), [wide, tall]) == wide
    squares = [(16, 16), (64, 64), (32, 32)]
    assert nearest_bucket((40, 40), squares) == (32, 32)  # the largest that it covers
    assert nearest_bucket((9, 9), squares) == (16, 16)  # it covers none: the least enlarged
