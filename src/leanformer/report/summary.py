"""The results in words and as a table for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from leanformer.core.errors import printable
from leanformer.report import numbers
from leanformer.report.numbers import MISSING, Metric, find_metric
from leanformer.results.schema import rows_of

PREFERENCES = {"parameters": "parameters", "latency": "latency", "train_seconds": "training time"}
MOST_UNDECIDED = 4
"""Undecided candidates that get a line of their own."""
STYLES = {"accept": "green", "reject": "red", "undecided": "yellow", "failed": "red", "baseline": ""}


def verdict(row: Mapping[str, Any]) -> str:
    """What is said of a row in one word: ``accept``, ``reject``, ``undecided``, ``failed`` or ``baseline``."""
    if row["status"] == "failed":
        return "failed"
    return row["decision"] or "baseline"


def price(row: Mapping[str, Any], prefer: str) -> float | None:
    """The cost by which a study prefers one accepted candidate to another; None where it was not measured."""
    if prefer == "latency":
        return None if row["latency_ms"] is None else row["latency_ms"]["p50"]
    cost: float | None = row[prefer]
    return cost


def speed_ratio(row: Mapping[str, Any], baseline: Mapping[str, Any]) -> float | None:
    """Throughput in large batches, the baseline's being 1; None where either was not measured."""
    mine, other = row["throughput_per_second"], baseline["throughput_per_second"]
    return mine / other if mine is not None and other else None


def one_pair_only(results: Mapping[str, Any]) -> bool:
    """Whether the study had one seed, so that nothing is said about other trainings."""
    return any(row["scope"] == "one trained pair" for row in rows_of(results))


