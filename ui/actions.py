"""What the buttons of the generating tab do: between the page's components and the session."""

from __future__ import annotations

import html
import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr

from ui import adapter_rows
from ui.adapter_rows import MAX_ROWS
from ui.messages import AdapterCard, Finished, Order, Picture, Step
from ui.recipe import infotext
from ui.session import USER_ERRORS, Session
from ui.style import error, plain, progress_bar

NO_ADAPTERS = """**No adapters yet.** Train one with `python train_scripts/train_dreambooth_lily.py`, put its
`.safetensors` file into the adapters folder and press *Rescan*{drop}."""
SEARCH_FROM = 8  # adapters from which on the search box is shown
SMALL_EDGE = 128  # pictures up to this many pixels are enlarged without smoothing


class Actions:
    """What the buttons do. Every error that a user can cause becomes a message; others name only their kind."""

    def __init__(self, session: Session, ui: SimpleNamespace) -> None:
        self.session, self.ui = session, ui

    def open_page(self) -> list[Any]:
        return [*self._based(), *self._listed(self.session.cards(rescan=True), "", {})]

    def rescan(self, search: str | None, *state: Any) -> list[Any]:
        with user_errors():
            return self._listed(self.session.cards(rescan=True), search, _chosen(state))

    def search(self, search: str | None, *state: Any) -> list[Any]:
        return self._listed(self.session.cards(), search, _chosen(state))

    def upload(self, path: str, search: str | None, *state: Any) -> list[Any]:
        with user_errors():
            card = self.session.add_adapter(path, Path(path).name)
            gr.Info(f"Added {html.escape(card.name)}.")
            return [None, *self._listed(self.session.cards(), search, _chosen(state))]

    def load_base(self, name: str, search: str | None, *state: Any) -> list[Any]:
        with user_errors():
            self.session.load_base(str(name or ""))
            return [*self._based(), *self._listed(self.session.cards(), search, _chosen(state))]

    def generate(self, *values: Any) -> Iterator[dict[Any, Any]]:
        ui = self.ui
        try:
            with user_errors():
                yield from self._pictures(_order(values))
        except gr.Error:
            yield {ui.progress: progress_bar(0, "That did not work."), ui.stop: gr.update(interactive=False)}
            raise

    def _pictures(self, order: Order) -> Iterator[dict[Any, Any]]:
        ui, pictures, recipes = self.ui, [], []
        with closing(self.session.generate(order)) as run:
            yield {
                ui.progress: progress_bar(0, "Starting ..."),
                ui.gallery: gr.update(value=[], columns=_columns(order.count)),
                ui.note: "",
                ui.info: gr.update(visible=False),
                ui.recipes: [],
                ui.stop: gr.update(interactive=True),
            }
            for event in run:
                if isinstance(event, Step):
                    yield {ui.progress: _progress(event)}
                elif isinstance(event, Picture):
                    cached = ui.gallery.move_resource_to_block_cache(event.path)
                    pictures.append((cached, f"seed {event.recipe.seed}"))
                    recipes.append((infotext(event.recipe), event.recipe.seed))
                    hidden = "The safety checker of the base model blackened a picture." if event.hidden else ""
                    info = gr.update(value=recipes[-1][0], visible=True)
                    yield {ui.gallery: pictures, ui.recipes: recipes, ui.note: hidden, ui.info: info}
                else:
                    note, done = self._note(order, recipes), _finished(event, order.count)
                    yield {ui.progress: done, ui.note: note, ui.stop: gr.update(interactive=False)}

    def interrupt(self) -> Any:
        self.session.interrupt()
        return gr.update(interactive=False)

    def select(self, recipes: list[tuple[str, int]], event: gr.SelectData) -> Any:
        if isinstance(event.index, int) and 0 <= event.index < len(recipes):
            return gr.update(value=recipes[event.index][0], visible=True)
        return gr.skip()

    def last_seed(self, recipes: list[tuple[str, int]]) -> int | Any:
        return recipes[0][1] if recipes else gr.skip()

    def restore(self, path: str, search: str | None) -> list[Any]:
        with user_errors():
            recipe, weights, problems = self.session.restore(path)
            note = "Settings restored from the picture." + "".join(f"\n\n**Careful:** {plain(p)}" for p in problems)
            settings = [recipe.prompt, recipe.negative_prompt, recipe.steps, recipe.guidance_scale, recipe.width,
                        recipe.height, recipe.seed]  # fmt: skip
            return [None, note, *settings, 1, *self._listed(self.session.cards(), search, weights)]

    def _based(self) -> list[Any]:
        base = self.session.base
        fits = base.defaults
        checker = "with" if base.checks_pictures else "without"
        note = f"{plain(type(base.pipe).__name__)} on {plain(str(base.pipe.device))}, {checker} a safety checker."
        small = max(fits.width, fits.height) <= SMALL_EDGE
        return [
            gr.update(label=f"Base model: {base.label}"),
            gr.update(choices=self.session.base_labels, value=base.label), note, fits.steps, fits.guidance_scale,
            gr.update(value=fits.width, step=fits.size_step), gr.update(value=fits.height, step=fits.size_step),
            gr.update(elem_classes=["pixelated"] if small else []),
        ]  # fmt: skip

    def _listed(self, cards: list[AdapterCard], search: str | None, chosen: dict[str, float]) -> list[Any]:
        picked = adapter_rows.pick(cards, search, chosen)
        drop = ", or drop the file below" if self.session.allow_uploads else ""
        shown = f"{len(picked)} of {len(cards)} adapters are shown. Search to see others."
        return [
            [card.id for card in picked],
            gr.update(value=NO_ADAPTERS.format(drop=drop), visible=not cards),
            gr.update(visible=len(cards) >= SEARCH_FROM),
            gr.update(value=shown, visible=len(picked) < len(cards)),
            *adapter_rows.fill(self.ui.rows, picked, chosen),
        ]

    def _note(self, order: Order, recipes: list[tuple[str, int]]) -> str:
        if not recipes:
            return ""
        cut = self.session.unread_part(order.prompt)
        unread = f"\n\n**Careful:** the base model does not read the end of this prompt: {plain(cut)}" if cut else ""
        return f"Saved in the output folder, each with its recipe. First seed: {recipes[0][1]}.{unread}"


