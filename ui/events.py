"""How the page's events run: which share the pipeline, which only look at the folders, which skip the queue.

Private keeps an event out of the documented API; it is no guard, so every handler checks what it is given.
"""

from __future__ import annotations

from typing import Any

PRIVATE: dict[str, Any] = {"api_visibility": "private"}
PIPELINE: dict[str, Any] = {**PRIVATE, "concurrency_id": "pipeline", "concurrency_limit": 1}
FOLDER: dict[str, Any] = {**PRIVATE, "concurrency_id": "folder", "concurrency_limit": 4, "show_progress": "hidden"}
QUICK: dict[str, Any] = {**PRIVATE, "queue": False, "show_progress": "hidden"}  # its errors are not shown

# For what is shown and hidden while something runs, other than rows and columns, which do not know it. What is made
# with False is not on the page at all, and a slow browser, still busy with adding it, can miss what it is told next.
HIDDEN: Any = "hidden"
