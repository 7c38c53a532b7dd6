"""Tables in Markdown, and numbers as they stand in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from leanformer.results.formats import signed

Tables = Mapping[str, str]
"""Name -> the table."""


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def figure_table(rows: Mapping[str, object]) -> str:
    """A table of single figures.

    Args:
        rows: What was measured -> the figure with its unit.
    """
    return table(("", "figure"), list(rows.items()))


def with_interval(difference: Mapping[str, float] | None, digits: int, scale: float = 1) -> str:
    """``-0.30 (-0.99 to +0.40)``; nothing where there is no difference, as of the baseline itself."""
    if difference is None:
        return ""
    mean, low, high = (signed(scale * difference[key], digits) for key in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"


def span(values: Sequence[float], form: str = "+z.1f") -> str:
    """From the least to the greatest, ``-3.3 to -1.3``; one figure where both read the same."""
    low, high = (f"{value:{form}}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"
