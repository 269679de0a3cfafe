"""What the library and the rows of adapters in use do."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr

from ui.events import HIDDEN
from ui.generate import adapter_rows, library, weight_text
from ui.generate.adapter_rows import ROWS, Used
from ui.generate.asking import told, used_of, user_errors
from ui.keeping.recipe import MAX_ADAPTERS
from ui.messages import AdapterCard
from ui.session import Session, SessionError
from ui.translations import said

NO_ADAPTERS = """**No adapters yet.** Train one with `python train_scripts/train_dreambooth_lily.py`, put its
`.safetensors` file into the adapters folder; it is listed by itself{drop}."""


class CardActions:
    """Handlers. ``found`` is search text and sub-folder; ``state`` what `used_of` reads."""

    def __init__(self, session: Session, ui: SimpleNamespace) -> None:
        self.session, self.ui = session, ui

    def rescan(self, search: str, folder: str, limit: int, used: Any) -> list[Any]:
        with user_errors():
            self.session.adapters.rescan()
            return self.listed(search, folder, limit, used)

    def refresh(self, search: str, folder: str, limit: int, *state: Any) -> list[Any]:
        """Cards and rows anew, when the folder or the base model is another: what is gone leaves the rows too."""
        with user_errors():
            self.session.adapters.rescan()
            return self.shown(search, folder, limit, used_of(state))

    def tick(self, version: int, search: str, folder: str, limit: int, used: Any) -> list[Any]:
        """Look at the folder again; the page changes only when the folder did."""
        self.session.adapters.rescan()
        if self.session.adapters.version == version:
            return [gr.skip() for _ in self.ui.listed]
        return self.listed(search, folder, limit, used)

    def find(self, search: str, folder: str, used: Any) -> list[Any]:
        with user_errors():
            return self.listed(search, folder, library.SHOWN, used)

    def click(self, event: gr.EventData, search: str, folder: str, limit: int, *state: Any) -> list[Any]:
        """A card was clicked (its adapter goes into use or out of it), or the button for more cards."""
        with user_errors():
            data = event._data if isinstance(event._data, dict) else {}
            if data.get("more"):
                more = min(int(limit), 10**6) + library.SHOWN
                return [*self.listed(search, folder, more, state[0]), *(gr.skip() for _ in self.ui.filled)]
            return self.shown(search, folder, limit, self._toggled(used_of(state), str(data.get("id"))))

    def remove(self, number: int, search: str, folder: str, limit: int, *state: Any) -> list[Any]:
        with user_errors():
            used = used_of(state)
            gone = list(used.page)[number : number + 1]  # the row may be empty by now
            return self.shown(search, folder, limit, used.without(gone[0]) if gone else used)

    def turn(self, rows: int, *state: Any) -> list[Any]:
        """Show the rows before or behind those that are shown."""
        with user_errors():
            return self.filled(used_of(state).turned(rows))

    def upload(self, path: str, search: str, folder: str, limit: int, used: Any) -> list[Any]:
        with user_errors():
            card = self.session.add_adapter(path, Path(path).name)
            told(f"Added {card.name}.")
            return [None, *self.listed(search, folder, limit, used)]

    def preset(self, number: int, preset: str | None, *state: Any) -> Any:
        """The text of a row's weight after a ready-made one was chosen."""
        with user_errors():
            rows = list(used_of(state).page.items())
            if not preset or number >= len(rows):
                return gr.skip()
            file_id, choice = rows[number]
            try:
                return weight_text.apply(preset, choice.text, choice.weight, self.session.selectors(file_id))
            except ValueError as problem:
                raise SessionError(str(problem)) from None

    def _toggled(self, used: Used, file_id: str) -> Used:
        if file_id in used:
            return used.without(file_id)
        file = self.session.adapters.get(file_id)
        if reason := self.session.reason(file):
            raise SessionError(f"The adapter '{file.name}' cannot be used: {reason}")
        if len(used.chosen) >= MAX_ADAPTERS:
            raise SessionError(f"At most {MAX_ADAPTERS} adapters can be in use. Take one out first.")
        return used.with_one_more(file_id)

    def shown(self, search: str, folder: str, limit: int, used: Used) -> list[Any]:
        """Cards and rows, in the order of ``ui.listed`` and ``ui.filled``."""
        return [*self.listed(search, folder, limit, used), *self.filled(used)]

    def filled(self, used: Used) -> list[Any]:
        """The rows of the adapters in use, in the order of ``ui.filled``."""
        cards = {card.id: card for card in self.session.cards() if card.id in used}
        used = Used({i: choice for i, choice in used.chosen.items() if i in cards}, used.first).turned(0)
        rows = adapter_rows.fill(self.ui.rows, cards, used.page, self.session.selectors)
        shown, count = len(used.page), len(used.chosen)
        return [
            used.sent, gr.update(visible=not cards), gr.update(visible=count > ROWS),
            said(f"{used.first + 1} to {used.first + shown} of {count} in use"), *rows,
        ]  # fmt: skip

    def listed(self, search: str, folder: str, limit: int, used: Any) -> list[Any]:
        """The cards, in the order of ``ui.listed``; those in ``used`` are marked."""
        cards, used = self.session.cards(), used if isinstance(used, Used) else Used.of(used)
        version, folders = self.session.adapters.version, library.folders(cards)
        folder = folder if folder in folders else ""
        found = library.find(cards, search, folder)
        drop = ", or drop the file below" if self.session.allow_uploads else ""
        return [
            library.html(found, used, limit, self._thumbnail) if cards else "",
            gr.update(value=said(NO_ADAPTERS.format(drop=drop)), visible=not cards),
            gr.update(visible=len(cards) >= library.SEARCH_FROM or bool(search)),
            gr.update(choices=[(f or said("All folders"), f) for f in folders], value=folder, visible=len(folders) > 1),
            gr.update(value=said("No adapter is found."), visible=True if cards and not found else HIDDEN),
            limit, version,
        ]  # fmt: skip

    def _thumbnail(self, card: AdapterCard) -> str:
        return self.session.thumbnail(card.id)
