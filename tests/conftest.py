from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from .local_discord import LocalDiscord
from .program import Program


@pytest.fixture
async def discord() -> AsyncIterator[LocalDiscord]:
    """A local Discord without any bot."""
    async with LocalDiscord() as server:
        yield server


@pytest.fixture
async def program(tmp_path: Path, discord: LocalDiscord) -> AsyncIterator[Program]:
    """run_bots.py, about to be started against the local Discord."""
    program = Program(tmp_path, discord)
    yield program
    await program.kill()
