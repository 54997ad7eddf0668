"""How the bots are: the page of `--status`, its JSON and probes; the log's one line; journald."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import aiohttp
import pytest

from run_bots import STATUS_HEADERS, STATUS_PAGE, summarize

from .browser import Browser, needs_browser
from .local_discord import LocalDiscord, faults
from .program import SCRIPT, Program, needs_posix_signals, until, write

# Serves the report that a file has at the time.
SERVER = """
import asyncio, json, pathlib, sys, run_bots

async def main(address, path):
    await run_bots.serve_status(address, lambda: json.loads(path.read_text()))
    print("listening", flush=True)
    await asyncio.Event().wait()

asyncio.run(main(sys.argv[1], pathlib.Path(sys.argv[2])))
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def entry(name: str, state: str = "ready", failure: str = "") -> Any:
    """What the program knows of a bot."""
    return SimpleNamespace(
        name=name,
        state=state,
        since=time.time() - 3700,
        failure=SimpleNamespace(text=failure),
    )


def bot(name: str, state: str = "ready", **others: Any) -> dict[str, Any]:
    """How a bot is, as the report has it."""
    return {
        "name": name,
        "state": state,
        "since": time.time() - 3700,
        "latency_ms": 22 if state == "ready" else None,
        "servers": 3,
        "reconnects_24h": 0,
        "failure": "",
    } | others


class Client:
    """Asks what `--status` serves."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/"

    async def get(self, path: str = "", method: str = "GET") -> tuple[int, str]:
        """The status and the text of an answer."""
        timeout = aiohttp.ClientTimeout(10)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.request(method, self.url + path) as answer,
        ):
            return answer.status, await answer.text()

    async def report(self) -> Any:
        return json.loads((await self.get("status.json"))[1])

    async def until(self, path: str, status: int) -> str:
        """Wait until it is answered with this status. Returns the text."""
        async with asyncio.timeout(20):
            while True:
                answered, text = await self.get(path)
                if answered == status:
                    return text
                await asyncio.sleep(0.02)


class Site(Client):
    """The page of a program whose bots are as the test says."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._file = folder / "report.json"
        super().__init__(self.port)

    def show(self, *bots: dict[str, Any]) -> None:
        report = {
            "summary": summarize([entry(it["name"], it["state"], it["failure"]) for it in bots]),
            "bots": bots,
            "time": time.time(),
            "started": time.time() - 90_000,
            "cpu_seconds": 71.5,
            "memory_bytes": 64 * 2**20,
            "versions": "run_bots 1.0.0, discord.py 2.7.1, Python 3.12.1",
        }
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps(report))
        new.replace(self._file)

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", SERVER, str(self.port), str(self._file)),
            cwd=SCRIPT.parent,
            stdout=asyncio.subprocess.PIPE,
        )
        assert self._process.stdout is not None
        assert await self._process.stdout.readline(), "it does not listen"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.communicate()

    async def end(self) -> None:
        self._process.kill()
        await self._process.wait()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with Site(tmp_path) as site:
        yield site


@pytest.fixture
def client(program: Program) -> Client:
    """Whoever asks how the program's bots are."""
    port = free_port()
    program.environment["DISCORD_BOT_STATUS"] = str(port)
    return Client(port)


# --- The program: what it says of its bots


