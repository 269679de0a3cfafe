"""Generating, without the page: schedulers, weights by block and step, skip, previews, the pipeline for others."""

from __future__ import annotations

import os
import shutil
import threading
import time
from types import SimpleNamespace

import pytest
import torch
from diffusers.configuration_utils import FrozenDict
from PIL import Image

from lily_diffusion import get_adapter_weights
from lily_diffusion.base_model import load_pipeline
from tests.test_ui_session import files, id_of, make, pixels, save_adapter, session  # noqa: F401
from ui.messages import Finished, Order, Picture, Preview, Step
from ui.pipeline import drawing, preview, schedulers
from ui.pipeline.adapter_folder import AdapterFolder
from ui.session import Session, SessionError

# ruff: noqa: F811


def test_every_offered_scheduler_makes_its_own_picture_and_the_base_keeps_its_own(session):
    own, names = session.base.pipe.scheduler, schedulers.names(session.base.pipe)
    assert names[0] == "" and {"DDIM", "Euler a", "DPM++ 2M", "Heun"} <= set(names) and "PLMS" not in names
    made = {name: make(session, scheduler=name, steps=3)[0] for name in names}
    assert session.base.pipe.scheduler is own and made["DDIM"].recipe.scheduler == "DDIM"
    assert pixels(made["DDIM"]) == pixels(made[""]) and len({pixels(picture) for picture in made.values()}) >= 6
    for name in ("Heun", "Euler a"):
        recipe, _, problems = session.restore(made[name].path)
        assert recipe.scheduler == name and problems == []
        assert pixels(make(session, scheduler=name, steps=3)[0]) == pixels(made[name])
    with pytest.raises(SessionError, match="no scheduler"):
        make(session, scheduler="__class__")


def test_three_adapters_change_weight_and_nothing_is_read_again(session, files, monkeypatch):
    third = save_adapter(load_pipeline().unet, files, "third.safetensors", seed=5)
    session.cards(rescan=True)
    ids = [id_of(session, name) for name in ("robot", "styles/ink", "third")]
    before = pixels(make(session, weights=dict.fromkeys(ids, 0.5))[0])
    monkeypatch.setattr("ui.session.load_lily_weights", lambda *_, **__: pytest.fail("read again"))
    after = pixels(make(session, weights=dict(zip(ids, (0.9, "0.2,mid=0", -0.4), strict=True)))[0])
    assert after != before == pixels(make(session, weights=dict.fromkeys(ids, 0.5))[0])
    third.unlink()
    session.cards(rescan=True)


def test_a_scheduler_of_two_calls_a_step_counts_the_steps_that_were_asked_for(session):
    steps = [e for e in session.generate(Order("a cat", steps=3, seed=1, scheduler="Heun")) if isinstance(e, Step)]
    assert max(e.step for e in steps) == 3 and all(e.steps == 3 for e in steps)


def test_weights_by_block_and_step_are_checked_before_anything_runs(session):
    robot = id_of(session, "robot")
    bad = {
        "0.5,nowhere=1": "nowhere",
        "99": "-10 to 10",
        "half": "finite number",
        "1@0": "keyframe",
        "1," * 900: "longer",
    }
    for text, word in {**bad, ",".join(f"mid.{n}=1" for n in range(99)): "At most 64"}.items():
        with pytest.raises(SessionError, match=word):
            make(session, weights={robot: text})
    (picture,) = make(session, weights={robot: "0.5"})
    assert picture.recipe.adapters[0].weight == 0.5
    (whole,) = make(session, weights={robot: "1@0,0@0.5,held"}, steps=4)
    assert pixels(whole) not in [pixels(make(session, weights={robot: w}, steps=4)[0]) for w in (0.0, 1.0)]


def test_skip_goes_on_with_the_next_picture(session):
    events = []
    for event in session.generate(Order("a cat", steps=6, seed=1, count=3), owner="me"):
        events.append(event)
        if event == Step(2, 3, 1, 6):
            session.skip("somebody else")
            session.skip("me")
    assert [e.recipe.seed for e in events if isinstance(e, Picture)] == [1, 3]
    assert events[-1] == Finished(pictures=2, interrupted=False)


def test_only_the_owner_interrupts(session):
    run = session.generate(Order("a cat", steps=3, seed=1), owner="me")
    next(run)
    session.interrupt("somebody else")
    assert list(run)[-1] == Finished(1, interrupted=False)
    run = session.generate(Order("a cat", steps=30, seed=1), owner="me")
    next(run)
    session.interrupt("me")
    assert list(run)[-1] == Finished(0, interrupted=True)


def test_previews_come_between_steps_and_change_nothing(session):
    events = list(session.generate(Order("a cat", steps=6, seed=7, preview=2)))
    previews = [event for event in events if isinstance(event, Preview)]
    assert len(previews) == 2 and {event.image.size for event in previews} == {(64, 64)}
    (done,) = [event for event in events if isinstance(event, Picture)]
    assert pixels(done) == pixels(make(session, steps=6)[0])
    with Image.open(done.path) as image:  # the later one is nearer to the picture
        final = torch.tensor(list(image.convert("RGB").getdata())).float()
    off = [(torch.tensor(list(e.image.getdata())).float() - final).abs().mean() for e in previews]
    assert off[1] < off[0]


