"""Where a control plane is, who may enter, and the key that opens it."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from fastworker.addresses import (
    DEFAULT_TCP,
    candidates,
    checked,
    cluster_key,
    key_for,
    key_path,
    listening_addresses,
    local_url,
    runtime_directory,
)
from fastworker.errors import ConfigurationError
from fastworker.settings import Settings, load_settings

KEY = "5f" * 32


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
    assert candidates(None, load_settings()) == [(local_url(), "this user's socket on this host")]


# ---- the key -------------------------------------------------------------------------------------------------


def no_key() -> Settings:
    return load_settings()


def test_a_key_is_made_at_first_need_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        key = cluster_key(no_key(), make=True)
    finally:
        os.umask(before)
    assert key_path() == tmp_path / "config" / "fastworker" / "key"
    assert mode_of(key_path()) == 0o600
    assert mode_of(key_path().parent) == 0o700
    assert len(key) == 32
    assert cluster_key(no_key()) == key == cluster_key(no_key(), make=True)


def test_two_control_planes_that_start_together_make_one_key() -> None:
    keys: list[bytes] = []
    at_once = threading.Barrier(8)

    def start() -> None:
        at_once.wait(10)
        keys.append(cluster_key(no_key(), make=True))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(keys) == 8
    assert len(set(keys)) == 1
    assert [path.name for path in key_path().parent.iterdir()] == ["key"]


def test_a_key_is_never_made_for_a_client() -> None:
    with pytest.raises(ConfigurationError, match=r"there is no cluster key: copy .* or set FASTWORKER_KEY"):
        cluster_key(no_key())
    assert not key_path().exists()


def test_the_argument_goes_before_the_environment_and_that_before_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    in_file = cluster_key(no_key(), make=True)
    monkeypatch.setenv("FASTWORKER_KEY", "11" * 32)
    assert cluster_key(load_settings(), given="22" * 32) == b"\x22" * 32
    assert cluster_key(load_settings()) == b"\x11" * 32
    monkeypatch.delenv("FASTWORKER_KEY")
    assert cluster_key(load_settings()) == in_file


def test_a_key_that_was_given_is_not_written_anywhere() -> None:
    assert cluster_key(no_key(), given=KEY, make=True) == bytes.fromhex(KEY)
    assert not key_path().exists()


@pytest.mark.parametrize("key", ["5f", "5f" * 31, "5f" * 33, "zz" * 32, "5", "schlüssel"])
def test_a_bad_key_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(ConfigurationError, match="must be 64 hexadecimal digits") as caught:
        cluster_key(no_key(), given=key)
    assert key not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\n", b"not a key", b"\xff\xfe" * 32, b"5f" * 31])
def test_a_key_file_that_is_damaged_is_refused(content: bytes) -> None:
    key_path().parent.mkdir(parents=True)
    key_path().write_bytes(content)
    key_path().chmod(0o600)
    with pytest.raises(ConfigurationError, match="must be 64 hexadecimal digits"):
        cluster_key(no_key(), make=True)


def test_only_encrypted_addresses_need_a_key() -> None:
    assert key_for("ipc:///tmp/a", no_key()) is None
    assert key_for("inproc://a", no_key()) is None
    assert key_for("tcp://a:1", no_key()) is None
    assert key_for("tls+tcp://a:1", no_key(), KEY) == bytes.fromhex(KEY)


def test_a_key_file_that_others_can_read_is_refused() -> None:
    cluster_key(load_settings(), make=True)
    key_path().chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        cluster_key(load_settings())