def results_table(results: Mapping[str, Any]) -> Table:
    """One row a model, for a terminal of 80 columns or more.

    Args:
        results: The content of ``results.json``.
    """
    metric = find_metric(results)
    baseline = results["baseline"]
    confidence = numbers.confidence(results["accept"]["confidence"])
    table = Table(
        box=None,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        caption_justify="left",
        caption_style="dim",
        caption=(
            f"{metric.titled}; difference to the baseline in {metric.difference_unit}, with its {confidence} interval; "
            f"speed is {numbers.EXAMPLES[results['task']]}s a second, the baseline's being 1; > is the one to ship"
            + ("; one seed: this speaks of this one trained pair only" if one_pair_only(results) else "")
        ),
    )
    table.add_column(width=1)
    table.add_column("candidate", overflow="fold", min_width=8)
    for header in ("parameters", metric.name, "difference", "speed"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("decision", no_wrap=True)
    for row in (baseline, *results["candidates"]):
        chosen = row["name"] == results["recommended"]
        word = verdict(row)
        speed = speed_ratio(row, baseline)
        table.add_row(
            ">" if chosen else "",
            Text(printable(row["name"])),
            f"{numbers.short(row['parameters'])} {numbers.brief_percent(row['parameters_ratio'])}",
            MISSING if row["quality"] is None else metric.number(row["quality"]["mean"]),
            interval(row["difference"], metric.signed),
            MISSING if speed is None else numbers.times(speed),
            Text(word, style=STYLES[word]),
            style="bold" if chosen else "",
        )
    return table


def interval(value: Mapping[str, float] | None, write: Callable[[float], str]) -> str:
    """``97.1 (96.0, 98.2)``; a dash where there is nothing."""
    if value is None:
        return MISSING
    return f"{write(value['mean'])} ({write(value['low'])}, {write(value['high'])})"


def decision_lines(results: Mapping[str, Any]) -> list[str]:
    """The decision in plain words: which model to ship, what it saves, what it costs and how sure that is, what was
    not decided and what would decide it. One statement a line, the most important first.

    Args:
        results: The content of ``results.json``.
    """
    metric = find_metric(results)
    example = numbers.EXAMPLES[results["task"]]
    baseline = results["baseline"]
    rows = {row["name"]: row for row in (baseline, *results["candidates"])}
    chosen = rows.get(results["recommended"])
    lines = [results["recommendation"]]
    if chosen is not None and chosen is not baseline:
        lines += [_savings(chosen, baseline, example), _quality(chosen, baseline, results, metric)]
    lines += _undecided(results, metric, chosen, example)
    failed = [row for row in rows.values() if row["status"] == "failed"]
    for row in failed:
        reasons = "; ".join(f"seed {failure['seed']}: {failure['reason']}" for failure in row["failures"])
        lines.append(f"Failed: {row['name']}" + (f" ({reasons})." if reasons else "."))
    if one_pair_only(results):
        lines.append(
            "There is one seed: all of this speaks of this one trained pair only, and says nothing of other trainings."
        )
    return lines


def _savings(chosen: Mapping[str, Any], baseline: Mapping[str, Any], example: str) -> str:
    parts = [
        f"{numbers.count(chosen['parameters'])} parameters in place of {numbers.count(baseline['parameters'])} "
        f"({numbers.percent(chosen['parameters_ratio'])})"
    ]
    speed = speed_ratio(chosen, baseline)
    if speed is not None:
        parts.append(f"{numbers.times(speed)} the throughput")
    if chosen["latency_ms"] and baseline["latency_ms"]:
        mine, other = chosen["latency_ms"]["p50"], baseline["latency_ms"]["p50"]
        parts.append(f"{numbers.milliseconds(mine)} for one {example} in place of {numbers.milliseconds(other)}")
    if chosen["train_seconds"] is not None and baseline["train_seconds"] is not None:
        mine, other = chosen["train_seconds"], baseline["train_seconds"]
        # Distilling begins where the teacher's training has ended.
        how = "after the teacher's" if chosen["method"] == "distill" else "in place of"
        parts.append(f"{numbers.seconds(mine)} of training {how} {numbers.seconds(other)}")
    return f"Cost: {'; '.join(parts)}."


def _quality(chosen: Mapping[str, Any], baseline: Mapping[str, Any], results: Mapping[str, Any], metric: Metric) -> str:
    accept = results["accept"]
    difference = chosen["difference"]
    sentence = (
        f"Quality: {metric.name} {metric.value(chosen['quality']['mean'])}, the baseline's "
        f"{metric.value(baseline['quality']['mean'])}: a difference of {metric.difference(difference['mean'])} "
        f"({numbers.confidence(accept['confidence'])} interval {metric.signed(difference['low'])} to "
        f"{metric.signed(difference['high'])})."
    )
    if chosen["p_adjusted"] is not None:
        tests = sum(row["p_adjusted"] is not None for row in results["candidates"])
        corrected = f", corrected for {tests} candidates" if tests > 1 else ""
        sentence += (
            f" A drop of {metric.drop(accept['max_drop'])} or more is ruled out "
            f"(p = {numbers.p_value(chosen['p_adjusted'])}{corrected}; "
            f"at most {1 - accept['confidence']:.3g} was asked for)."
        ).replace("p = <", "p < ")
    return sentence


def _undecided(results: Mapping[str, Any], metric: Metric, chosen: Mapping[str, Any] | None, example: str) -> list[str]:
    undecided = [row for row in results["candidates"] if verdict(row) == "undecided" and row["difference"] is not None]
    limit = None if chosen is None else price(chosen, results["prefer"])
    # Only a cheaper one could take the recommended one's place; the others are worth a word, not a line each.
    mattering = [row for row in undecided if limit is None or (price(row, results["prefer"]) or 0) < limit]
    mattering.sort(key=lambda row: price(row, results["prefer"]) or 0)
    lines = []
    for row in mattering[:MOST_UNDECIDED]:
        gap = row["difference"]
        lines.append(
            f"Not decided: {row['name']} ({metric.difference(gap['mean'])}, {metric.signed(gap['low'])} to "
            f"{metric.signed(gap['high'])}); {what_would_decide(row, example)}."
        )
    if mattering[MOST_UNDECIDED:]:
        lines.append(f"Not decided either: {', '.join(row['name'] for row in mattering[MOST_UNDECIDED:])}.")
    rest = [row["name"] for row in undecided if row not in mattering]
    if rest and chosen is not None:
        lines.append(f"Not decided, and not cheaper than {chosen['name']}: {', '.join(rest)}.")
    return lines


def what_would_decide(row: Mapping[str, Any], example: str) -> str:
    """How many more seeds or test examples would be expected to decide an undecided candidate.

    Args:
        row: The candidate's row.
        example: What a test example is called.
    """
    ways = []
    if row["more_seeds"]:
        ways.append(f"{numbers.count(row['more_seeds'])} more seed{'s' if row['more_seeds'] > 1 else ''}")
    if row["more_examples"]:
        ways.append(
            f"{numbers.count(row['more_examples'])} more test {example}{'s' if row['more_examples'] > 1 else ''}"
        )
    if not ways:
        return f"no number of seeds or of test {example}s alone is expected to decide it"
    return f"expected to decide it: {' or '.join(ways)}"