@contextmanager
def user_errors() -> Iterator[None]:
    """Show our own errors as they are; log any other and show only its kind."""
    try:
        yield
    except USER_ERRORS as problem:
        raise error(str(problem)) from None
    except (gr.Error, GeneratorExit):
        raise
    except Exception as problem:
        logging.getLogger(__name__).exception("The page could not do what was asked.")
        raise error(f"That did not work ({type(problem).__name__}). The terminal of the page says more.") from None


def _chosen(state: tuple[Any, ...]) -> dict[str, float]:
    return adapter_rows.read(state[0], state[1 : 1 + MAX_ROWS], state[1 + MAX_ROWS :])


def _order(values: tuple[Any, ...]) -> Order:
    prompt, negative, steps, guidance, width, height, seed, count = values[:8]
    return Order(prompt or "", negative or "", steps, guidance, width, height, seed, count, _chosen(values[8:]))


def _columns(pictures: int) -> int:
    return 1 if pictures == 1 else 2 if pictures <= 4 else 3


def _progress(event: Step) -> str:
    done = (event.picture - 1 + event.step / event.steps) / event.pictures
    return progress_bar(done, f"Picture {event.picture} of {event.pictures} · step {event.step} of {event.steps}")


def _finished(event: Finished, wanted: int) -> str:
    if event.interrupted:
        return progress_bar(event.pictures / wanted, f"Interrupted: {event.pictures} of {wanted} pictures are done.")
    return progress_bar(1, "Done: 1 picture." if wanted == 1 else f"Done: {wanted} pictures.")
