"""The formats of numbers, for the terminal, the page and its figures."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

MISSING = "-"
"""The text for a value that was not measured."""

T = TypeVar("T")
SURE = 0.95
"""The confidence of the bound on what was not seen."""


def or_missing(write: Callable[[T], str]) -> Callable[[T | None], str]:
    """The same format, with a dash for a value that was not measured."""
    return lambda value: MISSING if value is None else write(value)


def signed(value: float, digits: int) -> str:
    """``-0.3``, ``+0.4``, ``0.0``"""
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text


def percent(ratio: float) -> str:
    """``9.0 %``, ``100 %``, ``0.42 %``, ``2,015 %``"""
    value = 100 * ratio
    return f"{value:,.0f} %" if value >= 99.95 else f"{value:.1f} %" if value >= 1 else f"{value:.2g} %"


def share(value: float) -> str:
    """A share of all, rounded down so that only all is ``100 %``: ``99.96 %``."""
    return f"{math.floor(value * 10_000) / 100:g} %"


def differing(differ: int, compared: int, words: str = "answers") -> str:
    """How many answers of two models differ; of none, what share may differ all the same.

    ``0 of 2,000 answers differ, so at most 0.15 % do (95 % confidence)``, ``3 of 2,000 answers differ``. The bound is
    the exact one for no event in so many independent trials (Clopper and Pearson 1934, one-sided), about three divided
    by their number.

    Args:
        differ: The answers that differ.
        compared: The answers that were compared, one or more.
        words: What they are.
    """
    line = f"{count(differ)} of {count(compared)} {words} differ"
    if differ:
        return line
    return f"{line}, so at most {percent(1 - (1 - SURE) ** (1 / compared))} do ({confidence(SURE)} confidence)"


def brief_percent(ratio: float) -> str:
    """At most five characters: ``100%``, ``34%``, ``9.3%``, ``0.42%``"""
    value = 100 * ratio
    return f"{value:.0f}%" if value >= 9.95 else f"{value:.2g}%"


def confidence(level: float) -> str:
    """``95 %``, ``97.5 %``"""
    return f"{100 * level:.6g} %"


def count(value: float) -> str:
    """A whole number with thousands separators: ``27,338``"""
    return f"{value:,.0f}"


def short(value: float) -> str:
    """At most seven characters: ``302,410``, ``86.6M``, ``1.2G``"""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}" if abs(value) < 1000 * size else f"{value / size:,.0f}{letter}"
    return count(value) if abs(value) >= 100 else f"{value:.3g}"


def seconds(value: float) -> str:
    """``0.42 s``, ``12.3 s``, ``3 min 20 s``, ``2 h 05 min``"""
    if value < 0.995:
        return f"{value:.2g} s"
    if value < 99.95:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def milliseconds(value: float) -> str:
    """``0.042 ms``, ``0.42 ms``, ``12.3 ms``, ``1,240 ms``"""
    if value < 0.0995:
        return f"{value:.2g} ms"
    return f"{value:.2f} ms" if value < 10 else f"{value:.1f} ms" if value < 100 else f"{value:,.0f} ms"


def megabytes(value: float) -> str:
    """``0.4 MB``, ``12.0 MB``, ``1.5 GB``"""
    return f"{value:.1f} MB" if value < 1000 else f"{value / 1000:.2f} GB"


def size(value: float) -> str:
    """Bytes: ``512 B``, ``24.6 kB``, ``1.2 MB``"""
    return f"{value:.0f} B" if value < 1000 else f"{value / 1000:.1f} kB" if value < 1e6 else megabytes(value / 1e6)


def times(ratio: float) -> str:
    """A factor: ``5.2x``, ``0.83x``, ``120x``"""
    return f"{ratio:.0f}x" if ratio >= 99.5 else f"{ratio:.1f}x" if ratio >= 1 else f"{ratio:.2f}x"


def ratio(value: float) -> str:
    """A ratio with its digits, two at least: ``1.10``, ``1.125``"""
    return f"{value:.2f}" if round(value, 2) == round(value, 6) else f"{value:.7g}"


def r_squared(value: float) -> str:
    """``0.974``, ``-0.310``, ``-192``"""
    return f"{value:.3f}" if value > -1 else f"{value:.3g}" if value > -1000 else f"{value:.0e}"


def change(value: float) -> str:
    """A whole number with its sign: ``+1,828,599``, ``-12,544``, ``0``"""
    return f"{value:+,.0f}" if round(value) else "0"


def p_value(value: float) -> str:
    """``0.012``, ``<0.001``, ``0.73``"""
    if value < 0.001:
        return "<0.001"
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def significant(value: float | None, digits: int = 5) -> float | None:
    """A number rounded to its first digits, which keeps pages small."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.{digits}g}")
