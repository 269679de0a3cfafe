"""The picture on an adapter's card: one that the adapter made, put there by the page."""

from __future__ import annotations

import pytest
from PIL import Image

from lily_diffusion.base_model import load_pipeline
from tests.test_ui_session import id_of, make, save_adapter
from ui.pipeline.adapter_folder import AdapterFolderError
from ui.session import Session, SessionError


@pytest.fixture
def session(tmp_path) -> Session:
    unet = load_pipeline().unet
    save_adapter(unet, tmp_path / "adapters", "robot.safetensors", seed=1)
    save_adapter(unet, tmp_path / "adapters" / "styles", "ink.safetensors", seed=2)
    return Session(adapters_dir=tmp_path / "adapters", output_dir=tmp_path / "pictures")


def test_a_picture_goes_onto_the_card_of_the_one_adapter_in_its_recipe(session):
    robot, ink = id_of(session, "robot"), id_of(session, "styles/ink")
    (alone,) = make(session, weights={ink: 0.5})
    assert session.thumbnail(ink) == ""
    assert session.put_on_card(alone.id).name == "styles/ink"
    kept = session.adapters.root / "styles" / "ink.preview.webp"
    assert session.thumbnail(ink).startswith("data:image/webp") and session.thumbnail(robot) == ""
    before = kept.read_bytes()
    (other,) = make(session, weights={ink: 1.0}, seed=8)
    session.put_on_card(other.id)
    assert kept.read_bytes() != before and not list(kept.parent.glob(".*"))


def test_pictures_of_several_adapters_of_none_and_of_lost_ones_are_refused(session):
    robot, ink = id_of(session, "robot"), id_of(session, "styles/ink")
    for weights in ({}, {robot: 1.0, ink: 1.0}):
        (picture,) = make(session, weights=weights)
        with pytest.raises(SessionError, match="one adapter"):
            session.put_on_card(picture.id)
    (picture,) = make(session, weights={robot: 1.0})
    (session.adapters.root / "robot.safetensors").unlink()
    session.adapters.rescan()
    with pytest.raises(SessionError, match="one adapter"):
        session.put_on_card(picture.id)


def test_a_picture_that_somebody_put_there_stays(session):
    robot = id_of(session, "robot")
    own = session.adapters.root / "robot.preview.png"
    Image.new("RGB", (8, 8)).save(own)
    session.adapters.rescan()
    (picture,) = make(session, weights={robot: 1.0})
    with pytest.raises(AdapterFolderError, match="by hand"):
        session.put_on_card(picture.id)
    assert own.is_file() and not (session.adapters.root / "robot.preview.webp").exists()
