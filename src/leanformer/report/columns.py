"""The columns of the tables of models, for the terminal and the page. A new column is an entry here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from leanformer.report.cells import interval, verdict
from leanformer.results import formats
from leanformer.results.costs import COSTS, RUNTIMES
from leanformer.results.formats import MISSING, or_missing
from leanformer.results.metrics import Metric, find_metric, metrics_of
from leanformer.results.schema import form_of, rows_of

Row = Mapping[str, Any]


def _nothing(row: Row) -> Sequence[str]:
    return ()


@dataclass(frozen=True)
class Column:
    """A column of a table with one row per model.

    Args:
        head: The title.
        value: A row -> the text of its cell.
        small: A smaller line below the title, on the page.
        details: A row -> smaller lines below the value, on the page.
        label: The label beside the value where the page shows rows as cards; by default the title.
        brief: A row -> a shorter text for the terminal.
        kind: Whether the cells hold numbers, the verdict with its mark, or sentences.
    """

    head: str
    value: Callable[[Row], str]
    small: str = ""
    details: Callable[[Row], Sequence[str]] = _nothing
    label: str = ""
    brief: Callable[[Row], str] | None = None
    kind: Literal["number", "verdict", "words"] = "number"

    def on_terminal(self, row: Row) -> str:
        """The text of the cell on the terminal."""
        return (self.brief or self.value)(row)


TERMINAL = ("parameters", "quality", "difference", "speed", "decision")
"""The keys of ``result_columns`` that the terminal's table shows."""
PAGE = ("decision", "parameters", "quality", "difference", "p", "recipe", "reason")
"""The keys of ``result_columns`` that the page's table shows; the recipe where there are several seeds."""


def result_columns(results: Mapping[str, Any]) -> dict[str, Column]:
    """The columns of the table of results, by their keys.

    Args:
        results: The content of ``results.json``.
    """
    metric, baseline = find_metric(results), results["baseline"]
    speed = or_missing(formats.times)
    p_value = or_missing(formats.p_value)
    return {
        "parameters": Column(
            "parameters",
            COSTS["parameters"].text,
            details=lambda row: [formats.percent(row["parameters_ratio"])],
            brief=lambda row: f"{formats.short(row['parameters'])} {formats.brief_percent(row['parameters_ratio'])}",
        ),
        "quality": Column(
            metric.name,
            lambda row: interval(row["quality"], metric.number),
            metric.unit,
            lambda row: [before] if (before := _before(row, metric)) else [],
            label=metric.titled,
            brief=lambda row: _brief_quality(row, metric),
        ),
        "difference": Column(
            "difference",
            lambda row: interval(row["difference"], metric.signed),
            metric.difference_unit,
            label=f"difference, {metric.difference_unit}",
        ),
        "p": Column("p", lambda row: p_value(row["p_adjusted"])),
        "speed": Column("speed", lambda row: speed(COSTS["throughput"].multiple(row, baseline))),
        "recipe": Column(
            "recipe",
            lambda row: MISSING if row["recipe"] is None else row["recipe"]["decision"] or "baseline",
            f"over {len(results['seeds'])} seeds",
            lambda row: [] if row["recipe"] is None else [interval(row["recipe"]["difference"], metric.signed)],
        ),
        "decision": Column("decision", verdict, kind="verdict"),
        "reason": Column("reason", lambda row: row["reason"] or "", details=_failures, kind="words"),
    }


def _failures(row: Row) -> list[str]:
    """The failures that the reason does not mention."""
    return [
        f"Seed {failure['seed']} failed: {failure['reason']}"
        for failure in row["failures"]
        if failure["reason"] not in (row["reason"] or "")
    ]


def _brief_quality(row: Row, metric: Metric) -> str:
    """The quality; of an exported model ``97.1→97.0``, before and after the export."""
    if row["quality"] is None:
        return MISSING
    before = "" if row["artifact"] is None else f"{metric.number(row['artifact']['before']['mean'])}→"
    return before + metric.number(row["quality"]["mean"])


