"""A confirmation in words, as a table for the terminal, and as a row of the report, from its result alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from leanformer.core.errors import printable
from leanformer.report.cells import interval
from leanformer.report.summary import STYLES, what_would_decide
from leanformer.results import formats
from leanformer.results.metrics import METRICS
from leanformer.results.schema import FORMS


def confirmation_table(result: Mapping[str, Any]) -> Table:
    """A row for the baseline and one for the candidate.

    Args:
        result: The content of ``result.json``.
    """
    metric, confidence = METRICS[result["metric"]], formats.confidence(result["accept"]["confidence"])
    table = Table(
        box=None,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        caption_justify="left",
        caption_style="dim",
        caption=f"{metric.titled} and difference to the baseline in {metric.difference_unit}, with {confidence} "
        f"intervals, on {_examples(result)}",
    )
    table.add_column("model", overflow="fold", min_width=8)
    for head in (metric.name, "difference"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("decision", no_wrap=True)
    baseline, candidate = result["baseline"], result["candidate"]
    table.add_row(Text(printable(baseline["name"])), interval(baseline["quality"], metric.value), "", "baseline")
    table.add_row(
        Text(printable(candidate["name"])),
        interval(candidate["quality"], metric.value),
        interval(result["difference"], metric.signed),
        Text(result["decision"], style=STYLES[result["decision"]]),
    )
    return table


def confirmation_lines(result: Mapping[str, Any]) -> list[str]:
    """The decision in plain words, one statement per line, the most important first.

    Args:
        result: The content of ``result.json``.
    """
    name, example = result["candidate"]["name"], FORMS[result["task"]].wording.example
    said = {"accept": "is confirmed", "reject": "is rejected", "undecided": "is not decided"}[result["decision"]]
    lines = [f"{name} {said} on {_examples(result)}: {result['reason']}"]
    if result["decision"] == "undecided":
        row = {"more_seeds": None, "more_examples": result["more_examples"]}
        advice = what_would_decide(row, example, result["data"])
        lines.append(f"{advice[0].upper()}{advice[1:]}, other ones than these.")
    error = f"{100 * (1 - result['accept']['confidence']):.3g} %"
    counted = result["candidates"]
    corrected = "" if counted == 1 else f", corrected for the {counted} models that were confirmed on these data"
    lines.append(
        f"These data have an error of {error} of their own{corrected}: no look at the study's test split counts here."
    )
    for revised in result["revised"]:
        lines.append(
            f"That correction changes the decision on {revised['candidate']}, which was confirmed on the same data "
            f"before: it was {revised['before']}, and is {revised['now']}."
        )
    return lines


def confirmation_row(result: Mapping[str, Any]) -> dict[str, str]:
    """The texts of one confirmation in the report's table.

    Args:
        result: The content of ``result.json``.
    """
    metric = METRICS[result["metric"]]
    return {
        "name": result["candidate"]["name"],
        "date": result["date"],
        "source": result["data"]["source"],
        "examples": _examples(result),
        "metric": metric.titled,
        "unit": metric.difference_unit,
        "baseline": interval(result["baseline"]["quality"], metric.number),
        "quality": interval(result["candidate"]["quality"], metric.number),
        "difference": interval(result["difference"], metric.signed),
        "confidence": formats.confidence(result["accept"]["confidence"]),
        "p": formats.p_value(result["p_adjusted"]),
        "decision": result["decision"],
        "reason": result["reason"],
    }


def _examples(result: Mapping[str, Any]) -> str:
    """``1,014 new images``, with their groups where there are."""
    data, example = result["data"], FORMS[result["task"]].wording.example
    groups = "" if data["groups"] is None else f" in {formats.count(data['groups'])} groups"
    return f"{formats.count(data['examples'])} new {example}s{groups}"