async def test_the_json_has_its_documented_form(
    program: Program, discord: LocalDiscord, client: Client
) -> None:
    before = time.time()
    bots = [discord.add_bot("good"), discord.add_bot("off", privileged=set())]
    program.write_env(*bots)
    await program.start()
    await program.logged("1 of 2 bots are ready")
    report = await client.report()
    good, off = report.pop("bots")
    assert re.fullmatch(
        r"1 of 2 bots are ready\. Not ready: off \(stopped since \w{3} \d\d:\d\d: "
        r"DISCORD_BOT_TOKEN2 \(\.env, line 3\): The Message Content Intent is off\)",
        report.pop("summary"),
    )
    assert before <= report.pop("started") <= good["since"] <= report.pop("time") <= time.time()
    assert 0 < report.pop("cpu_seconds") < 60
    memory = report.pop("memory_bytes")
    assert memory is None if sys.platform != "linux" else 2**24 < memory < 2**30
    assert re.fullmatch(r"run_bots \S+, discord.py \S+, Python \S+", report.pop("versions"))
    assert not report
    assert before <= off.pop("since") <= time.time()
    assert f"https://discord.com/developers/applications/{bots[1].user.id}/bot" in off["failure"]
    assert off.pop("failure").startswith("DISCORD_BOT_TOKEN2 (.env, line 3): ")
    assert off == {
        "name": "off",
        "state": "stopped",
        "latency_ms": None,
        "servers": None,
        "reconnects_24h": 0,
    }
    del good["since"]
    assert isinstance(good.pop("latency_ms"), int | None)
    assert good == {
        "name": "good",
        "state": "ready",
        "servers": 1,
        "reconnects_24h": 0,
        "failure": "",
    }
    assert await program.stop() == 0


async def test_the_probes_are_right_over_a_bots_whole_life(
    program: Program, discord: LocalDiscord, client: Client
) -> None:
    music = discord.add_bot("music")
    music.fail("GET /users/@me", faults.hang(), times=1)
    program.change_script("LOGIN_TIMEOUT = 30", "LOGIN_TIMEOUT = 1")
    program.write_env(music, discord.add_bot("other"))
    program.extend(
        """
        async def cog_unload(self):
            await asyncio.sleep(2)
        """
    )
    await program.start()
    await program.logged("ready as other")
    status, text = await client.get("readyz")
    assert (status, text[:34]) == (503, "1 of 2 bots are ready. Not ready: ")
    assert "music (starting since " in text
    assert await client.get("healthz") == (200, "The event loop answers")
    await client.until("readyz", 200)
    discord.fail("upgrade", faults.status(503))
    await music.live[0].close(4000)
    text = await client.until("readyz", 503)
    assert "Not ready: music (retrying since " in text
    assert (await client.get("healthz"))[0] == 200
    discord.heal()
    assert await client.until("readyz", 200) == "2 of 2 bots are ready"
    (one, other) = (await client.report())["bots"]
    assert (one["reconnects_24h"], other["reconnects_24h"]) == (1, 0)
    assert one["failure"]  # the last one
    program.send()
    assert "0 of 2 bots are ready" in await client.until("readyz", 503)
    assert (await client.get("healthz"))[0] == 200
    assert await program.end() == 0
    with pytest.raises(aiohttp.ClientError):
        await client.get("healthz")
    program.assert_clean()


async def test_since_is_when_the_bot_went_away_and_a_return_is_a_reconnect(
    program: Program, discord: LocalDiscord, client: Client
) -> None:
    program.change_script("NETWORK_DELAY = 25", "NETWORK_DELAY = 1")
    program.write_env(discord.add_bot("bot"))
    await program.start("--log-level", "debug")
    await program.logged("1 of 1 bots are ready")
    began = time.time()
    await discord.stop()
    await program.logged("The gateway connection was lost")
    went_away = time.time()
    await program.logged("Discord cannot be reached", times=4)
    (it,) = (await client.report())["bots"]
    assert (it["state"], it["reconnects_24h"]) == ("retrying", 0)
    assert began <= it["since"] <= went_away
    assert it["failure"].startswith("Discord cannot be reached. Check the network (")
    await discord.start()
    await program.logged("1 of 1 bots are ready", times=2)
    (it,) = (await client.report())["bots"]
    assert (it["state"], it["reconnects_24h"]) == ("ready", 1)
    assert await program.stop() == 0


async def test_an_event_loop_that_is_blocked_answers_no_probe(
    program: Program, discord: LocalDiscord, client: Client
) -> None:
    program.write_env(discord.add_bot("bot"))
    program.extend(
        """
        @commands.Cog.listener("on_message")
        async def block(self, message):
            time.sleep(2)
        """
    )
    await program.start()
    await program.logged("1 of 1 bots are ready")
    await discord.say("block")
    await asyncio.sleep(0.5)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.get("healthz"), 0.5)
    assert (await client.get("healthz"))[0] == 200
    assert await program.stop() == 0