def _before(row: Row, metric: Metric) -> str:
    """The quality of an exported model before it was exported, in words; empty where nothing was exported."""
    return "" if row["artifact"] is None else f"{metric.number(row['artifact']['before']['mean'])} before export"


def export_columns(results: Mapping[str, Any]) -> list[Column]:
    """The columns of the table of exported models.

    Args:
        results: The content of ``results.json``.
    """
    metric = find_metric(results)

    def of_artifact(write: Callable[[Row], str]) -> Callable[[Row], str]:
        return lambda row: MISSING if row["artifact"] is None else write(row["artifact"])

    def of_recipe(write: Callable[[Row], str]) -> Callable[[Row], str]:
        return lambda row: MISSING if row["recipe"] is None else write(row["recipe"])

    return [
        Column("precision", of_artifact(lambda artifact: artifact["precision"])),
        Column("before", of_artifact(lambda artifact: metric.number(artifact["before"]["mean"])), metric.titled),
        Column("after", lambda row: MISSING if row["quality"] is None else metric.number(row["quality"]["mean"])),
        Column(
            "same answers",
            of_artifact(lambda artifact: formats.share(artifact["agreement"])),
            "before and after",
            lambda row: [] if row["artifact"] is None else [f"of {formats.count(row['artifact']['compared'])}"],
        ),
        Column("files", COSTS["bytes"].text, details=lambda row: [COSTS["bytes"].part(row, results["baseline"])]),
        Column(
            "recipe",
            of_recipe(lambda recipe: recipe["decision"] or "baseline"),
            "all seeds, not exported",
            lambda row: [] if row["recipe"] is None else [interval(row["recipe"]["difference"], metric.signed)],
        ),
    ]


def speed_columns(results: Mapping[str, Any]) -> list[Column]:
    """The columns of the table of speed in each runtime; empty where there was one.

    Args:
        results: The content of ``results.json``.
    """
    runtimes = list(dict.fromkeys(speed["runtime"] for row in rows_of(results) for speed in row["speeds"]))
    if len(runtimes) < 2:
        return []
    example = form_of(results).wording.example

    def of(row: Row, runtime: str) -> Row | None:
        """A row with the costs of one runtime."""
        found = [speed for speed in row["speeds"] if speed["runtime"] == runtime]
        return {**row, **found[0], "cost_ratios": found[0]["ratios"]} if found else None

    def column(runtime: str, head: str, key: str) -> Column:
        cost, baseline = COSTS[key], of(results["baseline"], runtime)

        def value(row: Row) -> str:
            found = of(row, runtime)
            return MISSING if found is None else cost.text(found)

        def ratio(row: Row) -> list[str]:
            found = of(row, runtime)
            if found is None or baseline is None:
                return []
            return [cost.paired(found, formats.percent) or cost.part(found, baseline)]

        return Column(head, value, RUNTIMES[runtime], ratio, f"{head}, {RUNTIMES[runtime]}")

    heads = (("latency", f"one {example}"), ("throughput", "large batch"))
    return [column(runtime, head, key) for runtime in runtimes for key, head in heads]


def robustness_columns(results: Mapping[str, Any]) -> list[Column]:
    """The columns of the table of robustness, one for each corruption; empty where it was not measured.

    Args:
        results: The content of ``results.json``.
    """
    metric = find_metric(results)

    def of(row: Row, name: str) -> Row | None:
        return next((entry for entry in row["robustness"] or () if entry["corruption"] == name), None)

    def column(name: str) -> Column:
        def value(row: Row) -> str:
            entry = of(row, name)
            return MISSING if entry is None else metric.number(entry["quality"])

        def details(row: Row) -> list[str]:
            entry = of(row, name)
            if entry is None:
                return []
            found = [f"loss {metric.signed(entry['loss'])}"]
            if entry["extra_loss"] is not None:
                mark = "▼ " if entry["loses_more"] else ""
                found.append(f"{mark}extra {interval(entry['extra_loss'], metric.signed)}")
            return found

        return Column(name, value, details=details)

    return [column(corruption["name"]) for corruption in results["corruptions"]]


