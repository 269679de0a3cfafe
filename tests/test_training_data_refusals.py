"""Bad folders, pictures, captions and masks: each is refused with one sentence that names what is wrong."""

from __future__ import annotations

import io
import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from lily_diffusion.training import TrainingError
from lily_diffusion.training.dataset import Pictures, check_pictures, list_pictures

NOISE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def encoded(kind: str = "PNG", colour: tuple[int, ...] = (200, 30, 90), **more) -> bytes:
    file = io.BytesIO()
    picture = Image.fromarray(NOISE) if len(colour) == 3 else Image.new("RGBA", (32, 32), colour)
    picture.save(file, kind, **more)
    return file.getvalue()


def broken(content: bytes, place: int) -> bytes:
    return content[:place] + bytes(b ^ 0xFF for b in content[place : place + 8]) + content[place + 8 :]


def lines(*entries) -> bytes:
    return "\n".join(e if isinstance(e, str) else json.dumps(e) for e in entries).encode()


GOOD, SOLID = encoded(), encoded(colour=(9, 9, 9, 255))
HEADER = GOOD[12:16] + struct.pack(">II", 60000, 60000) + GOOD[24:29]
BOMB = GOOD[:12] + HEADER + struct.pack(">I", zlib.crc32(HEADER)) + GOOD[33:]  # it promises 3.6 billion pixels
READING = {  # files of the folder -> what is said when it is read; masks are in "masks/", the prompt is "x" or none
    "nothing": ({}, "holds no picture"),
    "other format": ({"a.heic": b"x"}, "holds no picture .*left out a.heic, not a picture or caption"),
    "only a hidden picture": ({".a.png": GOOD}, "holds no picture"),
    "only a subfolder": ({"sub/a.png": GOOD}, "holds no picture .*left out sub/"),
    "no caption": ({"a.png": GOOD, "no prompt": b""}, "a.png has no caption: give --instance_prompt or write a.txt"),
    "empty caption": ({"a.png": GOOD, "a.txt": b" \n"}, r"the caption file .*a\.txt is empty"),
    "caption in another code": (
        {"a.png": GOOD, "a.txt": b"\xff\xfe\xfa"},
        r"a\.txt is not UTF-8 text; save it as UTF-8",
    ),
    "metadata in another code": ({"a.png": GOOD, "metadata.jsonl": b"\xff\xfe\xfa"}, "metadata.jsonl is not UTF-8"),
    "metadata not JSON": ({"a.png": GOOD, "metadata.jsonl": lines("", "{a")}, "line 2 of .*metadata.jsonl is not JSON"),
    "metadata a list": ({"a.png": GOOD, "metadata.jsonl": lines([1])}, 'line 1 of .* has no "file_name"'),
    "metadata without name": ({"a.png": GOOD, "metadata.jsonl": lines({"text": "t"})}, 'has no "file_name"'),
    "metadata empty text": (
        {"a.png": GOOD, "metadata.jsonl": lines({"file_name": "a.png", "text": " "})},
        'line 1 of .* has an empty "text"',
    ),
    "metadata number": (
        {"a.png": GOOD, "metadata.jsonl": lines({"file_name": "a.png", "caption": 7})},
        'has an empty "caption", or one that is not text',
    ),
    "metadata twice": (
        {"a.png": GOOD, "metadata.jsonl": lines(*[{"file_name": "a.png", "text": "t"}] * 2)},
        "line 2 of .* names a.png a second time",
    ),
    "empty file": ({"a.png": b""}, r"cannot read the picture .*a\.png.*; repair it or take it out"),
    "text": ({"a.jpg": b"not a picture"}, r"cannot read the picture .*a\.jpg"),
    "cut PNG": ({"a.png": GOOD[: len(GOOD) // 2]}, r"cannot read the picture .*a\.png"),
    "cut JPEG": ({"a.jpg": encoded("JPEG")[:500]}, r"cannot read the picture .*a\.jpg"),
    "cut WebP": ({"a.webp": encoded("WEBP")[:200]}, r"cannot read the picture .*a\.webp"),
    "cut GIF": ({"a.gif": encoded("GIF")[:200]}, r"cannot read the picture .*a\.gif"),
    "cut BMP": ({"a.bmp": encoded("BMP")[:200]}, r"cannot read the picture .*a\.bmp"),
    "cut TIFF": ({"a.tif": encoded("TIFF")[:200]}, r"cannot read the picture .*a\.tif"),
    "broken PNG": ({"a.png": broken(GOOD, 14)}, r"cannot read the picture .*a\.png"),
    "too large": ({"a.png": BOMB}, r"cannot read the picture .*a\.png.*decompression bomb"),
    "masks missing": ({"a.png": GOOD, "masks": None}, "there is no folder .*masks; --mask_data_dir is the folder"),
    "masks of others": ({"a.png": GOOD, "masks/b.png": GOOD}, r"no file in .*masks is a mask; .* as a\.png"),
    "masks not pictures": ({"a.png": GOOD, "masks/a.txt": b"x"}, "no file in .*masks is a mask"),
    "two masks": (
        {"a.png": GOOD, "masks/a.png": GOOD, "masks/a.jpg": GOOD},
        "two masks of one name, a.jpg and a.png; keep one",
    ),
    "broken mask": ({"a.png": GOOD, "masks/a.png": GOOD[:60]}, r"cannot read the picture .*masks.a\.png"),
    "black mask": (
        {"a.png": GOOD, "masks/a.png": encoded(colour=(0, 0, 0, 255))},
        r"the mask .*masks.a\.png has nothing white, so nothing of a\.png would be learnt",
    ),
    "transparent mask": ({"a.png": GOOD, "masks/a.png": encoded(colour=(255, 255, 255, 0))}, "has nothing white"),
    "masks and alpha": (
        {"a.png": SOLID, "masks/a.png": GOOD, "alpha": b""},
        "give --alpha_mask or --mask_data_dir, not",
    ),
    "wholly transparent": (
        {"a.png": encoded(colour=(255, 0, 0, 0)), "alpha": b""},
        r"a\.png is wholly transparent, so --alpha_mask leaves nothing of it to learn",
    ),
    "nothing transparent": ({"a.png": SOLID, "b.png": GOOD, "alpha": b""}, "--alpha_mask does nothing: no picture has"),
}


@pytest.mark.parametrize("case", READING)
def test_what_is_wrong_is_said(tmp_path, case):
    files, sentence = READING[case]
    folder = tmp_path / "pictures"
    folder.mkdir()
    masks, alpha, prompt = None, "alpha" in files, None if "no prompt" in files else "x"
    for name, content in files.items():
        if name.startswith("masks"):
            masks = tmp_path / "masks"
        if name in ("alpha", "no prompt", "masks"):
            continue
        path = (tmp_path if name.startswith("masks") else folder) / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content or b"")
    with pytest.raises(TrainingError, match=sentence) as refusal:
        Pictures(list_pictures(folder, prompt, masks, alpha).items, [(8, 8)])
    assert "\n" not in str(refusal.value)


def test_a_missing_folder_and_the_pictures_own_folder_as_masks_are_refused(tmp_path):
    with pytest.raises(TrainingError, match=r"there is no folder .*nowhere; give the folder that holds the pictures"):
        list_pictures(tmp_path / "nowhere", "x")
    (tmp_path / "a.png").write_bytes(GOOD)
    with pytest.raises(TrainingError, match="--mask_data_dir is the folder of the pictures themselves"):
        list_pictures(tmp_path, "x", masks=tmp_path / ".." / tmp_path.name)


def test_headers_alone_tell_that_a_file_is_no_picture(tmp_path):
    (tmp_path / "a.png").write_bytes(b"not a picture")
    with pytest.raises(TrainingError, match=r"cannot read the picture .*a\.png"):
        check_pictures(list_pictures(tmp_path, "x").items)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"])
def test_a_damaged_file_is_read_or_refused_and_never_something_else(tmp_path, kind):
    whole, outcomes = encoded(kind), set()
    path = tmp_path / f"a.{kind.lower()}"
    for place in range(0, min(len(whole), 400), 7):
        path.write_bytes(broken(whole, place))
        try:
            outcomes.add(Pictures(list_pictures(tmp_path, "x").items, [(8, 8)]).pixels(0, (0, 0), False).shape)
        except TrainingError as error:
            outcomes.add(str(error)[: len("cannot read the picture")])
    assert "cannot read the picture" in outcomes
    assert outcomes <= {"cannot read the picture", (3, 8, 8)}
