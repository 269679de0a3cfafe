"""What the library and the rows of adapters in use do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr

from ui.generate import adapter_rows, library, weight_text
from ui.generate.adapter_rows import MAX_ROWS, Choice
from ui.generate.asking import chosen_of, told, user_errors
from ui.messages import AdapterCard
from ui.session import Session, SessionError

NO_ADAPTERS = """**No adapters yet.** Train one with `python train_scripts/train_dreambooth_lily.py`, put its
`.safetensors` file into the adapters folder; it is listed by itself{drop}."""


class CardActions:
    """Handlers. ``found`` is search text and sub-folder; ``state`` the rows' ids, ticks, weights and texts."""

    def __init__(self, session: Session, ui: SimpleNamespace) -> None:
        self.session, self.ui = session, ui

    def rescan(self, search: str, folder: str, limit: int, ids: list[str]) -> list[Any]:
        with user_errors():
            self.session.adapters.rescan()
            return self.listed(search, folder, limit, ids)

    def tick(self, version: int, search: str, folder: str, limit: int, ids: list[str]) -> list[Any]:
        """Look at the folder again; the page changes only when the folder did."""
        self.session.adapters.rescan()
        if self.session.adapters.version == version:
            return [gr.skip() for _ in self.ui.listed]
        return self.listed(search, folder, limit, ids)

    def find(self, search: str, folder: str, ids: list[str]) -> list[Any]:
        return self.listed(search, folder, library.SHOWN, ids)

    def click(self, event: gr.EventData, search: str, folder: str, limit: int, *state: Any) -> list[Any]:
        """A card was clicked (its adapter goes into use or out of it), or the button for more cards."""
        with user_errors():
            data = event._data if isinstance(event._data, dict) else {}
            if data.get("more"):
                more = min(int(limit), 10**6) + library.SHOWN
                return [*self.listed(search, folder, more, state[0]), *(gr.skip() for _ in self.ui.filled)]
            return self._used(search, folder, limit, self._toggled(chosen_of(state), str(data.get("id"))))

    def remove(self, number: int, search: str, folder: str, limit: int, *state: Any) -> list[Any]:
        chosen = chosen_of(state)
        chosen = {i: choice for n, (i, choice) in enumerate(chosen.items()) if n != number}
        return self._used(search, folder, limit, chosen)

    def upload(self, path: str, search: str, folder: str, limit: int, ids: list[str]) -> list[Any]:
        with user_errors():
            card = self.session.add_adapter(path, Path(path).name)
            told(f"Added {card.name}.")
            return [None, *self.listed(search, folder, limit, ids)]

    def preset(self, number: int, preset: str | None, *state: Any) -> Any:
        """The text of a row's weight after a ready-made one was chosen."""
        with user_errors():
            file_id, choice = list(chosen_of(state).items())[number]
            if not preset:
                return gr.skip()
            try:
                return weight_text.apply(preset, choice.text, choice.weight, self.session.selectors(file_id))
            except ValueError as problem:
                raise SessionError(str(problem)) from None

    def _toggled(self, chosen: dict[str, Choice], file_id: str) -> dict[str, Choice]:
        if file_id in chosen:
            return {i: choice for i, choice in chosen.items() if i != file_id}
        file = self.session.adapters.get(file_id)
        if reason := self.session.reason(file):
            raise SessionError(f"The adapter '{file.name}' cannot be used: {reason}")
        if len(chosen) >= MAX_ROWS:
            raise SessionError(f"At most {MAX_ROWS} adapters can be in use. Take one out first.")
        return {**chosen, file_id: Choice()}

    def _used(self, search: str, folder: str, limit: int, chosen: Mapping[str, Choice]) -> list[Any]:
        return [*self.listed(search, folder, limit, list(chosen)), *self.filled(chosen)]

    def filled(self, chosen: Mapping[str, Choice]) -> list[Any]:
        """The rows of the adapters in use, in the order of ``ui.filled``."""
        cards = {card.id: card for card in self.session.cards() if card.id in chosen}
        rows = adapter_rows.fill(self.ui.rows, cards, chosen, self.session.selectors)
        return [list(cards and [i for i in chosen if i in cards]), gr.update(visible=not cards), *rows]

    def listed(self, search: str, folder: str, limit: int, used: list[str]) -> list[Any]:
        """The cards, in the order of ``ui.listed``."""
        cards = self.session.cards()
        version, folders = self.session.adapters.version, library.folders(cards)
        folder = folder if folder in folders else ""
        found = library.find(cards, search, folder)
        drop = ", or drop the file below" if self.session.allow_uploads else ""
        return [
            library.html(found, set(used or ()), limit, self._thumbnail) if cards else "",
            gr.update(value=NO_ADAPTERS.format(drop=drop), visible=not cards),
            gr.update(visible=len(cards) >= library.SEARCH_FROM or bool(search)),
            gr.update(choices=[(f or "All folders", f) for f in folders], value=folder, visible=len(folders) > 1),
            gr.update(value="No adapter is found." if cards and not found else "", visible=bool(cards and not found)),
            limit, version,
        ]  # fmt: skip

    def _thumbnail(self, card: AdapterCard) -> str:
        return self.session.thumbnail(card.id)
