"""How a running event's updates reach the page."""

from __future__ import annotations

from copy import deepcopy
from types import SimpleNamespace

import gradio as gr

from ui.events import Page


def test_no_update_writes_into_the_one_before_it():
    """The page applies an edit to the very object that the message before brought, which it may not have shown yet."""
    page, event = Page(), SimpleNamespace(outputs=["picture", "text"])
    picture = gr.update(value={"path": "a.png"}, visible=True)
    other = gr.update(value={"path": "b.png"}, visible=True)
    yielded = [[gr.update(), ""], [picture, "one"], [other, "one"], [gr.update(), "one of two"], [gr.update(), None]]
    got = []
    for data in yielded:
        message = page.handle_streaming_diffs(event, deepcopy(data), "visitor", "run", False)
        if not got:
            got.append(message)
            continue
        assert all(path == [] for edits in message for _, path, _ in edits)  # an edit inside would reach backwards
        got.append([edits[-1][2] if edits else old for edits, old in zip(message, got[-1], strict=True)])
    assert got == yielded
    assert page.handle_streaming_diffs(event, [None, None], "visitor", "run", True) == yielded[-1]
    assert not page.pending_diff_streams["visitor"]


def test_what_did_not_change_is_not_sent_again():
    page, event = Page(), SimpleNamespace(outputs=["gallery"])
    for sent in ([["a", "b"]], [[]]):
        assert page.handle_streaming_diffs(event, [["a", "b"]], "visitor", "run", False) == sent
