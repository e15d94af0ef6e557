"""The cluster key, what follows from it, and the file that keeps it."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path
from typing import get_args

import pytest
from pydantic import SecretStr

from fastworker.errors import ConfigurationError
from fastworker.key_file import accepted_keys, key_for, key_path, load_keys, make_key, read_keys, retire_key, rotate_key
from fastworker.keys import Key, KeyRole, expand, extract, new_nonce, role_keys
from fastworker.settings import Settings, load_settings

KEY = "5f" * 32
ROLES: tuple[KeyRole, ...] = get_args(KeyRole)


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this user's is touched."""
    for name in list(os.environ):
        if name.startswith("FASTWORKER_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def no_key() -> Settings:
    return load_settings()


# ---- what follows from the key -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("secret", "salt", "info", "length", "pseudorandom", "output"),
    [
        (
            "0b" * 22,
            "000102030405060708090a0b0c",
            "f0f1f2f3f4f5f6f7f8f9",
            42,
            "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5",
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
        ),
        (
            bytes(range(0x50)).hex(),
            bytes(range(0x60, 0xB0)).hex(),
            bytes(range(0xB0, 0x100)).hex(),
            82,
            "06a6b88c5853361a06104c9ceb35b45cef760014904671014a193f40c15fc244",
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09"
            "da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
        ),
        (
            "0b" * 22,
            "",
            "",
            42,
            "19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04",
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
        ),
    ],
    ids=["with salt and info", "longer", "without either"],
)
def test_hkdf_as_in_rfc_5869(secret: str, salt: str, info: str, length: int, pseudorandom: str, output: str) -> None:
    found = extract(bytes.fromhex(salt), bytes.fromhex(secret))
    assert found.hex() == pseudorandom
    assert expand(found, bytes.fromhex(info), length).hex() == output


def test_each_role_has_a_key_of_its_own_and_each_key_an_id() -> None:
    cluster = Key.new()
    keys = [cluster, *(cluster.of(role) for role in ROLES)]
    assert len({key.secret for key in keys}) == len({key.id for key in keys}) == 4
    assert len({key.pre_shared for key in keys} | {key.secret for key in keys}) == 8
    assert Key.from_text(cluster.text).of("worker") == cluster.of("worker"), "the same on every machine"
    assert all(key.secret.hex() not in f"{key!r} {key.identity} {key.id}" for key in keys)


def test_from_the_key_of_a_role_no_other_follows() -> None:
    worker = Key.from_text(Key.new().of("worker").text)
    assert worker.of("worker") == worker.for_dialing() == worker
    for role in ("client", "admin"):
        with pytest.raises(ConfigurationError, match="from the cluster key only; this one is a worker's"):
            worker.of(role)
    with pytest.raises(ConfigurationError, match="a control plane needs the cluster key itself"):
        role_keys((worker,))


def test_who_holds_the_cluster_key_connects_as_admin() -> None:
    cluster = Key.new()
    assert cluster.for_dialing() == cluster.of("admin")


def test_a_proof_is_good_for_one_nonce_and_of_one_key() -> None:
    one, other = Key.new().of("client"), Key.new().of("client")
    nonce = new_nonce()
    assert one.is_proof(one.proof(nonce), nonce)
    assert not one.is_proof(one.proof(nonce), new_nonce())
    assert not one.is_proof(other.proof(nonce), nonce)
    assert not one.is_proof("ü" * 64, nonce)
    assert one.pre_shared.hex() not in one.proof(nonce)


# ---- as text -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key", ["5f", "5f" * 31, "5f" * 33, "zz" * 32, "5", "schlüssel", f"king:{KEY}", f"client:{KEY}00"]
)
def test_a_bad_key_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(ConfigurationError, match="must be 64 hexadecimal digits") as caught:
        load_keys(no_key(), given=SecretStr(key))
    assert key not in str(caught.value)


