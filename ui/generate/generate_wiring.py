"""Which event of the generating tab calls what, with which components in and out."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import gradio as gr

from ui.events import FOLDER, PIPELINE, QUICK
from ui.generate.actions import Actions
from ui.generate.adapter_rows import ROWS, Used
from ui.generate.asking import FIXED
from ui.generate.card_actions import CardActions
from ui.generate.keep_actions import KeepActions
from ui.session import Session


def wire(ui: SimpleNamespace, session: Session, demo: gr.Blocks) -> None:
    """Connect the components in ``ui`` to the session; groups of outputs are kept in ``ui`` by name."""
    actions, adapters = Actions(session, ui), CardActions(session, ui)
    keep = KeepActions(session, ui, adapters)
    _group(ui)

    def open_page() -> list[Any]:
        session.adapters.rescan()
        return [*actions.based(), *adapters.find("", "", Used()), *keep.kept()]

    demo.load(open_page, outputs=[*ui.based, *ui.listed, *ui.kept], **QUICK)
    _wire_adapters(ui, adapters, actions)
    _wire_pictures(ui, actions, keep)
    _wire_hand(ui, keep)
    _wire_kept(ui, keep)


def _group(ui: SimpleNamespace) -> None:
    rows = ui.rows
    ui.found = [ui.search, ui.folder, ui.limit]
    ui.state = [ui.used, *(r.on for r in rows), *(r.weight for r in rows), *(r.text for r in rows)]
    ui.settings = [ui.prompt, ui.negative, ui.steps, ui.guidance, ui.width, ui.height, ui.count, ui.scheduler, ui.seed,
                   ui.mode, ui.blend]  # fmt: skip
    ui.order = [*ui.settings, ui.preview_on, ui.every, ui.styles, *ui.state]
    ui.listed = [ui.cards, ui.empty, ui.search, ui.folder, ui.none_found, ui.limit, ui.version]
    ui.filled = [ui.used, ui.hint, ui.pager, ui.page, *(part for row in rows for part in row.shown)]
    ui.based = [ui.base_box, ui.base, ui.base_note, ui.steps, ui.guidance, ui.width, ui.height, ui.scheduler,
                ui.gallery, ui.preview, ui.past_gallery]  # fmt: skip
    ui.handled = [ui.hand, ui.info, ui.tools, ui.both]
    ui.restored = [ui.note, *ui.settings, ui.styles, *ui.listed, *ui.filled]
    ui.history = [ui.past_gallery, ui.past, ui.day]
    ui.kept = [ui.preset, ui.styles, ui.earlier]


def _wire_adapters(ui: SimpleNamespace, adapters: CardActions, actions: Actions) -> None:
    used = [*ui.listed, *ui.filled]
    ui.rescan.click(adapters.refresh, [*ui.found, *ui.state], used, **FOLDER)
    ui.timer.tick(adapters.tick, [ui.version, *ui.found, ui.used], ui.listed, **QUICK)
    gr.on([ui.search.change, ui.folder.input], adapters.find, [ui.search, ui.folder, ui.used], ui.listed,
          trigger_mode="always_last", **QUICK)  # fmt: skip
    ui.cards.click(adapters.click, [*ui.found, *ui.state], used, **FOLDER)
    ui.upload.upload(adapters.upload, [ui.upload, *ui.found, ui.used], [ui.upload, *ui.listed], **FOLDER)
    for number, row in enumerate(ui.rows):
        row.remove.click(partial(adapters.remove, number), [*ui.found, *ui.state], used, **FOLDER)
        row.preset.input(partial(adapters.preset, number), [row.preset, *ui.state], row.text, **FOLDER)
    for button, rows in ((ui.back, -ROWS), (ui.on, ROWS)):
        button.click(partial(adapters.turn, rows), ui.state, ui.filled, **FOLDER)
    ui.load.click(actions.load_base, [ui.base], [ui.base_shown], show_progress_on=ui.base, **PIPELINE)
    ui.base_shown.change(actions.based, outputs=ui.based, **QUICK)
    ui.base_shown.change(adapters.refresh, [*ui.found, *ui.state], used, **FOLDER)


def _wire_pictures(ui: SimpleNamespace, actions: Actions, keep: KeepActions) -> None:
    shown = [*ui.turn.parts, ui.skip, ui.preview, ui.gallery, ui.note, ui.info, ui.made, ui.hand, ui.tools, ui.seed]
    made = ui.turn.take(
        [ui.go.click, ui.prompt.submit, ui.negative.submit], actions.generate, [*ui.order, ui.base_shown], shown,
        actions.session.is_running, show_progress="minimal", show_progress_on=[ui.progress],
    )  # fmt: skip
    made.then(keep.prompts, outputs=ui.earlier, **QUICK)
    ui.stop.click(actions.interrupt, outputs=[ui.stop], **QUICK)
    ui.skip.click(actions.skip, **QUICK)
    ui.seed.input(None, outputs=ui.mode, js=f"() => '{FIXED}'", **QUICK)
    ui.reuse.click(None, outputs=ui.mode, js=f"() => '{FIXED}'", **QUICK)
    ui.earlier.input(None, ui.earlier, ui.prompt, js="(text) => text", **QUICK)


def _wire_hand(ui: SimpleNamespace, keep: KeepActions) -> None:
    ui.gallery.select(keep.select, [ui.made, ui.marked], ui.handled, **FOLDER)
    ui.past_gallery.select(keep.select_past, [ui.past, ui.marked], ui.handled, **FOLDER)
    ui.send_back.click(keep.send_back, [ui.hand, *ui.found], ui.restored, **FOLDER)
    ui.on_card.click(keep.put_on_card, [ui.hand, *ui.found, ui.used], ui.listed, **FOLDER)
    ui.compare.click(keep.compare, [ui.hand, ui.marked], [ui.marked, ui.compare, ui.both, ui.note], **QUICK)
    ui.delete.click(
        keep.delete, [ui.hand, ui.made, ui.day, ui.past_search],
        [ui.gallery, ui.made, ui.hand, ui.tools, ui.info, ui.marked, ui.compare, ui.both, *ui.history], **FOLDER,
    )  # fmt: skip
    ui.dropped.upload(keep.restore, [ui.dropped, *ui.found], [ui.dropped, *ui.restored], **FOLDER)
    gr.on([ui.past_box.expand, ui.day.input, ui.past_search.submit], keep.refresh_past, [ui.day, ui.past_search],
          ui.history, **FOLDER)  # fmt: skip


def _wire_kept(ui: SimpleNamespace, keep: KeepActions) -> None:
    ui.load_preset.click(keep.load_preset, [ui.preset, *ui.found], ui.restored, **FOLDER)
    ui.delete_preset.click(keep.delete_preset, [ui.preset], [ui.preset], **FOLDER)
    ui.save_preset.click(keep.save_preset, [ui.preset_name, *ui.order], [ui.preset, ui.preset_name], **FOLDER)
    style = [ui.style_name, ui.prompt, ui.negative]
    ui.save_style.click(keep.save_style, style, [ui.styles, ui.style_name], **FOLDER)
    ui.drop_style.click(keep.delete_styles, [ui.styles], [ui.styles], **FOLDER)
