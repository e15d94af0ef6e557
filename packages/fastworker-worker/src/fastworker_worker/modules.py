"""Finding and importing the modules that hold task functions."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from fastworker.errors import ConfigurationError, ModuleImportError
from fastworker.settings import Settings


def task_modules(given: Sequence[str], settings: Settings, directory: Path | None = None) -> list[str]:
    """The names of the task modules.

    The first of these that names any: the arguments; the settings (`FASTWORKER_TASK_MODULES`, then
    `[tool.fastworker] modules`); `tasks.py`, `*_tasks.py` and `tasks/` in the working directory.
    """
    if given or settings.modules:
        return [module_name(text) for text in given or settings.modules]
    here = directory or Path.cwd()
    files = sorted({*here.glob("tasks.py"), *here.glob("*_tasks.py")})
    packages = [here / "tasks"] if (here / "tasks").is_dir() else []
    return list(dict.fromkeys(path.stem for path in [*files, *packages]))


def module_name(text: str) -> str:
    """A module's name; `app/tasks.py` is understood as `app.tasks`.

    Raises:
        ConfigurationError: it can't be a module's name.
    """
    path = Path(text)
    name = ".".join(path.with_suffix("").parts) if path.suffix == ".py" else text
    if not all(part.isidentifier() for part in name.split(".")):
        raise ConfigurationError(f"{text!r} is not a module: write it as in an import, e.g. app.tasks")
    return name


def import_modules(names: Sequence[str]) -> None:
    """Import the modules, with the working directory first on the path. A package is imported with all it holds.

    Raises:
        ModuleImportError: holds the traceback of the module, without our own frames.
    """
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    for name in names:
        try:
            module = importlib.import_module(name)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            raise ModuleImportError(_report(name, error)) from error
        folder = getattr(module, "__path__", None)
        if folder is not None:
            import_modules([f"{name}.{inside}" for inside in _modules_in(folder)])


def _modules_in(folders: Sequence[str]) -> list[str]:
    """The modules and packages in a package, but not `__init__`, which is the package, nor `__main__`, which runs."""
    paths = [path for folder in folders for path in Path(folder).iterdir()]
    names = {path.stem for path in paths if path.suffix == ".py"}
    names |= {path.name for path in paths if (path / "__init__.py").is_file()}
    return sorted(name for name in names if name.isidentifier() and not name.startswith("__"))


def _report(name: str, error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name in (name, name.split(".")[0]):
        return f"there is no module {name!r} in {os.getcwd()} or on the path: check the spelling and the folder"
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if "importlib" not in frame.filename and frame.filename != __file__]
    lines = traceback.format_list(theirs) + traceback.format_exception_only(error)
    return f"the module {name!r} failed to import:\n\n" + "".join(lines).rstrip()
