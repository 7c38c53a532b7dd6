"""The command in processes of its own, which start at once: they are forked from one that has imported everything."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["pytest", "leanformer.study.run", "leanformer.cli"])


def start(arguments: list[str], errors: Path, largest_file: int | None = None) -> BaseProcess:
    """Starts ``leanformer`` with arguments.

    Args:
        arguments: As on the command line.
        errors: Where its standard error goes.
        largest_file: Bytes that a file of it can have.
    """
    process = SERVER.Process(target=_command, args=(arguments, errors, largest_file))
    process.start()
    return process


def _command(arguments: list[str], errors: Path, largest_file: int | None) -> None:
    from leanformer.__main__ import main

    gc.freeze()
    # As from a terminal; the tests may be run in a shell's background job, which ignores Ctrl-C, or under nohup.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), sys.stderr.fileno())
    if largest_file is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    sys.argv = ["leanformer", *arguments]
    main()
