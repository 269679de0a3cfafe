"""The page in other languages, by the one that the browser asks for. English is the key, so all else is written in it.

`translate` goes through a finished page and puts a translatable text in the place of every label, button and
placeholder that has a translation. `said` translates what is computed while the page runs, where it is shown.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from contextvars import ContextVar
from typing import Any

import gradio as gr
from gradio.components.api_component import Api
from gradio.context import LocalContext

from ui.german import GERMAN
from ui.german_messages import GERMAN_MESSAGES
from ui.german_results import GERMAN_RESULTS

LANGUAGES = {"de": GERMAN}
HEAD = f"""<script>
document.documentElement.lang = {list(LANGUAGES)}.find((code) => navigator.language.startsWith(code)) ?? "en";
</script>"""
MESSAGES = {"de": {**GERMAN_MESSAGES, **GERMAN_RESULTS}}
LONGEST = 500  # characters of a message: patterns take their time with longer ones, which hold what somebody wrote
PLACES = ("label", "value", "placeholder", "info")
WITH_TEXT_AS_VALUE = (gr.Button, gr.Markdown)  # of the others, the value is the user's


MESSAGE = "{m}"  # the place of a message within another
_GAP = re.compile(r"\{m?\}")
_language: ContextVar[str | None] = ContextVar("language", default=None)


def said(text: str) -> str:
    """Return a text for the visitor who is being answered, in their language where it is known there."""
    language = _language.get() or asked_for(LocalContext.request.get(None))
    return _translated(text, language) if language in MESSAGES else text


def speaking(handler: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """Let a handler that is a generator method know its visitor's language in every step; the request comes first."""

    @functools.wraps(handler)
    def steps(self: Any, request: gr.Request, *values: Any) -> Iterator[Any]:
        with closing(handler(self, request, *values)) as updates:  # type: ignore[type-var]
            while True:
                token = _language.set(asked_for(request))  # each step may run in a thread and a context of its own
                try:
                    update = next(updates)
                except StopIteration:
                    return
                finally:
                    _language.reset(token)
                yield update

    return steps


def asked_for(request: Any) -> str:
    """The first language that a request asks for, such as "de"; empty if none."""
    header = getattr(request, "headers", None) or {}
    return str(header.get("accept-language") or "")[:2].lower()


def _translated(text: str, language: str) -> str:
    for pattern, translation in _patterns(language) if len(text) <= LONGEST else ():
        if match := pattern.fullmatch(text):
            gaps = zip(match.groups(), _GAP.findall(translation), strict=True)
            parts = [_translated(part, language) if gap == MESSAGE else part for part, gap in gaps]
            return translation.replace(MESSAGE, "{}").format(*parts)
    return text


@functools.cache
def _patterns(language: str) -> list[tuple[re.Pattern[str], str]]:
    """What each message looks like, those with the most fixed text first."""
    messages = sorted(MESSAGES[language].items(), key=lambda item: -len(item[0].replace("{}", "")))
    return [(re.compile("(.+?)".join(map(re.escape, key.split("{}"))), re.DOTALL), text) for key, text in messages]


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