@pytest.mark.parametrize("name", ["", "Euler", "DPM++ 2M", "DPM++ 2M SDE", "UniPC", "Euler a"])
def test_what_is_under_the_noise_is_told_from_two_steps(session, name):
    kept: list[torch.Tensor] = []
    with session.using(Order("a cat", steps=12, seed=3, scheduler=name)) as (pipe, recipe):
        drawing.draw(session.base, recipe, lambda step: None, threading.Event(), lambda n, x: kept.append(x.float()))
        guess = preview.nearly_clean(pipe.scheduler, 4, kept[2], kept[3])
    assert preview.nearly_clean(pipe.scheduler, 4, None, kept[3]) is kept[3]
    if name in ("DPM++ 2M SDE", "UniPC", "Euler a"):  # noise of its own, or steps that are mended later
        assert guess is kept[3]
    else:
        assert (guess - kept[-1]).abs().mean() < 0.75 * (kept[3] - kept[-1]).abs().mean()


class LinearAutoencoder(torch.nn.Module):
    """Latents of 5 channels that are linear in the mean colour of 8 by 8 pixels, as real ones nearly are; too large."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(
            torch.randn(preview.SMALL // 3 + 1, 3, generator=torch.Generator().manual_seed(0))
        )
        self.dtype, self.config = torch.float32, FrozenDict(latent_channels=5, scaling_factor=0.2, shift_factor=0.1)

    def encode(self, pixels: torch.Tensor) -> SimpleNamespace:
        small = torch.nn.functional.avg_pool2d(pixels, 8)
        latents = torch.einsum("bchw,dc->bdhw", small, self.weight[:5]) + 0.3
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: latents))


def test_previews_of_a_large_autoencoder_are_a_linear_map_fitted_to_it():
    vae = LinearAutoencoder()
    pixels = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1
    latents = (vae.encode(pixels).latent_dist.mode() - 0.1) * 0.2
    shown = preview.Previewer(SimpleNamespace(vae=vae)).picture(latents)
    wanted = (torch.nn.functional.avg_pool2d(pixels, 8)[0].permute(1, 2, 0) + 1) * 127.5
    assert shown.size == (6, 4)
    assert (torch.tensor(list(shown.getdata())).view(4, 6, 3) - wanted).abs().max() < 4


@pytest.mark.parametrize("shape", [(1, 5, 4, 4), (1, 16, 64), (1, 8, 4, 4, 4)])
def test_latents_of_another_kind_have_no_preview(session, shape):
    assert preview.Previewer(session.base.pipe).picture(torch.zeros(shape)) is None
    assert preview.Previewer(SimpleNamespace()).picture(torch.zeros(shape)) is None


def test_using_has_the_pipeline_as_ordered_and_gives_it_back(session):
    robot, own = id_of(session, "robot"), session.base.pipe.scheduler
    order = Order("a cat", steps=2, seed=7, weights={robot: "0.5,mid=0"}, scheduler="Euler")
    with session.using(order) as (pipe, recipe):
        assert get_adapter_weights(pipe) == {robot: "0.5,mid=0"} and type(pipe.scheduler).__name__.startswith("Euler")
        image, hidden = drawing.draw(session.base, recipe, lambda step: None, threading.Event())
        waiting = session.generate(order)
        thread = threading.Thread(target=lambda: next(waiting))
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()  # nobody else gets the pipeline meanwhile
    thread.join()
    (same,) = [event for event in waiting if isinstance(event, Picture)]
    assert session.base.pipe.scheduler is own and not hidden and image.tobytes() == pixels(same)
    with pytest.raises(SessionError), session.using(Order("a cat", steps=10**6)):
        pass


def test_a_blend_changes_its_weights_without_loading_anything_again(session, monkeypatch):
    ids = [id_of(session, name) for name in ("robot", "styles/ink")]
    make(session, weights=dict.fromkeys(ids, 0.5))
    monkeypatch.setattr("ui.session.load_lily_weights", None)
    monkeypatch.setattr("ui.pipeline.adapter_folder.read_lily_header", None)
    first, second = (make(session, weights={ids[0]: w, ids[1]: "1@0,0@1"})[0] for w in (0.2, 0.9))
    assert pixels(first) != pixels(second)


def test_two_thousand_adapters_stay_quick(tmp_path):
    source = save_adapter(load_pipeline().unet, tmp_path, "0.safetensors")
    for n in range(1, 2000):
        target = tmp_path / f"{n % 20}" / f"{n}.safetensors"
        target.parent.mkdir(exist_ok=True)
        os.link(source, target)
    session = Session(adapters_dir=tmp_path, output_dir=tmp_path / "out")
    begin, version = time.monotonic(), session.adapters.version
    assert len(session.cards(rescan=True)) == 2000
    session.cards(rescan=True)
    assert time.monotonic() - begin < 4 and session.adapters.version == version
    shutil.copy(source, tmp_path / "new.safetensors")
    os.remove(tmp_path / "1" / "1.safetensors")
    assert len(session.cards(rescan=True)) == 2000 and session.adapters.version == version + 1


def test_a_picture_beside_an_adapter_is_found_and_a_change_of_it_too(tmp_path, files):
    shutil.copy(files / "robot.safetensors", tmp_path / "a.safetensors")
    folder = AdapterFolder(tmp_path)
    assert folder.files()[0].picture is None
    for number, name in enumerate(("a.webp", "a.png", "a.preview.jpg"), 1):
        Image.new("RGB", (9, 9)).save(tmp_path / name)
        (entry,) = folder.rescan()
        assert entry.picture == tmp_path / name and folder.version == number + 1


def test_an_order_for_a_base_model_that_was_replaced_is_refused(session):
    with pytest.raises(SessionError, match="Another base model was loaded meanwhile"):
        session.generate(Order("a cat", base_model="another"))
