"""The ways in which the local Discord can fail, by name.

A fault is given to `LocalDiscord.fail` or `Account.fail` for one moment:

* a REST request, such as `"GET /users/@me"`, or `"REST"` for every request;
* a moment at the gateway: `"connect"` (before HELLO), `"identify"`, `"ready"` (right after READY),
  `"resume"`, `"heartbeat"`.

Each function here makes an action: a coroutine function that gets the request or the gateway
connection and says whether it has dealt with it. What is not dealt with goes on as usual.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from .rest import json_response


def status(code: int, body: Any = None, headers: dict[str, str] | None = None) -> Any:
    """Answer a request with this status and a JSON error, as Discord itself does.

    Its answers come through a proxy, which adds `Via`.
    """

    async def action(_request: web.Request) -> web.Response:
        error = {"message": f"{code}: made-up error", "code": 0} if body is None else body
        return json_response(error, status=code, headers={"Via": "1.1 google", **(headers or {})})

    return action


def rate_limited(seconds: float) -> Any:
    """Discord's own 429: JSON, with a `Via` header and the seconds to wait."""
    body = {"message": "You are being rate limited.", "retry_after": seconds, "global": False}
    return status(429, body, {"Retry-After": str(seconds), "X-RateLimit-Scope": "user"})


def cloudflare_block(retry_after: int | None = None) -> Any:
    """Cloudflare's 429, which blocks an IP address: a text body and no `Via` header."""

    async def action(_request: web.Request) -> web.Response:
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        return web.Response(status=429, text="error code: 1015", headers=headers)

    return action


def captive_portal(charset: str = "utf-8") -> Any:
    """A hotel's log-in page with status 200 in place of Discord's answer."""

    async def action(_request: web.Request) -> web.Response:
        page = "<html><title>Bienvenue à l'hôtel</title></html>"
        return web.Response(body=page.encode(charset), content_type="text/html")

    return action


def hang(seconds: float = 3600) -> Any:
    """Take the request or the connection, and say nothing."""

    async def action(_subject: Any) -> None:
        await asyncio.sleep(seconds)

    return action


def pass_by() -> Any:
    """Do nothing, so that the next fault is for the next moment of the kind."""

    async def action(_subject: Any) -> None:
        pass

    return action


def hello_and_drop() -> Any:
    """Say HELLO, and cut the connection before an IDENTIFY can come."""

    async def action(connection: Any) -> bool:
        await connection.send({"op": 10, "d": {"heartbeat_interval": 41_250}})
        await asyncio.sleep(1)
        connection.transport.abort()
        return True

    return action


def close(code: int) -> Any:
    """Close the gateway connection with this close code."""

    async def action(connection: Any) -> bool:
        await connection.close(code)
        return True

    return action


def close_and_hang_up(code: int) -> Any:
    """Close the gateway connection with this close code, and do not wait for the bot's own."""

    async def action(connection: Any) -> bool:
        await connection.close(code, hang_up=True)
        return True

    return action


def drop() -> Any:
    """Cut the connection, as a dead network does: no close frame."""

    async def action(subject: Any) -> bool:
        transport = subject.transport
        if transport is not None:
            transport.abort()
        return True

    return action


def invalid_session(resumable: bool = False) -> Any:
    """Answer an IDENTIFY or a RESUME with INVALID SESSION (opcode 9)."""

    async def action(connection: Any) -> bool:
        await connection.send({"op": 9, "d": resumable})
        return True

    return action


def ask_to_reconnect() -> Any:
    """Send RECONNECT (opcode 7)."""

    async def action(connection: Any) -> bool:
        await connection.send({"op": 7, "d": None})
        return True

    return action


def unreadable_event() -> Any:
    """Send an event that lacks what every such event has."""

    async def action(connection: Any) -> bool:
        await connection.session.dispatch("CHANNEL_CREATE", {})
        return False

    return action


def silence() -> Any:
    """Leave it unanswered: a heartbeat without its ACK."""

    async def action(_connection: Any) -> bool:
        return True

    return action
