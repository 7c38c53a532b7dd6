"""What the table of Multi30k says, in sentences with its figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.room import span

Rows = Mapping[str, Mapping[str, Any]]

PUBLISHED = ("encoder-XS", "encoder-S", "encoder-M")
PUBLISHED_CROSS = ("cross-XS", "cross-S")
TOKEN_NETWORKS = ("cross-sum-50", "cross-sum-800", "cross-gate-800")


def what_it_says(rows: Rows) -> str:
    """The findings as a list, in BLEU less the teacher's.

    Args:
        rows: Name of a candidate -> its figures; a finding is left out where one of its candidates is missing.
    """
    said = (finding(rows) for finding, names in FINDINGS.items() if set(names) <= set(rows))
    return "\n".join(f"- {text}" for text in said if text)


def of_encoder(rows: Rows) -> str:
    """Slots against the published networks."""
    slots = rows["encoder-slots"]
    names = [*PUBLISHED, *(name for name in ("encoder-L",) if name in rows)]
    times = [rows[name]["added"] / rows[name]["removed"] for name in names]
    return f"""\
**The encoder's attention**: slots with {change_in_percent(slots)} parameters are at
{differences(rows, "encoder-slots")}. The published networks are at {differences(rows, *names)}, with
{span(times, ".0f")} times the parameters."""


def of_schemes(rows: Rows) -> str:
    """What the published networks replace."""
    return f"""\
**More than an attention, or a head each**: a network a head (ASLR) of size XS is at
{differences(rows, "encoder-ASLR-XS")}. Networks that have to give the norm and the residual too (ALRR) are at
{differences(rows, "encoder-ALRR-S")} in size S, {differences(rows, "encoder-ALRR-M")} in M; in place of whole layers
(ELR) at {differences(rows, "encoder-ELR-S")}, and {differences(rows, "encoder-ELR-M")}."""


def of_decoder(rows: Rows) -> str:
    """Both kinds of self-attention."""
    slots = rows["both-slots"]
    return f"""\
**The decoder's self-attention too**: replaced by slots, both ({change_in_percent(slots)} parameters) are at
{differences(rows, "both-slots")}; by the published networks of size M, at {differences(rows, "both-M")}."""


def of_published_cross(rows: Rows) -> str:
    """The published networks in cross-attention."""
    names = [*PUBLISHED_CROSS, *(name for name in ("cross-M",) if name in rows)]
    times = [rows[name]["added"] / rows[name]["removed"] for name in names]
    return f"""\
**Cross-attention by the published networks**, which read the source and the prefix, causal here, in sizes XS to
{names[-1].removeprefix("cross-")}: they are at {differences(rows, *names)}, with {span(times, ".0f")} times the
parameters."""


def of_cross(rows: Rows) -> str:
    """Cross-attention by what is not published."""
    lean, wide = rows["cross-slots-64-lean"], rows["cross-slots-64"]
    return f"""\
**Cross-attention**: networks that read the source and the asking token alone are at
{differences(rows, *TOKEN_NETWORKS)}, weights that this token decides at {differences(rows, "cross-synthesizer")}.
Slots with a linear gate and rank 16 ({change_in_percent(lean)} parameters) are at
{differences(rows, "cross-slots-64-lean")}, with a network ({change_in_percent(wide)}) at
{differences(rows, "cross-slots-64")}."""


def of_tuning(rows: Rows) -> str:
    """What it gives, far from the teacher and near."""
    gains = {
        name: difference(rows[f"{name}-tuned"]) - difference(row)
        for name, row in rows.items()
        if row["difference"] and f"{name}-tuned" in rows
    }
    far = [gain for name, gain in gains.items() if difference(rows[name]) < -10]
    near = [gain for name, gain in gains.items() if difference(rows[name]) > -1]
    if not far or not near:
        return ""
    return f"""\
**An epoch of tuning** gives the students that are more than 10 points off {span(far)} points, and those within a point
{span(near)}."""


FINDINGS: Mapping[Callable[[Rows], str], tuple[str, ...]] = {
    of_encoder: ("encoder-slots", *PUBLISHED),
    of_schemes: ("encoder-ASLR-XS", "encoder-ALRR-S", "encoder-ALRR-M", "encoder-ELR-S", "encoder-ELR-M"),
    of_decoder: ("both-slots", "both-M"),
    of_published_cross: PUBLISHED_CROSS,
    of_cross: ("cross-synthesizer", "cross-slots-64", "cross-slots-64-lean", *TOKEN_NETWORKS),
    of_tuning: (),
}
"""Finding -> the candidates that it needs."""


def difference(row: Mapping[str, Any]) -> float:
    """BLEU less the teacher's."""
    return float(row["difference"]["mean"])


def tuned_difference(row: Mapping[str, Any]) -> float:
    """BLEU less that of the teacher tuned alike, or without such a one the teacher's."""
    return float((row.get("against_control") or row["difference"])["mean"])


def differences(rows: Rows, *names: str) -> str:
    """``-3.3 to -1.3 as taught and -1.9 to -1.2 tuned``, the latter where all of them were."""
    taught = f"{span([difference(rows[name]) for name in names])} as taught"
    tuned = [tuned_difference(rows[f"{name}-tuned"]) for name in names if f"{name}-tuned" in rows]
    return f"{taught} and {span(tuned)} tuned" if len(tuned) == len(names) else taught


def change_in_percent(row: Mapping[str, Any]) -> str:
    """``12 % fewer``, ``25 % more``"""
    ratio = row["added"] / row["removed"] - 1
    return f"{100 * abs(ratio):.0f} % {'more' if ratio > 0 else 'fewer'}"
