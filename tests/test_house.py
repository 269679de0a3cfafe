"""The house: who may import whom, where heavy packages may be used, and how long a file may be."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = [  # imports run downward only; neighbours on one line do not import each other
    ["lily_diffusion.__main__"],
    ["lily_diffusion.cli"],
    ["lily_diffusion.generate", "lily_diffusion.demo", "lily_diffusion.commands"],
    ["lily_diffusion.many_prompts"],
    ["train_scripts", "ui", "benchmarks"],
    ["lily_diffusion.training"],
    ["lily_diffusion.testing"],
    ["lily_diffusion.baking"],
    ["lily_diffusion.inspection", "lily_diffusion.loaders", "lily_diffusion.switches"],
    ["lily_diffusion.interchange"],
    ["lily_diffusion.pipelines"],
    ["lily_diffusion.components"],
    ["lily_diffusion.attach", "lily_diffusion.blend", "lily_diffusion.save_and_load"],
    ["lily_diffusion.hot_swap"],
    ["lily_diffusion.fusing", "lily_diffusion.step_clock"],
    ["lily_diffusion.attention_processor"],
    ["lily_diffusion.state", "lily_diffusion.frozen", "lily_diffusion.header"],
    ["lily_diffusion.adapter", "lily_diffusion.adapter_weight", "lily_diffusion.heat_map"],
    ["lily_diffusion.sharing"],
    ["lily_diffusion.config"],
    ["lily_diffusion.functional", "lily_diffusion.forward_order", "lily_diffusion.base_model", "lily_diffusion.grid"],
]
FENCES = {
    "gradio": ["ui"],
    "accelerate": ["lily_diffusion.training", "train_scripts"],
    "peft": ["benchmarks", "lily_diffusion.interchange"],
}
RANK = {unit: rank for rank, line in enumerate(LAYERS) for unit in line}
FILES = sorted(
    path for top in ("lily_diffusion", "train_scripts", "ui", "benchmarks") for path in ROOT.glob(f"{top}/**/*.py")
)


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def unit_of(module: str) -> str | None:
    """The entry of LAYERS that a module belongs to; the package itself offers what `loaders` and the lines below do."""
    if module == "lily_diffusion":
        return "lily_diffusion.loaders"
    return next((unit for unit in RANK if module == unit or module.startswith(f"{unit}.")), None)


def imports(path: Path) -> set[str]:
    """Full names of everything that a file imports."""
    here = module_of(path).split(".")
    package = here if path.name == "__init__.py" else here[:-1]
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            submodules = {f"{source}.{alias.name}" for alias in node.names} & RANK.keys()
            names |= submodules or {source}
    return names


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_run_downward(path):
    here = unit_of(module_of(path))
    assert here, f"{path} belongs to no line of LAYERS"
    if module_of(path) == "lily_diffusion":
        return
    for name in imports(path):
        there = unit_of(name)
        assert there in (None, here) or RANK[there] > RANK[here], f"{module_of(path)} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_heavy_packages_stay_behind_their_fences(path):
    roots = {name.split(".")[0] for name in imports(path)}
    for package, allowed in FENCES.items():
        assert package not in roots or unit_of(module_of(path)) in allowed, f"{module_of(path)} imports {package}"


def test_the_math_needs_torch_alone():
    roots = {name.split(".")[0] for name in imports(ROOT / "lily_diffusion" / "functional.py")}
    assert roots <= {"__future__", "torch", "math", "collections", "contextlib"}


def test_no_file_is_longer_than_300_lines():
    files = [*FILES, *ROOT.glob("tests/**/*.py")]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files}
    assert not {n: length for n, length in lengths.items() if length > 300}


def test_the_package_says_what_it_needs():
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {text.split(">")[0].split("=")[0] for text in project["dependencies"]}
    assert {"torch", "diffusers", "transformers", "safetensors", "pillow", "tqdm"} <= names
    assert not names & {"gradio", "accelerate", "peft", "matplotlib", "ruff", "pytest"}
    assert {"train", "ui", "test", "bench", "dev"} <= project["optional-dependencies"].keys()
    for file in project["license-files"]:
        assert (ROOT / file).is_file()
