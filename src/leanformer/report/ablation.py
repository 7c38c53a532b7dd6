"""The ablation as a heat map: the quality of each candidate, by the replaced sites and the blocks in their place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import plotly.graph_objects as go

from leanformer.report.cells import verdict
from leanformer.report.heatmap import difference_limits, heat_map
from leanformer.report.structure import layer_of, place_of, plain
from leanformer.report.style import safe, scaled
from leanformer.results.metrics import Metric, find_metric

# The published names of feed_forward's schemes (arXiv 2311.10642), by the kind of site.
SCHEMES = {
    "self_attention": "ALR",
    "cross_attention": "ALR",
    "self_attention_sublayer": "ALRR",
    "cross_attention_sublayer": "ALRR",
    "layer": "ELR",
}
SIZES = ("XS", "S", "M", "L")
NAMED = ("size", "hidden", "per_head")
"""Arguments of feed_forward that the scheme's name and size already express."""
ATTENTIONS = ("encoder self", "decoder self", "cross")
CELL_WIDTH = 62  # pixels, for a number and its difference
NAMES_WIDTH = 150


Cell = tuple[tuple["Form", ...], tuple[str, ...]]
"""The blocks, and the sites that they replace."""


@dataclass(frozen=True)
class Form:
    """A block that a plan puts at a site.

    Args:
        name: The published scheme, or the block.
        size: ``XS``, or ``H 50`` where the plan gives hidden units; empty for other blocks.
        rest: The other arguments in which candidates differ.
    """

    name: str
    size: str
    rest: str

    def __str__(self) -> str:
        return f"{self.name} {self.size}".rstrip() + (f" ({self.rest})" if self.rest else "")

    @property
    def rank(self) -> int:
        """The order of forms with the same name."""
        hidden = self.size.rpartition(" ")[2]
        return SIZES.index(self.size) if self.size in SIZES else int(hidden) if hidden.isdigit() else 0


def road(row: Mapping[str, Any]) -> str:
    """How a candidate was made: ``as taught``, ``tuned as a whole`` or ``trained from scratch``."""
    if row["method"] == "scratch":
        return "trained from scratch"
    return "tuned as a whole" if any(curve["epochs"] for curve in row["curves"]) else "as taught"


