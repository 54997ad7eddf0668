"""Commands for the benchmark's own processes, such as the local Discord.

Each line of stdin is a command: a method's name and its arguments. Each is answered with a line on
stdout. Both are JSON. The end of stdin ends the process.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any


async def obey(subject: Any) -> None:
    """Call methods of this object until stdin ends."""
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command, arguments = json.loads(line)
        method = getattr(subject, command)
        try:
            answer = {"answer": await method(**arguments)}
        except TimeoutError:
            answer = {"failure": f"Its bots did not end this in time: {command}."}
        print(json.dumps(answer), flush=True)


def run(main: Any) -> None:
    """Run a coroutine, on uvloop where it is installed: it leaves more of the CPU to the bots."""
    try:
        from uvloop import new_event_loop
    except ModuleNotFoundError:
        new_event_loop = None
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(main)
