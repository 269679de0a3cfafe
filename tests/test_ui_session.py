"""What the page does, without the page: folder of adapters, base models, orders, pictures, interrupt, restore."""

from __future__ import annotations

import shutil
import struct
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image

from lily_diffusion import LilyConfig, attach, detach, get_active_adapters, save_lily_weights
from lily_diffusion.base_model import load_pipeline
from ui.keeping.recipe import png_info
from ui.messages import Finished, Order, Picture, Step
from ui.pipeline import base_models
from ui.pipeline.adapter_folder import AdapterFolder, AdapterFolderError, without_paths
from ui.session import Session, SessionError


def save_adapter(model, folder: Path, name: str, *, seed: int = 0, trigger_words: tuple[str, ...] = ()) -> Path:
    """Save an adapter with random weights for `model` as `<folder>/<name>`."""
    adapter = attach(model, LilyConfig(r=4, num_B=2), "made")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    path = save_lily_weights(model, folder, "made", name, trigger_words=trigger_words, base_model="embedded")
    detach(model)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A folder with two good adapters, one for another base, and broken files."""
    folder = tmp_path_factory.mktemp("files")
    unet = load_pipeline().unet
    save_adapter(unet, folder, "robot.safetensors", seed=1, trigger_words=("sks robot",))
    save_adapter(unet, folder / "styles", "ink.safetensors", seed=2)
    blocks = {"down_block_types": ("CrossAttnDownBlock2D",), "up_block_types": ("CrossAttnUpBlock2D",)}
    small = {"block_out_channels": (32,), "layers_per_block": 1, "cross_attention_dim": 16, "norm_num_groups": 8}
    save_adapter(UNet2DConditionModel(**blocks, **small), folder, "other.safetensors")
    (folder / "pickle.safetensors").write_bytes(b"\x80\x04\x95 not tensors")
    (folder / "bomb.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{}")
    (folder / "old.ckpt").write_bytes(b"\x80\x04")
    return folder


@pytest.fixture(scope="module")
def session(files, tmp_path_factory) -> Session:
    return Session(adapters_dir=files, output_dir=tmp_path_factory.mktemp("pictures"))


def id_of(session: Session, name: str) -> str:
    return next(card.id for card in session.cards() if card.name == name)


def make(session: Session, **wanted) -> list[Picture]:
    order = Order(**{"prompt": "a cat", "steps": 2, "seed": 7, **wanted})
    return [event for event in session.generate(order) if isinstance(event, Picture)]


def pixels(picture: Picture) -> bytes:
    with Image.open(picture.path) as image:
        return image.tobytes()


def test_the_session_needs_no_gradio():
    import subprocess

    code = "import sys, ui.session; sys.exit('gradio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=False).returncode == 0


def test_cards_tell_what_fits_and_why_not(session):
    cards = {card.name: card for card in session.cards(rescan=True)}
    assert set(cards) == {"robot", "styles/ink", "other", "pickle", "bomb"}  # no .ckpt
    assert cards["robot"].reason is None and cards["robot"].trigger_words == ("sks robot",)
    assert "another base" in cards["other"].reason
    assert all(cards[name].reason for name in ("pickle", "bomb"))
    assert not any("/" in cards[name].reason for name in ("pickle", "bomb"))


def test_pictures_are_made_one_by_one_with_their_own_seed(session):
    order = Order("a cat", steps=2, seed=7, count=2, weights={id_of(session, "robot"): 0.8})
    events = list(session.generate(order))
    assert [type(e) for e in events] == [Step, Step, Picture, Step, Step, Picture, Finished]
    assert events[1] == Step(picture=1, pictures=2, step=2, steps=2)
    assert events[-1] == Finished(pictures=2, interrupted=False)
    first, second = events[2], events[5]
    assert (first.recipe.seed, second.recipe.seed) == (7, 8)
    assert first.path.parent.parent == session.output_dir and first.path != second.path
    (again,) = make(session, seed=8, weights={id_of(session, "robot"): 0.8})
    assert pixels(again) == pixels(second) != pixels(first)


def test_adapters_change_pictures_only_while_they_are_on(session):
    robot, ink = id_of(session, "robot"), id_of(session, "styles/ink")
    plain = pixels(make(session)[0])
    one, both = make(session, weights={robot: 1.0}), make(session, weights={ink: 0.5, robot: 1.0})
    swapped = make(session, weights={robot: 1.0, ink: 0.5})
    off = make(session, weights={robot: 0.0})
    assert len({plain, pixels(one[0]), pixels(both[0])}) == 3
    assert pixels(swapped[0]) == pixels(both[0])  # the order of the rows does not matter
    assert pixels(off[0]) == plain == pixels(make(session)[0]) and off[0].recipe.adapters == ()
    assert get_active_adapters(session.base.pipe) == []


def test_a_changed_file_is_loaded_again(session, files):
    path = save_adapter(load_pipeline().unet, files, "changing.safetensors", seed=3)
    session.cards(rescan=True)
    changing = id_of(session, "changing")
    before = make(session, weights={changing: 1.0})
    save_adapter(load_pipeline().unet, files, "changing.safetensors", seed=4)
    after = make(session, weights={changing: 1.0})
    assert pixels(before[0]) != pixels(after[0])
    assert before[0].recipe.adapters[0].content_hash != after[0].recipe.adapters[0].content_hash
    path.unlink()
    with pytest.raises(AdapterFolderError, match="gone"):
        make(session, weights={changing: 1.0})
    session.cards(rescan=True)


def test_a_random_seed_is_told(session):
    seeds = {make(session, seed=-1, steps=1)[0].recipe.seed for _ in range(3)}
    assert len(seeds) == 3 and min(seeds) >= 0


def test_interrupt_keeps_what_is_done(session):
    events = []
    for event in session.generate(Order("a cat", steps=4, seed=1, count=5)):
        events.append(event)
        if isinstance(event, Picture):
            session.interrupt()
    pictures = [event for event in events if isinstance(event, Picture)]
    assert events[-1] == Finished(pictures=1, interrupted=True)
    assert len(pictures) == 1 and pictures[0].path.is_file()
    assert len(make(session, steps=1)) == 1  # the pipeline is ready for the next run


def test_a_reader_that_goes_away_stops_the_run(session):
    run = session.generate(Order("a cat", steps=50, count=5))
    next(run)
    run.close()
    assert len(make(session, steps=1)) == 1  # waits for the lock: the long run is over


def test_a_saved_picture_restores_everything(session):
    robot = id_of(session, "robot")
    wanted = {"prompt": "a «cat»,\nred", "negative_prompt": "dog", "width": 48, "height": 64, "guidance_scale": 3.5}
    (picture,) = make(session, seed=2**32 - 1, weights={robot: -0.5}, **wanted)
    recipe, weights, problems = session.restore(picture.path)
    assert recipe == picture.recipe and weights == {robot: -0.5} and problems == []
    settings = {name: getattr(recipe, name) for name in ("steps", "seed", *wanted)}
    assert pixels(make(session, weights=weights, **settings)[0]) == pixels(picture)


def test_restore_says_what_is_missing(session, files, tmp_path):
    (picture,) = make(session, weights={id_of(session, "robot"): 0.5})
    shutil.copy(files / "styles" / "ink.safetensors", tmp_path / "renamed.safetensors")
    elsewhere = Session(adapters_dir=tmp_path, output_dir=tmp_path)
    recipe, weights, problems = elsewhere.restore(picture.path)
    assert weights == {} and "robot" in problems[0] and recipe.adapters[0].content_hash[:12] in problems[0]
    (picture,) = make(session, weights={id_of(session, "styles/ink"): 0.5})
    _, weights, problems = elsewhere.restore(picture.path)
    assert weights == {id_of(elsewhere, "renamed"): 0.5} and problems == []  # found by its hash


def test_a_weight_by_block_and_step_comes_back_too(session, tmp_path):
    robot, text = id_of(session, "robot"), "1@0,0.25@1,mid=0"
    (picture,) = make(session, weights={robot: text})
    recipe, weights, problems = session.restore(picture.path)
    assert recipe.adapters[0].weight == text and weights == {robot: text} and problems == []
    assert (
        pixels(make(session, weights=weights)[0]) == pixels(picture) != pixels(make(session, weights={robot: 1.0})[0])
    )
    used = replace(recipe.adapters[0], weight="0.5,nowhere=0")
    path = tmp_path / "other.png"
    Image.open(picture.path).save(path, pnginfo=png_info(replace(recipe, adapters=(used,))))
    recipe, weights, problems = session.restore(path)
    assert weights == {robot: 1.0} and "nowhere" in problems[0] and "on at 1" in problems[0]


@pytest.mark.parametrize(
    ("wanted", "word"),
    [
        ({"steps": 0}, "steps"),
        ({"steps": 10**6}, "steps"),
        ({"guidance_scale": float("nan")}, "guidance"),
        ({"width": 63}, "multiple"),
        ({"height": 10**5}, "height"),
        ({"height": None}, "height"),
        ({"count": 1000}, "pictures"),
        ({"seed": -2}, "seed"),
        ({"seed": 2**40}, "seed"),
        ({"prompt": "x" * 5000}, "characters"),
        ({"negative_prompt": "x" * 5000}, "characters"),
    ],
)
def test_orders_out_of_bounds_are_refused(session, wanted, word):
    with pytest.raises(SessionError, match=word):
        make(session, **wanted)


def test_adapters_are_refused_with_a_reason(session):
    for name in ("other", "pickle"):
        with pytest.raises(SessionError, match="cannot be used"):
            make(session, weights={id_of(session, name): 1.0})
    for weight in (float("nan"), float("inf"), 11, None):
        with pytest.raises(SessionError, match="weight"):
            make(session, weights={id_of(session, "robot"): weight})


BAD_IDS = ["robot.safetensors", "../robot.safetensors", "/etc/passwd", "a\0b", "\\\\host\\share\\x.safetensors", ""]


@pytest.mark.parametrize("bad", BAD_IDS)
def test_paths_are_no_ids(session, bad):
    with pytest.raises(AdapterFolderError, match="not in the list"):
        make(session, weights={bad: 1.0})


def test_links_out_of_the_folder_are_not_followed(files, tmp_path):
    (tmp_path / "linked.safetensors").symlink_to(files / "robot.safetensors")
    (tmp_path / "folder").symlink_to(files)
    (entry,) = AdapterFolder(tmp_path).files()
    assert entry.header is None and "link" in entry.problem


def test_uploads_get_a_name_of_ours_and_never_replace_a_file(files, tmp_path):
    folder, source = AdapterFolder(tmp_path / "adapters"), files / "robot.safetensors"
    shown = ["../../etc/x y.safetensors", "C:\\a\\x y.safetensors", "....safetensors", "<b>.SAFETENSORS"]
    paths = [folder.add(source, name).path for name in shown]
    assert [path.name for path in paths] == [f"{n}.safetensors" for n in ("x_y", "x_y_2", "adapter", "b")]
    assert {path.parent for path in paths} == {folder.root}
    for name in ("x.ckpt", "x.safetensors.pt", "x", "x.zip"):
        with pytest.raises(AdapterFolderError, match="Only"):
            folder.add(source, name)
    with pytest.raises(AdapterFolderError):
        folder.add(files / "pickle.safetensors", "x.safetensors")
    assert len(folder.files()) == 4


def test_uploads_and_hub_ids_can_be_off(files, tmp_path):
    closed = Session(adapters_dir=files, output_dir=tmp_path, allow_uploads=False, allow_hub=False)
    with pytest.raises(SessionError, match="off"):
        closed.add_adapter(files / "robot.safetensors", "robot.safetensors")
    with pytest.raises(SessionError, match="no base model"):
        closed.load_base("owner/name")


@pytest.mark.parametrize("name", ["/etc", "../x", "a/../b", "./x/y", "https://host/x", "a/b/c", "x", "", "tests/.."])
def test_base_models_are_labels_or_hub_ids(session, name):
    with pytest.raises(SessionError, match="no base model"):
        session.load_base(name)


def test_a_folder_on_this_machine_is_never_taken_for_a_hub_id(tmp_path, monkeypatch):
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert base_models.is_hub_id("owner/other") and not base_models.is_hub_id("owner/name")


def test_another_base_model_by_its_label(files, tmp_path):
    copy = tmp_path / "my base"
    load_pipeline().save_pretrained(copy)
    session = Session([str(copy)], adapters_dir=files, output_dir=tmp_path / "out")
    assert session.base_labels == ["my base", "embedded"]
    (picture,) = make(session, weights={id_of(session, "robot"): 1.0})
    session.load_base("embedded")
    (same,) = make(session, weights={id_of(session, "robot"): 1.0})
    assert pixels(picture) == pixels(same) and picture.recipe.base_model == "my base"
    assert any("base model" in problem for problem in session.restore(picture.path)[2])


def test_a_folder_without_a_pipeline_is_one_clear_error(tmp_path):
    with pytest.raises(base_models.BaseModelError, match="could not be loaded") as caught:
        Session([str(tmp_path)], adapters_dir=tmp_path, output_dir=tmp_path)
    assert str(tmp_path) not in str(caught.value)


def test_the_part_of_a_prompt_that_is_not_read_is_told(session):
    assert session.unread_part("a cat on a red background") == ""
    assert "zebra" in session.unread_part("a cat and " * 12 + "a zebra")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no file /home/me/x/y.safetensors here", "no file y.safetensors here"),
        ("'C:\\Users\\me\\y.bin' is bad", "'y.bin' is bad"),
        ("attn1.to_q/attn2 and 3/4 stay", "attn1.to_q/attn2 and 3/4 stay"),
    ],
)
def test_paths_are_cut_out_of_messages(text, shown):
    assert without_paths(text) == shown