def test_the_environment_may_hold_two_keys_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, three = (Key.new() for _ in range(3))
    monkeypatch.setenv("FASTWORKER_KEY", f"{two.text}, {one.text}")
    assert load_keys(load_settings()) == (two, one)
    assert key_for("tls+tcp://a:1", load_settings()) == two.of("admin"), "the first is the one to connect with"
    assert set(accepted_keys(load_settings())) == {key.of(role) for key in (one, two) for role in ROLES}
    monkeypatch.setenv("FASTWORKER_KEY", f"{three.text} {two.text} {one.text}")
    with pytest.raises(ConfigurationError, match="at most 2 cluster keys"):
        load_keys(load_settings())


def test_the_argument_goes_before_the_environment_and_that_before_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    in_file = load_keys(no_key(), make=True)
    monkeypatch.setenv("FASTWORKER_KEY", "11" * 32)
    assert load_keys(load_settings(), given=SecretStr("22" * 32)) == (Key(None, b"\x22" * 32),)
    assert load_keys(load_settings()) == (Key(None, b"\x11" * 32),)
    monkeypatch.delenv("FASTWORKER_KEY")
    assert load_keys(load_settings()) == in_file


def test_only_encrypted_addresses_need_a_key() -> None:
    assert key_for("ipc:///tmp/a", no_key()) is None
    assert key_for("inproc://a", no_key()) is None
    assert key_for("tcp://a:1", no_key()) is None
    assert key_for("tls+tcp://a:1", no_key(), SecretStr(KEY)) == Key(None, bytes.fromhex(KEY)).of("admin")
    assert key_for("tls+tcp://a:1", no_key(), SecretStr(f"client:{KEY}")) == Key("client", bytes.fromhex(KEY))


# ---- the file ------------------------------------------------------------------------------------------------


def test_a_key_is_made_at_first_need_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        (key,) = load_keys(no_key(), make=True)
    finally:
        os.umask(before)
    assert key_path() == tmp_path / "config" / "fastworker" / "key"
    assert mode_of(key_path()) == 0o600
    assert mode_of(key_path().parent) == 0o700
    assert len(key.secret) == 32
    assert load_keys(no_key()) == (key,) == load_keys(no_key(), make=True)
    assert not make_key(), "the one that is there stays"


def test_two_control_planes_that_start_together_make_one_key() -> None:
    keys: list[tuple[Key, ...]] = []
    at_once = threading.Barrier(8)

    def start() -> None:
        at_once.wait(10)
        keys.append(load_keys(no_key(), make=True))

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
        load_keys(no_key())
    assert not key_path().exists()


def test_a_key_that_was_given_is_not_written_anywhere() -> None:
    load_keys(no_key(), given=SecretStr(KEY), make=True)
    assert not key_path().exists()


@pytest.mark.parametrize("content", [b"", b"\n", b"not a key", b"\xff\xfe" * 32, b"5f" * 31])
def test_a_key_file_that_is_damaged_is_refused(content: bytes) -> None:
    key_path().parent.mkdir(parents=True)
    key_path().write_bytes(content)
    key_path().chmod(0o600)
    with pytest.raises(ConfigurationError, match="must be 64 hexadecimal digits"):
        load_keys(no_key(), make=True)


def test_a_key_file_that_others_can_read_is_refused() -> None:
    make_key()
    key_path().chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        read_keys()


def test_a_rotation_has_two_steps() -> None:
    make_key()
    (old,) = read_keys()
    new, kept = rotate_key()
    assert (new, kept) == read_keys()
    assert kept == old != new
    with pytest.raises(ConfigurationError, match="a rotation is under way"):
        rotate_key()
    assert retire_key() == (new,) == read_keys()
    with pytest.raises(ConfigurationError, match="nothing to retire"):
        retire_key()
    assert mode_of(key_path()) == 0o600
    assert [path.name for path in key_path().parent.iterdir()] == ["key"]


def test_the_key_of_a_role_can_not_be_rotated() -> None:
    make_key()
    key_path().write_text(read_keys()[0].of("worker").text)
    with pytest.raises(ConfigurationError, match="this is a worker's key"):
        rotate_key()
