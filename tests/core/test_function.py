"""`@task`: the decorated function is still the function, and knows how to be submitted."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from typing import Any

import pytest

from fastworker import task
from fastworker.errors import ConfigurationError, DuplicateTask, InvalidArguments, TaskDefinitionError
from fastworker.function import AnyTaskFunction, Registry, TaskFunction, registry
from fastworker.tasks import UNSAID, Backoff, Options, Priority, is_task_id


@pytest.fixture(autouse=True)
def empty_registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Each test has a registry of its own."""
    fresh = Registry()
    monkeypatch.setattr("fastworker.function.registry", fresh)
    return fresh


def known(functions: Registry) -> list[str]:
    return [function.name for function in functions]


# ---- still the function --------------------------------------------------------------------------------------


def test_the_decorated_function_is_still_the_function() -> None:
    @task
    def add(a: int, b: int = 1) -> int:
        """Add two numbers."""
        return a + b

    assert add(1, 2) == 3
    assert add(1) == 2
    assert add.__name__ == "add"  # type: ignore[attr-defined]
    assert add.__doc__ == "Add two numbers."
    assert inspect.signature(add) == inspect.signature(add.__wrapped__)  # type: ignore[attr-defined]
    assert repr(add) == "<task function add>"


async def test_a_decorated_coroutine_function_is_still_one() -> None:
    @task
    async def double(n: int) -> int:
        return 2 * n

    assert await double(4) == 8
    assert double.is_async


def test_a_plain_call_does_not_check_or_convert_anything() -> None:
    @task
    def echo(n: int) -> int:
        return n

    assert echo("not a number") == "not a number"  # type: ignore[arg-type, comparison-overlap]


def test_a_task_function_can_call_itself_and_be_passed_around() -> None:
    @task
    def fact(n: int) -> int:
        return 1 if n < 2 else n * fact(n - 1)

    assert list(map(fact, [3, 5])) == [6, 120]


# ---- forms of the decorator ----------------------------------------------------------------------------------


def test_every_way_to_write_the_decorator(empty_registry: Registry) -> None:
    @task
    def bare() -> None: ...

    @task()
    def called() -> None: ...

    @task("by-position")
    def first() -> None: ...

    @task(name="by-keyword")
    def second() -> None: ...

    @task("urgent", priority="critical", retries=2)
    def third() -> None: ...

    def plain() -> None: ...

    fourth = task(plain)
    fifth = task(name="again")(plain)

    names = ["bare", "called", "by-position", "by-keyword", "urgent", "plain", "again"]
    assert known(empty_registry) == names
    assert [f.name for f in (bare, called, first, second, third, fourth, fifth)] == names
    assert third.said == Options(priority=Priority.CRITICAL, retries=2)
    assert bare.said is called.said is first.said is UNSAID


