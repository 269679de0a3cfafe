"""In which order a model runs the modules inside it, read from the code of its ``forward``."""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import textwrap
import types
from collections.abc import Iterator
from typing import Any

from torch import nn


def walk(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The module and all modules inside it with their full names; children come in the order in which they are run.

    That is the order in which its ``forward`` mentions them: a UNet registers its middle last and runs it between down
    and up. Lists that it runs alternately, ``for a, b in zip(self.x, self.y)``, are interleaved.
    """
    yield name, module
    prefix = f"{name}." if name else ""
    children: dict[str, Any] = dict(module.named_children())
    kind: Any = type(module)
    if len(children) > 1:
        mentioned = [child for child in names_in(kind.forward, kind) if child in children]
        places = iter(mentioned)
        children = {c: children[c] for c in [next(places) if c in mentioned else c for c in children]}
    in_lists = {child for child, inner in children.items() if isinstance(inner, nn.ModuleList)}
    zipped = _zipped(kind.forward) if len(in_lists) > 1 else ()
    for child, inner in children.items():
        lists = [part for part in next((z for z in zipped if child in z), ()) if part in in_lists]
        if len(lists) < 2:
            yield from walk(inner, prefix + child)
        elif child == lists[0]:
            for blocks in itertools.zip_longest(*(children[part].named_children() for part in lists)):
                for part, block in zip(lists, blocks, strict=True):
                    yield from walk(block[1], f"{prefix}{part}.{block[0]}") if block else ()


@functools.cache
def _zipped(forward: Any) -> tuple[tuple[str, ...], ...]:
    """The attributes of self in each ``zip(self.a, self.b)`` of a function."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(forward))))
    except (OSError, TypeError, SyntaxError):  # defined in a notebook or by exec
        return ()
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "zip"]
    return tuple(tuple(ast.unparse(a).removeprefix("self.") for a in call.args) for call in calls)


@functools.cache
def names_in(function: Any, owner: Any = None) -> tuple[str, ...]:
    """Every name in a function's code in order of first use, those of the functions of its file that it calls included.

    Methods that it calls are looked up in the class `owner`.
    """
    names: dict[str, None] = {}
    _gather(inspect.unwrap(function), owner, names, set())
    return tuple(names)


def _gather(function: Any, owner: Any, names: dict[str, None], seen: set[Any]) -> None:
    code = getattr(function, "__code__", None)
    if code is None or code in seen:
        return
    seen.add(code)
    for name in _names_of_code(code):
        found = getattr(function, "__globals__", {}).get(name)
        found = getattr(owner, name, None) if found is None else found
        names.setdefault(name)
        if callable(found) and getattr(found, "__module__", None) == function.__module__:
            _gather(inspect.unwrap(found), owner, names, seen)


def _names_of_code(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names_of_code(constant)
        elif isinstance(constant, str):
            yield constant  # for getattr(attn, "to_q")
