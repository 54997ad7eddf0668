"""The playground: run_bots.py with three bots in a local Discord. It needs no tokens and no internet.

python -m tests.local_discord
echo ping | python -m tests.local_discord
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from . import LocalDiscord

ROOT = Path(__file__).parents[2]
NAMES = ("anna", "ben", "carla")
PROMPT = "you> "
HINT = "The bots are ready. Each line that you type is a message to them, for example: ping. To end: quit, or Ctrl-C."
# Seconds, all of them.
LOG_DELAY = 0.3  # the bots' own log lines about being ready come first, then the hint
FIRST_ANSWER, QUIET = 1.0, 0.5  # how long to wait for the first answer to a message, and after each answer
STOP_TIMEOUT = 12  # run_bots.py takes 10 at the most


class Playground(LocalDiscord):
    """A local Discord that sends what a person types, and shows what the bots answer."""

    def __init__(self) -> None:
        super().__init__()
        self.bots = [self.add_bot(name) for name in NAMES]
        self.busy_until = 0.0  # answers may come until then
        self.stop_asked = asyncio.Event()
        self.terminal = sys.stdin.isatty() and sys.stdout.isatty()

    async def deliver(self, message: dict[str, Any], nonce: Any = None) -> None:
        if message["author"]["bot"]:
            self.show(f"{message['author']['username']}: {message['content'] or '(no text)'}\n")
            self.busy_until = time.monotonic() + QUIET
        await super().deliver(message, nonce)

    def show(self, text: str = "") -> None:
        """Print the text; on a terminal in place of the prompt, which comes again below it."""
        if self.terminal:  # spaces, because an old Windows console does not know the code that clears a line
            text = "\r" + " " * (shutil.get_terminal_size().columns - 1) + "\r" + text + PROMPT
        try:
            print(text, end="", flush=True)
        except OSError:  # nobody reads it any more, as with: | head -1
            self.stop_asked.set()

    async def talk(self) -> None:
        """Wait for the bots, then send line after line of stdin."""
        while not all(bot.ready for bot in self.bots):
            await asyncio.sleep(0.02)
        await asyncio.sleep(LOG_DELAY)
        print(HINT, file=sys.stderr)
        lines: asyncio.Queue[str] = asyncio.Queue()
        threading.Thread(target=read_lines, args=(asyncio.get_running_loop(), lines), daemon=True).start()
        self.show()
        while (line := await lines.get()) != "quit":
            self.show()
            if line:
                self.busy_until = time.monotonic() + FIRST_ANSWER
                await self.say(line)
                while time.monotonic() < self.busy_until:
                    await asyncio.sleep(0.02)


def read_lines(loop: asyncio.AbstractEventLoop, lines: asyncio.Queue[str]) -> None:
    """Put the lines of stdin into the queue. It blocks, so it runs in a thread."""
    with contextlib.suppress(RuntimeError):  # the event loop is closed
        with contextlib.suppress(OSError):  # the terminal is gone
            for line in sys.stdin:
                loop.call_soon_threadsafe(lines.put_nowait, line.strip())
        loop.call_soon_threadsafe(lines.put_nowait, "quit")


def write_env(discord: Playground, env_file: Path) -> None:
    lines = []
    for number, bot in enumerate(discord.bots, 1):
        lines += [f"DISCORD_BOT_TOKEN{number}={bot.token}", f"DISCORD_BOT_NAME{number}={bot.user.name}"]
    env_file.touch(mode=0o600)
    env_file.write_text("\n".join(lines), encoding="utf-8")


async def start_bots(url: str, env_file: Path) -> asyncio.subprocess.Process:
    """Start run_bots.py with the bots of the env file, and never with the user's own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DISCORD_BOT_")}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    script = ["-m", "tests.local_discord.redirect", url, str(ROOT / "run_bots.py"), "--env-file", str(env_file)]
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *script,
        cwd=ROOT,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=sys.stderr,  # what the bots' code prints: our own stdout has nothing but answers
        # Ctrl-C in the terminal must not reach it: it gets our signal too, and would end at once at the second one.
        start_new_session=True,
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # the same on Windows
    )


async def stop_bots(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has ended already
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_TIMEOUT)
    except TimeoutError:
        process.kill()
        await process.wait()


async def play(discord: Playground, env_file: Path) -> int:
    """Run the bots until the person ends it, or they do. Returns the exit code."""
    write_env(discord, env_file)
    process = await start_bots(discord.url, env_file)
    waits = [asyncio.create_task(wait) for wait in (discord.talk(), discord.stop_asked.wait(), process.wait())]
    try:
        done, late = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for task in late:
            task.cancel()
        if discord.terminal:
            with contextlib.suppress(OSError):  # the terminal is gone
                print()  # the log goes on below the prompt
        for task in done:
            task.result()
        if done == {waits[2]}:
            print(f"run_bots.py has ended with code {process.returncode}. Read its messages above.", file=sys.stderr)
            return 1
        return 0
    finally:
        await stop_bots(process)


def on_stop_signals(handler: Any) -> None:
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):  # no system has them all
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), handler)


async def main() -> int:
    """Run the playground. Returns the exit code."""
    loop = asyncio.get_running_loop()
    discord = Playground()
    on_stop_signals(lambda *_: loop.call_soon_threadsafe(discord.stop_asked.set))
    print(f"Starting run_bots.py with {len(NAMES)} bots in a local Discord.", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        async with discord:
            code = await play(discord, Path(folder, "playground.env"))
    on_stop_signals(signal.SIG_IGN)  # the event loop is about to close
    return code


if __name__ == "__main__":
    on_stop_signals(lambda *_: os._exit(0))  # there is nothing to stop yet
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # not every terminal knows every character
    os._exit(asyncio.run(main()))  # Python's own way to exit can fail while a thread reads stdin
