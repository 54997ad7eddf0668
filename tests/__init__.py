import importlib.util
import signal
import sys

if sys.argv[0] == "-m":  # `python -m tests.…` is importing
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends that without a traceback
    if sys.version_info < (3, 11) or not all(
        map(importlib.util.find_spec, ("aiohttp", "discord", "dotenv"))
    ):
        import run_bots  # noqa: F401  # which says in one line what is missing, and ends
