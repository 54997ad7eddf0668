"""The local Discord's REST API, version 10: just what a bot asks for."""

from __future__ import annotations

import functools
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from aiohttp import web

from .interactions import EPHEMERAL, LOADING, Answer, Interaction
from .world import Account, Faults, Json, User, emoji_payload, member_payload, snowflake

if TYPE_CHECKING:
    from . import LocalDiscord

PREFIX = "/api/v10"
CHANNEL = "/channels/{channel}"
MESSAGES = CHANNEL + "/messages"
MESSAGE = MESSAGES + "/{message}"
REACTIONS = MESSAGE + "/reactions"
REACTION = REACTIONS + "/{emoji}"
COMMANDS = "/applications/{application}/commands"
GUILD_COMMANDS = "/applications/{application}/guilds/{guild}/commands"
WEBHOOK = "/webhooks/{application}/{token}"
ANSWER = WEBHOOK + "/messages/{message}"

HEADERS = {"Content-Type": "application/json", "Via": "1.1 google"}
MESSAGE_LENGTH = 2000  # characters, at the most
MESSAGE_PARTS = ("content", "embeds", "components", "attachments", "poll")  # it must have one


def json_response(body: Any, status: int = 200, headers: Any = None) -> web.Response:
    """A JSON answer.

    Discord's Content-Type has no charset, and discord.py compares it to the letter.
    """
    data = json.dumps(body).encode()
    all_headers = HEADERS | dict(headers or {})
    return web.Response(body=data, status=status, headers=all_headers)


