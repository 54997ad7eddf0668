"""The local Discord's REST API, version 10: just what a bot asks for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from aiohttp import web

from .world import Account, snowflake

if TYPE_CHECKING:
    from . import LocalDiscord


def json_response(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A JSON answer. Discord's Content-Type has no charset, and discord.py compares it to the letter."""
    all_headers = {"Content-Type": "application/json", "Via": "1.1 google", **(headers or {})}
    return web.Response(body=json.dumps(body).encode(), status=status, headers=all_headers)


def bucket(name: str) -> dict[str, str]:
    """The headers of a rate limit that is far away."""
    return {
        "X-RateLimit-Bucket": name,
        "X-RateLimit-Limit": "50",
        "X-RateLimit-Remaining": "49",
        "X-RateLimit-Reset-After": "1.0",
    }


class Rest:
    """The routes. Each request is counted for its account, and may be dealt with by a fault first."""

    def __init__(self, discord: LocalDiscord) -> None:
        self.discord = discord

    def add_routes(self, app: web.Application) -> None:
        base = "/api/v10"
        app.router.add_get(base + "/users/@me", self.handler(self.me))
        app.router.add_get(base + "/oauth2/applications/@me", self.handler(self.application))
        app.router.add_get(base + "/gateway/bot", self.handler(self.gateway_bot))
        app.router.add_post(base + "/channels/{channel}/messages", self.handler(self.post_message))
        app.router.add_put(base + "/applications/{application}/commands", self.handler(self.put_commands))
        app.router.add_post(base + "/interactions/{id}/{token}/callback", self.handler(self.answer_interaction))
        app.router.add_route("*", base + "/{rest:.*}", self.handler(self.not_found))

    def handler(self, answer: Any) -> Any:
        async def handle(request: web.Request) -> web.Response:
            discord = self.discord
            await discord.travel()
            name = f"{request.method} {request.path.removeprefix('/api/v10')}"
            account = discord.accounts.get(request.headers.get("Authorization", "").removeprefix("Bot "))
            discord.requests.append(name)
            if account is not None:
                account.requests.append(name)
            for faults in filter(None, (account, discord)):
                for moment in (name, "REST"):
                    action = faults.next_action(moment)
                    if action is not None:
                        response = await action(request)
                        if response is not None:
                            if not isinstance(response, web.Response):
                                response = json_response({}, status=500)  # the connection is cut anyway
                            discord.count_invalid(response.status)
                            return response
            if account is None and "/interactions/" in name:
                account = discord.interactions.get(request.match_info["token"])
            if account is None or account.token_reset:
                discord.count_invalid(401)
                return json_response({"message": "401: Unauthorized", "code": 0}, status=401)
            return await answer(request, account)

        return handle

    async def me(self, _request: web.Request, account: Account) -> web.Response:
        return json_response(
            account.user.payload() | {"mfa_enabled": False, "verified": True, "email": None, "flags": 0}
        )

    async def application(self, _request: web.Request, account: Account) -> web.Response:
        return json_response(account.application())

    async def gateway_bot(self, _request: web.Request, account: Account) -> web.Response:
        used = len(account.identifies)
        limit = {"total": 1000, "remaining": max(0, 1000 - used), "reset_after": 86_400_000, "max_concurrency": 1}
        return json_response({"url": self.discord.gateway_url, "shards": account.shards, "session_start_limit": limit})

    async def post_message(self, request: web.Request, account: Account) -> web.Response:
        body = await request.json()
        channel_id = int(request.match_info["channel"])
        account.messages.append(body)
        message = self.discord.message(channel_id, account.user, body.get("content") or "", body)
        await self.discord.deliver(message, nonce=body.get("nonce"))
        return json_response(message, headers=bucket("messages"))

    async def put_commands(self, request: web.Request, account: Account) -> web.Response:
        """Replace an application's slash commands."""
        account.commands = [
            command | {"id": str(snowflake()), "application_id": str(account.user.id), "version": "1"}
            for command in await request.json()
        ]
        return json_response(account.commands)

    async def answer_interaction(self, request: web.Request, account: Account) -> web.Response:
        """A slash command's answer. Discord takes it without the bot's token, which is in the interaction's own."""
        body = await request.json()
        account.messages.append(body.get("data", {}))
        message = self.discord.message(self.discord.guild.channel_id, account.user, body["data"].get("content") or "")
        callback = {"id": request.match_info["id"], "type": 2, "response_message_id": message["id"]}
        return json_response({"interaction": callback, "resource": {"type": body["type"], "message": message}})

    async def not_found(self, request: web.Request, _account: Account) -> web.Response:
        return json_response({"message": "404: Not Found", "code": 0, "id": str(snowflake())}, status=404)
