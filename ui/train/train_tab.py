"""The tab that trains an adapter: pictures with captions on the left, what the training does on the right."""

from __future__ import annotations

from types import SimpleNamespace

import gradio as gr

from ui.events import FOLDER, QUICK
from ui.session import Session
from ui.style import progress_bar
from ui.train import loss_chart
from ui.train.train_actions import TrainActions
from ui.train.training_pictures import MAX_CAPTION, MAX_PICTURES, SUFFIXES
from ui.train.training_runs import MAX_RANK, MAX_RESOLUTION, MAX_STEPS, MAX_WORDS, Trainings

DEFAULT_STEPS = 500  # what the script takes where nothing is given
EVERY = 2.0  # seconds between two looks at a run

CSS = (
    """
#train-page { display: grid; gap: 20px; align-items: start; grid-template-columns: minmax(0, 5fr) minmax(0, 6fr); }
#train-page > * { min-width: 0 !important; gap: 12px; }
@media (max-width: 820px) { #train-page { grid-template-columns: minmax(0, 1fr); } }
.train-row { flex-wrap: nowrap !important; align-items: center; gap: 12px; }
.train-row .crop { flex: 0 0 84px !important; min-width: 84px !important; height: 84px; padding: 0 !important;
                   border-radius: var(--radius-md); overflow: hidden; }
.train-row .crop :is(.image-container, .image-frame, button, img) { width: 84px; height: 84px; margin: 0; padding: 0; }
.train-row .crop img { object-fit: cover; }
#train-progress, #train-progress .html-container, #train-chart, #train-chart .html-container { padding: 0; }
#train-samples .grid-wrap { max-height: none; }
#train-samples .empty { min-height: 160px; }
"""
    + loss_chart.CSS
)


def build(session: Session, demo: gr.Blocks, base: gr.Textbox, trainings: Trainings) -> None:
    """Make the tab's components and wire them; only the reason is shown where training is off."""
    if trainings.reason is not None:
        gr.Markdown(trainings.reason, elem_id="train-off")
        return
    with gr.Row(elem_id="train-page"):
        with gr.Column():
            ui = _ask(session, trainings)
            _settings(ui, session)
            ui.start = gr.Button("Start training", variant="primary", elem_id="train-start")
        with gr.Column():
            _show(ui)
    ui.draft, ui.run, ui.auto, ui.shown = gr.State(""), gr.State(""), gr.State(""), gr.State(())
    ui.timer = gr.Timer(EVERY, active=False)
    _wire(ui, TrainActions(trainings, ui), demo)
    base.change(lambda: gr.update(**_resolution(session)), outputs=ui.resolution, **QUICK)


def _ask(session: Session, trainings: Trainings) -> SimpleNamespace:
    ui = SimpleNamespace()
    gr.Markdown(
        "### Pictures\nThree to ten of one subject, with different backgrounds, light and angles. "
        "Captions in text files of the same names are read too."
    )
    ui.files = gr.File(
        label="Pictures of the subject", file_count="multiple", file_types=[*SUFFIXES, ".txt"], height=90,
        elem_id="train-files", elem_classes=["drop"],
    )  # fmt: skip
    folders = trainings.drafts.folders()
    ui.folder = gr.Dropdown([(name, key) for key, name in folders.items()], value=None, visible=bool(folders),
                            label="Or a folder of the server", elem_id="train-folder")  # fmt: skip
    with gr.Row():
        ui.word = gr.Textbox("sks", label="Rare word", max_length=MAX_WORDS, min_width=90, elem_id="train-word")
        ui.kind = gr.Textbox(
            label="Class", placeholder="dog", max_length=MAX_WORDS, min_width=90, elem_id="train-class"
        )
    ui.notes = gr.Markdown(elem_id="train-notes", elem_classes=["warn"])
    ui.rows, ui.crops, ui.captions = [], [], []
    for number in range(1, MAX_PICTURES + 1):
        with gr.Row(visible=False, elem_classes=["train-row"]) as row:
            crop = gr.Image(show_label=False, label=f"Crop {number}", interactive=False, container=False, buttons=[],
                            format="png", elem_classes=["crop"])  # fmt: skip
            caption = gr.Textbox(label=f"Caption {number}", max_length=MAX_CAPTION, lines=1, elem_classes=["caption"])
        ui.rows.append(row)
        ui.crops.append(crop)
        ui.captions.append(caption)
    return ui


