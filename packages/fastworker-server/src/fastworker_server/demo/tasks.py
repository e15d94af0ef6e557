"""The demo's task: read one Python file, parse it, measure it."""

from __future__ import annotations

import ast
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fastworker import task

LONGEST_KEPT = 10


@dataclass(frozen=True)
class MeasuredFunction:
    """One function of a file."""

    name: str
    line: int
    lines: int


@dataclass(frozen=True)
class MeasuredModule:
    """What one file holds. `seconds`: how long the measuring took."""

    file: str
    lines: int
    functions: int
    classes: int
    longest: list[MeasuredFunction]
    seconds: float


@task
def measure_module(file: str) -> MeasuredModule:
    """Count the lines, functions and classes of a Python file, and find its longest functions.

    A file that is not Python raises `SyntaxError`: then the task has failed, and nothing else.
    """
    began = time.perf_counter()
    source = Path(file).read_bytes()
    definitions = list(_definitions(ast.parse(source, file)))
    functions = [function for function in definitions if isinstance(function, MeasuredFunction)]
    longest = sorted(functions, key=lambda function: -function.lines)[:LONGEST_KEPT]
    classes = len(definitions) - len(functions)
    return MeasuredModule(file, len(source.splitlines()), len(functions), classes, longest, time.perf_counter() - began)


def _definitions(tree: ast.AST) -> Iterator[MeasuredFunction | ast.ClassDef]:
    """All functions and classes, however deep. A list of nodes to visit, not recursion: some files nest deeply."""
    to_visit = [(tree, "")]
    while to_visit:
        parent, path = to_visit.pop()
        for node in ast.iter_child_nodes(parent):
            inside = path
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                inside = f"{path}.{node.name}" if path else node.name
                yield node if isinstance(node, ast.ClassDef) else _function(node, inside)
            to_visit.append((node, inside))


def _function(node: ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> MeasuredFunction:
    return MeasuredFunction(name, node.lineno, (node.end_lineno or node.lineno) - node.lineno + 1)
