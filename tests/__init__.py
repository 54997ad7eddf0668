import signal
import sys

if sys.argv[0] == "-m":  # `python -m tests.…` is importing: Ctrl-C ends that without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)
