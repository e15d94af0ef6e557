"""How NNG is to do TLS: with pre-shared keys or certificates. Each end proves itself to the other.

TLS 1.3 only: all its suites are AEAD, and Mbed TLS always adds an ephemeral key to the pre-shared one where the other
end can, so that a key that leaks does not open what was recorded before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from fastworker.credentials import CONTROL_PLANE_HOST, Certificates, Credential
from fastworker.errors import ConfigurationError
from fastworker.keys import Key
from fastworker.nng import check, ffi, lib


@contextmanager
def server_config(accepted: Sequence[Key] | Certificates) -> Iterator[Any]:
    """NNG's configuration of a listener that accepts these; who is given it keeps it.

    Raises:
        ConfigurationError: the certificates are none.
    """
    with _config(lib.NNG_TLS_MODE_SERVER) as config:
        _show(config, accepted)
        yield config


@contextmanager
def client_config(shown: Credential) -> Iterator[Any]:
    """NNG's configuration of a dialer that shows this.

    Raises:
        ConfigurationError: the certificates are none.
    """
    with _config(lib.NNG_TLS_MODE_CLIENT) as config:
        _show(config, [shown] if isinstance(shown, Key) else shown)
        if isinstance(shown, Certificates):
            check(lib.nng_tls_config_server_name(config, CONTROL_PLANE_HOST.encode()))
        yield config


@contextmanager
def _config(mode: int) -> Iterator[Any]:
    cell = ffi.new("nng_tls_config **")
    check(lib.nng_tls_config_alloc(cell, mode))
    try:
        check(lib.nng_tls_config_version(cell[0], lib.NNG_TLS_1_3, lib.NNG_TLS_1_3))
        yield cell[0]
    finally:
        lib.nng_tls_config_free(cell[0])


def _show(config: Any, shown: Sequence[Key] | Certificates) -> None:
    if isinstance(shown, Certificates):
        _certify(config, shown)
        return
    for key in shown:
        secret = key.pre_shared
        check(lib.nng_tls_config_psk(config, key.identity.encode(), secret, len(secret)))


def _certify(config: Any, shown: Certificates) -> None:
    code = lib.nng_tls_config_auth_mode(config, lib.NNG_TLS_AUTH_MODE_REQUIRED)
    code = code or lib.nng_tls_config_ca_chain(config, shown.authority.encode(), ffi.NULL)
    code = code or lib.nng_tls_config_own_cert(config, shown.certificate.encode(), shown.key.encode(), ffi.NULL)
    if code != 0:
        raise ConfigurationError("the certificates can't be used: make them anew with fastworker certs")
