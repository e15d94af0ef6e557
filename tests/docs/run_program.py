"""Runs a program that may `await` at top level: `python run_program.py FILE`."""

import ast
import asyncio
import inspect
import sys
from pathlib import Path
from types import CodeType, FunctionType

sys.path.insert(0, "")
source = Path(sys.argv[1]).read_text()
code: CodeType = compile(source, sys.argv[1], "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
ran = FunctionType(code, {"__name__": "__main__"})()
if inspect.iscoroutine(ran):
    asyncio.run(ran)
