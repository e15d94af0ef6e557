"""No package of ours can make code of data: its syntax trees hold nothing that would."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(ROOT.glob("packages/*/src/**/*.py"))
MODULES = {
    "pickle", "_pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "jsonpickle", "copyreg",
    "code", "codeop", "runpy", "imp", "yaml", "multiprocessing",
}  # fmt: skip
"""`multiprocessing` pickles what it sends."""
CALLS = {
    "eval", "exec", "compile", "__import__", "import_module", "exec_module", "load_module", "run_path", "run_module",
    "spec_from_file_location", "system", "popen", "unsafe_load", "full_load",
}  # fmt: skip
BY_NAME = {
    "fastworker_worker/modules.py": "the modules that the command line, a setting or the folder names",
    "fastworker_worker/slot.py": "the modules of the worker's own task functions, named by the worker that started it",
}
"""Where a module is imported by its name, and whose word that name is. Never one of the wire."""


def found(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """What would make code of data, with its line."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, name.name) for name in names if name.name.split(".")[0] in MODULES)
            case ast.ImportFrom(module=str() as module, names=names):
                named = [module, *(name.name for name in names if module in ("importlib", "os"))]
                yield from ((node.lineno, name) for name in named if name.split(".")[0] in MODULES | CALLS)
            case ast.Call(func=ast.Name(id=name)) if name in CALLS:
                yield node.lineno, name
            case ast.Call(func=ast.Attribute(value=value, attr=name)) if name in CALLS and ast.unparse(value) != "re":
                yield node.lineno, name
            case ast.keyword(arg="shell", value=value) if ast.unparse(value) != "False":
                yield value.lineno, "shell"
            case ast.Call(func=ast.Attribute(value=ast.Name(id="yaml"), attr=name)):
                yield node.lineno, f"yaml.{name}"


def test_it_looks_at_all_packages() -> None:
    assert len(SOURCES) > 150
    assert {source.relative_to(ROOT).parts[1] for source in SOURCES} == {
        folder.name for folder in (ROOT / "packages").iterdir() if (folder / "src").is_dir()
    }


@pytest.mark.parametrize("folder", sorted({source.relative_to(ROOT).parts[1] for source in SOURCES}))
def test_nothing_in_the_package_makes_code_of_data(folder: str) -> None:
    for source in SOURCES:
        place = "/".join(source.relative_to(ROOT).parts[3:])
        if source.relative_to(ROOT).parts[1] != folder:
            continue
        what = [(line, name) for line, name in found(ast.parse(source.read_text())) if not allowed(place, name)]
        assert not what, f"{place}: {what}"


def allowed(place: str, name: str) -> bool:
    return name == "import_module" and place in BY_NAME


@pytest.mark.parametrize(
    "evil",
    [
        "import pickle",
        "from pickle import loads",
        "import os.path, marshal",
        "from importlib import import_module",
        "from os import system",
        "eval(text)",
        "builtins.exec(text)",
        "__import__(name)",
        "importlib.import_module(name)",
        "import yaml",
        "yaml.load(text)",
        "subprocess.run(text, shell=True)",
        "from multiprocessing.connection import Client",
        "compile(text, '', 'exec')",
    ],
)
def test_it_would_see_it(evil: str) -> None:
    assert list(found(ast.parse(evil)))


def test_what_is_harmless_is_not_seen() -> None:
    assert not list(found(ast.parse("import re, os\nre.compile('x')\nsubprocess.run(words)\njson.loads(text)")))
