"""The results in words and as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from leanformer.core.errors import printable
from leanformer.report.cells import one_pair_only, verdict
from leanformer.report.columns import TERMINAL, result_columns
from leanformer.results import formats
from leanformer.results.costs import COSTS, RUNTIMES
from leanformer.results.metrics import Metric, find_metric
from leanformer.results.schema import form_of, rows_of

MOST_UNDECIDED = 4
"""The most undecided candidates that get a line each."""
STYLES = {"accept": "green", "reject": "red", "undecided": "yellow", "failed": "red", "baseline": ""}


def results_table(results: Mapping[str, Any]) -> Table:
    """One row per model, for a terminal of 80 columns or more.

    Args:
        results: The content of ``results.json``.
    """
    metric = find_metric(results)
    confidence = formats.confidence(results["accept"]["confidence"])
    table = Table(
        box=None,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        caption_justify="left",
        caption_style="dim",
        caption=(
            f"{metric.titled}; difference to the baseline in {metric.difference_unit}, with its {confidence} interval; "
            f"speed is {form_of(results).wording.example}s per second relative to the baseline; > marks the model to "
            "ship" + _scope(results)
        ),
    )
    found = result_columns(results)
    columns = [found[key] for key in TERMINAL]
    table.add_column(width=1)
    table.add_column("candidate", overflow="fold", min_width=8)
    for column in columns:
        table.add_column(column.head, justify="right" if column.kind == "number" else "left", no_wrap=True)
    for row in rows_of(results):
        chosen = row["name"] == results["recommended"]
        texts = (column.on_terminal(row) for column in columns)
        table.add_row(
            ">" if chosen else "",
            Text(printable(row["name"])),
            *(
                Text(text, style=STYLES[text]) if column.kind == "verdict" else text
                for column, text in zip(columns, texts, strict=True)
            ),
            style="bold" if chosen else "",
        )
    return table


def _scope(results: Mapping[str, Any]) -> str:
    """What the numbers hold for, after semicolons; empty where they hold for the recipe and each example is a group."""
    data, example = results["data"], form_of(results).wording.example
    of_groups = ""
    if data["groups"] is not None:
        of_groups = f"; {formats.count(data['test'])} test {example}s in {formats.count(data['groups'])} groups"
    if results["shipped"] is not None:
        return f"{of_groups}; all of the exported models, {find_metric(results).name} before→after export"
    return of_groups + ("; one seed: this holds for this one trained pair only" if one_pair_only(results) else "")


def decision_lines(results: Mapping[str, Any]) -> list[str]:
    """The decision in plain words: which model to ship, what it saves, what quality it loses and how sure that is, what
    is undecided and what would decide it. One statement per line, the most important first.

    Args:
        results: The content of ``results.json``.
    """
    metric = find_metric(results)
    example = form_of(results).wording.example
    baseline = results["baseline"]
    rows = {row["name"]: row for row in (baseline, *results["candidates"])}
    chosen = rows.get(results["recommended"])
    lines = [results["recommendation"]]
    if chosen is not None and chosen is not baseline:
        lines += [_savings(chosen, baseline, example), _quality(chosen, baseline, results, metric)]
    if chosen is not None and chosen["artifact"] is not None:
        lines += _exported(chosen, metric)
    lines += _undecided(results, metric, chosen, example)
    failed = [row for row in rows.values() if row["status"] == "failed"]
    for row in failed:
        reasons = "; ".join(f"seed {failure['seed']}: {failure['reason']}" for failure in row["failures"])
        lines.append(f"Failed: {row['name']}" + (f" ({reasons})." if reasons else "."))
    if results["shipped"] is not None:
        lines.append(
            "All of this holds for these exported models; what it says of other trainings is the recipe's part."
        )
    elif one_pair_only(results):
        lines.append(
            "There is one seed: all of this holds for this one trained pair only, and says nothing about other "
            "trainings."
        )
    return lines


def _savings(chosen: Mapping[str, Any], baseline: Mapping[str, Any], example: str) -> str:
    parts = [
        f"{formats.count(chosen['parameters'])} parameters in place of {formats.count(baseline['parameters'])} "
        f"({formats.percent(chosen['parameters_ratio'])})"
    ]
    speed = COSTS["throughput"].ratio(chosen, baseline)
    if speed is not None:
        parts.append(f"{formats.times(speed)} the throughput")
    # Distillation starts after the teacher's training.
    how = "after the teacher's" if chosen["method"] == "distill" else "in place of"
    for cost, words in (
        (COSTS["latency"], f"for one {example} in place of"),
        (COSTS["train_seconds"], f"of training {how}"),
    ):
        if cost.of(chosen) is not None and cost.of(baseline) is not None:
            parts.append(f"{cost.text(chosen)} {words} {cost.text(baseline)}")
    return f"Cost: {'; '.join(parts)}."


def _quality(chosen: Mapping[str, Any], baseline: Mapping[str, Any], results: Mapping[str, Any], metric: Metric) -> str:
    accept = results["accept"]
    difference = chosen["difference"]
    sentence = (
        f"Quality: {metric.name} {metric.value(chosen['quality']['mean'])}, the baseline's "
        f"{metric.value(baseline['quality']['mean'])}: a difference of {metric.difference(difference['mean'])} "
        f"({formats.confidence(accept['confidence'])} interval {metric.signed(difference['low'])} to "
        f"{metric.signed(difference['high'])})."
    )
    if chosen["p_adjusted"] is not None:
        tests = sum(row["p_adjusted"] is not None for row in results["candidates"])
        corrected = f", corrected for {tests} candidates" if tests > 1 else ""
        sentence += (
            f" A {metric.worsening} of {metric.margin(accept['max_drop'])} or more is ruled out "
            f"(p = {formats.p_value(chosen['p_adjusted'])}{corrected}; "
            f"the limit is {1 - accept['confidence']:.3g})."
        ).replace("p = <", "p < ")
    return sentence


def _exported(chosen: Mapping[str, Any], metric: Metric) -> list[str]:
    """What the export changed, and what is decided on the recipe."""
    artifact, recipe = chosen["artifact"], chosen["recipe"]
    lines = [
        f"Exported to {RUNTIMES[artifact['format']]} in {artifact['precision']}: {metric.name} "
        f"{metric.value(artifact['before']['mean'])} before, {metric.value(chosen['quality']['mean'])} after; "
        f"{formats.share(artifact['agreement'])} of {formats.count(artifact['compared'])} answers are the same."
    ]
    if recipe is not None and recipe["decision"] is not None and len(chosen["seeds"]) > 1:
        lines.append(
            f"Its recipe, over {len(chosen['seeds'])} seeds before export: {recipe['decision']}; {recipe['reason']}"
        )
    return lines


def _undecided(results: Mapping[str, Any], metric: Metric, chosen: Mapping[str, Any] | None, example: str) -> list[str]:
    undecided = [row for row in results["candidates"] if verdict(row) == "undecided" and row["difference"] is not None]
    price = COSTS[results["prefer"]].of
    limit = None if chosen is None else price(chosen)
    # Only a cheaper candidate could replace the recommended one; the others get one line together.
    mattering = [row for row in undecided if limit is None or (price(row) or 0) < limit]
    mattering.sort(key=lambda row: price(row) or 0)
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
        example: The word for a test example.
    """
    ways = []
    if row["more_seeds"]:
        ways.append(f"{formats.count(row['more_seeds'])} more seed{'s' if row['more_seeds'] > 1 else ''}")
    if row["more_examples"]:
        ways.append(
            f"{formats.count(row['more_examples'])} more test {example}{'s' if row['more_examples'] > 1 else ''}"
        )
    if not ways:
        return f"no number of seeds or of test {example}s alone is expected to decide it"
    return f"expected to decide it: {' or '.join(ways)}"