def rate_limit(bucket: str) -> dict[str, str]:
    """The headers of a rate limit that is far away; none if there is none."""
    if not bucket:
        return {}
    return {
        "X-RateLimit-Bucket": bucket,
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
    error = {"code": code, "message": message}
    errors = {field: {"_errors": [error]}}
    return Refusal(400, 50035, "Invalid Form Body", errors=errors)


def check_message(body: Json, files: list[Json]) -> None:
    """Raises `Refusal` for a message that is empty or too long."""
    content = body.get("content") or ""
    if len(content) > MESSAGE_LENGTH:
        raise invalid("content", "BASE_TYPE_MAX_LENGTH", "Must be 2000 or fewer in length.")
    if files:
        return
    for name in MESSAGE_PARTS:
        if body.get(name):
            return
    raise Refusal(400, 50006, "Cannot send an empty message")


def attachment(file: web.FileField) -> Json:
    """The attachment object of a file that came in."""
    url = f"http://localhost/{file.filename}"
    described: Json = {"filename": file.filename, "url": url, "proxy_url": url}
    described["id"] = str(snowflake())
    described["size"] = len(file.file.read())
    return described


Handler = Callable[["BotRequest"], Awaitable[Any]]


class Route(NamedTuple):
    """Which method of `BotRequest` answers a kind of requests. A `bucket` is a rate limit's."""

    method: str
    path: str
    bucket: str
    answer: Handler


ROUTES: list[Route] = []


def route(method: str, path: str, bucket: str = "") -> Any:
    """Mark the method that answers such requests, with a JSON body or, where None, with 204."""

    def add(answer: Any) -> Any:
        ROUTES.append(Route(method, path, bucket, answer))
        return answer

    return add


class Rest:
    """The API. Each request is counted for its account, and may be dealt with by a fault first."""

    def __init__(self, discord: LocalDiscord) -> None:
        self.discord = discord

    def add_routes(self, app: web.Application) -> None:
        for route in ROUTES:
            path = PREFIX + route.path
            handler = functools.partial(self._respond, route)
            app.router.add_route(route.method, path, handler)

    async def _respond(self, route: Route, request: web.Request) -> web.Response:
        discord = self.discord
        await discord.travel()
        authorization = request.headers.get("Authorization", "")
        token = authorization.removeprefix("Bot ")
        account = discord.accounts.get(token)
        name = name_of(request)
        discord.requests.append(name)
        discord.rest_connections.add(request.transport)
        response = None
        if account is not None:
            account.requests.append(name)
            response = await fault(account, request)
        if response is None:
            response = await fault(discord, request)
        if response is None:
            response = await self._answer(route, request, account)
        discord.count_invalid(response.status)
        return response

    async def _answer(
        self, route: Route, request: web.Request, account: Account | None
    ) -> web.Response:
        if account is None:
            account = self._account_of_interaction(request)
        try:
            if account is None or account.token_reset:
                raise Refusal(401, 0, "401: Unauthorized")
            bot_request = BotRequest(self.discord, account, request)
            body = await route.answer(bot_request)
        except Refusal as refusal:
            return json_response(refusal.body, status=refusal.status)
        headers = rate_limit(route.bucket)
        if body is None:
            return web.Response(status=204, headers=headers)
        return json_response(body, headers=headers)

    def _account_of_interaction(self, request: web.Request) -> Account | None:
        """The requests about an interaction have its own token, without the bot's."""
        token = request.match_info.get("token", "")
        interaction = self.discord.interactions.get(token)
        return None if interaction is None else interaction.account


def name_of(request: web.Request) -> str:
    path = request.path.removeprefix(PREFIX)
    return f"{request.method} {path}"


async def fault(faults: Faults, request: web.Request) -> web.Response | None:
    """Take the scripted action for this request. Returns its answer, if it gives one."""
    for moment in (name_of(request), "REST"):
        action = faults.next_action(moment)
        if action is None:
            continue
        response = await action(request)
        if isinstance(response, web.Response):
            return response
        if response is not None:
            return json_response({}, status=500)  # the connection is cut anyway
    return None


class BotRequest:
    """A request of a bot, and the answers to all the kinds of them."""

    def __init__(self, discord: LocalDiscord, account: Account, request: web.Request) -> None:
        self.discord = discord
        self.account = account
        self.user = account.user
        self.request = request
        self.query = request.query
        self.messages = discord.messages
        self.path = request.match_info  # what stands in the places of the route's path

    async def body(self) -> tuple[Json, list[Json]]:
        """The request's JSON, and the files that came with it as attachment objects."""
        if not self.request.content_type.startswith("multipart/"):
            return await self.request.json(), []
        body: Json = {}
        files = []
        parts = await self.request.post()
        for part in parts.values():
            if isinstance(part, web.FileField):
                files.append(attachment(part))
            else:
                body = json.loads(part)  # payload_json
        return body, files

    # --- who is there

    @route("GET", "/users/@me")
    async def me(self) -> Json:
        private = {"mfa_enabled": False, "verified": True, "email": None, "flags": 0}
        return self.user.payload() | private

    @route("GET", "/oauth2/applications/@me")
    async def application(self) -> Json:
        return self.account.application()

    @route("GET", "/gateway/bot")
    async def gateway_bot(self) -> Json:
        account = self.account
        used = account.used_before + len(account.identifies)
        remaining = max(0, 1000 - used)
        limit = {"total": 1000, "remaining": remaining}
        limit["reset_after"] = int(account.reset_after * 1000)
        limit["max_concurrency"] = account.max_concurrency
        url = self.discord.gateway_url
        return {"url": url, "shards": account.shards, "session_start_limit": limit}

    @route("GET", "/users/{user}")
    async def get_user(self) -> Json:
        return self._find_user().payload()

    @route("GET", "/guilds/{guild}/members/{user}")
    async def get_member(self) -> Json:
        return member_payload(self._find_user())

    def _find_user(self) -> User:
        wanted = self.path["user"]
        for user in self.discord.users:
            if str(user.id) == wanted:
                return user
        raise Refusal(404, 10013, "Unknown User")

    # --- channels

    @route("POST", "/users/@me/channels")
    async def open_direct_channel(self) -> Any:
        discord = self.discord
        body = await self.request.json()
        recipient_id = int(body["recipient_id"])
        for person in discord.people:
            if person.id == recipient_id:
                channel_id = discord.direct_channel(self.account, person)
                return discord.channel(channel_id)
        raise Refusal(400, 50007, "Cannot send messages to this user")

    @route("GET", CHANNEL)
    async def get_channel(self) -> Any:
        return self.discord.channel(self._find_channel())

    def _find_channel(self) -> int:
        channel_id = int(self.path["channel"])
        if self.discord.channel(channel_id) is None:
            raise Refusal(404, 10003, "Unknown Channel")
        return channel_id

    @route("POST", CHANNEL + "/typing")
    async def typing(self) -> None:
        place = {"channel_id": str(self._find_channel())}
        self.discord.on_event("TYPING_START", place, self.user)

    # --- messages

    @route("GET", MESSAGES)
    async def history(self) -> list[Json]:
        limit = self._number("limit", 50)
        after = self._number("after", 0)
        before = self._number("before", 1 << 63)
        channel_id = self._find_channel()
        found = []
        for message in self.discord.messages_in(channel_id):
            message_id = int(message["id"])
            is_hidden = message["flags"] & EPHEMERAL
            if after < message_id < before and not is_hidden:
                found.append(self._with_reactions(message))
        found = found[:limit] if after else found[-limit:]
        found.reverse()
        return found

    def _number(self, name: str, default: int) -> int:
        return int(self.query.get(name, default))

    @route("POST", MESSAGES, bucket="messages")
    async def post_message(self) -> Json:
        body, files = await self.body()
        channel_id = self._find_channel()
        check_message(body, files)
        self._check_reference(body)
        self.account.messages.append(body)
        return await self.discord.post(channel_id, self.user, body, files)

    def _check_reference(self, body: Json) -> None:
        """A reply to a message that is gone is refused, or else becomes a message like others."""
        reference = body.get("message_reference")
        if not reference:
            return
        if str(reference["message_id"]) in self.messages:
            return
        if reference.get("fail_if_not_exists", True):
            code = "MESSAGE_REFERENCE_UNKNOWN_MESSAGE"
            raise invalid("message_reference", code, "Unknown message")
        del body["message_reference"]

    def _find_message(self) -> Json:
        message_id = self.path["message"]
        message = self.messages.get(message_id)
        if message and message["channel_id"] == self.path["channel"]:
            return message
        raise Refusal(404, 10008, "Unknown Message")

    @route("GET", MESSAGE)
    async def get_message(self) -> Json:
        return self._with_reactions(self._find_message())

    @route("PATCH", MESSAGE)
    async def edit_message(self) -> Json:
        message = self._find_message()
        if not self._wrote(message):
            raise Refusal(403, 50005, "Cannot edit a message authored by another user")
        return await self._edit(message)

    def _wrote(self, message: Json) -> bool:
        author_id: str = message["author"]["id"]
        return author_id == str(self.user.id)

    async def _edit(self, message: Json) -> Json:
        body, files = await self.body()
        check_message(message | body, files)
        return await self.discord.edit(message, self.user, body, files)

    @route("DELETE", MESSAGE)
    async def delete_message(self) -> None:
        message = self._find_message()
        if "guild_id" not in message and not self._wrote(message):
            raise Refusal(403, 50003, "Cannot execute action on a DM channel")
        await self.discord.delete([message], self.user)

    @route("POST", MESSAGES + "/bulk-delete")
    async def delete_messages(self) -> None:
        if self._find_channel() in self.discord.direct:
            raise Refusal(403, 50003, "Cannot execute action on a DM channel")
        body = await self.request.json()
        ids = [str(message_id) for message_id in body["messages"]]
        if not 2 <= len(ids) <= 100:
            problem = "Provided too few or too many messages to delete. Must provide at least 2"
            raise Refusal(400, 50016, problem)
        messages = []
        for message_id in ids:
            if message_id in self.messages:
                messages.append(self.messages[message_id])
        if messages:
            await self.discord.delete(messages, self.user, bulk=True)

    # --- reactions

    def _reactions_to(self, message: Json) -> dict[str, list[User]]:
        return self.discord.reactions.get(message["id"], {})

    def _with_reactions(self, message: Json) -> Json:
        reactions = []
        for emoji, users in self._reactions_to(message).items():
            count = len(users)
            reaction: Json = {"count": count, "me_burst": False, "burst_colors": []}
            reaction["emoji"] = emoji_payload(emoji)
            reaction["me"] = self.user in users
            reaction["count_details"] = {"burst": 0, "normal": count}
            reactions.append(reaction)
        return message | {"reactions": reactions}

    @route("GET", REACTION)
    async def get_reaction(self) -> list[Json]:
        """Who has put this reaction on a message."""
        emoji = self.path["emoji"]
        message = self._find_message()
        users = self._reactions_to(message).get(emoji, [])
        after = self._number("after", 0)
        found = []
        for user in sorted(users, key=lambda user: user.id):
            if user.id > after:
                found.append(user.payload())
        return found

    @route("PUT", REACTION + "/@me", bucket="reactions")
    async def react(self) -> None:
        emoji = self.path["emoji"]
        if emoji.isascii() and ":" not in emoji:
            raise Refusal(400, 10014, "Unknown Emoji")
        message = self._find_message()
        await self.discord.react(message, emoji, self.user)

    @route("DELETE", REACTION + "/{user}", bucket="reactions")
    async def take_reaction_away(self) -> None:
        is_own = self.path["user"] == "@me"
        user = self.user if is_own else self._find_user()
        emoji = self.path["emoji"]
        message = self._find_message()
        await self.discord.react(message, emoji, user, take_away=True)

    @route("DELETE", REACTIONS, bucket="reactions")
    async def clear_reactions(self) -> None:
        message = self._find_message()
        await self.discord.clear_reactions(message, self.user)

    # --- slash commands

    @route("GET", COMMANDS)
    @route("GET", GUILD_COMMANDS)
    async def get_commands(self) -> list[Json]:
        """An application's slash commands: the global ones, or those of one server."""
        guild_id = self.path.get("guild")
        found = []
        for command in self.account.commands:
            if command.get("guild_id") == guild_id:
                found.append(command)
        return found

    @route("PUT", COMMANDS)
    @route("PUT", GUILD_COMMANDS)
    async def put_commands(self) -> list[Json]:
        """Replace the slash commands: the global ones, or those of one server."""
        common = {"application_id": str(self.user.id), "version": "1"}
        common["description"] = ""  # what stands in the menu of a user or a message has none
        if "guild" in self.path:
            common["guild_id"] = self.path["guild"]
        new = []
        for uploaded in await self.request.json():
            command = common | uploaded
            command["id"] = str(snowflake())
            new.append(command)
        replaced = await self.get_commands()
        kept = [command for command in self.account.commands if command not in replaced]
        self.account.commands = kept + new
        return new

    # --- answers to slash commands, buttons and forms

    @property
    def interaction(self) -> Interaction:
        token = self.path["token"]
        return self.discord.interactions[token]

    @route("POST", "/interactions/{id}/{token}/callback")
    async def answer_interaction(self) -> Json | None:
        """The first answer to a slash command or a button."""
        body, files = await self.body()
        kind = body["type"]
        data = body.get("data") or {}
        interaction = self.interaction
        if interaction.late:
            raise Refusal(404, 10062, "Unknown interaction")
        if interaction.answered:
            raise Refusal(400, 40060, "Interaction has already been acknowledged.")
        if kind == Answer.MESSAGE:
            check_message(data, files)
        self.account.messages.append(data)
        interaction.answered = True
        await self._take_answer(kind, data, files)
        if "with_response" in self.query:
            return callback(interaction, kind)
        return None

    async def _take_answer(self, kind: int, data: Json, files: list[Json]) -> None:
        interaction = self.interaction
        match kind:
            case Answer.MESSAGE:
                interaction.answer = await self._post_answer(data, files)
            case Answer.DEFERRED_MESSAGE:
                flags = data.get("flags", 0) | LOADING
                announcement = data | {"flags": flags}
                interaction.answer = await self._post_answer(announcement, files)
            case Answer.DEFERRED_UPDATE:
                interaction.answer = interaction.message
            case Answer.UPDATE if interaction.message is not None:
                interaction.answer = interaction.message
                await self.discord.edit(interaction.message, self.user, data, files)
            case Answer.FORM:
                channel_id = str(interaction.channel_id)
                form = data | {"channel_id": channel_id}
                self.discord.on_event("FORM", form, self.user)

    async def _post_answer(self, data: Json, files: list[Json]) -> Json:
        interaction = self.interaction
        channel_id = interaction.channel_id
        return await self.discord.post(channel_id, self.user, data, files, interaction)

    @route("POST", WEBHOOK)
    async def follow_up(self) -> Json:
        """One more message, after the first answer."""
        body, files = await self.body()
        check_message(body, files)
        if not self.interaction.answered:
            raise Refusal(404, 10015, "Unknown Webhook")
        self.account.messages.append(body)
        announced = self.interaction.answer
        if announced is not None and announced["flags"] & LOADING:
            return await self.discord.edit(announced, self.user, body, files)
        return await self._post_answer(body, files)

    def _find_answer(self) -> Json:
        message_id = self.path["message"]
        first_answer = self.interaction.answer
        if message_id == "@original" and first_answer is not None:
            message_id = first_answer["id"]
        message = self.messages.get(message_id)
        if message and message.get("webhook_id") == self.path["application"]:
            return message
        raise Refusal(404, 10008, "Unknown Message")

    @route("GET", ANSWER)
    async def get_answer(self) -> Json:
        return self._find_answer()

    @route("PATCH", ANSWER)
    async def edit_answer(self) -> Json:
        return await self._edit(self._find_answer())

    @route("DELETE", ANSWER)
    async def delete_answer(self) -> None:
        message = self._find_answer()
        await self.discord.delete([message], self.user)

    # --- what there is not

    @route("*", "/{rest:.*}")
    async def not_found(self) -> None:
        asked = {"request": name_of(self.request)}
        self.discord.on_event("NOT_FOUND", asked, self.user)
        raise Refusal(404, 0, "404: Not Found", id=str(snowflake()))


def callback(interaction: Interaction, kind: int) -> Json:
    """What became of an interaction, for a bot that asks for it with its answer."""
    about: Json = {"type": interaction.kind}
    about["id"] = str(interaction.id)
    response = {"interaction": about}
    message = interaction.answer
    if message is not None:
        flags = message["flags"]
        about["response_message_id"] = message["id"]
        about["response_message_loading"] = bool(flags & LOADING)
        about["response_message_ephemeral"] = bool(flags & EPHEMERAL)
        response["resource"] = {"type": kind, "message": message}
    return response
