"""The local Discord's REST API, version 10: just what a bot asks for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from aiohttp import web

from .interactions import (
    DEFERRED_MESSAGE,
    DEFERRED_UPDATE,
    EPHEMERAL,
    FORM,
    LOADING,
    MESSAGE,
    UPDATE,
)
from .world import Account, User, emoji_payload, member_payload, snowflake

if TYPE_CHECKING:
    from . import LocalDiscord


def json_response(
    body: Any, status: int = 200, headers: dict[str, str] | None = None
) -> web.Response:
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


class Refusal(Exception):
    """An error of Discord: the status, and the body with its own code for it."""

    def __init__(self, status: int, code: int, message: str, **details: Any) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"message": message, "code": code, **details}


def invalid(field: str, code: str, message: str) -> Refusal:
    """The refusal of one field of a body."""
    return Refusal(
        400,
        50035,
        "Invalid Form Body",
        errors={field: {"_errors": [{"code": code, "message": message}]}},
    )


def check_message(body: dict[str, Any], files: list[dict[str, Any]]) -> None:
    """Raises `Refusal` for a message that is empty or too long."""
    if len(body.get("content") or "") > 2000:
        raise invalid("content", "BASE_TYPE_MAX_LENGTH", "Must be 2000 or fewer in length.")
    if not files and not any(
        body.get(name) for name in ("content", "embeds", "components", "attachments", "poll")
    ):
        raise Refusal(400, 50006, "Cannot send an empty message")


async def read_body(request: web.Request) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A request's JSON, and the files that came with it as attachment objects."""
    if not request.content_type.startswith("multipart/"):
        return await request.json(), []
    body: dict[str, Any] = {}
    files = []
    for part in (await request.post()).values():
        if isinstance(part, web.FileField):
            where = f"http://localhost/{part.filename}"
            size = {"size": len(part.file.read()), "url": where, "proxy_url": where}
            files.append({"id": str(snowflake()), "filename": part.filename, **size})
        else:
            body = json.loads(part)  # payload_json
    return body, files


