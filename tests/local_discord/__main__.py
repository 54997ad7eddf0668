"""A playground: run_bots.py with three bots in a local Discord. It needs no tokens and no internet.

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
from pathlib import Path
from typing import Any

from . import LocalDiscord

ROOT = Path(__file__).parents[2]
NAMES = ("anna", "ben", "carla")
PROMPT = "you> "
HINT = "The bots are ready. Type a message, for example ping, and press Enter. To end, type quit or press Ctrl-C."
STOP_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]
# Seconds, all of them.
LOG_DELAY = 0.3  # the bots' log lines about being ready come first, then the hint
FIRST_ANSWER, QUIET = 1.0, 0.5  # how long to wait for answers to a message: for the first, and after each
STOP_TIMEOUT = 12  # run_bots.py takes 10 at the most

OWN_GROUP: dict[str, Any]  # Ctrl-C in the terminal does not reach the bots: they get one signal, from here
if sys.platform == "win32":
    OWN_GROUP = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
else:
    OWN_GROUP = {"start_new_session": True}


class Playground(LocalDiscord):
    """A local Discord with some bots in it. It sends what a person types, and shows what the bots answer."""

    def __init__(self) -> None:
        super().__init__()
        self.bots = [self.add_bot(name) for name in NAMES]
        self.answered = asyncio.Event()
        self.stop_asked = asyncio.Event()
        self.person_types = sys.stdin.isatty()
        self.has_prompt = self.person_types and sys.stdout.isatty()

    async def deliver(self, message: dict[str, Any], nonce: Any = None) -> None:
        if message["author"]["bot"]:
            self.show(f"{message['author']['username']}: {message['content'] or '(no text)'}\n")
            self.show_prompt()
            self.answered.set()
        await super().deliver(message, nonce)

    def show(self, text: str) -> None:
        if self.has_prompt:  # wipe it out, without the codes that an old Windows console does not know
            text = "\r" + " " * (shutil.get_terminal_size().columns - 1) + "\r" + text
        try:
            print(text, end="", flush=True)
        except OSError:  # nobody reads it any more, as in: … | head -1
            self.stop_asked.set()

    def show_prompt(self) -> None:
        if self.has_prompt:
            self.show(PROMPT)

    async def talk(self) -> None:
        """Wait for the bots, then send what is typed, until that ends."""
        while not all(bot.ready for bot in self.bots):
            await asyncio.sleep(0.02)
        if self.person_types:
            await asyncio.sleep(LOG_DELAY)
            print(HINT, file=sys.stderr)
        self.show_prompt()
        lines: asyncio.Queue[str] = asyncio.Queue()
        threading.Thread(target=read_lines, args=(asyncio.get_running_loop(), lines), daemon=True).start()
        while (line := await lines.get()) != "quit":
            self.show_prompt()
            if line:
                self.answered.clear()
                await self.say(line)
                await self.wait_for_answers()

    async def wait_for_answers(self) -> None:
        """Wait until the bots have been quiet for a short time."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.answered.wait(), FIRST_ANSWER)
            while True:
                self.answered.clear()
                await asyncio.wait_for(self.answered.wait(), QUIET)


def read_lines(loop: asyncio.AbstractEventLoop, lines: asyncio.Queue[str]) -> None:
    """Put what is typed into the queue. This blocks, so it has a thread, on every system the same."""
    with contextlib.suppress(RuntimeError):  # the event loop is closed
        with contextlib.suppress(OSError):  # the terminal is gone
            for line in sys.stdin:
                loop.call_soon_threadsafe(lines.put_nowait, line.strip())
        loop.call_soon_threadsafe(lines.put_nowait, "quit")


async def start_bots(discord: Playground, env_file: Path) -> asyncio.subprocess.Process:
    """Start run_bots.py with the local Discord's bots, and never with the user's own."""
    settings = [
        f"DISCORD_BOT_TOKEN{number}={bot.token}\nDISCORD_BOT_NAME{number}={bot.user.name}\n"
        for number, bot in enumerate(discord.bots, 1)
    ]
    env_file.write_text("".join(settings), encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DISCORD_BOT_")}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "tests.local_discord.redirect", discord.url, str(ROOT / "run_bots.py")]
    return await asyncio.create_subprocess_exec(
        *command,
        "--env-file",
        str(env_file),
        cwd=ROOT,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=sys.stderr,  # so that nothing but the bots' answers is on stdout
        **OWN_GROUP,
    )


async def stop_bots(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_TIMEOUT)
    except TimeoutError:
        process.kill()
        await process.wait()


async def play() -> int:
    """Run the playground. Returns the exit code."""
    loop = asyncio.get_running_loop()
    discord = Playground()
    for number in STOP_SIGNALS:  # Windows has no loop.add_signal_handler
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(discord.stop_asked.set))
    print(f"Starting run_bots.py with {len(NAMES)} bots in a local Discord.", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        async with discord:
            process = await start_bots(discord, Path(folder, "playground.env"))
            talk, stop, ended = (
                asyncio.create_task(wait) for wait in (discord.talk(), discord.stop_asked.wait(), process.wait())
            )
            try:
                await asyncio.wait((talk, stop, ended), return_when=asyncio.FIRST_COMPLETED)
                talk.cancel()
                if discord.has_prompt:
                    print()  # the log goes on below the prompt
                if talk.done():
                    talk.result()
                elif ended.done() and not stop.done():
                    text = f"run_bots.py has ended with exit code {process.returncode}. Its messages above say why."
                    print(text, file=sys.stderr)
                    return 1
                return 0
            finally:
                await stop_bots(process)
                for number in STOP_SIGNALS:  # all is done, and the event loop is about to go
                    signal.signal(number, signal.SIG_IGN)


def main() -> None:
    for number in STOP_SIGNALS:  # until there is something to stop
        signal.signal(number, lambda *_: os._exit(0))
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a character that the terminal does not know is no reason to end
    code = asyncio.run(play())
    os._exit(code)  # at once: Python's own way to exit fails while a thread still reads stdin


if __name__ == "__main__":
    main()
