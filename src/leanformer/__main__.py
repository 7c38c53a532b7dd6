"""The ``leanformer`` command, also as ``python -m leanformer``: from its first moment a signal ends it in one line."""

from __future__ import annotations

import signal

from leanformer.core.stopping import ENDS, Stopped, end, listening


def main() -> None:
    """Runs the command line; Ctrl-C ends it with 130, SIGTERM with 143, SIGHUP with 129."""
    try:
        with listening((signal.SIGINT, *ENDS)):
            from leanformer.cli import main as commands

            commands()
    except Stopped as stopped:
        end(str(stopped), int(stopped.code or 0))


if __name__ == "__main__":
    main()
