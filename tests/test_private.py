"""What is used of other packages and is not public: it is still there, and what it was.

Where one of these fails, run_bots.py says beside that name what it is for, and what it would be
without.
"""

from __future__ import annotations

import asyncio
import asyncio.sslproto
import inspect
import io
from operator import attrgetter

import aiohttp
import discord
import discord.gateway
import discord.http
import discord.shard
import dotenv.parser
import dotenv.variables
import pytest
from discord.ext import commands

OF_A_CLIENT = [
    "_connection._command_tree",
    "_get_websocket",
    "http.close",
    "http.connector",
    "http.get_bot_gateway",
    "http.max_ratelimit_timeout",
    "http.proxy",
    "http.ws_connect",
]


@pytest.mark.parametrize("kind", [commands.Bot, commands.AutoShardedBot])
@pytest.mark.parametrize("path", OF_A_CLIENT)
def test_a_client_has(path: str, kind: type[discord.Client]) -> None:
    client = kind("!", intents=discord.Intents.none())  # type: ignore[call-arg, arg-type]
    attrgetter(path)(client)  # it raises AttributeError


def test_a_tree_has_the_commands_of_single_servers() -> None:
    tree = commands.Bot("!", intents=discord.Intents.none()).tree
    assert tree._guild_commands == {}
    assert tree._context_menus == {}


def test_every_client_makes_its_websockets_with_one_class() -> None:
    made_by = discord.http.DiscordClientWebSocketResponse  # type: ignore[attr-defined]
    assert issubclass(made_by, aiohttp.ClientWebSocketResponse)
    assert "DiscordClientWebSocketResponse" in inspect.getsource(discord.http.HTTPClient)


def test_a_reset_connection_is_followed_by_a_resume() -> None:
    for place in (discord.Client.connect, discord.shard.Shard._handle_disconnect):
        assert "(54, 10054)" in inspect.getsource(place)


def test_both_classes_of_bots_load_extensions_by_one_class() -> None:
    for name in ("load_extension", "unload_extension", "reload_extension"):
        assert vars(commands.bot.BotBase)[name]
        assert name not in vars(commands.Bot).keys() | vars(commands.AutoShardedBot).keys()


def test_a_tls_connection_has_a_read_buffer_of_this_size() -> None:
    assert asyncio.sslproto.SSLProtocol.max_size >= 16 * 1024


async def test_a_handle_has_its_context() -> None:
    handle = asyncio.get_running_loop().call_soon(print)
    handle.cancel()
    assert handle._context is not None  # type: ignore[attr-defined]


def test_dotenv_says_the_lines_and_the_parts_of_a_value() -> None:
    (binding,) = dotenv.parser.parse_stream(io.StringIO("NAME=a${OTHER}"))
    assert (binding.key, binding.value, binding.original.line) == ("NAME", "a${OTHER}", 1)
    atoms = dotenv.variables.parse_variables("a${OTHER}")
    assert "".join(atom.resolve({"OTHER": "b"}) for atom in atoms) == "ab"
