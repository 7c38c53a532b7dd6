"""The results in words and as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from leanformer.core.errors import printable
from leanformer.report.cells import margin_words, one_pair_only, verdict
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
    if results["cross_validation"] is not None:
        return f"{of_groups}; all of recipes, by cross-validation in {results['cross_validation']['folds']} folds"
    if one_pair_only(results):
        return f"{of_groups}; one seed: this holds for this one trained pair only"
    return of_groups + ("" if results["looks"] is None else "; all of the one model of each that would ship")


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
        lines.append(_exported(chosen, metric))
    if chosen is not None:
        lines += _recipe(chosen, results, example)
    lines += _undecided(results, metric, chosen, example)
    lines += _looks(results)
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
        paired = COSTS["throughput"].paired(chosen, formats.times)
        parts.append(f"{paired or formats.times(speed)} the throughput")
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
        looks = results["looks"]
        margin = margin_words(results, metric)
        tests = sum(row["p_adjusted"] is not None for row in results["candidates"])
        tests, limit = (tests, 1 - accept["confidence"]) if looks is None else (looks["candidates"], looks["error"])
        corrected = f", corrected for {tests} candidates" if tests > 1 else ""
        earlier = looks is not None and chosen["accepted_at"] not in (None, looks["number"])
        when = f"was ruled out at look {chosen['accepted_at']}" if earlier else "is ruled out"
        now = "now " if earlier else ""
        sentence += (
            f" {margin[0].upper()}{margin[1:]} or more {when} "
            f"({now}p = {formats.p_value(chosen['p_adjusted'])}{corrected}; "
            f"the limit is {limit:.3g})."
        ).replace("p = <", "p < ")
    picked = results["picked"]
    if picked is not None and picked["candidates"] > 1:
        sentence += (
            f" It was picked among {picked['candidates']} candidates; the interval that accounts for that is "
            f"{metric.signed(picked['difference']['low'])} to {metric.signed(picked['difference']['high'])}."
        )
    return sentence


def _exported(chosen: Mapping[str, Any], metric: Metric) -> str:
    """What the export changed."""
    artifact = chosen["artifact"]
    compared = artifact["compared"]
    differ = compared - round(artifact["agreement"] * compared)
    return (
        f"Exported to {RUNTIMES[artifact['format']]} in {artifact['precision']}: {metric.name} "
        f"{metric.value(artifact['before']['mean'])} before, {metric.value(chosen['quality']['mean'])} after; "
        f"{formats.differing(differ, compared)}."
    )


def _recipe(chosen: Mapping[str, Any], results: Mapping[str, Any], example: str) -> list[str]:
    """What is decided on the recipe of the recommended model, which is another statement."""
    recipe, seeds = chosen["recipe"], len(chosen["seeds"])
    if recipe is None or recipe["decision"] is None or seeds == 1:
        return []
    line = f"Its recipe, trained anew, over {seeds} seeds: {recipe['decision']}. {recipe['reason']}"
    if recipe["decision"] == "undecided" and recipe["more_seeds"]:
        line += f" Expected to decide it: {_counted(recipe['more_seeds'], 'more seed')}, at the next look."
    if recipe["broken_at_most"] is not None:
        confidence = formats.confidence(results["accept"]["confidence"])
        line += (
            f" None of these {seeds} trainings broke, so at most {formats.percent(recipe['broken_at_most'])} of "
            f"trainings do ({confidence} confidence)."
        )
    return [line]


def _looks(results: Mapping[str, Any]) -> list[str]:
    """At which look at the test split the study is, and what a look costs."""
    looks = results["looks"]
    if looks is None:
        return []
    error = f"{100 * looks['error']:.3g} %"
    data = "at this test split" if results["cross_validation"] is None else "at these data"
    seen = _counted(looks["candidates"], "candidate")
    if looks["number"] > looks["planned"]:
        return [
            f"All {looks['planned']} planned looks {data} were taken before; they decide nothing more. Test the "
            "recommended model, or another one, on data that nobody has seen: leanformer confirm."
        ]
    return [
        f"This is look {looks['number']} of {looks['planned']} {data}, on which {seen} "
        f"{'was' if looks['candidates'] == 1 else 'were'} evaluated. Each look may accept any of them wrongly with a "
        f"probability of {error}."
    ]


def _counted(count: int, word: str) -> str:
    """``1 more seed``, ``1,014 new test images``."""
    return f"{formats.count(count)} {word}{'s' if count > 1 else ''}"


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
            f"{metric.signed(gap['high'])}); "
            f"{what_would_decide(row, example, results['data'], results['cross_validation'] is not None)}."
        )
    if mattering[MOST_UNDECIDED:]:
        lines.append(f"Not decided either: {', '.join(row['name'] for row in mattering[MOST_UNDECIDED:])}.")
    rest = [row["name"] for row in undecided if row not in mattering]
    if rest and chosen is not None:
        lines.append(f"Not decided, and not cheaper than {chosen['name']}: {', '.join(rest)}.")
    return lines


def what_would_decide(
    row: Mapping[str, Any], example: str, data: Mapping[str, Any], cross_validated: bool = False
) -> str:
    """What would be expected to decide an undecided candidate: new test examples (``leanformer confirm``), or further
    repeats of a cross-validation.

    Args:
        row: The candidate's row.
        example: The word for a test example.
        data: What the results say of the data; where these have groups, groups are counted.
        cross_validated: Whether there is no test split.
    """
    example = example if data["groups"] is None else "group"
    ways = []
    if row["more_seeds"]:
        ways.append(_counted(row["more_seeds"], "more seed"))
    if row["more_examples"]:
        ways.append(_counted(row["more_examples"], f"new test {example}"))
    if not ways and cross_validated:
        return f"more seeds alone are not expected to decide it: that takes more {example}s"
    if not ways:
        return f"no number of test {example}s within reach is expected to decide it"
    return f"expected to decide it: {' or '.join(ways)}"
