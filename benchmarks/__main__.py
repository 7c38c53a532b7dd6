"""``python -m benchmarks``: see the package's docstring."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from benchmarks import NAMES, page, room
from leanformer.core.errors import LeanformerError
from leanformer.core.machine import keep_freed_memory


def main(argv: Sequence[str]) -> int:
    """Runs what the command line says; gives the exit code."""
    if not argv or argv[0] in ("-h", "--help"):
        print("python -m benchmarks NAME [--quick] [--out FILE] [--threads N] [own options; see NAME --help]\n")
        for name in NAMES:
            print(f"{name:20} {room.first_line(name)}")
        print(
            f"{'page [--check]':20} Writes docs/benchmarks.md and its plots from the results files, or says whether "
            "they are up to date."
        )
        return 0
    try:
        if argv[0] == "page":
            parser = room.Parser(prog="python -m benchmarks page", allow_abbrev=False)
            parser.add_argument("--check", action="store_true", help="only find out whether the page is up to date")
            if not parser.parse_args(argv[1:]).check:
                page.write()
            elif not page.is_current():
                print(
                    "docs/benchmarks.md is not what benchmarks/results gives: run python -m benchmarks page",
                    file=sys.stderr,
                )
                return 1
            return 0
        benchmark = room.find(argv[0])
        print(benchmark.section(room.run(benchmark, argv[1:])))
    except LeanformerError as error:
        print(f"benchmarks: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("benchmarks: stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    keep_freed_memory()  # as the commands of leanformer do
    sys.exit(main(sys.argv[1:]))
