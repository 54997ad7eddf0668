"""A real browser without a window, driven as its own developer tools do.

https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import re
import shutil
import tempfile
from collections.abc import Callable
from typing import Any, Self

import aiohttp
import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
OPTIONS = (
    "--headless",
    "--no-sandbox",  # so that root can run it
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--remote-debugging-port=0",
)


class Browser:
    """One page of a browser. `complaints` is what its console says of what went wrong."""

    def __init__(self) -> None:
        self.complaints: list[str] = []
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._session: str | None = None

    async def __aenter__(self) -> Self:
        assert CHROMIUM is not None
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        own_data = f"--user-data-dir={self._folder.name}"
        nothing, pipe = asyncio.subprocess.DEVNULL, asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            CHROMIUM, *OPTIONS, own_data, stdin=nothing, stdout=nothing, stderr=pipe
        )
        log = self._process.stderr
        assert log is not None
        address = await self._find_address(log)
        self._draining = asyncio.create_task(log.read())
        self._client = aiohttp.ClientSession()
        self._tools = await self._client.ws_connect(address, max_msg_size=0)
        self._reading = asyncio.create_task(self._read())
        page = await self._send("Target.createTarget", url="about:blank")
        attached = await self._send("Target.attachToTarget", flatten=True, **page)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            await self._send(f"{domain}.enable")
        return self

    @staticmethod
    async def _find_address(log: asyncio.StreamReader) -> str:
        """Where its developer tools listen, which it says as it starts."""
        while True:
            line = await asyncio.wait_for(log.readline(), 30)
            assert line, "the browser has ended"
            address = re.search(r"ws://\S+", line.decode())
            if address:
                return address[0]

    async def __aexit__(self, *_: object) -> None:
        self._process.kill()
        await self._process.wait()
        await self._client.close()
        await asyncio.gather(self._reading, self._draining, return_exceptions=True)
        self._folder.cleanup()

    async def _read(self) -> None:
        async for message in self._tools:
            match message.json():
                case {"id": number} as answer:
                    self._answers.pop(number).set_result(answer)
                case {"method": "Log.entryAdded", "params": {"entry": entry}}:
                    self.complaints.append(entry["text"])
                case {"method": "Runtime.exceptionThrown", "params": thrown}:
                    details = thrown["exceptionDetails"]
                    self.complaints.append(str(details))

    async def _send(self, method: str, **parameters: Any) -> Any:
        number = next(self._numbers)
        loop = asyncio.get_running_loop()
        answer = loop.create_future()
        self._answers[number] = answer
        command: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            command["sessionId"] = self._session
        await self._tools.send_json(command)
        event = await asyncio.wait_for(answer, 30)
        assert "error" not in event, event
        return event["result"]

    async def open(self, url: str, *, scripts: bool = True) -> None:
        await self._send("Emulation.setScriptExecutionDisabled", value=not scripts)
        await self._send("Page.navigate", url=url)

    async def look(self, *, width: int, height: int = 900, dark: bool = False) -> None:
        """Have this size, and this colour scheme."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1}
        is_phone = width < 600
        await self._send("Emulation.setDeviceMetricsOverride", mobile=is_phone, **size)
        colours = "dark" if dark else "light"
        scheme = {"name": "prefers-color-scheme", "value": colours}
        await self._send("Emulation.setEmulatedMedia", features=[scheme])

    async def evaluate(self, expression: str) -> Any:
        """The value of an expression of JavaScript in the page."""
        answer = await self._send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def sees(
        self, expression: str, is_right: Callable[[Any], object], timeout: float = 20
    ) -> Any:
        """Wait until the value of an expression is right."""
        value = None
        try:
            async with asyncio.timeout(timeout):
                while not is_right(value := await self.evaluate(expression)):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{expression} is {value!r}") from None
        return value

    async def tree(self) -> list[tuple[str, str]]:
        """What a screen reader gets: the role and name of each part."""
        answer = await self._send("Accessibility.getFullAXTree")
        parts = []
        for node in answer["nodes"]:
            if "name" in node and not node["ignored"]:
                role = node["role"]["value"]
                name = node["name"]["value"]
                parts.append((role, name))
        return parts

    async def screenshot(self) -> bytes:
        """What it looks like, as a PNG."""
        answer = await self._send("Page.captureScreenshot")
        return base64.b64decode(answer["data"])
