"""Take the pictures of docs/ui.md: every tab, in light, in the dark and on a phone, with something done in it.

make demo                   # two adapters that were really trained
python docs/screenshots.py --adapters_dir outputs/demo
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from ui import app
from ui.session import Session
from ui.train.training_runs import Trainings

ROOT = Path(__file__).parents[1]
WIDE, PHONE = {"width": 1000, "height": 1100}, {"width": 390, "height": 844}
TALLEST = 1300  # pixels of a picture
PATIENCE = 300_000  # milliseconds for what draws or trains


class Camera:
    """One visitor, whose page is photographed in each of the three looks."""

    def __init__(self, page: Any, folder: Path):
        self.page, self.folder = page, folder

    def open(self, tab: str) -> None:
        self.page.get_by_role("tab", name=tab, exact=True).first.click()
        self.page.wait_for_timeout(500)

    def said(self, place: str, text: str) -> None:
        self.page.locator(place, has_text=text).wait_for(timeout=PATIENCE)

    def work(self, button: str, bar: str, done: str = "Done") -> None:
        """Press a button, and wait until its work has begun and is done."""
        self.page.click(button)
        self.page.locator(bar).filter(has_not_text=done).wait_for(timeout=PATIENCE)
        self.said(bar, done)

    def number(self, place: str, value: float) -> None:
        box = self.page.locator(f"{place} input[type=number]").first
        box.fill(str(value))
        box.blur()

    def take(self, name: str) -> None:
        for look, size, scheme in (("light", WIDE, "light"), ("dark", WIDE, "dark"), ("phone", PHONE, "light")):
            self.page.set_viewport_size(size)
            self.page.emulate_media(color_scheme=scheme)
            self.page.evaluate(f"document.body.classList.toggle('dark', {str(scheme == 'dark').lower()})")
            self.page.mouse.move(1, 1)
            self.page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
            self.page.wait_for_timeout(900)
            image = Image.open(io.BytesIO(self.page.screenshot(full_page=True))).convert("RGB")
            image.crop((0, 0, image.width, min(image.height, TALLEST))).save(
                self.folder / f"ui_{name}_{look}.jpg", quality=76, optimize=True
            )
        self.page.set_viewport_size(WIDE)
        self.page.emulate_media(color_scheme="light")
        self.page.evaluate("document.body.classList.remove('dark')")


def generate(camera: Camera) -> None:
    page = camera.page
    prompts = {"robot": "a sks robot on a teal background", "teddy_bear": "a zwx bear on a yellow background"}
    for name, prompt in prompts.items():
        card = page.locator(".card", has_text=name).locator(".pick")
        card.click()
        page.locator(".adapter", has_text=name).wait_for()
        page.fill("#prompt textarea", prompt)
        camera.number("#seed", 3)
        camera.work("#generate", "#progress")
        page.click("#on-card")
        page.wait_for_timeout(1500)
        card.click()
        page.locator(".adapter", has_text=name).wait_for(state="hidden")
    page.locator(".card", has_text="robot").locator(".pick").click()
    page.locator(".adapter", has_text="robot").wait_for()
    page.fill("#prompt textarea", "a sks robot on a blue background")
    camera.number("#seed", 7)
    camera.number("#count", 4)
    camera.work("#generate", "#progress", "Done: 4 pictures")


def judge(camera: Camera) -> None:
    page = camera.page
    page.click("#judge-take")
    page.wait_for_timeout(1500)
    camera.work("#judge-compare", "#judge-progress")


def experts(camera: Camera) -> None:
    page = camera.page
    page.get_by_role("tab", name="Experts", exact=True).click()
    camera.work("#judge-routers", "#judge-progress")


def export(camera: Camera) -> None:
    page = camera.page
    page.click("#export-take")
    page.wait_for_timeout(1500)
    page.fill("#export-prompts textarea", "a sks robot on a red background\na sks robot on a green background")
    page.fill("#export-held-out textarea", "a sks robot on a purple background")
    camera.work("#export-go", "#export-progress")


def train(camera: Camera) -> None:
    page = camera.page
    pictures = sorted((ROOT / "examples/subjects/robot").glob("*.png"))
    page.locator("#train-files input[type=file]").set_input_files(pictures)
    page.locator("#train-word textarea, #train-word input").fill("sks")
    page.locator("#train-class textarea, #train-class input").fill("robot")
    page.locator("#train-settings > button").click()
    camera.number("#train-steps", 100)
    camera.work("#train-start", "#train-progress")


TABS: dict[str, tuple[str, Callable[[Camera], None]]] = {
    "generate": ("Generate", generate),
    "judge": ("Judge", judge),
    "experts": ("Judge", experts),
    "export": ("Export", export),
    "train": ("Train", train),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapters_dir", type=Path, required=True, help="with robot and teddy_bear in it")
    parser.add_argument("--docs_dir", type=Path, default=ROOT / "docs")
    parser.add_argument(
        "--tabs", nargs="+", choices=TABS, default=list(TABS), help="in this order; judge needs generate"
    )
    args = parser.parse_args()
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        parser.error("this needs chromium or Google Chrome")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        adapters = Path(folder) / "adapters"
        adapters.mkdir()
        for file in args.adapters_dir.rglob("*.safetensors"):
            shutil.copy(file, adapters)
        session = Session(adapters_dir=adapters, output_dir=Path(folder) / "outputs")
        demo = app.create_demo(session, Trainings(session, allowed=True))
        page = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"]).new_page(viewport=WIDE)
        page.goto(app.launch(demo))
        page.locator(".card").first.wait_for()
        camera = Camera(page, args.docs_dir)
        for name in args.tabs:
            tab, work = TABS[name]
            camera.open(tab)
            work(camera)
            camera.take(name)
        demo.close()


if __name__ == "__main__":
    main()
