"""Which modules hold the tasks, and what is said when one does not import."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastworker.errors import ConfigurationError, ModuleImportError
from fastworker.function import Registry
from fastworker.settings import Settings, load_settings
from fastworker_worker.modules import import_modules, module_name, task_modules


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to work in; what is imported from it is forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fastworker.function.registry", Registry())
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for name in list(os.environ):
        if name.startswith("FASTWORKER_"):
            monkeypatch.delenv(name)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(path: str, text: str = "") -> None:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def settings(**arguments: object) -> Settings:
    return load_settings(**arguments)


# ---- which ---------------------------------------------------------------------------------------------------


def test_arguments_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    write("tasks.py")
    monkeypatch.setenv("FASTWORKER_TASK_MODULES", "from_environment")
    assert task_modules(["a.b", "c"], settings()) == ["a.b", "c"]


def test_then_the_environment_then_pyproject(monkeypatch: pytest.MonkeyPatch) -> None:
    write("tasks.py")
    write("pyproject.toml", '[tool.fastworker]\nmodules = ["from_pyproject"]\n')
    assert task_modules([], settings()) == ["from_pyproject"]
    monkeypatch.setenv("FASTWORKER_TASK_MODULES", "from_environment, and_another")
    assert task_modules([], settings()) == ["from_environment", "and_another"]


def test_then_what_lies_in_the_working_directory() -> None:
    for path in ("tasks.py", "mail_tasks.py", "tasks/__init__.py", "other.py", "deep/tasks.py", "test_tasks.txt"):
        write(path)
    assert task_modules([], settings()) == ["mail_tasks", "tasks"]


def test_then_nothing() -> None:
    assert task_modules([], settings()) == []


@pytest.mark.parametrize(
    ("text", "name"),
    [("app.tasks", "app.tasks"), ("app/tasks.py", "app.tasks"), ("tasks.py", "tasks"), ("./app/tasks.py", "app.tasks")],
)
def test_a_file_is_understood_as_its_module(text: str, name: str) -> None:
    assert module_name(text) == name


@pytest.mark.parametrize("text", ["", "my-app.tasks", "app..tasks", "app/tasks", "5tasks", "../tasks.py", "a b"])
def test_what_cannot_be_a_module_is_said_at_once(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"is not a module: write it as in an import, e\.g\. app\.tasks"):
        module_name(text)


# ---- importing -----------------------------------------------------------------------------------------------


def test_modules_are_found_in_the_working_directory(project: Path) -> None:
    write("shop_tasks.py", "here = __file__\n")
    import_modules(["shop_tasks"])
    assert Path(sys.modules["shop_tasks"].here) == project / "shop_tasks.py"
    assert sys.path.count(str(project)) == 1
    import_modules(["shop_tasks"])
    assert sys.path.count(str(project)) == 1


def test_a_package_is_imported_with_all_that_it_holds() -> None:
    write("shopping/__init__.py")
    write("shopping/mail.py", "from fastworker import task\n@task\ndef send() -> None: ...\n")
    write("shopping/orders/__init__.py")
    write("shopping/orders/late.py", "loaded = True\n")
    write("shopping/not-a-module.py", "raise SystemError\n")
    import_modules(["shopping"])
    assert {"shopping.mail", "shopping.orders.late"} <= set(sys.modules)


def test_a_package_is_imported_once_and_not_run() -> None:
    write("counted/__init__.py", "import sys\nsys.counted = [*getattr(sys, 'counted', []), __name__]\n")
    write("counted/__main__.py", "raise SystemError('it was run')\n")
    import_modules(["counted"])
    assert sys.__dict__.pop("counted") == ["counted"]


def test_a_folder_without_init_is_a_package_too() -> None:
    write("plain_folder/mail.py", "loaded = True\n")
    import_modules(["plain_folder"])
    assert "plain_folder.mail" in sys.modules


def test_a_module_that_is_not_there_is_named_with_the_folder(project: Path) -> None:
    with pytest.raises(ModuleImportError, match=f"there is no module 'nothing.here' in {project}"):
        import_modules(["nothing.here"])


def test_a_missing_module_inside_a_package_is_named(project: Path) -> None:
    write("halves/__init__.py")
    with pytest.raises(ModuleImportError, match=r"there is no module 'halves\.other'"):
        import_modules(["halves.other"])


def test_a_broken_module_shows_its_own_lines_and_not_ours() -> None:
    write("broken_tasks.py", "import broken_helper\n")
    write("broken_helper.py", "value = 1\nvalue.nothing\n")
    with pytest.raises(ModuleImportError) as caught:
        import_modules(["broken_tasks"])
    text = str(caught.value)
    assert text.startswith("the module 'broken_tasks' failed to import:\n\n")
    assert 'broken_tasks.py", line 1' in text
    assert 'broken_helper.py", line 2' in text
    assert text.endswith("AttributeError: 'int' object has no attribute 'nothing'")
    assert "importlib" not in text
    assert "fastworker_worker" not in text
    assert isinstance(caught.value.__cause__, AttributeError)


def test_a_dependency_that_is_missing_is_the_modules_own_error() -> None:
    write("needy_tasks.py", "import a_package_that_is_not_installed\n")
    with pytest.raises(ModuleImportError, match="needy_tasks' failed to import") as caught:
        import_modules(["needy_tasks"])
    assert "No module named 'a_package_that_is_not_installed'" in str(caught.value)
    assert "there is no module 'needy_tasks'" not in str(caught.value)


def test_a_mistake_in_the_syntax_is_shown_with_its_line() -> None:
    write("typo_tasks.py", "x = 1\ndef broken(:\n")
    with pytest.raises(ModuleImportError, match="def broken") as caught:
        import_modules(["typo_tasks"])
    assert 'typo_tasks.py", line 2' in str(caught.value)


def test_a_module_that_exits_does_not_end_the_worker() -> None:
    write("script_tasks.py", "raise SystemExit(3)\n")
    with pytest.raises(ModuleImportError, match="SystemExit: 3"):
        import_modules(["script_tasks"])


def test_two_tasks_of_one_name_are_said_when_the_second_module_is_imported() -> None:
    for name in ("first_tasks", "second_tasks"):
        write(f"{name}.py", "from fastworker import task\n@task\ndef send() -> None: ...\n")
    with pytest.raises(ModuleImportError, match="two task functions are called 'send'"):
        import_modules(["first_tasks", "second_tasks"])
