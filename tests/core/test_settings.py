"""Settings: arguments, then the environment, then pyproject.toml; what is wrong is named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastworker.errors import ConfigurationError
from fastworker.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def nothing_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder and an environment in which nothing is set."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.upper().startswith("FASTWORKER_"):
            monkeypatch.delenv(name)


def write_pyproject(text: str) -> None:
    Path("pyproject.toml").write_text(text, encoding="utf-8")


def test_nothing_needs_to_be_set() -> None:
    settings = load_settings()
    assert settings.url is None
    assert settings.key is None
    assert settings.modules == []
    assert (settings.store, settings.sync, settings.concurrency) == ("sqlite", "normal", 8)


def test_arguments_go_before_the_environment_and_that_before_pyproject(monkeypatch: pytest.MonkeyPatch) -> None:
    write_pyproject("[tool.fastworker]\nconcurrency = 2\ngrace = 2\nlease = 2\n")
    monkeypatch.setenv("FASTWORKER_CONCURRENCY", "3")
    monkeypatch.setenv("FASTWORKER_GRACE", "3")
    settings = load_settings(concurrency=4)
    assert (settings.concurrency, settings.grace, settings.lease) == (4, 3.0, 2.0)


def test_an_argument_that_is_none_was_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTWORKER_CONCURRENCY", "3")
    assert load_settings(concurrency=None).concurrency == 3


@pytest.mark.parametrize("name", ["FASTWORKER_TASK_MODULES", "FASTWORKER_MODULES"])
@pytest.mark.parametrize("text", ["app.tasks,app.mail", "app.tasks app.mail", " app.tasks ,  app.mail,"])
def test_modules_in_the_environment_are_words(name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, text)
    assert load_settings().modules == ["app.tasks", "app.mail"]


def test_modules_and_addresses_in_pyproject_are_lists() -> None:
    write_pyproject('[tool.fastworker]\nmodules = ["app.tasks"]\nlisten = ["tls+tcp://0.0.0.0:5555"]\n')
    settings = load_settings()
    assert settings.modules == ["app.tasks"]
    assert settings.listen == ["tls+tcp://0.0.0.0:5555"]
    assert load_settings(modules=["other"]).modules == ["other"]


def test_the_name_from_the_documentation_goes_before_the_derived_one(monkeypatch: pytest.MonkeyPatch) -> None:
    write_pyproject('[tool.fastworker]\nmodules = ["in_pyproject"]\n')
    monkeypatch.setenv("FASTWORKER_MODULES", "derived")
    assert load_settings().modules == ["derived"]
    monkeypatch.setenv("FASTWORKER_TASK_MODULES", "documented")
    assert load_settings().modules == ["documented"]


def test_variables_of_other_programs_are_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Environment modules (Lmod) and build systems use such names."""
    for name in ("MODULES", "modules", "URL", "KEY", "LISTEN", "STORE"):
        monkeypatch.setenv(name, "something-else")
    assert load_settings().model_dump() == Settings.model_construct().model_dump()


def test_a_pyproject_without_our_table_sets_nothing() -> None:
    write_pyproject('[project]\nname = "shop"\n[tool.other]\nconcurrency = 5\n')
    assert load_settings().concurrency == 8


def test_the_key_is_not_shown_by_accident() -> None:
    settings = load_settings(key="ab" * 32)
    assert settings.key is not None
    assert settings.key.get_secret_value() == "ab" * 32
    assert "abab" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("concurrency", "0"),
        ("concurrency", "many"),
        ("processes", "-1"),
        ("grace", "-1"),
        ("lease", "0"),
        ("store", "postgres"),
        ("sync", "sometimes"),
        ("max_crashes", "0"),
        ("connect_timeout", "0"),
        ("insecure", "perhaps"),
    ],
)
def test_a_bad_value_is_named_wherever_it_stands(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match=f"settings: {name}: "):
        load_settings(**{name: value})
    monkeypatch.setenv(f"FASTWORKER_{name.upper()}", value)
    with pytest.raises(ConfigurationError, match=f"settings: {name}: "):
        load_settings()
    monkeypatch.delenv(f"FASTWORKER_{name.upper()}")
    write_pyproject(f'[tool.fastworker]\n{name} = "{value}"\n')
    with pytest.raises(ConfigurationError, match=f"settings: {name}: "):
        load_settings()


def test_the_key_is_not_repeated_in_an_error() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(key="secret", concurrency="x")
    assert "secret" not in str(caught.value)


def test_all_bad_values_are_named_at_once() -> None:
    with pytest.raises(ConfigurationError, match=r"concurrency: .*; lease: "):
        load_settings(concurrency=0, lease=0)


def test_a_misspelt_setting_in_pyproject_is_named() -> None:
    write_pyproject("[tool.fastworker]\nconcurency = 5\n")
    with pytest.raises(ConfigurationError, match="settings: concurency: "):
        load_settings()


def test_a_pyproject_that_cannot_be_read_is_a_configuration_error() -> None:
    write_pyproject("[tool.fastworker\n")
    with pytest.raises(ConfigurationError, match="settings: "):
        load_settings()