async def test_whoever_does_not_read_holds_nothing_up(
    program: Program, discord: LocalDiscord, client: Client
) -> None:
    music = discord.add_bot("music")
    program.write_env(music)
    await program.start()
    await program.logged("1 of 1 bots are ready")
    port = int(program.environment["DISCORD_BOT_STATUS"])
    _, asks_much = await asyncio.open_connection("127.0.0.1", port)
    asks_much.write(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n" * 2000)
    _, asks_half = await asyncio.open_connection("127.0.0.1", port)
    asks_half.write(b"GET / HTTP")
    await asyncio.sleep(0.5)
    began = time.monotonic()
    assert (await client.get("status.json"))[0] == 200
    await discord.say("ping")
    await until(lambda: music.messages)
    assert await program.stop() == 0
    assert time.monotonic() - began < 5
    for writer in (asks_much, asks_half):
        writer.close()
    program.assert_clean()


async def test_a_token_in_the_place_of_a_name_is_not_shown(
    program: Program, discord: LocalDiscord, client: Client
) -> None:
    bot, other = discord.add_bot("one"), discord.add_bot("other")
    (program.folder / ".env").write_text(
        f"DISCORD_BOT_TOKEN1={bot.token}\nDISCORD_BOT_NAME1={other.token}\n"
    )
    bot.fail("GET /users/@me", faults.status(503))
    await program.start()
    await program.logged("Trying again")
    for path in ("status.json", "readyz"):
        _, text = await client.get(path)
        assert "[token of a bot]" in text
        assert other.token not in text
    assert await program.stop() == 0


async def test_a_token_in_a_failure_is_not_shown_and_a_line_stays_one(
    program: Program, discord: LocalDiscord, client: Client
) -> None:
    bad, good = discord.add_bot("bad"), discord.add_bot("good")
    program.write_env(bad, good, extra="DISCORD_BOT_EXTENSIONS1=extension")
    write(
        program,
        "extension.py",
        """
        async def setup(bot):
            raise ConnectionError(bot.http.token + chr(10) + "STOPPING=1")
        """,
    )
    await program.start()
    await program.logged("1 of 2 bots are ready")
    _, text = await client.get("status.json")
    assert bad.token not in text
    assert "ConnectionError: [token of bad] STOPPING=1" in text
    assert len((await client.get("readyz"))[1].splitlines()) == 1
    assert await program.stop() == 0
    assert bad.token not in program.stderr


async def test_a_port_that_is_taken_is_said_and_no_bot_starts(
    program: Program, discord: LocalDiscord
) -> None:
    program.write_env(discord.add_bot("bot"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        await program.start("--status", address)
        assert await program.end() == 78
    assert f"--status {address}: Nothing can listen there (" in program.stderr
    assert "address already in use" in program.stderr
    assert not discord.requests
    program.assert_clean()


@pytest.mark.parametrize("address", ["here", "127.0.0.1:70000", "8080:127.0.0.1"])
async def test_an_address_that_is_none_is_said(
    address: str, program: Program, discord: LocalDiscord
) -> None:
    program.write_env(discord.add_bot("bot"))
    await program.start("--status", address)
    assert await program.end() == 78
    assert f"--status {address}: Nothing can listen there (" in program.stderr
    program.assert_clean()


@pytest.mark.parametrize(
    ("host", "warnings"), [("", 0), ("localhost:", 0), ("[::1]:", 0), ("0.0.0.0:", 1)]
)
async def test_a_warning_says_when_others_can_read_it(
    host: str, warnings: int, program: Program, discord: LocalDiscord
) -> None:
    program.write_env(discord.add_bot("bot"))
    await program.start("--status", f"{host}{free_port()}")
    await program.logged("1 of 1 bots are ready")
    assert program.stderr.count("Everybody who reaches it can read") == warnings
    assert program.stderr.count("[WARNING ]") == warnings
    assert await program.stop() == 0


def test_aiohttps_server_is_imported_only_if_it_is_asked_for() -> None:
    code = "import sys, run_bots; sys.exit('aiohttp.web' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=SCRIPT.parent).returncode
        == 0
    )


# --- The log: one line says it all


@needs_posix_signals
async def test_sigusr1_names_those_that_are_not_ready_and_counts_the_others(
    program: Program, discord: LocalDiscord
) -> None:
    bots = [discord.add_bot(f"fine{n}") for n in range(3)]
    down, off = discord.add_bot("down"), discord.add_bot("off", token_reset=True)
    down.fail("GET /users/@me", faults.status(503))
    program.write_env(*bots, down, off)
    await program.start()
    await program.logged("3 of 5 bots are ready")
    before = len(program.stderr)
    program.send(signal.SIGUSR1)
    await program.logged("3 of 5 bots are ready", times=2)
    assert re.search(
        r"3 of 5 bots are ready\. Not ready: "
        r"down \(retrying since \w{3} \d\d:\d\d: Discord answers with status 503\), "
        r"off \(stopped since \w{3} \d\d:\d\d: DISCORD_BOT_TOKEN5 .*Discord refuses this token\)$",
        program.stderr[before:],
        re.MULTILINE,
    )
    assert "fine" not in program.stderr[before:]
    assert await program.stop() == 0


async def test_the_summary_comes_again_when_all_are_back_after_an_outage(
    program: Program, discord: LocalDiscord
) -> None:
    program.change_script("NETWORK_DELAY = 25", "NETWORK_DELAY = 1")
    program.write_env(*(discord.add_bot(f"bot{n}") for n in range(3)))
    await program.start()
    await program.logged("3 of 3 bots are ready")
    await discord.stop()
    await program.logged("Discord cannot be reached", times=3)
    await discord.start()
    await program.logged("3 of 3 bots are ready", times=2)
    assert await program.stop() == 0
    assert program.stderr.count(" of 3 bots are ready") == 2


# --- The journal of systemd


@pytest.fixture
def in_journal(program: Program) -> str:
    """A command that runs Python with its stderr as journald's."""
    command = program.folder / "python"
    command.write_text(
        f'#!/bin/sh\nJOURNAL_STREAM=$(stat -L -c %d:%i /dev/stderr) exec {sys.executable} "$@"\n'
    )
    command.chmod(0o700)
    return str(command)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has systemd")
async def test_in_the_journal_each_line_has_its_priority_and_no_time(
    program: Program, discord: LocalDiscord, in_journal: str
) -> None:
    one, two = discord.add_bot("one"), discord.add_bot("two", token_reset=True)
    one.fail("GET /users/@me", faults.status(503), times=1)
    program.write_env(one, two)
    program.extend(
        """
        @commands.Cog.listener("on_message")
        async def fail(self, message):
            raise ValueError("a bug of mine")
        """
    )
    await program.start("--log-level", "debug", python=in_journal)
    await program.logged("ready as one")
    await discord.say("fail")
    await program.logged("ValueError: a bug of mine")
    assert await program.stop() == 0
    lines = program.stderr.splitlines()
    assert all(re.match("<[2-7]>", line) for line in lines), lines
    assert not re.search(r"\d\d:\d\d:\d\d", "".join(line[:30] for line in lines))
    assert "<6>[INFO    ] run_bots: 2 bots from .env" in lines
    (warning,) = [line for line in lines if "Discord answers with status 503" in line][:1]
    assert warning.startswith("<4>[WARNING ] run_bots: [one] ")
    assert any(line.startswith("<3>[ERROR   ] run_bots: [two] stopped: ") for line in lines)
    assert "<3>ValueError: a bug of mine" in lines
    assert any(line.startswith("<7>[DEBUG   ] ") for line in lines)


async def test_elsewhere_a_line_has_its_time(program: Program, discord: LocalDiscord) -> None:
    program.environment["JOURNAL_STREAM"] = "8:1"  # that of whoever started it
    program.write_env(discord.add_bot("one"))
    await program.start()
    await program.logged("1 of 1 bots are ready")
    assert await program.stop() == 0
    assert all(re.match(r"\[\d{4}-", line) for line in program.stderr.splitlines())


# --- The page


async def test_it_is_only_read(site: Site) -> None:
    site.show(bot("music"))
    for path in ("", "status.json", "healthz", "readyz"):
        assert await site.get(path, "HEAD") == (200, "")
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE"):
            assert (await site.get(path, method))[0] == 405
    assert (await site.get("favicon.ico"))[0] == 404
    assert (await site.get("../run_bots.py"))[0] == 404


def test_the_policy_allows_the_pages_own_style_and_script_alone() -> None:
    policy = STATUS_HEADERS["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; connect-src 'self'; img-src data:; ")
    assert "unsafe" not in policy
    assert " on" not in "".join(re.findall("<[^>]*>", STATUS_PAGE.partition("<script>")[0]))
    for tag in ("style", "script"):
        (text,) = re.findall(f"<{tag}>(.*?)</{tag}>", STATUS_PAGE, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'; " in policy, f"the {tag}'s hash is sha256-{digest}"


def test_a_summary_stays_one_line_and_says_each_reason_in_short() -> None:
    text = summarize(
        [
            entry("fine"),
            entry("music", "retrying", "Discord cannot be reached. Check the network (…)."),
            entry("new", "starting"),
        ]
    )
    assert re.fullmatch(
        r"1 of 3 bots are ready\. Not ready: music \(retrying since \w{3} \d\d:\d\d: "
        r"Discord cannot be reached\), new \(starting since \w{3} \d\d:\d\d\)",
        text,
    )
    assert summarize([entry("one"), entry("two")]) == "2 of 2 bots are ready"


ROWS = "[...document.querySelectorAll('tbody th')].map(name => name.innerText)"
PORTAL = "https://discord.com/developers/applications/1/bot"
OFF = (
    f"DISCORD_BOT_TOKEN2 (.env, line 3): The intent is off. Switch it on at {PORTAL}, or change it."
)


@needs_browser
async def test_the_page_follows_the_bots_without_a_new_start(site: Site) -> None:
    site.show(bot("music"), bot("weather"), bot("dice"))
    async with Browser() as browser:
        await browser.look(width=1280)
        await browser.open(site.url)
        fine = [["music", "✓"], ["weather", "✓"], ["dice", "✓"]]
        await browser.sees(ROWS, lambda names: names == [row[0] for row in fine])
        assert await browser.evaluate("document.title") == "3/3 bots ready"
        await browser.evaluate("window.rows = [...document.querySelectorAll('tbody tr')]; 1")
        site.show(bot("music"), bot("weather", "stopped", failure=OFF), bot("dice", "retrying"))
        await browser.sees(ROWS, lambda names: names == ["weather", "dice", "music"])
        assert await browser.evaluate("document.querySelector('h1').innerText") == (
            "1 of 3 bots are ready"
        )
        cells = await browser.evaluate("document.querySelector('tbody tr').innerText")
        assert "stopped" in cells
        assert "1 h 1 min" in cells
        assert "The intent is off" in cells
        assert await browser.evaluate("document.querySelector('td a').href") == PORTAL
        # The rows are the same ones, and the focus stays where it is.
        await browser.evaluate("document.querySelector('td a').focus()")
        site.show(bot("music", "retrying"), bot("weather", "stopped", failure=OFF), bot("dice"))
        await browser.sees(ROWS, lambda names: names == ["weather", "music", "dice"])
        assert await browser.evaluate("document.activeElement.href") == PORTAL
        assert await browser.evaluate("window.rows.every(row => row.isConnected)")
        # What a screen reader gets.
        tree = await browser.tree()
        assert ("heading", "1 of 3 bots are ready") in tree
        assert ("columnheader", "Reconnects in 24 h") in tree
        assert ("rowheader", "weather") in tree
        assert ("cell", "stopped") in tree
        assert ("link", PORTAL) in tree
        news = await browser.evaluate("document.querySelector('[role=status]').innerText")
        assert "Not ready: music (retrying since" in news
        # The program has ended.
        await site.end()
        await browser.sees("document.querySelector('[role=alert]').innerText", bool)
        alert = await browser.evaluate("document.querySelector('[role=alert]').innerText")
        assert alert.startswith("There is no answer since ")
        assert all("ERR_CONNECTION_REFUSED" in text for text in browser.complaints)


@needs_browser
async def test_hostile_names_and_sentences_are_only_text(site: Site) -> None:
    names = [
        "<script>alert(1)</script>",
        "\"'><img src=x onerror=alert(1)>",
        "</title></style>&lt;b&gt;",
        "بوت الموسيقى",
        "x" * 200,
        "${alert(1)} `constructor` __proto__",
        "__proto__",
    ]
    failure = (
        "javascript:alert(1) https://a.example/<b>x</b> "
        "'https://b.example/\"onclick=' (https://c.example)."
    )
    site.show(*(bot(name, "stopped", failure=failure) for name in names))
    async with Browser() as browser:
        await browser.look(width=390)
        await browser.open(site.url)
        found = await browser.sees(
            "[...document.querySelectorAll('tbody th')].map(it => it.textContent)",
            lambda found: len(found) == len(names),
        )
        assert found == names
        assert await browser.evaluate("document.querySelector('td:last-child').textContent") == (
            failure
        )
        links = await browser.evaluate(
            "[...document.querySelector('tbody tr').querySelectorAll('a')].map(it => it.href)"
        )
        assert links == ["https://a.example/", "https://b.example/", "https://c.example/"]
        assert (
            await browser.evaluate("document.querySelectorAll('tbody :is(b, img, script)').length")
            == 0
        )
        assert await browser.evaluate("document.documentElement.scrollWidth") == 390
        assert browser.complaints == []


@needs_browser
async def test_the_page_fits_a_phone_and_a_large_screen_by_day_and_night(
    site: Site,
) -> None:
    bots = [bot(f"a-bot-with-number-{number}") for number in range(60)]
    long_ago = time.time() - 86_400 * 300
    bots[30] = bot("weather", "stopped", failure=OFF, since=long_ago, reconnects_24h=1000)
    site.show(*bots)
    async with Browser() as browser:
        await browser.look(width=360)
        await browser.open(site.url)
        await browser.sees(ROWS, lambda names: len(names) == 60 and names[0] == "weather")
        for width, dark in itertools.product((320, 600, 1000, 1160, 1280, 2560), (False, True)):
            await browser.look(width=width, dark=dark)
            assert await browser.evaluate("document.documentElement.scrollWidth") <= width
            color = await browser.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (max(map(int, re.findall("[0-9]+", color))) < 100) == dark
        assert browser.complaints == []


@needs_browser
async def test_without_scripts_there_is_the_summary(site: Site) -> None:
    site.show(bot("music"), bot("<b>weather</b>", "stopped", failure=OFF))
    async with Browser() as browser:
        await browser.open(site.url, scripts=False)
        await browser.sees(
            "document.body?.innerText", lambda text: "1 of 2 bots are ready" in (text or "")
        )
        assert "<b>weather</b> (stopped since" in await browser.evaluate("document.body.innerText")


@needs_browser
async def test_a_thousand_bots_are_no_burden(site: Site) -> None:
    bots = [bot(f"bot{number}") for number in range(1000)]
    site.show(*bots)
    began = time.monotonic()
    _, text = await site.get("status.json")
    assert time.monotonic() - began < 5
    assert len(text) < 250_000
    async with Browser() as browser:
        await browser.look(width=1280)
        await browser.open(site.url)
        await browser.sees("document.querySelectorAll('tbody tr').length", lambda n: n == 1000)
        bots[999] = bot("bot999", "retrying", failure="Discord cannot be reached.")
        site.show(*bots)
        await browser.sees(
            "document.querySelector('tbody tr').innerText", lambda text: "bot999" in text
        )
        took = await browser.evaluate(
            "(async () => {"
            "const began = performance.now(); await update(); return performance.now() - began"
            "})()"
        )
        assert took < 5000
        assert browser.complaints == []
