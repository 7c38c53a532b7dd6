"""``python -m benchmarks``: see the package's docstring."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from benchmarks.kit import benchmark, pages
from leanformer.core.errors import LeanformerError
from leanformer.core.machine import keep_freed_memory


def main(argv: Sequence[str]) -> int:
    """Runs what the command line says; gives the exit code."""
    try:
        if not argv or argv[0] in ("-h", "--help"):
            show_list()
        elif argv[0] == "page":
            return write_pages(argv[1:])
        else:
            one = benchmark.find(argv[0])
            for name, table in one.tables(benchmark.run(one, argv[1:])).items():
                print(f"{name}\n\n{table}\n")
    except LeanformerError as error:
        print(f"benchmarks: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("benchmarks: stopped", file=sys.stderr)
        return 130
    return 0


def show_list() -> None:
    """What there is, package by package."""
    print("python -m benchmarks NAME [--quick] [--out FILE] [--threads N] [own options; see NAME --help]")
    for room, own in benchmark.ROOMS.items():
        print(f"\n{room}")
        for name, one in own.items():
            print(f"  {name:20} {one.about.partition(chr(10))[0]}")
    print("\npage [--check]")
    print("  Writes the tables and figures of docs/benchmarks from the results files, or says which are out of date.")


def write_pages(argv: Sequence[str]) -> int:
    """``page``, and ``page --check``; gives the exit code."""
    parser = benchmark.Parser(prog="python -m benchmarks page", allow_abbrev=False)
    parser.add_argument("--check", action="store_true", help="only find out whether the pages are up to date")
    if not parser.parse_args(argv).check:
        pages.write()
    elif stale := pages.stale():
        names = ", ".join(path.name for path in stale)
        print(f"{names}: not what benchmarks/results gives; run python -m benchmarks page", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    keep_freed_memory()  # as the commands of leanformer do
    sys.exit(main(sys.argv[1:]))
