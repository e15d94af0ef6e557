"""Bad input gets a readable error at the earliest place, and nothing else breaks."""

from __future__ import annotations

import datetime
import json
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastworker import NotSerializable, PayloadTooLarge, TaskFailed, UnknownTask
from fastworker.protocol import MAX_PAYLOAD_BYTES
from tests.support.cluster import Cluster, free_port


@pytest.fixture(autouse=True)
def nobody_else_is_disturbed(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever was done wrong, the next right thing works."""
    yield
    if "running" in request.fixturenames:
        running: Cluster = request.getfixturevalue("running")
        assert running.client.result(running.client.delay("add", 1, 2), 15) == 3


# ---- submissions -------------------------------------------------------------------------------------------------


def test_an_unknown_name_waits_and_why_says_that_no_worker_knows_it(running: Cluster) -> None:
    task_id = running.client.delay("no_such_task", 1)
    assert running.client.info(task_id).state == "queued"
    done = running.run("why", task_id)
    assert "no connected worker knows a task named 'no_such_task'" in done.out
    assert "try: check the spelling of the name, or start a worker with the module that defines it" in done.out
    assert running.client.cancel(task_id) == "was_queued"


def test_strict_refuses_an_unknown_name(running: Cluster) -> None:
    done = running.run("submit", "no_such_task", "--strict")
    assert done.code == 2
    assert "no connected worker knows 'no_such_task'" in done.err
    with pytest.raises(UnknownTask, match="no_such_task"):
        running.client.submit("no_such_task", strict=True)
    with pytest.raises(UnknownTask):
        running.client.submit_many("no_such_task", [(1,), (2,)], strict=True)
    assert running.client.list(name="no_such_task", state="queued") == []


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ("[1]", "b: Field required"),
        ("[1, 2, 3]", "too many positional arguments"),
        ('["x", 2]', "a: Input should be a valid integer"),
        ('{"a": 1, "b": 2, "c": 3}', "c: Extra inputs are not permitted"),
        ('{"a": 1, "b": null}', "b: Input should be a valid integer"),
    ],
)
def test_wrong_arguments_by_name_fail_the_task_and_say_which(running: Cluster, args: str, says: str) -> None:
    arguments = json.loads(args)
    if isinstance(arguments, dict):
        task_id = running.client.submit("add", kwargs=arguments)
    else:
        task_id = running.client.submit("add", arguments)
    with pytest.raises(TaskFailed) as caught:
        running.client.result(task_id, 15)
    assert caught.value.error_type == "fastworker.errors.InvalidArguments"
    assert says in caught.value.error_message


def test_wrong_arguments_with_the_function_are_refused_at_the_call(running: Cluster) -> None:
    done = running.script(
        """
from fastworker import InvalidArguments
from tasks import add

for args in [(1,), (1, 2, 3), ("x", 2), (None, None)]:
    try:
        add.submit_sync(*args)
    except InvalidArguments as error:
        assert isinstance(error, TypeError)
        print(str(error).splitlines()[0])
"""
    )
    assert done.err == ""
    assert done.out.count("add(a: ") == 4


@pytest.mark.parametrize("text", ["", "{'a': 1}", "5"])
def test_arguments_that_are_not_json(running: Cluster, text: str) -> None:
    done = running.run("submit", "add", "--args", text)
    assert done.code == 2
    assert "--args" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    "value",
    [object(), {1: object()}, lambda: 1, {"s": "\ud800"}],
    ids=["an object", "an object in a dict", "a function", "a lone surrogate"],
)
def test_a_value_without_a_json_form(running: Cluster, value: object) -> None:
    with pytest.raises(NotSerializable, match="the arguments of echo"):
        running.client.delay("echo", value)


def test_a_cycle(running: Cluster) -> None:
    cycle: list[object] = []
    cycle.append(cycle)
    with pytest.raises(NotSerializable):
        running.client.delay("echo", cycle)


def test_values_with_a_json_form_of_their_own(running: Cluster) -> None:
    moment = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    assert running.client.result(running.client.delay("echo", moment), 15) == "2026-01-02T00:00:00Z"


def test_a_payload_over_the_limit(running: Cluster) -> None:
    with pytest.raises(PayloadTooLarge, match=f"over the limit of {MAX_PAYLOAD_BYTES:,}"):
        running.client.delay("echo", "x" * MAX_PAYLOAD_BYTES)
    done = running.script(
        """
from fastworker import PayloadTooLarge
from tasks import echo
try:
    echo.submit_sync("x" * 9_000_000)
except PayloadTooLarge as error:
    print(error)
"""
    )
    assert "store large data elsewhere and pass a reference" in done.out


def test_a_payload_that_grows_when_it_is_escaped(running: Cluster) -> None:
    """Quotes and control characters double and more inside a frame: within the limit, or refused, never stuck."""
    for value in ('"' * 2_000_000, '"' * 4_100_000, "\x01" * 1_300_000, "\\" * 4_100_000):
        try:
            task_id = running.client.delay("echo", value)
        except PayloadTooLarge:
            continue
        assert running.client.result(task_id, 30) == value


def test_options_that_there_are_not(running: Cluster) -> None:
    for option, value in (("priority", "urgent"), ("timeout", "0")):
        done = running.run("submit", "add", "--args", "[1, 2]", f"--{option}", value)
        assert done.code == 2, option
        assert option in done.err
        assert "Traceback" not in done.err


# ---- modules -----------------------------------------------------------------------------------------------------


def write_module(cluster: Cluster, text: str) -> None:
    (cluster.folder / "tasks.py").write_text(text)


@pytest.mark.parametrize("words", [["start"], ["worker", "start"], ["start", "--in-process"]], ids=" ".join)
def test_a_module_that_fails_to_import(cluster: Cluster, words: list[str]) -> None:
    write_module(cluster, "import json\n\ndef f():\n    return json.loads('nonsense')\n\nf()\n")
    done = cluster.run(*words, *(["--listen", cluster.url] if words[0] == "start" else []), timeout=30)
    assert done.code == 2
    assert "the module 'tasks' failed to import" in done.err
    assert f'File "{cluster.folder}/tasks.py", line 6, in <module>' in done.err
    assert "JSONDecodeError" in done.err
    assert "fastworker_worker" not in done.err
    assert "importlib" not in done.err


def test_a_module_that_is_not_there(cluster: Cluster) -> None:
    done = cluster.run("worker", "start", "no_such_module")
    assert done.code == 2
    assert "there is no module 'no_such_module'" in done.err
    assert "Traceback" not in done.err


def test_a_module_that_imports_one_that_is_not_there(cluster: Cluster) -> None:
    write_module(cluster, "import no_such_library\n")
    done = cluster.run("worker", "start")
    assert done.code == 2
    assert "tasks.py" in done.err
    assert "No module named 'no_such_library'" in done.err


def test_a_module_that_does_not_parse_or_exits(cluster: Cluster) -> None:
    for text, says in (("def f(:\n", "SyntaxError"), ("import sys\nsys.exit(7)\n", "SystemExit")):
        write_module(cluster, text)
        done = cluster.run("worker", "start")
        assert done.code == 2
        assert says in done.err


def test_a_name_that_two_tasks_have(cluster: Cluster) -> None:
    for name in ("one", "two"):
        (cluster.folder / f"{name}.py").write_text("from fastworker import task\n\n@task\ndef same() -> None: ...\n")
    done = cluster.run("worker", "start", "one", "two")
    assert done.code == 2
    assert "two task functions are called 'same'" in done.err
    assert "one.py" in done.err
    assert "two.py" in done.err


@pytest.mark.parametrize("name", ["not a module", "../tasks"])
def test_a_module_name_that_is_none(cluster: Cluster, name: str) -> None:
    done = cluster.run("worker", "start", name)
    assert done.code == 2
    assert "Traceback" not in done.err


# ---- the control plane -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["submit", "add"], ["list"], ["doctor"]], ids=" ".join)
def test_no_control_plane(cluster: Cluster, words: list[str]) -> None:
    done = cluster.run(*words)
    assert done.code == 4
    assert done.seconds < 5
    said = done.out + done.err
    assert "no control plane was found; tried:" in said
    assert cluster.url in said
    assert "Start one: fastworker start" in said
    assert "Traceback" not in said


def test_no_control_plane_behind_an_address(cluster: Cluster) -> None:
    for url in (f"tcp://127.0.0.1:{free_port()}", f"ipc://{cluster.runtime}/nobody"):
        done = cluster.run("list", "--url", url)
        assert done.code == 4
        assert url in done.err


def test_a_port_that_is_taken(cluster: Cluster) -> None:
    import socket

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"tls+tcp://127.0.0.1:{other.getsockname()[1]}"
        done = cluster.run("start", "--listen", cluster.url, "--listen", address)
    assert done.code in (2, 4)
    assert f"{address} is taken by another process" in done.err
    assert "Traceback" not in done.err


def test_another_control_plane_on_the_same_socket(running: Cluster) -> None:
    done = running.run("start", "--listen", running.url, "--store-path", "elsewhere")
    assert done.code in (2, 4)
    assert "is taken by another process" in done.err


def test_settings_that_there_are_not(cluster: Cluster) -> None:
    wrong = {"store": "redis", "concurrency": "0", "log-level": "loud"}
    for option, value in wrong.items():
        done = cluster.run("start", f"--{option}", value, timeout=20)
        assert done.code == 2, option
        assert "Traceback" not in done.err
    done = cluster.run("start", FASTWORKER_CONCURRENCY="many")
    assert done.code == 2
    assert "concurrency" in done.err
    (cluster.folder / "pyproject.toml").write_text("[tool.fastworker]\nconcurency = 3\n")
    done = cluster.run("start")
    assert done.code == 2
    assert "concurency" in done.err
    (cluster.folder / "pyproject.toml").write_text("[tool.fastworker\n")
    done = cluster.run("start")
    assert done.code == 2
    assert "Traceback" not in done.err


# ---- the store ---------------------------------------------------------------------------------------------------


@pytest.fixture
def store(cluster: Cluster) -> Path:
    """The file of a store that a control plane has left in order, with a queued task in it."""
    control_plane = cluster.start("--processes", "0")
    cluster.client.delay("add", 1, 2)
    assert control_plane.terminate() == 0
    return cluster.folder / ".fastworker" / "queue.db"


def refuses_to_start(cluster: Cluster, store: Path) -> str:
    """The start is refused within seconds and leaves the file as it is."""
    before = store.read_bytes()
    done = cluster.run("start", "--listen", cluster.url, timeout=30)
    assert done.code == 2, done.err
    assert str(Path(".fastworker/queue.db")) in done.err
    assert "Traceback" not in done.err
    assert store.read_bytes() == before
    return done.err


def test_a_store_that_is_no_database(cluster: Cluster, store: Path) -> None:
    store.write_bytes(b"this is no database at all, but it is long enough to look like something" * 100)
    said = refuses_to_start(cluster, store)
    assert "can't be read as a store" in said
    assert "It was left untouched" in said
    assert "mv " in said


@pytest.mark.parametrize("what", ["cut", "zeros in the middle", "garbage in the middle"])
def test_a_damaged_store(cluster: Cluster, store: Path, what: str) -> None:
    data = bytearray(store.read_bytes())
    middle = len(data) // 2
    match what:
        case "cut":
            data = data[: middle + 100]
        case "zeros in the middle":
            data[4096:] = bytes(len(data) - 4096)
        case _:
            data[4096 : 4096 + 3000] = b"\xde\xad\xbe\xef" * 750
    store.write_bytes(data)
    assert "can't be read as a store" in refuses_to_start(cluster, store)


def test_a_newer_store(cluster: Cluster, store: Path) -> None:
    with sqlite3.connect(store) as db:
        db.execute("PRAGMA user_version = 999")
    db.close()
    said = refuses_to_start(cluster, store)
    assert "was written by a newer FastWorker (format 999" in said
    assert "--store-path" in said


def test_somebody_elses_database(cluster: Cluster, store: Path) -> None:
    for file in store.parent.glob("queue.db*"):
        file.unlink()
    with sqlite3.connect(store) as db:
        db.execute("CREATE TABLE customers (name TEXT)")
        db.execute("INSERT INTO customers VALUES ('Ada')")
    db.close()
    assert "it is a database, but not of FastWorker" in refuses_to_start(cluster, store)


def test_a_store_path_that_is_a_file(cluster: Cluster) -> None:
    (cluster.folder / "taken").write_text("a file")
    done = cluster.run("start", "--store-path", "taken", "--listen", cluster.url)
    assert done.code == 2
    assert "taken" in done.err
    assert "Traceback" not in done.err


def test_another_control_plane_on_the_same_store(cluster: Cluster) -> None:
    control_plane = cluster.start()
    done = cluster.run("start", "--listen", f"ipc://{cluster.runtime}/second", timeout=20)
    assert done.code == 2
    assert f"in use by another control plane (process {control_plane.pid})" in done.err
    assert "--store-path" in done.err
    assert control_plane.alive
    assert cluster.client.result(cluster.client.delay("add", 1, 2), 15) == 3


def test_a_sound_store_goes_on(cluster: Cluster, store: Path) -> None:
    shutil.copy(store, cluster.folder / "copy.db")
    cluster.start()
    [task] = cluster.client.list(name="add")
    assert cluster.client.result(task.id, 15) == 3


# ---- tasks that misbehave ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "error_type", "says"),
    [
        ("unpicklable", "tasks.Unpicklable", "needs two arguments"),
        ("unprintable", "tasks.Unprintable", "its __str__ raised RuntimeError"),
        ("unencodable", "builtins.ValueError", "a lone surrogate ?"),
        ("base exception", "tasks.NotAnOrdinaryError", "not an Exception"),
        ("sys.exit", "builtins.SystemExit", "3"),
        ("keyboard interrupt", "builtins.KeyboardInterrupt", ""),
        ("generator exit", "builtins.GeneratorExit", ""),
        ("stop iteration", "builtins.StopIteration", ""),
        ("recursion", "builtins.RecursionError", "recursion"),
        ("memory", "builtins.MemoryError", ""),
        ("huge message", "builtins.ValueError", "xxx"),
        ("not json", "fastworker.errors.NotSerializable", "the result of odd can't be written as JSON"),
        ("cycle", "fastworker.errors.NotSerializable", "the result of odd"),
        ("surrogate result", "fastworker.errors.NotSerializable", "the result of odd"),
        ("huge result", "fastworker.errors.PayloadTooLarge", "the result of odd take"),
    ],
)
def test_a_task_that_ends_badly_fails_and_says_why(running: Cluster, kind: str, error_type: str, says: str) -> None:
    task_id = running.client.delay("odd", kind)
    with pytest.raises(TaskFailed) as caught:
        running.client.result(task_id, 15)
    assert caught.value.error_type == error_type
    assert says in caught.value.error_message
    assert len(caught.value.remote_traceback) < 100_000
    assert running.client.info(task_id).attempt == 1
    assert running.run("status", task_id).code == 0


@pytest.mark.parametrize("kind", ["sys.exit", "keyboard interrupt", "base exception", "stop iteration"])
def test_a_coroutine_that_ends_badly(running: Cluster, kind: str) -> None:
    task_id = running.client.delay("odd_async", kind)
    with pytest.raises(TaskFailed):
        running.client.result(task_id, 15)
    assert running.client.info(task_id).attempt == 1


@pytest.mark.parametrize("kind", ["large result", "print", "chdir", "fork", "umask", "close standard output"])
def test_a_task_may_do_odd_things(running: Cluster, kind: str) -> None:
    value = running.client.result(running.client.delay("odd", kind), 30)
    assert value == ("x" * 7_000_000 if kind == "large result" else kind)


def test_a_task_that_kills_its_process_by_a_signal(cluster: Cluster) -> None:
    cluster.start()
    task_id = cluster.client.delay("odd", "signal handler")
    with pytest.raises(TaskFailed, match="was lost under it"):
        cluster.client.result(task_id, 60)


def test_a_result_that_is_not_a_number_in_json(running: Cluster) -> None:
    value = running.client.result(running.client.delay("odd", "not a number"), 15)
    assert value is None or value != value


def test_nothing_of_that_has_ended_the_own_worker(running: Cluster) -> None:
    began = time.time()
    assert running.client.result(running.client.delay("add", 1, 2), 15) == 3
    log = running.programs[0].log
    assert "ended with" not in log, began
