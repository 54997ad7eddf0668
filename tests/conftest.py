from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme

from .local_discord import LocalDiscord
from .program import Program


@pytest.fixture
async def discord() -> AsyncIterator[LocalDiscord]:
    """A local Discord without any bot."""
    async with LocalDiscord() as server:
        yield server


@pytest.fixture
async def tls_discord(tmp_path: Path) -> AsyncIterator[LocalDiscord]:
    """A local Discord over TLS, and the authority that its certificate is from in `ca.pem`."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    async with LocalDiscord(tls=context) as server:
        yield server


@pytest.fixture
async def tls_program(tmp_path: Path, tls_discord: LocalDiscord) -> AsyncIterator[Program]:
    """run_bots.py, about to be started against the local Discord over TLS."""
    program = Program(tmp_path, tls_discord)
    program.environment["SSL_CERT_FILE"] = str(tmp_path / "ca.pem")
    yield program
    await program.kill()


@pytest.fixture
async def program(tmp_path: Path, discord: LocalDiscord) -> AsyncIterator[Program]:
    """run_bots.py, about to be started against the local Discord."""
    program = Program(tmp_path, discord)
    yield program
    await program.kill()
