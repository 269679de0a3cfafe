"""How the page's events run: which share the pipeline, which only look at the folders, which skip the queue.

Private keeps an event out of the documented API; it is no guard, so every handler checks what it is given.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

PRIVATE: dict[str, Any] = {"api_visibility": "private"}
PIPELINE: dict[str, Any] = {**PRIVATE, "concurrency_id": "pipeline", "concurrency_limit": 1}
FOLDER: dict[str, Any] = {**PRIVATE, "concurrency_id": "folder", "concurrency_limit": 4, "show_progress": "hidden"}
QUICK: dict[str, Any] = {**PRIVATE, "queue": False, "show_progress": "hidden"}  # its errors are not shown

# For what is shown and hidden while something runs, other than rows and columns, which do not know it: it stays on the
# page, where False would take it off and build it anew.
HIDDEN: Any = "hidden"


class Page(gr.Blocks):
    """Blocks whose running events send an output that changed whole.

    Gradio sends what changed inside it, and its page writes that into the message before. A browser that is too slow to
    have shown that one then loses what only that one said, such as the last picture before "Done.".
    """

    def handle_streaming_diffs(
        self, block_fn: Any, data: list, session_hash: str | None, run: str | None, final: bool, *rest: Any, **more: Any
    ) -> list:
        before = self.pending_diff_streams.get(session_hash, {}).get(run, [])
        if not final:  # an ellipsis equals no value, so what stands against it is sent whole
            before[:] = [old if old == new else ... for old, new in zip(before, data, strict=False)]
        return super().handle_streaming_diffs(block_fn, data, session_hash, run, final, *rest, **more)
