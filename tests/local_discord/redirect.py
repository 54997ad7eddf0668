"""Run a script, unchanged, with discord.py pointed at a local Discord.

python -m tests.local_discord.redirect http://localhost:PORT/api/v10 run_bots.py --env-file .env
"""

import runpy
import sys

import discord.gateway
import discord.http
import yarl


def main() -> None:
    base, script, *arguments = sys.argv[1:]
    discord.http.Route.BASE = base
    gateway = yarl.URL(base).with_path("/").with_scheme("wss" if base.startswith("https") else "ws")
    discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY = gateway
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
