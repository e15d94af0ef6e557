"""Settings: arguments first, then the environment (`FASTWORKER_…`), then `[tool.fastworker]` in pyproject.toml."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BeforeValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    PyprojectTomlConfigSettingsSource,
    SettingsConfigDict,
)

from fastworker.errors import ConfigurationError
from fastworker.sizes import bytes_of

Sync = Literal["normal", "full"]
StoreKind = Literal["sqlite", "memory"]
LogKind = Literal["text", "json"]
Words = Annotated[list[str], NoDecode]


def _bytes(value: int | str) -> int:
    try:
        return bytes_of(value)
    except ConfigurationError as error:
        raise ValueError(str(error)) from None


class Settings(BaseSettings):
    """Everything that can be set. Durations are seconds.

    Attributes:
        url: where the control plane is, for clients and workers.
        key: the cluster key, 64 hexadecimal digits, or the key of a role; two during a rotation.
        payload_keys: with which clients and workers encrypt what tasks carry; the first seals, all open.
        modules: the modules that hold task functions.
        listen: the addresses of the control plane.
        certificates: a folder that `fastworker certs` made, to be used in place of keys.
        lan: listen on all interfaces, and answer machines on the network that look for a control plane.
        lan_name: the control plane's name on the network; default: that of the host.
        insecure: allow plain `tcp://`.
        max_connections: connections that the control plane takes at once.
        store: `sqlite`, or `memory`.
        store_path: the folder of the store.
        sync: `normal` survives the death of any process, `full` also a loss of power.
        concurrency: tasks that one worker process runs at once.
        processes: worker processes under the control plane.
        max_tasks_per_process: after so many tasks a process slot is replaced.
        max_memory: a process slot that holds more is replaced; bytes, or a text such as `512 MB`.
        grace: how long running tasks may go on after SIGTERM.
        lease: how long a connected but silent worker keeps its tasks.
        silence: after how long without a word a worker gets no new tasks.
        reconnect: how long a worker whose connection broke keeps its tasks.
        recovery: how long a restarted control plane waits for the workers that it knew.
        max_crashes: how often a task may lose its worker before it is failed.
        keep_finished: how many ended tasks the store keeps.
        keep_for: how long the store keeps them.
        connect_timeout: how long a client looks for the control plane.
        answer_timeout: how long a client waits for an answer, also across a restart of the control plane.
        log_format: `text`, or `json`: an object a line.
        dashboard: whether `fastworker start` starts the dashboard too.
        dashboard_host: where the dashboard listens; beyond loopback it wants a password.
        dashboard_port: its port; the next free one if it is taken.
        dashboard_password: of an admin, who may do anything.
        dashboard_operator_password: of an operator, who may act on tasks and queues, but not delete or submit.
        dashboard_viewer_password: of a viewer, who may look.
        dashboard_hosts: the names by which browsers may call the dashboard, besides those of loopback.
        dashboard_trace_url: where traces are shown, with `{trace_id}` in it: the dashboard links tasks to it.
    """

    model_config = SettingsConfigDict(
        env_prefix="FASTWORKER_",
        pyproject_toml_table_header=("tool", "fastworker"),
        extra="forbid",
        populate_by_name=True,
    )

    url: str | None = None
    key: SecretStr | None = None
    payload_keys: SecretStr | None = None
    modules: Words = Field(
        default_factory=list, validation_alias=AliasChoices("FASTWORKER_TASK_MODULES", "FASTWORKER_MODULES")
    )
    listen: Words = Field(default_factory=list)
    certificates: Path | None = None
    lan: bool = False
    lan_name: str | None = None
    insecure: bool = False
    max_connections: int = Field(default=10_000, ge=1)
    store: StoreKind = "sqlite"
    store_path: Path = Path(".fastworker")
    sync: Sync = "normal"
    concurrency: int = Field(default=8, ge=1, le=100_000)
    processes: int = Field(default=1, ge=0, le=1024)
    max_tasks_per_process: int | None = Field(default=None, ge=1)
    max_memory: Annotated[int, BeforeValidator(_bytes)] | None = None
    grace: float = Field(default=30.0, ge=0)
    lease: float = Field(default=60.0, gt=0)
    silence: float = Field(default=10.0, gt=0)
    reconnect: float = Field(default=2.0, ge=0)
    recovery: float = Field(default=10.0, ge=0)
    max_crashes: int = Field(default=3, ge=1)
    keep_finished: int = Field(default=1_000_000, ge=0)
    keep_for: float = Field(default=7 * 86_400.0, ge=0)
    connect_timeout: float = Field(default=10.0, gt=0)
    answer_timeout: float = Field(default=30.0, gt=0)
    log_format: LogKind = "text"
    dashboard: bool = True
    dashboard_host: str = "127.0.0.1"
    dashboard_port: int = Field(default=8080, ge=0, le=65_535)
    dashboard_password: SecretStr | None = None
    dashboard_operator_password: SecretStr | None = None
    dashboard_viewer_password: SecretStr | None = None
    dashboard_hosts: Words = Field(default_factory=list)
    dashboard_trace_url: str | None = Field(default=None, pattern=r"^https?://.*\{trace_id\}")

    @field_validator("modules", "listen", "dashboard_hosts", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        """In the environment a list is words with commas or spaces between them."""
        return value.replace(",", " ").split() if isinstance(value, str) else value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic passes all by name
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The order of the sources, first wins."""
        return init_settings, env_settings, PyprojectTomlConfigSettingsSource(settings_cls)


def load_settings(**arguments: Any) -> Settings:
    """Settings in which the arguments that are not None go first.

    Raises:
        ConfigurationError: names the setting and what it may be.
    """
    try:
        return Settings(**{name: value for name, value in arguments.items() if value is not None})
    except ValidationError as error:
        problems = [f"{'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in error.errors(include_url=False)]
        raise ConfigurationError("settings: " + "; ".join(problems)) from None
    except ValueError as error:  # a pyproject.toml that is not TOML
        raise ConfigurationError(f"settings: {error}") from error
