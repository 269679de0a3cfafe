"""The page's fixed texts in other languages: English is the key, and the browser chooses the language.

`translate` goes through a finished page and puts a translatable text in the place of every label, button and
placeholder that has a translation, so the tabs are written in plain English. What is computed while the page runs
stays English: gr.I18n is resolved in the browser and cannot reach it.
"""

from __future__ import annotations

import hashlib

import gradio as gr
from gradio.components.api_component import Api

from ui.german import GERMAN

LANGUAGES = {"de": GERMAN}
PLACES = ("label", "value", "placeholder", "info")
WITH_TEXT_AS_VALUE = (gr.Button, gr.Markdown)  # of the others, the value is the user's


def catalogue() -> gr.I18n:
    """Return what ``launch(i18n=...)`` takes: every text of every language by its key."""
    texts = dict.fromkeys(text for language in LANGUAGES.values() for text in language)
    english = {_key(text): text for text in texts}
    others = {code: {_key(text): said for text, said in language.items()} for code, language in LANGUAGES.items()}
    return gr.I18n(en=english, **others)


def translate(demo: gr.Blocks) -> None:
    """Replace the fixed texts of a built page by ones that the browser translates."""
    i18n, known = catalogue(), {text for language in LANGUAGES.values() for text in language}
    for block in demo.blocks.values():
        for place in PLACES:
            if place == "value" and not isinstance(block, WITH_TEXT_AS_VALUE):
                continue
            text = getattr(block, place, None)
            if isinstance(text, str) and text in known:
                setattr(block, place, i18n(_key(text)))


def fixed_texts(demo: gr.Blocks) -> set[str]:
    """Return the English texts of a page before `translate`, to see what has no translation yet."""
    found = set()
    for block in demo.blocks.values():
        if isinstance(block, Api):
            continue  # an argument of an endpoint, which nobody sees
        for place in PLACES:
            text = getattr(block, place, None)
            if place == "value" and not isinstance(block, WITH_TEXT_AS_VALUE):
                continue
            if isinstance(text, str) and any(c.isalpha() for c in text):
                found.add(text)
    return found


def _key(text: str) -> str:
    return "lily_" + hashlib.sha256(text.encode()).hexdigest()[:12]