class Rest:
    """The routes. Each request is counted for its account, and may be dealt with by a fault first."""

    def __init__(self, discord: LocalDiscord) -> None:
        self.discord = discord

    def add_routes(self, app: web.Application) -> None:
        channel, message = "/channels/{channel}", "/channels/{channel}/messages/{message}"
        reaction, webhook = f"{message}/reactions/{{emoji}}", "/webhooks/{application}/{token}"
        commands = "/applications/{application}/commands"
        guild_commands = "/applications/{application}/guilds/{guild}/commands"
        for method, path, answer in (
            ("GET", "/users/@me", self.me),
            ("GET", "/oauth2/applications/@me", self.application),
            ("GET", "/gateway/bot", self.gateway_bot),
            ("GET", "/users/{user}", self.user),
            ("GET", "/guilds/{guild}/members/{user}", self.member),
            ("POST", "/users/@me/channels", self.open_direct_channel),
            ("GET", channel, self.channel),
            ("POST", f"{channel}/typing", self.typing),
            ("GET", f"{channel}/messages", self.history),
            ("POST", f"{channel}/messages", self.post_message),
            ("POST", f"{channel}/messages/bulk-delete", self.delete_messages),
            ("GET", message, self.get_message),
            ("PATCH", message, self.edit_message),
            ("DELETE", message, self.delete_message),
            ("GET", reaction, self.reacted),
            ("PUT", f"{reaction}/@me", self.react),
            ("DELETE", f"{reaction}/{{user}}", self.take_reaction_away),
            ("DELETE", f"{message}/reactions", self.clear_reactions),
            ("GET", commands, self.get_commands),
            ("PUT", commands, self.put_commands),
            ("GET", guild_commands, self.get_commands),
            ("PUT", guild_commands, self.put_commands),
            ("POST", "/interactions/{id}/{token}/callback", self.answer_interaction),
            ("POST", webhook, self.follow_up),
            ("GET", f"{webhook}/messages/{{message}}", self.get_answer),
            ("PATCH", f"{webhook}/messages/{{message}}", self.edit_answer),
            ("DELETE", f"{webhook}/messages/{{message}}", self.delete_answer),
            ("*", "/{rest:.*}", self.not_found),
        ):
            app.router.add_route(method, f"/api/v10{path}", self.handler(answer))

    def handler(self, answer: Any) -> Any:
        async def handle(request: web.Request) -> web.Response:
            discord = self.discord
            await discord.travel()
            name = f"{request.method} {request.path.removeprefix('/api/v10')}"
            account = discord.accounts.get(
                request.headers.get("Authorization", "").removeprefix("Bot ")
            )
            discord.requests.append(name)
            discord.rest_connections.add(request.transport)
            if account is not None:
                account.requests.append(name)
            for faults in filter(None, (account, discord)):
                for moment in (name, "REST"):
                    action = faults.next_action(moment)
                    if action is not None:
                        response = await action(request)
                        if response is not None:
                            if not isinstance(response, web.Response):
                                response = json_response(
                                    {}, status=500
                                )  # the connection is cut anyway
                            discord.count_invalid(response.status)
                            return response
            if account is None and (
                interaction := discord.interactions.get(request.match_info.get("token", ""))
            ):
                account = interaction.account  # these requests come without the bot's token
            if account is None or account.token_reset:
                discord.count_invalid(401)
                return json_response({"message": "401: Unauthorized", "code": 0}, status=401)
            try:
                return await answer(request, account)  # type: ignore[no-any-return]
            except Refusal as refusal:
                discord.count_invalid(refusal.status)
                return json_response(refusal.body, status=refusal.status)

        return handle

    async def me(self, _request: web.Request, account: Account) -> web.Response:
        return json_response(
            account.user.payload()
            | {"mfa_enabled": False, "verified": True, "email": None, "flags": 0}
        )

    async def application(self, _request: web.Request, account: Account) -> web.Response:
        return json_response(account.application())

    async def gateway_bot(self, _request: web.Request, account: Account) -> web.Response:
        used = account.used_before + len(account.identifies)
        limit = {
            "total": 1000,
            "remaining": max(0, 1000 - used),
            "reset_after": int(account.reset_after * 1000),
        }
        limit["max_concurrency"] = account.max_concurrency
        return json_response(
            {
                "url": self.discord.gateway_url,
                "shards": account.shards,
                "session_start_limit": limit,
            }
        )

    async def user(self, request: web.Request, _account: Account) -> web.Response:
        return json_response(self._find_user(request).payload())

    async def member(self, request: web.Request, _account: Account) -> web.Response:
        return json_response(member_payload(self._find_user(request)))

    def _find_user(self, request: web.Request) -> User:
        for user in self.discord.users:
            if str(user.id) == request.match_info["user"]:
                return user
        raise Refusal(404, 10013, "Unknown User")

    # --- channels and messages

    async def open_direct_channel(self, request: web.Request, account: Account) -> web.Response:
        recipient = str((await request.json())["recipient_id"])
        for person in self.discord.people:
            if str(person.id) == recipient:
                channel_id = self.discord.direct_channel(account, person)
                return json_response(self.discord.channel(channel_id))
        raise Refusal(400, 50007, "Cannot send messages to this user")

    async def channel(self, request: web.Request, _account: Account) -> web.Response:
        return json_response(self.discord.channel(self._find_channel(request)))

    def _find_channel(self, request: web.Request) -> int:
        channel_id = int(request.match_info["channel"])
        if self.discord.channel(channel_id) is None:
            raise Refusal(404, 10003, "Unknown Channel")
        return channel_id

    async def typing(self, request: web.Request, account: Account) -> web.Response:
        self.discord.on_event(
            "TYPING_START", {"channel_id": str(self._find_channel(request))}, account.user
        )
        return web.Response(status=204)

    async def history(self, request: web.Request, account: Account) -> web.Response:
        channel_id = str(self._find_channel(request))
        before, after = (
            int(request.query.get("before", 1 << 63)),
            int(request.query.get("after", 0)),
        )
        limit = int(request.query.get("limit", 50))
        found = [
            message
            for message in self.discord.messages.values()
            if message["channel_id"] == channel_id and after < int(message["id"]) < before
            if not message["flags"] & EPHEMERAL
        ]
        found = found[:limit] if after else found[-limit:]
        return json_response(
            [self._with_reactions(message, account) for message in reversed(found)]
        )

    async def post_message(self, request: web.Request, account: Account) -> web.Response:
        body, files = await read_body(request)
        channel_id = self._find_channel(request)
        check_message(body, files)
        reference = body.get("message_reference")
        if reference and str(reference["message_id"]) not in self.discord.messages:
            if reference.get("fail_if_not_exists", True):
                raise invalid(
                    "message_reference", "MESSAGE_REFERENCE_UNKNOWN_MESSAGE", "Unknown message"
                )
            del body["message_reference"]
        account.messages.append(body)
        message = await self.discord.post(channel_id, account.user, body, files)
        return json_response(message, headers=bucket("messages"))

    def _find_message(self, request: web.Request) -> dict[str, Any]:
        message = self.discord.messages.get(request.match_info["message"])
        if message is None or message["channel_id"] != request.match_info["channel"]:
            raise Refusal(404, 10008, "Unknown Message")
        return message

    def _with_reactions(self, message: dict[str, Any], account: Account) -> dict[str, Any]:
        reactions = []
        for emoji, users in self.discord.reactions.get(message["id"], {}).items():
            counts = {
                "count": len(users),
                "count_details": {"burst": 0, "normal": len(users)},
                "burst_colors": [],
            }
            mine = {"me": account.user in users, "me_burst": False}
            reactions.append(counts | mine | {"emoji": emoji_payload(emoji)})
        return message | {"reactions": reactions}

    async def get_message(self, request: web.Request, account: Account) -> web.Response:
        return json_response(self._with_reactions(self._find_message(request), account))

    async def edit_message(self, request: web.Request, account: Account) -> web.Response:
        message = self._find_message(request)
        body, files = await read_body(request)
        if message["author"]["id"] != str(account.user.id):
            raise Refusal(403, 50005, "Cannot edit a message authored by another user")
        check_message(message | body, files)
        return json_response(await self.discord.edit(message, account.user, body, files))

    async def delete_message(self, request: web.Request, account: Account) -> web.Response:
        message = self._find_message(request)
        if "guild_id" not in message and message["author"]["id"] != str(account.user.id):
            raise Refusal(403, 50003, "Cannot execute action on a DM channel")
        await self.discord.delete([message], account.user)
        return web.Response(status=204)

    async def delete_messages(self, request: web.Request, account: Account) -> web.Response:
        channel_id = self._find_channel(request)
        if channel_id in self.discord.direct:
            raise Refusal(403, 50003, "Cannot execute action on a DM channel")
        ids = (await request.json())["messages"]
        if not 2 <= len(ids) <= 100:
            raise Refusal(
                400,
                50016,
                "Provided too few or too many messages to delete. Must provide at least 2",
            )
        messages = [
            self.discord.messages[str(it)] for it in ids if str(it) in self.discord.messages
        ]
        if messages:
            await self.discord.delete(messages, account.user, bulk=True)
        return web.Response(status=204)

    async def reacted(self, request: web.Request, _account: Account) -> web.Response:
        """Who has put this reaction on a message."""
        reactions = self.discord.reactions.get(self._find_message(request)["id"], {})
        after = int(request.query.get("after", 0))
        users = sorted(reactions.get(request.match_info["emoji"], []), key=lambda user: user.id)
        return json_response([user.payload() for user in users if user.id > after])

    async def react(self, request: web.Request, account: Account) -> web.Response:
        emoji = request.match_info["emoji"]
        if emoji.isascii() and ":" not in emoji:
            raise Refusal(400, 10014, "Unknown Emoji")
        await self.discord.react(self._find_message(request), emoji, account.user)
        return web.Response(status=204, headers=bucket("reactions"))

    async def take_reaction_away(self, request: web.Request, account: Account) -> web.Response:
        user = account.user if request.match_info["user"] == "@me" else self._find_user(request)
        await self.discord.react(
            self._find_message(request), request.match_info["emoji"], user, take_away=True
        )
        return web.Response(status=204, headers=bucket("reactions"))

    async def clear_reactions(self, request: web.Request, account: Account) -> web.Response:
        await self.discord.clear_reactions(self._find_message(request), account.user)
        return web.Response(status=204, headers=bucket("reactions"))

    # --- slash commands and buttons

    async def get_commands(self, request: web.Request, account: Account) -> web.Response:
        guild_id = request.match_info.get("guild")
        return json_response(
            [command for command in account.commands if command.get("guild_id") == guild_id]
        )

    async def put_commands(self, request: web.Request, account: Account) -> web.Response:
        """Replace an application's slash commands: the global ones, or those of one server."""
        guild_id = request.match_info.get("guild")
        common = {"application_id": str(account.user.id), "version": "1"}
        if guild_id is not None:
            common["guild_id"] = guild_id
        common["description"] = ""  # what stands in the menu of a user or a message has none
        new = [common | command | {"id": str(snowflake())} for command in await request.json()]
        account.commands = [it for it in account.commands if it.get("guild_id") != guild_id] + new
        return json_response(new)

    async def answer_interaction(self, request: web.Request, account: Account) -> web.Response:
        """The first answer to a slash command or a button."""
        body, files = await read_body(request)
        interaction = self.discord.interactions[request.match_info["token"]]
        kind, data = body["type"], body.get("data") or {}
        if interaction.late:
            raise Refusal(404, 10062, "Unknown interaction")
        if interaction.answered:
            raise Refusal(400, 40060, "Interaction has already been acknowledged.")
        if kind == MESSAGE:
            check_message(data, files)
        account.messages.append(data)
        interaction.answered = True
        if kind in (MESSAGE, DEFERRED_MESSAGE):
            if kind == DEFERRED_MESSAGE:
                data = data | {"flags": data.get("flags", 0) | LOADING}
            interaction.answer = await self.discord.post(
                interaction.channel_id, account.user, data, files, interaction
            )
        elif interaction.message is not None and kind in (UPDATE, DEFERRED_UPDATE):
            interaction.answer = interaction.message
            if kind == UPDATE:
                await self.discord.edit(interaction.message, account.user, data, files)
        elif kind == FORM:
            self.discord.on_event(
                "FORM", data | {"channel_id": str(interaction.channel_id)}, account.user
            )
        if "with_response" not in request.query:
            return web.Response(status=204)
        callback: dict[str, Any] = {"id": str(interaction.id), "type": interaction.kind}
        response: dict[str, Any] = {"interaction": callback}
        if interaction.answer is not None:
            flags = interaction.answer["flags"]
            callback["response_message_id"] = interaction.answer["id"]
            callback["response_message_loading"] = bool(flags & LOADING)
            callback["response_message_ephemeral"] = bool(flags & EPHEMERAL)
            response["resource"] = {"type": kind, "message": interaction.answer}
        return json_response(response)

    async def follow_up(self, request: web.Request, account: Account) -> web.Response:
        """One more message, after the first answer."""
        body, files = await read_body(request)
        interaction = self.discord.interactions[request.match_info["token"]]
        check_message(body, files)
        if not interaction.answered:
            raise Refusal(404, 10015, "Unknown Webhook")
        account.messages.append(body)
        if (
            interaction.answer is not None and interaction.answer["flags"] & LOADING
        ):  # then it is the first answer
            message = await self.discord.edit(interaction.answer, account.user, body, files)
        else:
            message = await self.discord.post(
                interaction.channel_id, account.user, body, files, interaction
            )
        return json_response(message)

    def _find_answer(self, request: web.Request) -> dict[str, Any]:
        interaction = self.discord.interactions[request.match_info["token"]]
        original = interaction.answer["id"] if interaction.answer else ""
        message_id = request.match_info["message"]
        message = self.discord.messages.get(original if message_id == "@original" else message_id)
        if message is None or message.get("webhook_id") != request.match_info["application"]:
            raise Refusal(404, 10008, "Unknown Message")
        return message

    async def get_answer(self, request: web.Request, _account: Account) -> web.Response:
        return json_response(self._find_answer(request))

    async def edit_answer(self, request: web.Request, account: Account) -> web.Response:
        message = self._find_answer(request)
        body, files = await read_body(request)
        check_message(message | body, files)
        return json_response(await self.discord.edit(message, account.user, body, files))

    async def delete_answer(self, request: web.Request, account: Account) -> web.Response:
        await self.discord.delete([self._find_answer(request)], account.user)
        return web.Response(status=204)

    async def not_found(self, request: web.Request, account: Account) -> web.Response:
        what = {"request": f"{request.method} {request.path.removeprefix('/api/v10')}"}
        self.discord.on_event("NOT_FOUND", what, account.user)
        return json_response(
            {"message": "404: Not Found", "code": 0, "id": str(snowflake())}, status=404
        )
