"""Write docs/benchmarks.md, the README's table and the pages beside the results, from the results that are committed.

python -m benchmarks.render            # write it
python -m benchmarks.render --check    # exit with 1 if they are not what the results say
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import first_picture, speed, training_speed
from benchmarks.fidelity import ablations, report
from benchmarks.measures import RESULTS, closed, measured_with

ROOT = Path(__file__).parents[1]
PAGE, README = ROOT / "docs" / "benchmarks.md", ROOT / "README.md"
TABLE = re.compile(r"(?<=<!-- measured -->\n).*?(?=<!-- end -->)", re.DOTALL)  # its place in the README
INTRO = """# Benchmarks

Every number comes from a script of `benchmarks/` and a JSON file in `benchmarks/results/`; this page is written from
those files by `python -m benchmarks.render`. Times of models are ratios within one run. On a GPU nothing of this was
measured.
"""
TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "fidelity": report.page,
    "fidelity_embedded_dit": report.page,
    "ablations": ablations.page,
    "ablations_embedded_dit": ablations.page,
    "speed": speed.page,
    "speed_feed_forward": speed.page,
    "speed_wide": speed.page,
    "speed_compiled": speed.page,
    "training_speed": training_speed.page,
    "training_speed_wide": training_speed.page,
    "first_picture": first_picture.page,
}


def rendered() -> str:
    parts = [INTRO]
    for name, table in TABLES.items():
        path = RESULTS / f"{name}.json"
        if path.exists():
            result = json.loads(path.read_text())
            picture = f"![{name}](../benchmarks/results/{name}.png)" if path.with_suffix(".png").exists() else ""
            parts += ["#" + table(result), picture, measured_with(result["conditions"])]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def single() -> dict[Path, str]:
    """The page beside each file of results."""
    results = {RESULTS / f"{name}.json": table for name, table in TABLES.items()}
    read = {path: json.loads(path.read_text()) for path in results if path.exists()}
    return {path.with_suffix(".md"): closed(results[path](found), found["conditions"]) for path, found in read.items()}


def in_readme() -> str:
    """The README with its table as the results have it."""
    rows = json.loads((RESULTS / "speed.json").read_text())["rows"]
    costs: dict[str, Callable[[dict[str, Any]], Any]] = {
        "percent added to a forward pass": lambda one: 100 * one["added"],
        "operators an adapted projection": lambda one: one["operators"],
        "bytes of the file ÷ those of its parameters": lambda one: one.get("bytes_of_parameters"),
        "milliseconds to attach": lambda one: one.get("attach_ms"),
        "milliseconds to load": lambda one: one.get("load_ms"),
    }
    lines = [f"| median over {len(rows)} settings | {' | '.join(speed.RIVALS)} |", f"|---|{'---|' * len(speed.RIVALS)}"]
    for name, cost in costs.items():
        values = [[cost(row[rival]) for row in rows] for rival in speed.RIVALS]
        cells = ["" if None in found else f"{statistics.median(found):.3g}" for found in values]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return TABLE.sub(lambda _: "\n" + "\n".join(lines) + "\n\n", README.read_text())


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    pages = {PAGE: rendered(), README: in_readme(), **single()}
    if parser.parse_args(argv).check:
        return int(any(page.read_text() != text for page, text in pages.items()))
    for page, text in pages.items():
        page.write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
