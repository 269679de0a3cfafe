"""The page: a Gradio app to make pictures with Lily adapters. Start it with ``python -m ui.app``.

Environment variables cannot open what the page keeps shut (a public share link, served folders, an MCP server,
hot reloading): every ``GRADIO_*`` variable but the place of the cache is dropped before gradio is imported.
"""

import os

for _name in [name for name in os.environ if name.startswith("GRADIO_") and name != "GRADIO_TEMP_DIR"]:
    del os.environ[_name]
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
