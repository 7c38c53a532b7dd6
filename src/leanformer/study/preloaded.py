"""For multiprocessing's fork server alone, which imports this last: from then on Ctrl-C reaches what it forks.

It was started with Ctrl-C held back, so that its imports are not interrupted; what was pressed meanwhile is for the
process that started it.
"""

import signal

if hasattr(signal, "pthread_sigmask"):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # drops what waits
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGINT, signal.default_int_handler)
