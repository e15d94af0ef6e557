"""What stands before every route: whose host names count, who may send what changes something, what pages may load.

A page of a stranger can make a browser send requests to us. It can't set `Host` to a name that we answer to (DNS
rebinding: CVE-2025-62593), and it can't hide where it comes from (`Sec-Fetch-Site`, `Origin`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")
SAFE: Final = ("GET", "HEAD")
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Final = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class Guard:
    """ASGI middleware.

    Args:
        hosts: names that browsers may call us by, besides those of loopback; `*` for any.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str] = ()) -> None:
        self._app = app
        self._hosts = {host.lower() for host in (*LOOPBACK, *hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or go on and add the headers to the answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        complaint = self._complaint(scope["method"], headers)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                said = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    said[name] = value
                said.setdefault("cache-control", "no-store")
            await send(message)

        if complaint is not None:
            await PlainTextResponse(complaint, 403)(scope, receive, send_with_headers)
        else:
            await self._app(scope, receive, send_with_headers)

    def _complaint(self, method: str, headers: Headers) -> str | None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            return (
                "this dashboard is not called by that name; "
                "name it in FASTWORKER_DASHBOARD_HOSTS, or use the address that was printed"
            )
        if not self._is_same_origin(headers, hosts[0]) and not (method in SAFE and _is_navigation(headers)):
            return "a page of another site asked for this, and may not"
        if method not in SAFE and not self._says_where_from(headers):
            return "say where this comes from: Sec-Fetch-Site, Origin, or a bearer token"
        return None

    def _is_ours(self, host: str) -> bool:
        name = host.lower().rpartition(":")[0] if _has_port(host) else host.lower()
        return name in self._hosts or "*" in self._hosts

    def _is_same_origin(self, headers: Headers, host: str) -> bool:
        """Nothing in the request says that it comes from elsewhere."""
        site = headers.get("sec-fetch-site")
        origin = headers.get("origin")
        if site not in (None, "same-origin", "none"):
            return False
        return origin is None or origin.lower() in (f"http://{host.lower()}", f"https://{host.lower()}")

    def _says_where_from(self, headers: Headers) -> bool:
        named = headers.get("sec-fetch-site") is not None or headers.get("origin") is not None
        return named or headers.get("authorization", "").lower().startswith("bearer ")


def _has_port(host: str) -> bool:
    return host.rpartition(":")[2].isdigit() and (host.count(":") == 1 or "]:" in host)


def _is_navigation(headers: Headers) -> bool:
    """Somebody follows a link to us from elsewhere: the page opens, in a window of its own and with nothing changed."""
    return headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
