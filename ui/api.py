"""The page's programming interface: named endpoints with a version, JSON in and out, for ``gradio_client`` and curl.

What is here keeps its name, its arguments and its meaning as long as its version stays. All else is private.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from typing import Any

import gradio as gr
from gradio.data_classes import FileData
from gradio.processing_utils import save_file_to_cache

from ui.events import FOLDER, PIPELINE
from ui.generate.asking import user_errors
from ui.keeping.recipe import MAX_ADAPTERS
from ui.messages import Order, Picture, Step
from ui.session import Session, SessionError

PUBLIC = {"api_visibility": "public"}
ENDPOINTS = ("v1_info", "v1_adapters", "v1_generate", "v1_interrupt")
MAX_JOB = 64  # characters of the name under which a caller interrupts its own run


def build(session: Session, demo: gr.Blocks) -> None:
    """Add the endpoints to a page. Errors of the caller come back as gradio errors with one sentence."""

    def v1_info() -> dict:
        """What is loaded, which base models there are, and the settings that fit the loaded one."""
        base = session.base
        fits = {"defaults": asdict(base.defaults), "checks_pictures": base.checks_pictures}
        return {"api": 1, "base_model": base.label, "base_models": session.base_labels, **fits}

    def v1_adapters(rescan: bool = False) -> list[dict]:
        """The adapter files: id, name, trigger words, and why one cannot be used with the loaded base model."""
        with user_errors():
            cards = session.cards(rescan=rescan is True)
            return [
                {"id": c.id, "name": c.name, "about": c.about, "trigger_words": c.trigger_words, "reason": c.reason}
                for c in cards
            ]

    def v1_generate(
        prompt: str,
        negative_prompt: str = "",
        steps: int | None = None,
        guidance_scale: float | None = None,
        width: int | None = None,
        height: int | None = None,
        seed: int = -1,
        count: int = 1,
        weights: dict | None = None,
        scheduler: str = "",
        job: str = "",
        blend: str = "sum",
    ) -> Iterator[tuple[list, dict]]:
        """Make pictures: the files so far, and how far it is; the last answer has all and their recipes.

        weights: adapter id -> a number, or the text of lily_diffusion.adapter_weight. Numbers that are left out are
        the base model's own; seed -1 draws one. job: any word, by which v1_interrupt finds this run.
        blend: how the adapters are combined, "sum" or one of the merges that the page offers.
        """
        fits = session.base.defaults
        numbers = {"steps": steps, "guidance_scale": guidance_scale, "width": width, "height": height}
        given: dict[str, Any] = {
            name: getattr(fits, name) if number is None else number for name, number in numbers.items()
        }
        with user_errors():
            _check_kinds(prompt, negative_prompt, scheduler, blend, weights, {**given, "seed": seed, "count": count})
            order = Order(prompt, negative_prompt, **given, seed=seed, count=count, weights=weights or {},
                          scheduler=scheduler, blend=blend)  # fmt: skip
            yield from _pictures(session, order, _owner(job), demo)

    def v1_interrupt(job: str = "") -> dict:
        """Stop what v1_generate makes under this job at its next step; pictures that are done are kept.

        The answer says whether anything was being made. A call that still waits for its turn is cancelled instead.
        """
        with user_errors():
            return {"interrupted": session.interrupt(_owner(job))}

    folder, pipeline = {**FOLDER, **PUBLIC}, {**PIPELINE, **PUBLIC}
    folder.pop("show_progress")
    gr.api(v1_info, api_name="v1_info", queue=False, **PUBLIC)
    gr.api(v1_adapters, api_name="v1_adapters", **folder)
    gr.api(v1_generate, api_name="v1_generate", **pipeline)
    gr.api(v1_interrupt, api_name="v1_interrupt", queue=False, **PUBLIC)


def _pictures(
    session: Session, order: Order, owner: str, demo: gr.Blocks
) -> Iterator[tuple[list[FileData], dict[str, Any]]]:
    files: list[FileData] = []
    recipes: list[dict[str, Any]] = []
    with closing(session.generate(order, owner)) as run:
        for event in run:
            if isinstance(event, Step):
                place = {"picture": event.picture, "pictures": event.pictures, "step": event.step, "steps": event.steps}
                yield files, {"status": "running", **place, "recipes": recipes}
            elif isinstance(event, Picture):
                cached = save_file_to_cache(event.path, demo.GRADIO_CACHE)  # a copy that gradio may hand out
                files = [*files, FileData(path=cached, orig_name=event.path.name, mime_type="image/png")]
                recipes = [*recipes, asdict(event.recipe)]
    yield files, {"status": "done" if len(files) == order.count else "interrupted", "recipes": recipes}


def _owner(job: Any) -> str:
    if not isinstance(job, str) or len(job) > MAX_JOB:
        raise SessionError(f"job must be a word of at most {MAX_JOB} characters.")
    return f"api {job}"


def _check_kinds(*values: Any) -> None:
    """Raises SessionError for what is no text, no number or no small mapping; the session checks the rest."""
    *texts, weights, numbers = values
    if not all(isinstance(text, str) for text in texts):
        raise SessionError("prompt, negative_prompt, scheduler and blend must be texts.")
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            raise SessionError(f"{name} must be a number.")
    if not isinstance(weights, (dict, type(None))) or len(weights or {}) > MAX_ADAPTERS:
        raise SessionError(f"weights must map at most {MAX_ADAPTERS} adapter ids to weights.")
