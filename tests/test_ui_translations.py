"""What the page says while it runs, in another language: every message has one, and each visitor gets their own."""

from __future__ import annotations

import ast
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import ui
from ui.style import error, progress_bar
from ui.translations import LONGEST, MESSAGES, said, speaking

SAY = {"told", "warned", "said", "spoken", "careful", "error", "progress_bar", "Progress", "_problem", "within"}
NOTES = {"notes", "found", "words"}  # lists that messages are appended to
NOT_SHOWN = {
    "__main__.py",
    "api.py",
    "app.py",
    "guard.py",
    "thumbnails.py",
}  # what they say goes to programs and terminals


def template(node: ast.AST) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(str(p.value) if isinstance(p, ast.Constant) else "{}" for p in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def messages() -> Iterator[str]:
    """Every text that the page's code hands to what shows it, with {} for what changes."""
    for file in Path(ui.__file__).parent.rglob("*.py"):
        for call in ast.walk(ast.parse(file.read_text())) if file.name not in NOT_SHOWN else ():
            name = getattr(getattr(call, "func", None), "id", getattr(getattr(call, "func", None), "attr", ""))
            noted = name == "append" and getattr(getattr(call.func, "value", None), "id", "") in NOTES
            raised = name.endswith("Error") and name != "ValueError"
            if isinstance(call, ast.Call) and (name in SAY or noted or raised):
                yield from (text for text in map(template, call.args) if any(c.isalpha() for c in text))


def in_german(*parts):
    request = SimpleNamespace(headers={"accept-language": "de-DE,de;q=0.9,en;q=0.8"})

    @speaking
    def handler(self, request, *parts):
        for part in parts:
            yield part()

    return list(handler(None, request, *parts))


def test_every_message_has_a_translation_with_the_same_gaps():
    found, german = set(messages()), MESSAGES["de"]
    assert len(found) > 140 and found - german.keys() == set()
    assert {k for k, v in german.items() if k.count("{}") != v.count("{}") + v.count("{m}")} == set()


def test_what_changes_is_put_into_the_translation_and_translated_itself():
    shown = in_german(
        lambda: said("Done: 3 pictures."),
        lambda: said("The guidance must be a number from 0 to 30."),
        lambda: said("my {dog}.png is left out: the file is larger than 5 MB."),
        lambda: said("not known here"),
        lambda: progress_bar(0.5, "Picture 1 of 2 · step 3 of 4"),
        lambda: error("The preset <b> is damaged. This picture is not there any more.").message,
    )
    assert shown[:4] == ["Fertig: 3 Bilder.", "Guidance: eine Zahl von 0 bis 30 ist nötig.",
                         "my {dog}.png ist ausgelassen: Die Datei ist größer als 5 MB.", "not known here"]  # fmt: skip
    assert "Bild 1 von 2 · Schritt 3 von 4" in shown[4]
    assert shown[5] == "Die Vorlage &lt;b&gt; ist beschädigt. Dieses Bild gibt es nicht mehr."


def test_what_somebody_wrote_stays_and_takes_no_time():
    start = time.monotonic()
    shown = in_german(
        lambda: said("The prompt does not have 'with' in it, which is to be replaced."),
        lambda: said("Added Done.."),
        lambda: said(" on a, " * 300),
        lambda: said((" on a, " * LONGEST)[:LONGEST]),
    )
    assert "'with'" in shown[0] and shown[1] == "Done. ist hinzugefügt." and shown[2] == " on a, " * 300
    assert time.monotonic() - start < 1


def test_without_a_language_all_stays_english():
    assert said("Done.") == "Done."
    french = SimpleNamespace(headers={"accept-language": "fr"})
    assert list(speaking(lambda self, request: (said("Done.") for _ in "x"))(None, french)) == ["Done."]
    assert in_german(lambda: said("Done.")) == ["Fertig."] and said("Done.") == "Done."


def test_a_handler_that_is_closed_closes_what_it_runs():
    closed = []

    @speaking
    def handler(self, request):
        try:
            yield said("Done.")
        finally:
            closed.append(said("Stopped."))

    steps = handler(None, SimpleNamespace(headers={"accept-language": "de"}))
    assert next(steps) == "Fertig."
    steps.close()
    assert closed
