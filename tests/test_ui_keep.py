"""What is kept: the history and its index, presets, styles, thumbnails, files that are whole or not there."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from tests.forked import start
from ui.keeping import whole_files
from ui.keeping.history import History, HistoryError
from ui.keeping.recipe import Recipe, UsedAdapter, read_png
from ui.keeping.stored import Presets, StoredError, Style, Styles
from ui.keeping.thumbnails import EDGE, Thumbnails
from ui.pipeline import drawing

RECIPE = Recipe(
    "a «cat»", "", 20, 4.5, 64, 96, 123, "embedded", (UsedAdapter("a", "0" * 64, "1@0,0@1,mid=0"),), "Euler"
)
HOSTILE_NAMES = ["../../etc/passwd", "/etc/passwd", "a\0b", "..", "con.json", "<img src=x>", "x" * 5000, "中文"]


@pytest.fixture
def history(tmp_path) -> History:
    for seed, prompt in enumerate(["a red cat", "a blue dog", "a red cat"]):
        drawing.save(Image.new("RGB", (8, 8)), replace(RECIPE, prompt=prompt, seed=seed), tmp_path)
    older = tmp_path / "2020-01-31"
    older.mkdir()
    shutil.copy(next(tmp_path.glob("2*/00002-1.png")), older / "00001-9.png")
    return opened(tmp_path)


def opened(root: Path) -> History:
    return History(root, root / ".page" / "history.jsonl")


def test_the_history_is_by_day_searched_and_the_newest_first(history):
    assert len(history.days()) == 2 and history.days()[1] == "2020-01-31"
    assert [entry.seed for entry in history.find()] == [2, 1, 0, 1]
    assert [entry.seed for entry in history.find(search="cat RED")] == [2, 0]
    assert [entry.place for entry in history.find("2020-01-31", "dog")] == ["2020-01-31/00001-9.png"]
    assert history.prompts()[:2] == ["a red cat", "a blue dog"]


def test_the_index_saves_reading_and_is_made_again_when_it_is_gone_torn_or_wrong(history, monkeypatch):
    wanted, reads = history.find(), []
    monkeypatch.setattr("ui.keeping.history.read_png", lambda path: (reads.append(path), read_png(path))[1])
    assert opened(history.root).find() == wanted and reads == []
    text = history.index.read_text()
    for damaged in (text[: len(text) // 2], "", "\0" * 100, "[" * 9000, text.replace("a red cat", "a red cat\\ud800")):
        history.index.write_text(damaged)
        assert [entry.place for entry in opened(history.root).find()] == [entry.place for entry in wanted]
    history.index.unlink()
    reads.clear()
    assert opened(history.root).find() == wanted and len(reads) == 4
    hostile = [["../../etc/passwd", [1, 1], "", 0], ["2020-01-31/../x.png", [1, 1], "", 0], [], {}, None, 1]
    history.index.write_text("".join(json.dumps(line) + "\n" for line in hostile))
    assert opened(history.root).find() == wanted


def test_a_picture_is_deleted_by_its_id_and_nothing_else_can_be(history, tmp_path):
    entry = history.find()[0]
    history.delete(entry.id)
    assert not (history.root / entry.place).exists() and len(opened(history.root).find()) == 3
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"kept")
    (history.root / "2020-01-31" / "00002-1.png").symlink_to(secret)
    (history.root / "2021-01-01").symlink_to(history.root / "2020-01-31")
    history.refresh()
    assert len(history.find()) == 3
    for bad in (
        entry.id,
        "",
        "../secret.png",
        entry.place,
        "2020-01-31/00001-9.png",
        str(secret),
        "p" + "0" * 16,
        None,
    ):
        with pytest.raises(HistoryError, match="not there"):
            history.delete(bad)
    assert secret.read_bytes() == b"kept" and len(opened(history.root).find()) == 3


def test_foreign_pictures_in_the_folder_do_no_harm(history):
    day = history.root / "2020-01-31"
    (day / "00007-1.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    (day / "holiday.png").write_bytes(b"mine")
    (history.root / ".page" / "00001-1.png").write_bytes(b"")
    history.refresh()
    assert [e.prompt for e in history.find("2020-01-31")] == ["", "a blue dog"]


def test_a_new_picture_is_in_the_index_at_once(history):
    path = drawing.save(Image.new("RGB", (8, 8)), replace(RECIPE, seed=77), history.root)
    picture_id = history.add(path, replace(RECIPE, seed=77))
    assert opened(history.root).path(picture_id) == path and history.find()[0].seed == 77


def keep_saving(root):
    history, image = opened(root), Image.effect_noise((400, 400), 50).convert("RGB")
    while True:
        history.add(drawing.save(image, RECIPE, root), RECIPE)


def test_kill_minus_9_while_saving_leaves_whole_pictures_only(tmp_path):
    for kill in range(3):
        run = start(keep_saving, tmp_path)
        end = time.monotonic() + 60
        while len(list(tmp_path.glob("2*/*.png"))) < 3 * (kill + 1) and time.monotonic() < end:
            time.sleep(0.01)
        run.kill()
        run.join()
    found = opened(tmp_path).find()
    assert len(found) >= 9 and len(found) == min(60, len(list(tmp_path.glob("2*/*.png"))))
    for entry in found:
        assert read_png(tmp_path / entry.place) == RECIPE
        with Image.open(tmp_path / entry.place) as image:
            image.load()


def test_left_over_files_are_swept_when_they_are_old(tmp_path):
    old, new = tmp_path / ".1-1.part", tmp_path / ".2-2.part"
    for path in (old, new, tmp_path / "a.part"):
        path.write_bytes(b"")
    os.utime(old, (0, 0))
    whole_files.sweep(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".2-2.part", "a.part"]


def test_presets_come_back_exactly_under_any_name(tmp_path):
    presets = Presets(tmp_path / "presets")
    assert presets.names() == []
    for number, name in enumerate(HOSTILE_NAMES):
        taken = presets.save(name, replace(RECIPE, seed=number))
        assert taken in presets.names() and presets.load(taken) == replace(RECIPE, seed=number)
    assert presets.save("a", RECIPE) == presets.save("a", replace(RECIPE, seed=5)) and presets.load("a").seed == 5
    assert {path.parent for path in tmp_path.rglob("*.json")} == {tmp_path / "presets"}
    presets.delete("a")
    presets.delete("a")
    for missing in ("a", "../presets/x", None):
        with pytest.raises(StoredError, match="no preset"):
            presets.load(missing)
    with pytest.raises(StoredError, match="name"):
        presets.save(" \n", RECIPE)


def test_damaged_presets_are_left_out_or_one_clear_error(tmp_path):
    presets = Presets(tmp_path)
    presets.save("good", RECIPE)
    for number, text in enumerate(["", "{", "[]", "[" * 9000, '{"name": 1, "recipe": {}}', "x" * 10**6]):
        (tmp_path / f"{number}.json").write_text(text)
    (tmp_path / "bad.json").write_text('{"name": "bad", "recipe": {"version": 1, "steps": 1e99}}')
    (tmp_path / "link.json").symlink_to("/etc/passwd")
    assert presets.names() == ["bad", "good"]
    with pytest.raises(StoredError, match="damaged"):
        presets.load("bad")


def test_styles_are_put_around_prompts_and_saved_by_name(tmp_path):
    styles = Styles(tmp_path / "styles.json")
    assert styles.all() == {}
    styles.save("film", Style("a photo of {prompt}, grainy", "drawing"))
    styles.save("ink", Style("ink drawing"))
    assert styles.all()["film"].put_on("a cat", "blurry") == ("a photo of a cat, grainy", "blurry, drawing")
    assert styles.all()["ink"].put_on("a cat,", "") == ("a cat, ink drawing", "")
    styles.save("film", None)
    assert list(styles.all()) == ["ink"]
    for name, style in (("", Style("x")), ("x", Style(" "))):
        with pytest.raises(StoredError):
            styles.save(name, style)
    with pytest.raises(StoredError, match="too long"):
        styles.save("long", Style("x" * 2**20))
    assert list(styles.all()) == ["ink"]
    (tmp_path / "styles.json").write_text('{"a": 1, "b": {"prompt": 5}, "c": {"prompt": "fine"}}')
    assert styles.all() == {"c": Style("fine")}
    for text in ('{"a": 1, "c": {"prompt": "fine"}}', "[[", "[]"):  # what a save would lose is not overwritten
        (tmp_path / "styles.json").write_text(text)
        with pytest.raises(StoredError, match=r"styles\.json has something that cannot be read"):
            styles.save("new", Style("x"))
        assert (tmp_path / "styles.json").read_text() == text
    assert styles.all() == {}


def test_thumbnails_are_small_re_encoded_and_never_of_what_is_elsewhere(tmp_path):
    root, cache = tmp_path / "root", Thumbnails(tmp_path / "cache")
    root.mkdir()
    picture = root / "a.png"
    Image.new("RGBA", (900, 300), (255, 0, 0, 255)).save(picture)
    thumbnail = cache.of(picture, (1, 1), root)
    with Image.open(thumbnail) as image:
        assert (image.format, image.size) == ("WEBP", (EDGE, EDGE // 3))
    assert cache.of(picture, (1, 1), root) == thumbnail != cache.of(picture, (2, 1), root)
    assert cache.data_uri(picture, (1, 1), root).startswith("data:image/webp;base64,")
    (root / "link.png").symlink_to(tmp_path / "b.png")
    shutil.copy(picture, tmp_path / "b.png")
    (root / "no.png").write_bytes(b"<svg onload=alert(1)>")
    Image.new("1", (9000, 9000)).save(root / "bomb.png")
    for name in ("link.png", "no.png", "bomb.png", "missing.png"):
        assert cache.of(root / name, (1, 1), root) is None and cache.data_uri(root / name, (1, 1), root) == ""
