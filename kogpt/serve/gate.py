"""Who may ask what, before anything is read: Host, key, type and size of the body. An ASGI middleware.

- Host: on loopback only requests to a loopback name are answered. A web page whose name was re-bound to 127.0.0.1 sends
  its own name, and is refused with 403.
- Key: where there is one, `/v1/...` and `/metrics` need `Authorization: Bearer KEY` (401), the page and `/health` not.
- POST needs `Content-Type: application/json` (415). Another site's page cannot send that without asking first by CORS,
  which is allowed only for origins that are named.
- Body: at most BODY_BYTES (413), all of it within BODY_SECONDS (408).
"""

import asyncio
import secrets
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kogpt.serve.errors import Refused

BODY_BYTES = 2**20
BODY_SECONDS = 30.0
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Gate:
    """Passes on what is allowed. `hosts`: the names that may be asked for, None for all; `key`: None for no key."""

    def __init__(self, app: ASGIApp, *, hosts: Collection[str] | None, key: str | None) -> None:
        self.app, self.hosts, self.key = app, hosts, key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        send = _as_named(send)
        try:
            self._check(scope)
            body = await _body(receive) if scope["method"] == "POST" else None
        except Refused as refused:
            await refused.response(scope, receive, send)
            return
        if body is not None:
            receive = _replay(body, receive)
        await self.app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        if self.hosts is not None and host_name(headers.get("host", "")) not in self.hosts:
            raise Refused(403, "This server answers only on this machine's own address, such as http://localhost.")
        if self.key is not None and (scope["path"].startswith("/v1/") or scope["path"] == "/metrics"):
            given = headers.get("authorization", "").removeprefix("Bearer ").strip()
            if not secrets.compare_digest(given.encode("latin-1"), self.key.encode()):
                message = "The API key is missing or wrong; send the server's key as Authorization: Bearer KEY."
                raise Refused(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
        if scope["method"] == "POST":
            kind = headers.get("content-type", "").split(";")[0].strip().lower()
            if kind != "application/json":
                raise Refused(415, "The body has to be JSON; send the header Content-Type: application/json.")
            if headers.get("content-length", "").isdigit() and int(headers["content-length"]) > BODY_BYTES:
                raise _too_large()


def _as_named(send: Send) -> Send:
    """A `send` whose responses are what their type says: no browser takes an answer in JSON for HTML."""

    async def named(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)["X-Content-Type-Options"] = "nosniff"
        await send(message)

    return named


def host_name(host: str) -> str:
    """The name in a Host header or of --host: without the port and brackets, in lower case."""
    host = host.strip().lower()
    name = host[1:].split("]")[0] if host.startswith("[") else host.rsplit(":", 1)[0] if host.count(":") == 1 else host
    return name.removesuffix(".")


def _too_large() -> Refused:
    return Refused(413, f"The body has more than {BODY_BYTES:,} bytes; send less text.", code="body_too_large")


async def _body(receive: Receive) -> bytes:
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Refused(400, "The client has gone.")
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > BODY_BYTES:
                    raise _too_large()
                if not message.get("more_body"):
                    return b"".join(parts)
    except TimeoutError:
        raise Refused(408, f"The body did not arrive within {BODY_SECONDS:.0f} seconds.") from None


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body at once, and then whatever else happens to the connection."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again
