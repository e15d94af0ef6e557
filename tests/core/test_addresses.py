"""Where a control plane is, and who may enter."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from fastworker.addresses import (
    DEFAULT_TCP,
    candidates,
    checked,
    listening_addresses,
    local_url,
    runtime_directory,
)
from fastworker.errors import ConfigurationError
from fastworker.settings import load_settings


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this user's is touched."""
    for name in list(os.environ):
        if name.startswith("FASTWORKER_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# ---- the directory of sockets --------------------------------------------------------------------------------


def test_the_directory_of_sockets_is_made_for_this_user_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        directory = runtime_directory()
    finally:
        os.umask(before)
    assert directory == tmp_path / "run" / "fastworker"
    assert mode_of(directory) == 0o700
    assert runtime_directory() == directory  # a second time it is there already


def test_the_directory_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTWORKER_RUNTIME_DIR", str(tmp_path / "mine"))
    assert runtime_directory() == tmp_path / "mine"
    assert local_url() == f"ipc://{tmp_path}/mine/control-plane"


def test_without_a_runtime_directory_of_the_system_it_is_a_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    assert runtime_directory() == tmp_path / f"fastworker-{os.getuid()}"


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701, 0o777])
def test_a_directory_that_others_can_enter_is_refused(mode: int, tmp_path: Path) -> None:
    directory = runtime_directory()
    directory.chmod(mode)
    with pytest.raises(ConfigurationError, match=f"run `chmod 700 {directory}`"):
        runtime_directory()


def test_a_directory_of_another_user_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime_directory()
    uid = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    with pytest.raises(ConfigurationError, match="must belong to you"):
        runtime_directory()


def test_a_file_in_the_place_of_the_directory_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FASTWORKER_RUNTIME_DIR", str(tmp_path / "file"))
    with pytest.raises(ConfigurationError, match="file"):
        runtime_directory()


# ---- the form of addresses -----------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["ipc:///tmp/a", "inproc://a", "tcp://127.0.0.1:5555", "tls+tcp://[::1]:5555"])
def test_four_kinds_of_address_are_known(url: str) -> None:
    assert checked(url) == url


def test_host_and_port_alone_are_encrypted() -> None:
    assert checked("queue.example.org:5555") == "tls+tcp://queue.example.org:5555"


@pytest.mark.parametrize("url", ["", "localhost", "http://a:1", "tcp://", "ipc://", "://a", "redis://a:1"])
def test_what_is_not_an_address_is_refused_with_the_right_forms(url: str) -> None:
    with pytest.raises(ConfigurationError, match="use ipc:///path, tls"):
        checked(url)


def test_a_path_that_is_too_long_for_a_socket_is_refused_before_the_system_cuts_it() -> None:
    assert checked("ipc://" + "p" * 107)
    with pytest.raises(ConfigurationError, match="longer than the 107 bytes"):
        checked("ipc://" + "p" * 108)
    with pytest.raises(ConfigurationError, match="longer than the 107 bytes"):
        checked("ipc://" + "ä" * 54)


def test_bytes_of_a_command_line_that_are_no_text_are_no_address() -> None:
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        checked(os.fsdecode(b"ipc:///tmp/\xff"))


# ---- where to listen, where to look --------------------------------------------------------------------------


def test_a_control_plane_listens_at_the_users_socket_and_on_loopback() -> None:
    assert listening_addresses(load_settings()) == [local_url(), DEFAULT_TCP]
    assert "127.0.0.1" in DEFAULT_TCP


def test_addresses_that_were_asked_for_come_beside_the_users_socket() -> None:
    assert listening_addresses(load_settings(listen=["0.0.0.0:6000"])) == [local_url(), "tls+tcp://0.0.0.0:6000"]


def test_a_socket_that_was_asked_for_takes_the_place_of_the_users() -> None:
    assert listening_addresses(load_settings(listen=["ipc:///tmp/mine"])) == ["ipc:///tmp/mine"]


def test_plain_tcp_must_be_allowed() -> None:
    with pytest.raises(ConfigurationError, match="allow it with --insecure"):
        listening_addresses(load_settings(listen=["tcp://127.0.0.1:5555"]))
    allowed = load_settings(listen=["tcp://127.0.0.1:5555"], insecure=True)
    assert "tcp://127.0.0.1:5555" in listening_addresses(allowed)


def test_a_client_looks_where_it_is_told_then_in_the_settings_then_at_the_users_socket() -> None:
    settings = load_settings(url="tcp://b:1")
    assert candidates("a:1", settings) == [("tls+tcp://a:1", "given")]
    assert candidates(None, settings) == [("tcp://b:1", "FASTWORKER_URL or [tool.fastworker] url")]
    assert candidates(None, load_settings()) == [
        (local_url(), "this user's socket on this host"),
        ("lan://", "a search on the network"),
    ]


def test_one_control_plane_may_be_looked_for_at_several_addresses() -> None:
    places = [place for place, _ in candidates("tls+tcp://a:5555,b:6666,tcp://c:1,d:2", load_settings())]
    assert places == ["tls+tcp://a:5555", "tls+tcp://b:6666", "tcp://c:1", "tcp://d:2"]
    assert [place for place, _ in candidates("a:5555,b:6666", load_settings())] == [
        "tls+tcp://a:5555",
        "tls+tcp://b:6666",
    ]
    assert candidates("ipc:///tmp/a,b", load_settings()) == [("ipc:///tmp/a,b", "given")]
    assert candidates("lan://office", load_settings()) == [("lan://office", "given")]
    with pytest.raises(ConfigurationError, match="'tls\\+tcp://' is not an address"):
        candidates("tls+tcp://a:5555,", load_settings())


def test_on_the_network_it_listens_at_all_interfaces_unless_told_otherwise() -> None:
    assert listening_addresses(load_settings(lan=True))[1:] == ["tls+tcp://0.0.0.0:5555"]
    mine = "ipc:///tmp/mine"
    assert listening_addresses(load_settings(lan=True, listen=[mine])) == [mine, "tls+tcp://0.0.0.0:5555"]
    assert listening_addresses(load_settings(lan=True, listen=["10.0.0.1:6"]))[1:] == ["tls+tcp://10.0.0.1:6"]