def replaced_sites(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The attentions that a plan replaced: ``encoder self``, ``cross``; with the layers if not all are replaced.

    A layer that was replaced as a whole counts as its attentions, so that all schemes can be compared.
    """
    there: dict[str, set[int]] = {}
    changed: dict[str, set[int]] = {}
    for change in row["changes"]:
        for place in _attentions(change):
            there.setdefault(place, set()).add(layer_of(change["site"]))
            if change["changed"]:
                changed.setdefault(place, set()).add(layer_of(change["site"]))
    return tuple(
        place if changed[place] == there[place] else f"{place} {', '.join(map(str, sorted(changed[place])))}"
        for place in there
        if place in changed
    )


def _attentions(change: Mapping[str, Any]) -> tuple[str, ...]:
    place = place_of(change["site"])
    return {"encoder layer": ("encoder self",), "decoder layer": ("decoder self", "cross")}.get(place, (place,))


def put_in_place(rows: Sequence[Mapping[str, Any]]) -> list[tuple[Form, ...]]:
    """The blocks that each plan puts in, each form once, in the order of the model's sites."""
    written = [
        [(change, _written(row["plan"], change)) for change in row["changes"] if change["changed"]] for row in rows
    ]
    keys = {key for entries in written for _, entry in entries for key in entry}
    given: dict[tuple[str, str, str], set[str]] = {}
    for change, entry in (pair for entries in written for pair in entries):
        for key in keys:
            given.setdefault((change["block"], place_of(change["site"]), key), set()).add(plain(entry.get(key)))
    return [tuple(dict.fromkeys(_form(change, entry, given) for change, entry in entries)) for entries in written]


def _written(plan: Mapping[str, Any], change: Mapping[str, Any]) -> Mapping[str, Any]:
    """The arguments that the study gives for a site; the last pattern that matches it counts."""
    entries = [entry for pattern, entry in plan.items() if fnmatchcase(change["site"], pattern)]
    entry = entries[-1] if entries else {}
    return {} if isinstance(entry, str) else {key: value for key, value in entry.items() if key != "block"}


def _form(change: Mapping[str, Any], entry: Mapping[str, Any], given: Mapping[tuple[str, str, str], set[str]]) -> Form:
    block, place = change["block"], place_of(change["site"])
    named = NAMED if block == "feed_forward" else ()
    rest = ", ".join(
        f"{key}: {plain(value)}"
        for key, value in entry.items()
        if key not in named and len(given[block, place, key]) > 1
    )
    if block != "feed_forward":
        return Form(block, "", rest)
    # The size as the study writes it; a resolved plan may have only the hidden units, which differ between sites.
    sizes = entry if entry.get("size") or entry.get("hidden") else change["arguments"]
    size = plain(sizes.get("size") or f"H {sizes.get('hidden')}")
    return Form("ASLR" if change["arguments"].get("per_head") else SCHEMES.get(change["kind"], block), size, rest)


def ablation(results: Mapping[str, Any]) -> dict[str, go.Figure]:
    """Quality and difference to the baseline, with the replaced sites as columns and the blocks as rows.

    Returns:
        How the candidates were made -> the figure; all figures share one color scale. Empty where no candidate is
        distilled, none could be compared, or all have the same sites and blocks.
    """
    rows = results["candidates"]
    cells = list(zip(put_in_place(rows), map(replaced_sites, rows), strict=True))
    compared = [row["difference"]["mean"] for row in rows if row["difference"] is not None]
    if len(set(cells)) < 2 or not compared or all(row["method"] == "scratch" for row in rows):
        return {}
    metric = find_metric(results)
    limits = difference_limits([[value * metric.scale for value in compared]], results, metric)
    names = list(dict.fromkeys((form.name, form.rest) for forms, _ in cells for form in forms))
    tables: dict[str, dict[Cell, list[Mapping[str, Any]]]] = {}
    for row, cell in zip(rows, cells, strict=True):
        tables.setdefault(road(row), {}).setdefault(cell, []).append(row)
    figures = {}
    for way, table in tables.items():
        across = sorted(dict.fromkeys(sites for _, sites in table), key=len)
        down = sorted(
            dict.fromkeys(forms for forms, _ in table),
            key=lambda forms: [(names.index((form.name, form.rest)), form.rank) for form in forms],
        )
        grid = [[table.get((forms, sites), []) for sites in across] for forms in down]
        labels = ["<br>+ ".join(safe(str(form)) for form in forms) for forms in down]
        texts = [[_text(shown, metric) for shown in line] for line in grid]
        lines = 1 + max(text.count("<br>") for text in (*labels, *(text for line in texts for text in line)))
        figures[way] = heat_map(
            [[_color(shown, metric) for shown in line] for line in grid],
            texts,
            [["<br>".join(_hover(row, metric) for row in shown) for shown in line] for line in grid],
            limits,
            metric.difference_unit,
            metric.sign < 0,
            height=110 + (8 + 15 * lines) * len(down),
            margin={"l": 8, "r": 12, "t": 42, "b": 8},
            xaxis={
                "tickvals": list(range(len(across))),
                "ticktext": [_in_words(sites, rows[0]) for sites in across],
                "tickangle": 0,
            },
            yaxis={"tickvals": list(range(len(down))), "ticktext": labels},
            # On a narrower page, the figure scrolls.
            meta={"least_width": NAMES_WIDTH + CELL_WIDTH * len(across)},
        )
    return figures


def _in_words(sites: tuple[str, ...], row: Mapping[str, Any]) -> str:
    attentions = {place for change in row["changes"] for place in _attentions(change) if place in ATTENTIONS}
    return "all attention" if len(sites) > 1 and set(sites) == attentions else "<br>+ ".join(map(safe, sites))


def _best(rows: Sequence[Mapping[str, Any]], metric: Metric) -> Mapping[str, Any] | None:
    compared = [row for row in rows if row["difference"] is not None]
    return max(compared, key=lambda row: metric.sign * row["quality"]["mean"], default=None)


def _color(rows: Sequence[Mapping[str, Any]], metric: Metric) -> float | None:
    best = _best(rows, metric)
    return None if best is None else scaled(best["difference"]["mean"], metric.scale)


def _text(rows: Sequence[Mapping[str, Any]], metric: Metric) -> str:
    best = _best(rows, metric)
    if best is None:
        return "failed" if rows else ""
    text = f"{metric.number(best['quality']['mean'])}<br>{metric.signed(best['difference']['mean'])}"
    return text if len(rows) == 1 else f"{text}<br>best of {len(rows)}"


def _hover(row: Mapping[str, Any], metric: Metric) -> str:
    if row["difference"] is None:
        return f"{safe(row['name'])}: {verdict(row)}"
    return (
        f"{safe(row['name'])}: {verdict(row)}, {metric.value(row['quality']['mean'])} "
        f"({metric.difference(row['difference']['mean'])})"
    )
