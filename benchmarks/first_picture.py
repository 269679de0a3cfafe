"""How long a user waits for the first picture: seconds from starting the page's process until a picture is finished.

    python -m benchmarks.first_picture

Each time the page starts in a process and folders of its own, with the embedded model; as soon as it answers,
`gradio_client` asks for one picture with the model's own settings. Other work on the machine makes it longer: the
processor's seconds, of all cores together, and the load before each start say how much.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
from gradio_client import Client
from PIL import Image
from tqdm import tqdm

from benchmarks.measures import RESULTS, conditions, write_results

ROOT = Path(__file__).parents[1]
OPTIONAL = ("bitsandbytes", "peft", "torchao", "xformers")  # a page does not need them, and each costs a second or two
PATIENCE = 300.0  # seconds until a page that does not answer counts as broken


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--results_dir", default=str(RESULTS))
    return parser.parse_args(argv)


def first_picture(folder: Path) -> dict[str, float]:
    """Start the page and have a picture made; seconds until it answered, and until the picture was here."""
    load = os.getloadavg()[0]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folders = [f"--adapters_dir={folder / 'adapters'}", f"--output_dir={folder / 'outputs'}"]
    began = time.perf_counter()
    server = subprocess.Popen(
        [sys.executable, "-m", "ui", *folders, f"--port={port}"],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for(f"http://127.0.0.1:{port}/", server)
        answered = time.perf_counter() - began
        client = Client(f"http://127.0.0.1:{port}/", verbose=False, download_files=str(folder), analytics_enabled=False)
        files, told = client.predict("a robot on a red background", seed=0, api_name="/v1_generate")
        seconds = time.perf_counter() - began
        with Image.open(files[0]) as picture:
            picture.load()
        worked = sum(psutil.Process(server.pid).cpu_times()[:2])
        numbers = {"page": answered, "picture": seconds, "processor": worked, "load_before": load}
        return {name: round(number, 2) for name, number in numbers.items()} | {"steps": told["recipes"][0]["steps"]}
    finally:
        server.terminate()
        server.wait()


def wait_for(address: str, server: subprocess.Popen[bytes]) -> None:
    end = time.perf_counter() + PATIENCE
    while True:
        try:
            if httpx.get(f"{address}config").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
        if server.poll() is not None or time.perf_counter() > end:
            raise SystemExit("The page did not start.")


def page(result: dict[str, Any]) -> str:
    starts = result["starts"]
    loads = ", ".join(f"{row['load_before']:.1f}" for row in starts)
    lines = [
        "# From the start of the page to the first picture\n",
        f"{len(starts)} fresh processes, the embedded model with its {starts[0]['steps']} steps, "
        f"{result['conditions']['cores']} cores; load by other work before each start: {loads}. Packages that "
        f"diffusers imports too where they are installed: {result['conditions']['also installed']}.\n",
        "| seconds | median | worst |",
        "|---|---|---|",
    ]
    names = {
        "page": "until the page answers",
        "picture": "until the first picture is finished",
        "processor": "of the processor, all cores together",
    }
    for name, text in names.items():
        seconds = [row[name] for row in starts]
        lines.append(f"| {text} | {statistics.median(seconds):.1f} | {max(seconds):.1f} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    starts = []
    for _ in tqdm(range(args.starts), desc="starts"):
        with tempfile.TemporaryDirectory() as folder:
            starts.append(first_picture(Path(folder)))
    also = ", ".join(name for name in OPTIONAL if importlib.util.find_spec(name)) or "none"
    result = {"starts": starts, "conditions": {**conditions(), "cores": os.cpu_count(), "also installed": also}}
    write_results("first_picture", result, page(result), Path(args.results_dir))
    print(page(result))


if __name__ == "__main__":
    main()
