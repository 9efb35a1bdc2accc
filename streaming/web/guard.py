"""Who may ask: the door before every request and every WebSocket.

A page of another site that is open in the same browser can send requests to this machine, too. Hence: the Host
must be a name of ours (a name that was rebound to this address is not), an Origin must be that host itself, and
beyond this machine a token is needed.
"""

from __future__ import annotations

import hmac
import ipaddress
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streaming.web.limits import RateLimit

COOKIE = "replayguard"
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
MIN_TOKEN = 16
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}


@dataclass(frozen=True)
class Door:
    """`names` a Host may have; any IP address too where `addresses`; `token` None asks for none."""

    names: frozenset[str]
    addresses: bool = False
    token: str | None = None


def is_local(host: str) -> bool:
    """Whether only this machine reaches a server bound to `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def door(host: str, token: str | None = None, names: tuple[str, ...] = ()) -> Door:
    """The door of a server bound to `host`; ValueError where it would stand open.

    A server on all addresses is asked for by whatever address it has: an address cannot be rebound, a name can.
    """
    if token is not None and (len(token) < MIN_TOKEN or not token.isascii() or not token.isprintable()):
        raise ValueError(f"the token is too weak; expected {MIN_TOKEN} printable ASCII characters or more")
    if not is_local(host) and token is None:
        raise ValueError(f"{host} is reached from elsewhere; expected a token, or the host 127.0.0.1")
    known = {*LOCAL_NAMES, *(name.lower() for name in names)}
    every = host in ("0.0.0.0", "::", "")
    return Door(frozenset(known if every else known | {host.lower()}), every, token)


def host_name(host: str) -> str | None:
    """The name in a Host header, without its port; None where it is none.

    >>> host_name("localhost:80"), host_name("[::1]:80"), host_name("a b")
    ('localhost', '::1', None)
    """
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
    except ValueError:
        return None
    plain = parts.path == parts.query == parts.fragment == "" and parts.username is None
    return parts.hostname if plain and " " not in host else None


class Guard:
    """ASGI middleware: 403 for another site, 401 without the token; headers that keep the page to itself.

    `/?token=...` is exchanged for a cookie that scripts cannot read, and leaves the address bar.
    """

    def __init__(self, app: ASGIApp, door: Door):
        self.app, self.door = app, door
        self.wrong_tokens = RateLimit(10, 60.0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        refused = self._refuse(scope)
        if refused is None:
            return await self.app(scope, receive, _with_headers(send))
        if scope["type"] == "websocket":
            await receive()
            return await send({"type": "websocket.close", "code": 4403})
        return await refused(scope, receive, _with_headers(send))

    def _refuse(self, scope: Scope) -> Response | None:
        headers = [
            (name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]
        ]
        hosts, origins = (
            [value for name, value in headers if name == wanted] for wanted in ("host", "origin")
        )
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            return PlainTextResponse("Not a name of this page; use the address it was printed with.\n", 403)
        if origins and (len(origins) > 1 or urlsplit(origins[0]).netloc.lower() != hosts[0].lower()):
            return PlainTextResponse("Asked for by another site.\n", 403)
        if ("sec-fetch-site", "cross-site") in headers and scope.get("method") != "GET":
            return PlainTextResponse("Asked for by another site.\n", 403)
        return None if self.door.token is None else self._ask_token(scope, dict(headers))

    def _is_ours(self, host: str) -> bool:
        name = host_name(host)
        if name is None:
            return False
        if name in self.door.names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return self.door.addresses

    def _ask_token(self, scope: Scope, headers: dict[str, str]) -> Response | None:
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if scope["type"] == "http" and scope["path"] == "/" and given and self._is_token(given):
            response = RedirectResponse("/", 303)
            response.set_cookie(COOKIE, given, httponly=True, samesite="strict", path="/")
            return response
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        offered = _cookie(headers.get("cookie", "")) or bearer or given
        if offered and self._is_token(offered):
            return None
        client = (scope.get("client") or ("?",))[0]
        if offered and not self.wrong_tokens.take(client):
            return PlainTextResponse("Too many wrong tokens; wait a minute.\n", 429)
        return PlainTextResponse("A token is needed; use the address that was printed at the start.\n", 401)

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode(), (self.door.token or "").encode())


def _cookie(header: str) -> str:
    try:
        cookies = SimpleCookie(header)
    except CookieError:
        return ""
    return cookies[COOKIE].value if COOKIE in cookies else ""


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
        await send(message)

    return sending
