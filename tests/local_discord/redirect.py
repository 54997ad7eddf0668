"""Run a script, unchanged, with discord.py pointed at a local Discord.

python -m tests.local_discord.redirect [--sync-commands] http://localhost:PORT/api/v10 run_bots.py --env-file .env

With --sync-commands every bot uploads its slash commands before it connects.
"""

import runpy
import sys
from typing import Any

import discord.gateway
import discord.http
import yarl

connect = discord.AutoShardedClient.connect


async def sync_and_connect(bot: Any, **options: Any) -> None:
    await bot.tree.sync()
    await connect(bot, **options)


def main() -> None:
    arguments = sys.argv[1:]
    if arguments[0] == "--sync-commands":
        discord.AutoShardedClient.connect = sync_and_connect  # type: ignore[assignment, method-assign]
        del arguments[0]
    base, script, *arguments = arguments
    discord.http.Route.BASE = base
    gateway = yarl.URL(base).with_path("/").with_scheme("wss" if base.startswith("https") else "ws")
    discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY = gateway
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
