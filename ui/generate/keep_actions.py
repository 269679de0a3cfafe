"""What keeps pictures and settings: the picture in hand, history, presets, styles, and what a dropped file says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gradio as gr

from ui.events import HIDDEN
from ui.generate.adapter_rows import Used, as_chosen
from ui.generate.asking import FIXED, OWN_SCHEDULER, order_of, told, user_errors
from ui.generate.card_actions import CardActions
from ui.keeping.foreign import read_picture
from ui.keeping.recipe import RecipeError, infotext
from ui.keeping.restoring import Restored
from ui.keeping.stored import Style
from ui.pipeline.orders import recipe_of
from ui.session import Session
from ui.style import careful, spoken
from ui.translations import said

ALL_DAYS = "All days"


class KeepActions:
    """Pictures are named by the ids of the history; the page never says where a file is."""

    def __init__(self, session: Session, ui: SimpleNamespace, adapters: CardActions) -> None:
        self.session, self.ui, self.adapters = session, ui, adapters

    def select(self, made: list[tuple[str, int]], marked: str, event: gr.SelectData) -> list[Any]:
        index = event.index if isinstance(event.index, int) else -1
        return self._in_hand(made[index][0], marked) if 0 <= index < len(made) else self._nothing()

    def select_past(self, past: list[str], marked: str, event: gr.SelectData) -> list[Any]:
        index = event.index if isinstance(event.index, int) else -1
        return self._in_hand(past[index], marked) if 0 <= index < len(past) else self._nothing()

    def _nothing(self) -> list[Any]:
        return [gr.skip() for _ in self.ui.handled]

    def _in_hand(self, picture_id: str, marked: str) -> list[Any]:
        """Show a picture's recipe, and beside the marked one if there is one; in the order of ``ui.handled``."""
        with user_errors():
            path = self.session.history.path(picture_id)
            try:
                text = infotext(read_picture(path)[0])
            except RecipeError as problem:
                text = str(problem)
            both = gr.skip()
            if marked and marked != picture_id:
                pair = [self.session.history.path(marked), path]
                both = gr.update(value=tuple(map(self._cached, pair)), visible=True)
            return [picture_id, gr.update(value=text, visible=True), gr.update(visible=True), both]

    def compare(self, hand: str, marked: str) -> list[Any]:
        """Mark the picture in hand, or leave comparing."""
        if marked or not hand:
            return ["", gr.update(value=said("Compare")), gr.update(value=None, visible=HIDDEN), ""]
        note = said("Now choose another picture, here or in the history, to lay it over this one.")
        return [hand, gr.update(value=said("Stop comparing")), gr.skip(), note]

    def delete(self, hand: str, made: list[tuple[str, int]], day: str, search: str) -> list[Any]:
        with user_errors():
            self.session.history.delete(hand)
            made = [entry for entry in made or () if self.session.history.has(entry[0])]
            told("The picture is deleted.")
            pictures = [(self._cached(self.session.history.path(i)), f"seed {seed}") for i, seed in made]
            gone = [gr.update(visible=False), gr.update(visible=HIDDEN)]
            return [pictures, made, "", *gone, *self.compare("", "")[:3], *self.past(day, search)]

    def put_on_card(self, hand: str, *found: Any) -> list[Any]:
        with user_errors():
            card = self.session.put_on_card(hand)
            told(f"{card.name} shows this picture now.")
            return self.adapters.rescan(*found)

    def send_back(self, hand: str, search: str, folder: str, limit: int) -> list[Any]:
        with user_errors():
            recipe, notes = read_picture(self.session.history.path(hand))
            return self._set(self.session.restored(recipe, notes), "All settings are those of the picture.",
                             search, folder, limit)  # fmt: skip

    def restore(self, path: str, search: str, folder: str, limit: int) -> list[Any]:
        with user_errors():
            restored = self.session.restore(path)
            return [None, *self._set(restored, "Settings restored from the picture.", search, folder, limit)]

    def load_preset(self, name: str, search: str, folder: str, limit: int) -> list[Any]:
        with user_errors():
            restored = self.session.restored(self.session.presets.load(name))
            return self._set(restored, f"The preset {name} is set.", search, folder, limit)

    def _set(self, restored: Restored, news: str, search: str, folder: str, limit: int) -> list[Any]:
        """Settings, rows and cards by a recipe, in the order of ``ui.restored``."""
        recipe, weights, problems = restored
        note = spoken(news) + "".join(map(careful, problems))
        settings = [recipe.prompt, recipe.negative_prompt, recipe.steps, recipe.guidance_scale, recipe.width,
                    recipe.height, 1, recipe.scheduler or OWN_SCHEDULER, recipe.seed, FIXED,
                    recipe.blend, []]  # fmt: skip
        return [note, *settings, *self.adapters.shown(search, folder, limit, Used(as_chosen(weights)))]

    def save_preset(self, name: str, *values: Any) -> list[Any]:
        with user_errors():
            recipe, _ = recipe_of(order_of(values, self.session.styles.all()), self.session.base,
                                  self.session.adapters, self.session.reason)  # fmt: skip
            name = self.session.presets.save(name, recipe)
            told(f"The preset {name} is saved.")
            return [gr.update(choices=self.session.presets.names(), value=name), ""]

    def delete_preset(self, name: str) -> Any:
        with user_errors():
            self.session.presets.delete(name)
            return gr.update(choices=self.session.presets.names(), value=None)

    def save_style(self, name: str, prompt: str, negative: str) -> list[Any]:
        with user_errors():
            name = self.session.styles.save(name, Style(str(prompt or ""), str(negative or "")))
            told(f"The style {name} is saved.")
            return [gr.update(choices=list(self.session.styles.all())), ""]

    def delete_styles(self, names: list[str]) -> Any:
        with user_errors():
            for name in names or ():
                self.session.styles.save(name, None)
            return gr.update(choices=list(self.session.styles.all()), value=[])

    def past(self, day: str, search: str) -> list[Any]:
        """The pictures of a day, in the order of ``ui.history``."""
        history = self.session.history
        days = history.days()
        day = day if day in days else ALL_DAYS
        found = history.find(None if day == ALL_DAYS else day, search)
        shown = []
        for entry in found:
            thumbnail = self.session.thumbnails.of(history.root / entry.place, entry.stamp, history.root)
            if thumbnail is not None:
                shown.append((entry, (self._cached(thumbnail), f"{entry.day} · seed {entry.seed}")))
        days_shown = gr.update(choices=[ALL_DAYS, *days], value=day)
        return [[picture for _, picture in shown], [entry.id for entry, _ in shown], days_shown]

    def refresh_past(self, day: str, search: str) -> list[Any]:
        with user_errors():
            self.session.history.refresh()
            return self.past(day, search)

    def kept(self) -> list[Any]:
        """The choices of presets, styles and earlier prompts, in the order of ``ui.kept``."""
        return [
            gr.update(choices=self.session.presets.names()),
            gr.update(choices=list(self.session.styles.all())),
            self.prompts(),
        ]

    def prompts(self) -> Any:
        return gr.update(choices=[(p[:120], p) for p in self.session.history.prompts()], value=None)

    def _cached(self, path: Any) -> str:
        return str(self.ui.gallery.move_resource_to_block_cache(path))
