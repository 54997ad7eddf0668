"""The playground: your bots in a local Discord, where you can talk to them.

It needs no tokens and no internet. It runs run_bots.py with your own .env, and with made-up tokens
in the place of yours. Where there is no .env, there are three bots that answer ping.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import os
import signal
import sys
from typing import Any

from . import Guild, LocalDiscord, User
from .playground import HELP, Playground

SERVER_ID, CHANNEL_ID = 100_000_000_000_000_001, 100_000_000_000_000_002


async def play(discord: LocalDiscord, env_file: str | None) -> int:
    """Run the bots until the person ends it. Returns the exit code."""
    loop = asyncio.get_running_loop()
    playground = Playground(discord, env_file)
    on_stop_signals(lambda *_: loop.call_soon_threadsafe(playground.stop_asked.set))
    playground.tell("Starting run_bots.py in a local Discord, with made-up tokens.")
    running = asyncio.create_task(playground.bots.run())
    talking = asyncio.create_task(playground.talk())
    stop_asked = asyncio.create_task(playground.stop_asked.wait())
    ended = asyncio.create_task(playground.bots.ended.wait())
    waits = [running, talking, stop_asked]
    if not playground.terminal:  # nobody is there who could mend it
        waits.append(ended)
    done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for task in (talking, stop_asked, ended, running):
        task.cancel()
    if playground.terminal:
        with contextlib.suppress(OSError):  # the terminal is gone
            print()  # what comes is below the prompt
    await asyncio.wait([running])
    for finished in done:
        finished.result()
    return 1 if done == {ended} else 0


def on_stop_signals(handler: Any) -> None:
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):  # no system has them all
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), handler)


@contextlib.contextmanager
def same_terminal() -> Any:
    """Leave the terminal as it was, also when a line is half typed."""
    try:
        import termios
    except ImportError:  # Windows
        yield
        return
    try:
        before = termios.tcgetattr(sys.stdin)
    except (OSError, ValueError, termios.error):  # no terminal
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(termios.error):  # the terminal is gone
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.local_discord",
        description=__doc__,
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--env-file",
        metavar="PATH",
        help="default: .env in this folder, or else beside run_bots.py",
    )
    arguments = parser.parse_args()
    if arguments.env_file and not os.path.isfile(arguments.env_file):
        parser.error(f"There is no file {arguments.env_file}. Check --env-file.")
    return arguments


async def main(arguments: argparse.Namespace) -> int:
    """Run the playground. Returns the exit code."""
    with same_terminal():
        async with LocalDiscord() as discord:
            discord.people.append(User("Sam"))
            owner = discord.people[0]
            # Always the same, so that an extension's settings can name them.
            discord.guild = Guild("Test server", owner, id=SERVER_ID, channel_id=CHANNEL_ID)
            code = await play(discord, arguments.env_file)
    on_stop_signals(signal.SIG_IGN)  # the event loop is about to close
    return code


if __name__ == "__main__":
    on_stop_signals(lambda *_: os._exit(0))  # there is nothing to stop yet
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # not every terminal knows every character
    exit_code = asyncio.run(main(parse_arguments()))
    os._exit(exit_code)  # Python's own way to exit can fail while a thread reads stdin