def scored_metrics(results: Mapping[str, Any]) -> list[Metric]:
    """The metrics for which the study has scores; empty where the study's metric is the only one.

    Args:
        results: The content of ``results.json``.
    """
    if "scores" not in results["baseline"]:
        return []
    known = metrics_of(form_of(results).answers)
    found = {key for row in rows_of(results) for key in row["scores"] or ()}
    return [metric for metric in known if metric.key in found] if found else known


def score_columns(results: Mapping[str, Any]) -> list[Column]:
    """The columns of the table of scores in each metric.

    Args:
        results: The content of ``results.json``.
    """

    def value(key: str, write: Callable[[float], str]) -> Callable[[Row], str]:
        def text(row: Row) -> str:
            score = (row["scores"] or {}).get(key)
            if score is None:
                return MISSING
            return interval(score, write) if "low" in score else write(score["mean"])

        return text

    return [
        Column(
            metric.name,
            value(metric.key, metric.number),
            metric.unit,
            label=f"{metric.name}, {metric.unit}" if metric.unit else metric.name,
        )
        for metric in scored_metrics(results)
    ]


def cost_columns(results: Mapping[str, Any]) -> list[Column]:
    """The columns of the table of costs.

    Args:
        results: The content of ``results.json``.
    """
    baseline, example = results["baseline"], form_of(results).wording.example
    percent, times = or_missing(formats.percent), or_missing(formats.times)

    def paired(key: str, row: Row) -> list[str]:
        text = COSTS[key].paired(row, _multiple)
        return [text] if text else []

    columns = [
        Column(
            "parameters",
            COSTS["parameters"].text,
            "of the baseline's",
            lambda row: [formats.percent(row["parameters_ratio"])],
        ),
        Column(
            "operations",
            COSTS["operations"].text,
            f"one {example}",
            lambda row: [percent(row["flops_ratio"])],
        ),
        Column(
            "training",
            COSTS["train_seconds"].text,
            "one model",
            lambda row: [
                "after its teacher's"
                if row["method"] == "distill"
                else f"{or_missing(formats.count)(row['train_examples_per_second'])} {example}s/s",
                *paired("train_seconds", row),
            ],
        ),
        Column(
            "latency p50",
            COSTS["latency"].text,
            f"one {example}",
            lambda row: [f"p95 {COSTS['latency_p95'].text(row)}", *paired("latency", row)],
        ),
        Column(
            "throughput",
            COSTS["throughput"].text,
            "large batch",
            lambda row: paired("throughput", row) or [times(COSTS["throughput"].ratio(row, baseline))],
        ),
        Column(
            "memory",
            COSTS["memory"].text,
            "inference",
            lambda row: [f"training {COSTS['train_memory'].text(row)}"],
        ),
    ]
    if any(row["q_ratio"] is not None for row in rows_of(results)):
        columns.append(Column("Q", lambda row: or_missing(formats.short)(row["q_ratio"])))
    return columns


def _multiple(ratio: float) -> str:
    """``0.42x``, ``1.05x``: two decimals, as near to 1 they decide which is the cheaper one."""
    return f"{ratio:.2f}x" if ratio < 9.995 else formats.times(ratio)


def writing_columns(results: Mapping[str, Any]) -> list[Column]:
    """The columns of the table of the cost of writing.

    Args:
        results: The content of ``results.json``.
    """
    baseline = results["baseline"]

    def column(key: str, head: str, small: str, label: str) -> Column:
        return Column(
            head,
            COSTS[key].text,
            small,
            lambda row: [COSTS[key].paired(row, formats.percent) or COSTS[key].part(row, baseline)],
            label,
        )

    return [
        column("token_flops", "operations", "a subword", "operations a subword"),
        column("source_flops", "operations", "the source, once", "operations, the source"),
        column("token_time", "time a subword", "one sentence", "time a subword"),
        Column(
            "time a subword",
            COSTS["token_time_in_batch"].text,
            "large batch",
            lambda row: [COSTS["token_throughput"].text(row)],
            "in a large batch",
        ),
        column("state", "state", "median sentence", "state, median"),
        column("longest_state", "state", "longest sentence", "state, longest"),
    ]
