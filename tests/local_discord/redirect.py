"""Run a script, unchanged, with discord.py pointed at a local Discord.

python -m tests.local_discord.redirect [OPTION ...] http://localhost:PORT/api/v10 run_bots.py ...

--sync-commands   every bot uploads its slash commands before it connects
--zlib            discord.py asks the gateway for zlib, also where it could have zstd
--stdin-signals   each line of stdin is the number of a signal, which is raised here: Windows sends
                  none to a process. "close" does what Windows does when somebody closes the
                  console window.

Its imports stand in its functions, so that --zlib comes before them.
"""

import os
import runpy
import signal
import sys
import threading
from typing import Any

CTRL_CLOSE_EVENT = 2  # https://learn.microsoft.com/en-us/windows/console/handlerroutine


def refuse_zstd() -> None:
    for module in ("zstandard", "compression.zstd"):
        sys.modules[module] = None  # type: ignore[assignment]  # an import of it fails


def sync_before_connecting() -> None:
    import discord

    def sync_first(connect: Any) -> Any:
        async def sync_and_connect(client: Any, **options: Any) -> None:
            tree = client._connection._command_tree
            for guild in [None, *map(discord.Object, tree._guild_commands)] if tree else []:
                await tree.sync(guild=guild)
            await connect(client, **options)

        return sync_and_connect

    for kind in (discord.Client, discord.AutoShardedClient):
        kind.connect = sync_first(kind.connect)  # type: ignore[method-assign]


def take_signals_from_stdin() -> None:
    console_handlers = note_console_handlers() if sys.platform == "win32" else []
    # The script gets an empty stdin: exit() closes it, and would wait for the thread that reads.
    stdin, sys.stdin = sys.stdin, open(os.devnull)  # noqa: SIM115

    def raise_signals() -> None:
        for line in stdin:
            if line.strip() == "close":
                # Windows calls the newest first, in a thread of its own.
                console_handlers[-1](CTRL_CLOSE_EVENT)
            else:
                signal.raise_signal(int(line))

    threading.Thread(target=raise_signals, daemon=True).start()


def note_console_handlers() -> list[Any]:
    """What the script gives to SetConsoleCtrlHandler from now on.

    A test has no console window to close.
    """
    import ctypes

    handlers = []
    kernel32: Any = ctypes.windll.kernel32  # type: ignore[attr-defined]
    install = kernel32.SetConsoleCtrlHandler

    def note(handler: Any, add: bool) -> Any:
        handlers.append(handler)
        return install(handler, add)

    kernel32.SetConsoleCtrlHandler = note
    return handlers


def redirect(base: str) -> None:
    import discord.gateway
    import discord.http
    import yarl

    discord.http.Route.BASE = base
    # The gateway has another name than the REST API, as Discord's own: else a bot could use one
    # connection for both.
    gateway = yarl.URL(base).with_host("127.0.0.1").with_path("/")
    scheme = "wss" if base.startswith("https") else "ws"
    discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY = gateway.with_scheme(scheme)


def main() -> None:
    actions = {
        "--sync-commands": sync_before_connecting,
        "--zlib": refuse_zstd,
        "--stdin-signals": take_signals_from_stdin,
    }
    arguments = sys.argv[1:]
    while arguments[0] in actions:
        actions[arguments.pop(0)]()
    base, script, *rest = arguments
    redirect(base)
    sys.argv = [script, *rest]
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
