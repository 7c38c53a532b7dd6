"""Unblocks Ctrl-C in multiprocessing's fork server, which imports this module last, and so in what it forks.

The server starts with Ctrl-C blocked, so that its imports are not interrupted. A Ctrl-C of that time is dropped here:
the process that started the server handles it.
"""

import signal

if hasattr(signal, "pthread_sigmask"):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # drops a waiting Ctrl-C
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGINT, signal.default_int_handler)
