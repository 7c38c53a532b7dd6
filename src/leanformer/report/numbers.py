"""How numbers are written, and what each metric is called: for the terminal, the page and its figures alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

MISSING = "-"


@dataclass(frozen=True)
class Metric:
    """A measure of quality as people read it. Larger is better.

    Args:
        key: Its name in ``results.json``.
        name: As people write it.
        scale: What a stored value is multiplied by to be shown.
        unit: Written after a value; empty where the name says it.
        difference_unit: Written after a difference of two values.
        digits: Decimals.
    """

    key: str
    name: str
    scale: float
    unit: str
    difference_unit: str
    digits: int

    @property
    def titled(self) -> str:
        """The name with the unit: ``accuracy in %``, ``BLEU``."""
        return f"{self.name} in {self.unit}" if self.unit else self.name

    def number(self, value: float) -> str:
        """A value without its unit: ``97.1``."""
        return f"{value * self.scale:.{self.digits}f}"

    def signed(self, value: float) -> str:
        """A difference without its unit: ``-0.3``, ``+0.4``, ``0.0``."""
        return signed(value * self.scale, self.digits)

    def value(self, value: float) -> str:
        """``97.1 %``, ``29.75``"""
        return f"{self.number(value)} {self.unit}".rstrip()

    def difference(self, value: float) -> str:
        """``-0.3 points``, ``-0.52 BLEU``"""
        return f"{self.signed(value)} {self.difference_unit}"

    def drop(self, value: float) -> str:
        """A margin, with all of its digits: ``1 point``, ``0.25 points``, ``0.5 BLEU``."""
        text = f"{value * self.scale:.6g}"
        return f"{text} {self.difference_unit.removesuffix('s') if text == '1' else self.difference_unit}"


METRICS = {
    metric.key: metric
    for metric in (
        Metric("accuracy", "accuracy", 100, "%", "points", 1),
        Metric("bleu", "BLEU", 1, "", "BLEU", 2),
        Metric("chrf", "chrF", 1, "", "chrF", 2),
        Metric("exact_match", "exact match", 100, "%", "points", 1),
    )
}
"""By their names in ``results.json``."""

EXAMPLES = {"image-classification": "example", "translation": "sentence"}
"""Task -> what one of its test examples is called."""


def find_metric(results: Mapping[str, Any]) -> Metric:
    """The study's metric, with as many decimals as one test example can move it."""
    metric = METRICS[results["metric"]]
    return replace(metric, digits=2) if results["data"]["test"] > 2000 else metric


def signed(value: float, digits: int) -> str:
    """``-0.3``, ``+0.4``, ``0.0``"""
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text


def percent(ratio: float) -> str:
    """``9.0 %``, ``100 %``, ``0.42 %``, ``2,015 %``"""
    value = 100 * ratio
    return f"{value:,.0f} %" if value >= 99.95 else f"{value:.1f} %" if value >= 1 else f"{value:.2g} %"


def brief_percent(ratio: float) -> str:
    """At most five characters: ``100%``, ``34%``, ``9.3%``, ``0.42%``"""
    value = 100 * ratio
    return f"{value:.0f}%" if value >= 9.95 else f"{value:.2g}%"


def confidence(level: float) -> str:
    """``95 %``, ``97.5 %``"""
    return f"{100 * level:.6g} %"


def count(value: float) -> str:
    """A whole number with its thousands apart: ``27,338``"""
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


def size(value: int) -> str:
    """Bytes: ``512 B``, ``24.6 kB``, ``1.2 MB``"""
    return f"{value} B" if value < 1000 else f"{value / 1000:.1f} kB" if value < 1e6 else megabytes(value / 1e6)


def times(ratio: float) -> str:
    """A factor: ``5.2x``, ``0.83x``, ``120x``"""
    return f"{ratio:.0f}x" if ratio >= 99.5 else f"{ratio:.1f}x" if ratio >= 1 else f"{ratio:.2f}x"


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
    """A number with only its first digits, so that a page does not carry the others."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.{digits}g}")