def test_wrapped_functions_are_tasks_too() -> None:
    def traced(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return "traced", function(*args, **kwargs)

        return wrapper

    @task
    @traced
    def add(a: int, b: int) -> int:
        return a + b

    assert add(1, 2) == ("traced", 3)
    assert add.signature.decode(add.signature.encode((1,), {"b": 2})) == ([], {"a": 1, "b": 2})


# ---- what can't be a task ------------------------------------------------------------------------------------


class Callable_:
    def __call__(self) -> None: ...


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (Callable_, "is not a function"),
        (Callable_(), "is not a function"),
        (staticmethod(len), "is not a function"),
        (classmethod(lambda cls: None), "is not a function"),
        (functools.partial(print, 1), "is not a function"),
        (5, "is not a function"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_cannot_be_a_task_is_refused_at_the_decorator(target: Any, text: str, empty_registry: Registry) -> None:
    with pytest.raises(TaskDefinitionError, match=text):
        task(target)
    assert not len(empty_registry)


def test_a_task_function_is_not_decorated_twice() -> None:
    @task
    def once() -> None: ...

    with pytest.raises(TaskDefinitionError, match="once is a task function already"):
        task(once)


def test_a_bad_option_is_named_at_the_decorator(empty_registry: Registry) -> None:
    with pytest.raises(ConfigurationError, match="slow: timeout=0"):

        @task(timeout=0)
        def slow() -> None: ...

    with pytest.raises(ConfigurationError, match="there is no option 'retry'"):
        task(retry=1)(lambda: None)  # type: ignore[call-overload]
    assert not len(empty_registry)


# ---- names ---------------------------------------------------------------------------------------------------


def make(name: str, file: str, body: str = "return 1") -> Callable[[], Any]:
    """A function as if it were written in that file."""
    space: dict[str, Any] = {}
    exec(compile(f"def {name}():\n    {body}\n", file, "exec"), space)
    made: Callable[[], Any] = space[name]
    return made


def test_two_functions_cannot_share_a_name(empty_registry: Registry) -> None:
    task(make("send", "/app/mail.py"))
    with pytest.raises(DuplicateTask) as caught:
        task(make("send", "/app/sms.py"))
    assert str(caught.value) == (
        "two task functions are called 'send': send in /app/mail.py and send in /app/sms.py. "
        "Give one of them another name: @task(name=…)"
    )
    task(name="send_sms")(make("send", "/app/sms.py"))
    assert known(empty_registry) == ["send", "send_sms"]


def test_the_same_source_again_replaces_the_old_function(empty_registry: Registry) -> None:
    """A module is reloaded, or imported once as `__main__` and once by its name."""
    task(make("send", "/app/mail.py", "return 'old'"))
    task(make("send", "/app/mail.py", "return 'new'"))
    assert [function() for function in empty_registry] == ["new"]


def test_the_registry_knows_and_forgets() -> None:
    functions = Registry()
    function: AnyTaskFunction = TaskFunction(make("send", "/app/mail.py"), "send")
    functions.add(function)
    assert functions.get("send") is function
    assert functions.get("nothing") is None
    assert len(functions) == 1
    functions.clear()
    assert list(functions) == []


def test_a_registry_may_grow_while_it_is_read() -> None:
    functions = Registry()
    functions.add(TaskFunction(make("a", "/a.py"), "a"))
    for function in functions:
        if function.name == "a":
            functions.add(TaskFunction(make("b", "/b.py"), "b"))
    assert len(functions) == 2


def test_the_process_has_one_registry_which_decorators_fill() -> None:
    assert isinstance(registry, Registry)


# ---- options -------------------------------------------------------------------------------------------------


def test_options_make_another_task_function_and_leave_the_first_alone(empty_registry: Registry) -> None:
    @task(priority="low", retries=1)
    def work(n: int) -> int:
        return n

    urgent = work.options(priority="high", delay=5)
    assert urgent.said == Options(priority=Priority.HIGH, retries=1, delay=5.0)
    assert work.said == Options(priority=Priority.LOW, retries=1)
    assert urgent(3) == 3
    assert urgent.name == "work"
    assert urgent.signature is work.signature
    assert list(empty_registry) == [work]


def test_options_can_be_said_one_after_the_other() -> None:
    @task
    def work() -> None: ...

    assert work.options(queue="a").options(tags=["t"]).options(queue="b").said == Options(queue="b", tags=("t",))


def test_bad_options_are_refused_with_the_name_of_the_task() -> None:
    @task
    def work() -> None: ...

    with pytest.raises(ConfigurationError, match="work: priority='urgent'"):
        work.options(priority="urgent")


# ---- submissions ---------------------------------------------------------------------------------------------


def test_a_submission_holds_the_name_the_arguments_and_what_was_said() -> None:
    @task(backoff="linear")
    def work(n: int) -> None: ...

    made = work.options(priority="high").submission((1,), {})
    assert is_task_id(made.id)
    assert (made.name, made.args) == ("work", '{"n":1}')
    assert made.options == Options(priority=Priority.HIGH, backoff=Backoff(kind="linear"))


def test_what_was_not_said_does_not_travel() -> None:
    @task
    def work() -> None: ...

    assert work.submission((), {}).options is None


async def test_wrong_arguments_are_refused_before_anything_is_connected() -> None:
    @task
    def work(n: int) -> None: ...

    with pytest.raises(InvalidArguments, match="n: Field required"):
        _ = await work.submit()  # type: ignore[call-overload]
    with pytest.raises(InvalidArguments, match="n: Input should be a valid integer"):
        await work.map([1, "x"])  # type: ignore[list-item]


async def test_blocking_calls_inside_an_event_loop_say_what_to_write_instead() -> None:
    @task
    def work(n: int = 0) -> None: ...

    with pytest.raises(ConfigurationError, match=r"use `await work\.submit\(\)`"):
        _ = work.submit_sync()
    with pytest.raises(ConfigurationError, match=r"use `await work\.map\(\)`"):
        work.map_sync([])


def test_the_short_names_are_the_same_methods() -> None:
    members = vars(TaskFunction)
    assert members["delay"] is members["submit"]
    assert members["send"] is members["submit_sync"]


def test_ids_are_unique_and_sort_by_time() -> None:
    @task
    def work() -> None: ...

    ids = [work.submission((), {}).id for _ in range(1_000)]
    assert len(set(ids)) == 1_000
    assert [text[:13] for text in ids] == sorted(text[:13] for text in ids)
    assert {text[14] for text in ids} == {"7"}


# ---- what a worker tells -------------------------------------------------------------------------------------


def test_the_definition_is_what_a_worker_tells_of_a_function() -> None:
    @task("mail", priority="high")
    def send_email(user: int, subject: str = "") -> bool:
        """Send an email
        to a user.

        It may take a while.
        """
        return bool(subject)

    definition = send_email.definition()
    assert definition.name == "mail"
    assert definition.options == Options(priority=Priority.HIGH)
    assert definition.doc == "Send an email\nto a user."
    assert definition.parameters["required"] == ["user"]


def test_annotations_may_name_what_comes_later_in_the_module() -> None:
    """They are resolved at the first use, not at the decorator."""
    space: dict[str, Any] = {"task": task}
    source = "@task\ndef use(thing: 'Thing') -> None: ...\n\nclass Thing(dict): ...\n"
    exec(
        compile(
            source.replace("class Thing(dict)", "from decimal import Decimal as Thing\nclass _(dict)"), "m.py", "exec"
        ),
        space,
    )
    assert space["use"].signature.encode(("1.5",), {}) == '{"thing":"1.5"}'


# ---- which errors are worth another attempt ------------------------------------------------------------------


class Transient(OSError): ...


@pytest.mark.parametrize(
    ("retry_on", "give_up_on", "error", "again"),
    [
        ((Exception,), (), ValueError(), True),
        ((Exception,), (), SystemExit(), False),
        (OSError, (), Transient(), True),
        (OSError, (), ValueError(), False),
        ((OSError, ValueError), Transient, Transient(), False),
        ([OSError], [Transient], OSError(), True),
    ],
)
def test_a_task_says_which_errors_are_worth_another_attempt(
    retry_on: Any, give_up_on: Any, error: BaseException, again: bool
) -> None:
    @task(retry_on=retry_on, give_up_on=give_up_on)
    def work() -> None: ...

    assert work.is_retryable(error) is again
    assert work.options(retries=1).is_retryable(error) is again


@pytest.mark.parametrize("wrong", ["ValueError", 5, [5], int, (ValueError, "x")])
def test_only_exceptions_can_be_retried_on(wrong: Any) -> None:
    with pytest.raises(TaskDefinitionError, match="use an exception class or a tuple of them"):
        task(retry_on=wrong)(lambda: None)


async def test_a_cancelled_task_is_not_retried_by_default() -> None:
    @task
    def work() -> None: ...

    assert not work.is_retryable(asyncio.CancelledError())
