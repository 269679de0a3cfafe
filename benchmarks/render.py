"""Write docs/benchmarks.md from the results that are committed.

python -m benchmarks.render            # write it
python -m benchmarks.render --check    # exit with 1 if it is not what the results say
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import first_picture, speed, training_speed
from benchmarks.fidelity import ablations, report
from benchmarks.measures import RESULTS, measured_with

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
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


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    if parser.parse_args(argv).check:
        return int(PAGE.read_text() != rendered())
    PAGE.write_text(rendered())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
