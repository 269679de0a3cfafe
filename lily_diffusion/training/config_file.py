"""run.yaml: flags from a file, and the settings of a run written down so that it can be repeated.

The file maps the names of flags to values, which are read as on the command line: ``learning_rate: 1e-4``,
``center_crop: true``, ``target_modules: [to_q, to_k]``. A mapping ``versions`` says what the file was made with.
"""

from __future__ import annotations

import argparse
import difflib
import importlib.metadata
import math
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from .checks import complete
from .errors import TrainingError

FILE_NAME = "run.yaml"
VERSIONS = "versions"  # the one key that is no flag
PACKAGES = ("lily_diffusion", "torch", "diffusers", "transformers", "accelerate")
OF_ONE_CALL = ("help", "config", "dry_run", "resume_from_checkpoint", "hub_token")  # never written
# Even when they are the defaults, which differ between base models or may be others one day.
ALWAYS_WRITTEN = ("learning_rate", "max_train_steps", "rank", "target_modules")
TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}  # YAML's words
HEADER = """\
# The settings of this run that are not defaults. To repeat it, under as many processes:
#   accelerate launch train_scripts/train_dreambooth_lily.py --config {name} --output_dir ANOTHER_FOLDER
"""


def parse_with_config(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse a command line that may name a file with ``--config``; what the command line says wins.

    A switch that the file turns on can be turned off only there, unless it has a ``--no-`` form. Lists are replaced,
    not added to. Required flags may come from the file. A mistake in the file ends the program as one on the command
    line does.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--config", nargs="?")
    path = first.parse_known_args(argv)[0].config
    if path is None:
        return parser.parse_args(argv)
    try:
        values = read_config(path, parser)
    except TrainingError as error:
        parser.error(str(error))
    required = [action for action in parser._actions if action.required and action.dest in values]
    for action in required:
        action.required = False
    try:
        # No flag has None for a value, so what is None afterwards was not on the command line.
        args = parser.parse_args(argv, argparse.Namespace(**dict.fromkeys(values)))
    finally:
        for action in required:
            action.required = True
    for name, value in values.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    return args


def read_config(path: str | Path, parser: argparse.ArgumentParser) -> dict[str, Any]:
    """The settings in a file, by the parser's own types and choices; ``versions`` is passed over.

    Raises:
        TrainingError: the file is missing or no YAML mapping, or a name or a value is not one of the parser's.
    """
    actions = {action.dest: action for action in parser._actions if action.dest not in ("help", "config")}
    values: dict[str, Any] = {}
    for name, node in _entries(path):
        if name == VERSIONS:
            continue
        if name not in actions:
            near = difflib.get_close_matches(name, actions, 1)
            hint = f"; did you mean --{near[0]} ?" if near else ""
            raise TrainingError(f"{path}: there is no flag --{name} {_place(node)}{hint}")
        try:
            values[name] = _value(actions[name], node)
        except ValueError as error:
            raise TrainingError(f"{path}: argument --{name}: {error} {_place(node)}") from error
    return values


def version_notes(path: str | Path) -> list[str]:
    """A sentence for each package whose version is not the one that the file was made with.

    Raises:
        TrainingError: the file is missing or damaged.
    """
    node = dict(_entries(path)).get(VERSIONS)
    if node is None:
        return []
    if not isinstance(node, yaml.MappingNode):
        raise TrainingError(f"{path}: {VERSIONS} must map names of packages to versions {_place(node)}")
    before = {str(key.value): str(value.value) for key, value in node.value}
    now = versions()
    return [
        f"{path} was made with {name} {before[name]}, and this is {now[name]}; the run may differ"
        for name in now
        if name in before and before[name] != now[name]
    ]


def versions() -> dict[str, str]:
    """What a run depends on, as it is installed here."""
    return {**{name: importlib.metadata.version(name) for name in PACKAGES}, "python": platform.python_version()}


def write_config(
    args: argparse.Namespace, folder: str | Path, parser: argparse.ArgumentParser, *, seed: int | None = None
) -> Path:
    """Write ``folder/run.yaml``: every setting of a run that is not a default, and the versions it ran on.

    Args:
        args: as `checks.complete` returned them.
        seed: the one that the run drew, where none was given.

    What only one call is about is left out: a token, a checkpoint to resume from, the file that settings came from.
    """
    args = argparse.Namespace(**{**vars(args), **({} if seed is None else {"seed": seed})})
    filled = _filled_in(args, parser)
    settings = {}
    for action in parser._actions:
        value = getattr(args, action.dest, None)
        default = value in (_default(action), filled.get(action.dest)) and action.dest not in ALWAYS_WRITTEN
        if action.dest not in OF_ONE_CALL and value is not None and not default:
            settings[action.dest] = _plain(value)
    final = Path(folder) / FILE_NAME
    temporary = final.with_name(f".{FILE_NAME}.writing")
    text = yaml.safe_dump({**settings, VERSIONS: versions()}, sort_keys=False, allow_unicode=True, width=1000)
    temporary.write_text(HEADER.format(name=FILE_NAME) + text, encoding="utf-8")
    os.replace(temporary, final)
    return final


def _entries(path: str | Path) -> list[tuple[str, yaml.Node]]:
    """(name, node) of every line of the file; as nodes, values are still the text that was written."""
    try:
        root = yaml.compose(Path(path).read_text(encoding="utf-8"), yaml.SafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"--config {path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except yaml.YAMLError as error:
        raise TrainingError(f"--config {path} is not YAML: {' '.join(str(error).split())}") from error
    if root is None:
        return []
    if not isinstance(root, yaml.MappingNode):
        raise TrainingError(f"--config {path} must map names of flags to values, such as 'rank: 16'")
    entries = [(str(key.value), value) for key, value in root.value]
    names = [name for name, _ in entries]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise TrainingError(f"--config {path} has {twice} twice; leave one out")
    return entries


def _place(node: yaml.Node) -> str:
    return f"(line {node.start_mark.line + 1})"


def _value(action: argparse.Action, node: yaml.Node) -> Any:
    """Raises ValueError, in the command line's words where it has some."""
    if action.nargs == 0:  # a switch
        if not isinstance(node, yaml.ScalarNode) or node.tag != "tag:yaml.org,2002:bool":
            raise ValueError("must be true or false")
        return TRUTH[node.value.lower()]
    if isinstance(node, yaml.SequenceNode):
        if action.nargs is None:
            raise ValueError("expected one argument, not a list")
        if not node.value:
            raise ValueError("expected at least one argument")
        return [_scalar(action, item) for item in node.value]
    value = _scalar(action, node)
    return value if action.nargs is None else [value]


def _scalar(action: argparse.Action, node: yaml.Node) -> Any:
    if not isinstance(node, yaml.ScalarNode):
        raise ValueError("settings are not nested; write a plain value")
    if node.tag == "tag:yaml.org,2002:null":
        raise ValueError("has no value; leave the line out, or put the text in quotes")
    convert: Any = action.type or str
    try:
        value = convert(node.value)
    except (TypeError, ValueError, argparse.ArgumentTypeError) as error:
        raise ValueError(f"invalid {getattr(convert, '__name__', convert)} value: {node.value!r}") from error
    if action.choices is not None and value not in action.choices:
        raise ValueError(f"invalid choice: {value!r} (choose from {', '.join(map(repr, action.choices))})")
    return value


def _filled_in(args: argparse.Namespace, parser: argparse.ArgumentParser) -> dict[str, Any]:
    """What `complete` puts where nothing was given, for this base model and optimizer.

    It is not written, because it would be refused where the flag that it belongs to is off.
    """
    bare = {action.dest: _default(action) for action in parser._actions if action.dest != "help"}
    matters = ("pretrained_model_name_or_path", "instance_data_dir", "dataset_name", "output_dir", "optimizer")
    bare |= {name: getattr(args, name) for name in (*matters, "report_to")}
    filled = vars(complete(argparse.Namespace(**bare)))
    return {name: value for name, value in filled.items() if bare[name] is None and name not in ALWAYS_WRITTEN}


def _default(action: argparse.Action) -> Any:
    """As the parser would give it: defaults that are texts go through the flag's type."""
    convert: Any = action.type
    return convert(action.default) if isinstance(action.default, str) and convert is not None else action.default


def _plain(value: Any) -> Any:
    """In YAML's types; infinity stays a word that the command line knows."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, bool | int | float | str) else str(value)
