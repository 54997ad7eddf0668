"""A local Discord and a peer whose bots are there, perhaps with a link in between."""

from __future__ import annotations

import tempfile
import time
from argparse import Namespace
from contextlib import ExitStack
from pathlib import Path

import trustme

from .processes import Helper, Peer, RunFailed, check_memory, killed_after
from .tables import Figures


class Stage:
    """All the processes of one run. The stack of `clean_up` ends them."""

    link: Helper

    def __init__(
        self,
        name: str,
        bots: int,
        options: Namespace,
        clean_up: ExitStack,
        *,
        round_trip: float = 0,
        has_link: bool = False,
        how: tuple[str, ...] = (),
    ) -> None:
        """`round_trip`, in ms, is one that costs nothing. `how` is options of redirect.py."""
        check_memory(name, bots)
        self.options = options
        folder = Path(clean_up.enter_context(tempfile.TemporaryDirectory()))
        certificate = write_certificate(folder)
        self.server = Helper("server", bots, options.members, round_trip / 1000, certificate)
        clean_up.enter_context(killed_after([self.server.process]))
        port = self.server.ask("own_port")
        if has_link:
            self.link = Helper("link", port, options.round_trip / 1000)
            clean_up.enter_context(killed_after([self.link.process]))
            port = self.link.ask("listen")
        description = self.server.ask("describe", port=port)
        url, tokens = description["url"], description["tokens"]
        self.peer = Peer(name, url, tokens, folder, *how)
        clean_up.enter_context(killed_after(self.peer.processes))

    def start(self) -> Figures:
        """Start the bots, and wait until they are ready. How long it took, as Discord saw it."""
        self.server.ask("starting")
        self.peer.start()
        timeout = self.options.start_timeout
        deadline = time.monotonic() + timeout
        while True:
            figures: Figures | None = self.server.ask("ready")
            if figures:
                return figures
            self.peer.check()
            if time.monotonic() > deadline:
                raise RunFailed(f"Its bots were not ready after {timeout:g} s.")
            time.sleep(0.1)


def write_certificate(folder: Path) -> Path:
    """The local Discord's certificate and key, and the authority that it is from in `ca.pem`."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    path = folder / "server.pem"
    certificate.private_key_and_cert_chain_pem.write_to_path(str(path))
    return path