def _settings(ui: SimpleNamespace, session: Session) -> None:
    from lily_diffusion.training.arguments import build_parser  # needs what training needs

    rank = build_parser().get_default("rank")
    with gr.Accordion("Settings", open=False, elem_id="train-settings"):
        with gr.Row():
            ui.steps = gr.Number(DEFAULT_STEPS, label="Steps", precision=0, minimum=1, maximum=MAX_STEPS, min_width=90,
                                 elem_id="train-steps")  # fmt: skip
            ui.rank = gr.Number(rank, label="Rank", precision=0, minimum=1, maximum=MAX_RANK, min_width=90,
                                elem_id="train-rank")  # fmt: skip
            ui.rate = gr.Number(0, label="Learning rate (0: auto)", minimum=0, maximum=1, min_width=90,
                                elem_id="train-rate")  # fmt: skip
        with gr.Row():
            ui.resolution = gr.Number(**_resolution(session), label="Resolution", precision=0, maximum=MAX_RESOLUTION,
                                      min_width=90, elem_id="train-resolution")  # fmt: skip
            ui.seed = gr.Number(-1, label="Seed (-1: a new one)", precision=0, minimum=-1, min_width=90,
                                elem_id="train-seed")  # fmt: skip
        ui.sample = gr.Textbox(label="Prompt of the sample pictures", max_length=MAX_CAPTION, elem_id="train-sample",
                               placeholder="a, the rare word and the class")  # fmt: skip


def _resolution(session: Session) -> dict[str, int]:
    fits = session.base.defaults
    return {"value": min(fits.width, fits.height), "minimum": fits.size_step, "step": fits.size_step}


def _show(ui: SimpleNamespace) -> None:
    ui.progress = gr.HTML(progress_bar(0, ""), elem_id="train-progress")
    with gr.Row():
        ui.stop = gr.Button("Stop and save", size="sm", interactive=False, elem_id="train-stop")
        ui.resume = gr.Button("Go on", size="sm", visible=False, elem_id="train-resume")
        ui.keep = gr.Button("Add to adapters", size="sm", visible=False, elem_id="train-keep")
    ui.message = gr.Markdown(elem_id="train-message", elem_classes=["quiet"])
    ui.chart = gr.HTML(elem_id="train-chart")
    ui.samples = gr.Gallery(label="Samples: without the adapter and with it", columns=2, object_fit="contain",
                            height="auto", format="png", interactive=False, elem_id="train-samples")  # fmt: skip
    ui.runs = gr.Dropdown([], label="Trainings", visible=False, elem_id="train-runs")


def _wire(ui: SimpleNamespace, do: TrainActions, demo: gr.Blocks) -> None:
    looked = [ui.draft, ui.auto, ui.notes, *ui.rows, *ui.crops, *ui.captions]
    words = [ui.word, ui.kind]
    status = [ui.run, ui.shown, ui.progress, ui.chart, ui.samples, ui.message, ui.stop, ui.resume, ui.keep, ui.runs,
              ui.timer]  # fmt: skip
    ui.files.upload(do.look, [ui.files, ui.resolution, *words], [ui.files, *looked], **FOLDER)
    ui.folder.input(do.look_at_folder, [ui.folder, ui.resolution, *words], looked, **FOLDER)
    ui.resolution.blur(do.cut_again, [ui.draft, ui.resolution], ui.crops, **FOLDER)
    gr.on([ui.word.blur, ui.kind.blur], do.reword, [ui.draft, ui.auto, *words, *ui.captions], [ui.auto, *ui.captions],
          **FOLDER)  # fmt: skip
    wish = [*words, ui.steps, ui.rank, ui.rate, ui.resolution, ui.seed, ui.sample]
    ui.start.click(do.start, [ui.draft, ui.auto, *wish, *ui.captions], status, trigger_mode="once", **FOLDER)
    ui.stop.click(do.stop, [ui.run], status, **FOLDER)
    ui.resume.click(do.resume, [ui.run], status, **FOLDER)
    ui.keep.click(do.keep, [ui.run], status, **FOLDER)
    ui.runs.input(do.choose, [ui.runs], status, **FOLDER)
    ui.timer.tick(do.look_again, [ui.run, ui.shown], status, **QUICK)
    demo.load(do.open_page, None, status, **QUICK)
