"""The report: its sentences, its tables, its figures, and the page in a browser."""

from __future__ import annotations

import copy
import html
import json
import os
import shutil
import subprocess
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from report_examples import (
    SCRIPT,
    example_results,
    failed,
    hostile_results,
    hostile_translation,
    old_results,
    robust_results,
    translation_results,
    without_baseline,
    without_translation_baseline,
)
from rich.console import Console

from leanformer.core.errors import LeanformerError
from leanformer.report import figures
from leanformer.report.ablation import ablation
from leanformer.report.columns import result_columns
from leanformer.report.curves import learning_curves
from leanformer.report.examples import side_by_side
from leanformer.report.page import render, write_report
from leanformer.report.slices import difference_by_slice
from leanformer.report.structure import changed_sites, each_site, in_all, kept_sites
from leanformer.report.summary import decision_lines, results_table, what_would_decide
from leanformer.report.taught import teaching_figures
from leanformer.results import formats
from leanformer.results.metrics import find_metric
from leanformer.results.rows import CostRatios
from leanformer.results.schema import rows_of

DESKTOP, PHONE = 1280, 375  # pixels


def written(directory: Path, results: dict[str, Any]) -> str:
    """The page for these results."""
    (directory / "results.json").write_text(json.dumps(results), encoding="utf-8")
    path = write_report(directory)
    assert path == directory / "report.html"
    return path.read_text(encoding="utf-8")


class Outline(HTMLParser):
    """Parses a page: its elements with their attributes, and the text of each table row."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append("")

    def handle_data(self, data: str) -> None:
        if self.rows:
            self.rows[-1] += data + " "

    def count(self, tag: str) -> int:
        return sum(element == tag for element, _ in self.elements)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return written(tmp_path_factory.mktemp("digits"), example_results())


@pytest.fixture(scope="module")
def hostile_page() -> str:
    """Results that no study writes: reading refuses such names, but the page must not rely on that."""
    return render(hostile_results())


@pytest.fixture(scope="module")
def robust_page() -> str:
    return render(robust_results())


def printed(results: dict[str, Any], width: int = 80) -> str:
    console = Console(width=width, file=StringIO(), color_system=None)
    console.print(results_table(results))
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ([(3, 0.9), (1, 0.5), (2, 0.95)], [1, 2]),
        ([(1, 0.5), (1, 0.6), (2, 0.6)], [1]),  # as good and cheaper, better at the same cost
        ([(1, 0.5), (1, 0.5)], [0, 1]),  # equal points do not dominate each other
        ([(5, 0.1)], [0]),
        ([], []),
    ],
)
def test_pareto_front(points: list[tuple[float, float]], front: list[int]) -> None:
    assert figures.pareto_front(points) == front


def change(
    site: str,
    block: str = "none",
    changed: bool = True,
    after: int = 0,
    r2: list[float] | None = None,
    **arguments: Any,
) -> dict[str, Any]:
    return {
        "site": site,
        "kind": site.rpartition(".")[2],
        "block": block,
        "arguments": arguments,
        "changed": changed,
        "parameters_before": 10,
        "parameters_after": after,
        "removed": 8 if changed else 0,
        "added": after,
        "r2": None if r2 is None else sum(r2) / len(r2),
        "r2_per_seed": r2 or [],
    }


def test_like_sites_of_neighboring_layers_are_one_group() -> None:
    changes = []
    for layer in range(6):
        changes.append(change(f"encoder.{layer}.self_attention", "slots", after=4, heads=1 if layer < 4 else [0, 2]))
        changes.append(
            change(f"encoder.{layer}.mlp", "mlp" if layer == 2 else "none", changed=layer != 2, after=10 * (layer == 2))
        )
    changes.append(change("pooling", "mean"))
    groups = changed_sites(changes)
    assert [(group.sites, group.arguments, group.removed, group.added, group.net) for group in groups] == [
        ("encoder.0-3.self_attention", "heads: 1", 32, 16, -16),
        ("encoder.4-5.self_attention", "heads: [0, 2]", 16, 8, -8),
        ("encoder.0-1.mlp", "", 16, 0, -16),
        ("encoder.3-5.mlp", "", 24, 0, -24),
        ("pooling", "", 8, 0, -8),
    ]
    together = in_all(groups)
    assert (together.removed, together.added, together.net, together.r2) == (96, 24, -72, None)
    assert [site.sites for site in each_site(changes)][:7] == [
        *(f"encoder.{layer}.self_attention" for layer in range(6)),
        "encoder.0.mlp",
    ]
    assert [group.sites for group in kept_sites(changes)] == ["encoder.2.mlp"]


def test_parts_of_a_layer_that_went_whole_are_neither_changed_nor_kept() -> None:
    changes = [
        change("encoder.0.mlp", changed=False, after=0),
        change("encoder.0.layer"),
        change("encoder.1.mlp", "mlp", changed=False, after=10),
        change("encoder.1.layer", "layer", changed=False, after=10),
    ]
    assert [group.sites for group in changed_sites(changes)] == ["encoder.0.layer"]
    assert [group.sites for group in kept_sites(changes)] == ["encoder.1.mlp"]


def test_what_a_wider_site_took_along_is_counted_once_and_not_kept() -> None:
    changes = [
        change("decoder.0.self_attention", changed=False),
        change("decoder.0.self_attention_sublayer", "feed_forward", after=30),
        change("decoder.0.cross_attention", "attention", changed=False, after=10),
        change("decoder.0.cross_attention_sublayer", "sublayer", changed=False, after=10),
    ]
    assert [(group.sites, group.net) for group in changed_sites(changes)] == [("decoder.0.self_attention_sublayer", 22)]
    assert [group.sites for group in kept_sites(changes)] == ["decoder.0.cross_attention"]


def test_r_squared_of_a_group_is_the_mean_of_its_sites() -> None:
    changes = [
        change("encoder.0.self_attention", "feed_forward", r2=[0.9, 0.8]),
        change("encoder.1.self_attention", "feed_forward", r2=[0.6, 0.7]),
        change("encoder.0.mlp"),
    ]
    groups = changed_sites(changes)
    assert [group.r2 for group in groups] == [pytest.approx(0.75), None]
    assert in_all(groups).r2 == pytest.approx(0.75)


def test_arguments_read_as_in_the_study_file() -> None:
    (group,) = changed_sites([change("encoder.0.mlp", qk="collapsed", heads=1, bias=True, scale=None)])
    assert group.arguments == "qk: collapsed, heads: 1, bias: true"


def test_numbers() -> None:
    assert [formats.short(value) for value in (302_410, 86_567_656, 1.25e9, 3.4567)] == [
        "302,410",
        "86.6M",
        "1.25G",
        "3.46",
    ]
    assert [formats.percent(value) for value in (1, 0.0928, 0.0042, 20.15)] == ["100 %", "9.3 %", "0.42 %", "2,015 %"]
    # 1 - 0.05 ** (1 / 2000) and 1 - 0.05 ** (1 / 40), by hand
    assert formats.differing(0, 2000) == "0 of 2,000 answers differ, so at most 0.15 % do (95 % confidence)"
    assert formats.differing(0, 40, "classes") == "0 of 40 classes differ, so at most 7.2 % do (95 % confidence)"
    assert formats.differing(3, 2000) == "3 of 2,000 answers differ"
    assert [formats.r_squared(value) for value in (0.97402, -0.31, -191.5, -2.1e7)] == [
        "0.974",
        "-0.310",
        "-192",
        "-2e+07",
    ]
    assert [formats.change(value) for value in (1_828_599, -12_544, 0)] == ["+1,828,599", "-12,544", "0"]
    assert [formats.brief_percent(value) for value in (1, 0.34, 0.0928, 0.0042)] == ["100%", "34%", "9.3%", "0.42%"]
    assert [formats.seconds(value) for value in (0.42, 3, 99.96, 3725)] == [
        "0.42 s",
        "3.0 s",
        "1 min 40 s",
        "1 h 02 min",
    ]
    assert [formats.milliseconds(value) for value in (0.0421, 0.421, 12.34, 1240)] == [
        "0.042 ms",
        "0.42 ms",
        "12.3 ms",
        "1,240 ms",
    ]
    assert [formats.size(value) for value in (0, 999, 24_576, 1_234_567)] == ["0 B", "999 B", "24.6 kB", "1.2 MB"]
    assert [formats.times(value) for value in (0.834, 5.24, 120.2)] == ["0.83x", "5.2x", "120x"]
    assert [formats.p_value(value) for value in (0.0004, 0.0123, 0.73)] == ["<0.001", "0.012", "0.73"]
    metric = find_metric(example_results())
    assert [metric.signed(value) for value in (-0.0034, -0.0001, 0.0004, 0.012)] == ["-0.3", "0.0", "0.0", "+1.2"]
    assert [metric.margin(value) for value in (0.01, 0.0025, 0.02)] == ["1 point", "0.25 points", "2 points"]


def test_more_test_examples_give_more_decimals() -> None:
    results = example_results()
    results["data"]["test"] = 10_000
    assert "97.18" in printed(results)
    assert max(map(len, printed(results).splitlines())) <= 80


def test_table_fits_a_terminal_of_80_columns() -> None:
    lines = printed(example_results()).splitlines()
    assert max(map(len, lines)) <= 80
    chosen = next(line for line in lines if line.startswith("> four-heads "))
    assert chosen.split() == [">", "four-heads", "28,042", "9.3%", "97.0", "-0.3", "(-0.7,", "+0.1)", "5.1x", "accept"]
    # Long names are wrapped, and numbers are never cut.
    place = next(place for place, line in enumerate(lines) if "collapsed-attention-wh" in line)
    assert lines[place + 1].strip() == "ole-mlp"
    assert "…" not in "".join(lines)


def test_table_says_that_one_seed_speaks_of_one_pair() -> None:
    assert "one trained pair" not in printed(example_results())
    assert "one trained pair" in " ".join(printed(example_results(seeds=1)).split())


def test_table_and_page_say_how_many_groups_there_are() -> None:
    results = example_results()
    assert "groups" not in printed(results)
    results["data"]["groups"] = 1_234
    assert "719 test examples in 1,234 groups" in " ".join(printed(results).split())
    assert "719 test examples (in 1,234 groups), 10 classes" in render(results)
    row = {"more_seeds": None, "more_examples": 40}
    assert what_would_decide(row, "image", {"groups": 12}) == "expected to decide it: 40 new test groups"
    assert what_would_decide(row, "image", {"groups": None}) == "expected to decide it: 40 new test images"


def test_table_reads_no_markup_in_names() -> None:
    results = example_results()
    results["candidates"][0]["name"] = "[red]x[/red]"
    assert "[red]x[/red]" in printed(results, 120)


def test_decision_of_an_accepted_candidate() -> None:
    lines = decision_lines(example_results())
    assert lines[0] == "Ship four-heads, the cheapest accepted candidate by parameters."
    assert "28,042 parameters in place of 302,602 (9.3 %)" in lines[1]
    assert "5.1x the throughput" in lines[1]
    assert "-0.3 points (95 % interval -0.7 to +0.1)" in lines[2]
    assert (
        "A drop of 1 point or more is ruled out (p = 0.021, corrected for 8 candidates; the limit is 0.05" in lines[2]
    )
    # An undecided candidate could still be recommended if it is cheaper, but not if it is dearer.
    assert lines[3].startswith("Not decided: four-heads-symmetric (-0.5 points, -1.2 to +0.2)")
    assert lines[3].endswith("4 more seeds or 2,300 new test examples.")
    assert lines[4] == "Not decided, and not cheaper than four-heads: collapsed."
    assert len(lines) == 5


def test_decision_by_another_preference_counts_other_candidates_as_cheaper() -> None:
    results = example_results() | {"prefer": "latency"}
    assert not any(line.startswith("Not decided: four-heads-symmetric") for line in decision_lines(results))


def test_decision_without_an_accepted_candidate() -> None:
    results = example_results(seeds=1)
    for row in results["candidates"]:
        row |= {"decision": "undecided", "more_seeds": None, "more_examples": None}
    failed(results["candidates"][0])
    results |= {"recommended": "baseline", "recommendation": "No candidate was accepted: ship the baseline."}
    lines = decision_lines(results)
    assert lines[0] == "No candidate was accepted: ship the baseline."
    assert not any(line.startswith(("Cost", "Quality")) for line in lines)
    assert sum(line.startswith("Not decided: ") for line in lines) == 4
    assert "no number of test examples within reach is expected to decide it" in lines[1]
    assert "Failed: no-mlp (seed 0: the loss is not finite)." in lines
    assert "this one trained pair only" in lines[-1]


def test_decision_when_the_baseline_failed() -> None:
    results = without_baseline()
    assert decision_lines(results) == [
        "Nothing can be recommended: the baseline failed.",
        "Failed: baseline (seed 0: the loss is not finite).",
    ]


def test_page_shows_every_model(page: str) -> None:
    outline = Outline(page)
    tables = "\n".join(" ".join(row.split()) for row in outline.rows)
    for row in example_results()["candidates"]:
        assert f"{row['name']} " in tables
        assert f"{row['parameters']:,}" in tables
    chosen = next(row for row in outline.rows if "four-heads" in row and "accept" in row)
    for part in ("ship", "28,042", "9.3 %", "97.0 (95.9, 98.2)", "-0.3 (-0.7, +0.1)", "0.021", "A drop of 1 point"):
        assert part in " ".join(chosen.split())
    cost = next(row for row in outline.rows if "four-heads" in row and "p95" in row)
    for part in ("953,428", "2.8 s", "13,923 examples/s", "0.73 ms", "p95 0.87 ms", "37,791 /s", "5.1x", "0.346"):
        assert part in " ".join(cost.split())
    rates = next(row for row in outline.rows if "four-heads " in row and "loss 0." in row)
    assert "95.0 loss 0.1300 ● 97.0 loss 0.1100 failed" in " ".join(rates.split())


def test_costs_stand_with_the_interval_of_their_ratio() -> None:
    results = example_results()
    (row,) = (row for row in results["candidates"] if row["name"] == "four-heads")
    none = dict.fromkeys(CostRatios.model_fields)
    row["cost_ratios"] = none | {
        "latency": {"median": 0.381, "low": 0.352, "high": 0.404},
        "throughput": {"median": 5.12, "low": 4.876, "high": 12.31},
        "train_seconds": {"median": 0.2, "low": 0.19, "high": 0.21},
    }
    outline = Outline(render(results))
    cost = " ".join(next(text for text in outline.rows if "four-heads" in text and "p95" in text).split())
    assert "p95 0.87 ms; 0.38x (0.35x, 0.40x)" in cost
    assert "37,791 /s 5.12x (4.88x, 12.3x)" in cost
    assert "13,923 examples/s; 0.20x (0.19x, 0.21x)" in cost
    assert "5.1x (4.9x, 12.3x) the throughput" in "\n".join(decision_lines(results))


def test_the_speed_of_the_table_is_the_median_over_rounds_of_the_sentences() -> None:
    results = example_results()
    (row,) = (row for row in results["candidates"] if row["name"] == "four-heads")
    speed = result_columns(results)["speed"]
    assert speed.on_terminal(row) == "5.1x"  # of the medians, where there are no rounds
    row["cost_ratios"] = dict.fromkeys(CostRatios.model_fields) | {
        "throughput": {"median": 6.3, "low": 4.9, "high": 12.3}
    }
    assert speed.on_terminal(row) == "6.3x"
    assert "6.3x (4.9x, 12.3x) the throughput" in "\n".join(decision_lines(results))


def test_page_says_the_decision_in_the_words_of_the_terminal(page: str) -> None:
    for line in decision_lines(example_results()):
        assert f">{line}</p>" in page.replace("&#39;", "'")
    assert "Weights to ship: <code>trials/four-heads/seed-1/model</code>" in page


def test_page_asks_nothing_of_the_network(page: str) -> None:
    outline = Outline(page)
    assert not any(tag in ("link", "img", "iframe", "object", "base") for tag, _ in outline.elements)
    for _, attributes in outline.elements:
        assert "src" not in attributes
        assert (attributes.get("href") or "#").startswith("#")
    (policy,) = (attributes["content"] for _, attributes in outline.elements if "http-equiv" in attributes)
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_page_escapes_what_users_wrote(hostile_page: str) -> None:
    assert SCRIPT not in hostile_page
    assert "&lt;script&gt;window.broken" in hostile_page
    # plotly.js, the figures and the page's own script: names have added none.
    assert Outline(hostile_page).count("script") == 3
    assert Outline(hostile_page).count("img") == 0
    plots = json.loads(hostile_page.partition('id="plots">')[2].partition("</script>")[0])
    assert "&lt;script&gt;" in json.dumps(plots["difference"])


def test_page_without_a_baseline(tmp_path: Path) -> None:
    page = written(tmp_path, without_baseline())
    assert "no candidate could be compared with the baseline" in page
    assert "the baseline less the margin" not in page
    assert "Seed 0 failed: the loss is not finite" in page
    assert (
        "baseline, seed 0: the loss or its gradient was not finite at epoch 3, step 2: back to the last good state"
        in page
    )
    assert [attributes["data-plot"] for _, attributes in Outline(page).elements if "data-plot" in attributes][:2] == [
        "cost",
        "curves-B",
    ]


def test_page_without_any_measured_cost_or_epoch_has_no_empty_plots() -> None:
    results = example_results()
    for row in rows_of(results):
        failed(row)
        row["curves"] = [{"seed": 0, "epochs": []}]
    results |= {"recommended": None, "recommendation": "Nothing can be recommended: the baseline failed."}
    page = render(results)
    assert "no model was trained to its end" in page
    assert "No model was trained for a whole epoch" in page
    assert [attributes["data-plot"] for _, attributes in Outline(page).elements if "data-plot" in attributes] == [
        "parameters"
    ]


def test_one_seed_is_said_wherever_intervals_are(page: str, tmp_path: Path) -> None:
    assert page.count("one trained pair") == 0
    assert written(tmp_path, example_results(seeds=1)).count("one trained pair") == 2


def test_cost_figures_leave_out_what_was_not_measured() -> None:
    results = example_results() | {"prefer": "latency"}
    for row in rows_of(results):
        row["flops_per_example"] = None
    assert list(figures.quality_against_cost(results)) == [
        "latency",
        "parameters",
        "training time",
        "size of the files",
    ]


def test_models_of_the_same_cost_stand_side_by_side() -> None:
    figure = figures.quality_against_cost(example_results())["parameters"]
    across = {
        label.strip("<b>/*"): place
        for trace in figure.data
        if trace.text
        for label, place in zip(trace.text, trace.x, strict=True)
    }
    assert across["1"] == 103_306  # no other model has this cost
    assert 0.9 * 28_042 < across["4"] < 28_042 < across["6"] < 1.1 * 28_042


def test_missing_results(tmp_path: Path) -> None:
    with pytest.raises(LeanformerError, match=r"results\.json: there is no such file"):
        write_report(tmp_path)
    with pytest.raises(LeanformerError, match=r"results\.json: there is no such file"):
        write_report(tmp_path / "nowhere")


def test_cut_results_leave_the_old_report(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("the old report", encoding="utf-8")
    whole = json.dumps(example_results()).encode()
    for length in (0, 1, len(whole) // 3, len(whole) // 2, len(whole) - 1):
        (tmp_path / "results.json").write_bytes(whole[:length])
        with pytest.raises(LeanformerError, match=r"results\.json: damaged") as raised:
            write_report(tmp_path)
        assert "\n" not in str(raised.value)
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == "the old report"


def _without(results: dict[str, Any], *path: str) -> dict[str, Any]:
    place = results
    for key in path[:-1]:
        place = place[key]
    del place[path[-1]]
    return results


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "not the results of a leanformer study"),
        ('{"accuracy": 0.9}', "not the results of a leanformer study"),
        ("NaN", "damaged .*NaN"),
        (json.dumps(example_results() | {"format": 2}), "its format is 2, and this version"),
        (json.dumps(example_results() | {"metric": "bleu"}), "metric: input should be 'accuracy'"),
        (json.dumps(example_results() | {"task": "juggling"}), "the task 'juggling' is not known to this version"),
        (json.dumps(translation_results() | {"metric": "accuracy"}), "metric: input should be 'bleu' or 'chrf'"),
        (json.dumps(_without(translation_results(), "signatures", "chrf")), r"signatures\.chrf: field required"),
        (json.dumps(_without(translation_results(), "baseline", "scores")), r"baseline\.scores: field required"),
        (json.dumps(example_results() | {"recommended": "nobody"}), "there is no candidate 'nobody'"),
        (json.dumps(example_results() | {"candidates": 3}), "candidates: input should be a valid list"),
        (
            json.dumps(_without(example_results(), "baseline", "quality", "low")),
            r"baseline\.quality\.low: field required",
        ),
        ("\udcff", "cannot be read"),
    ],
)
def test_foreign_results(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(content, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(LeanformerError, match=message) as raised:
        write_report(tmp_path)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "report.html").exists()


# Translation


@pytest.fixture(scope="module")
def translation_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return written(tmp_path_factory.mktemp("multi30k"), translation_results())


@pytest.fixture(scope="module")
def hostile_translation_page() -> str:
    return render(hostile_translation())


def row_of(page: str, *parts: str) -> str:
    """The first table row with these parts, ignoring blanks."""
    rows = (" ".join(row.split()) for row in Outline(page).rows)
    return next(row for row in rows if all(part in row for part in parts))


def without_plotly(page: str) -> str:
    """The page without its scripts and styles."""
    return page.partition("<footer>")[0]


def test_translation_table_fits_a_terminal_of_80_columns() -> None:
    text = printed(translation_results())
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["candidate", "parameters", "BLEU", "difference", "speed", "decision"]
    row = next(line for line in lines if "cross-S" in line)
    assert row.split() == ["cross-S", "8.12M", "337%", "5.53", "-24.22", "(-24.82,", "-23.62)", "1.4x", "reject"]
    row = next(line for line in lines if "all-S" in line)
    assert row.split() == ["all-S", "10.8M", "448%", "-", "-", "-", "failed"]
    words = " ".join(text.split())
    assert "BLEU; difference to the baseline in BLEU, with its 95 % interval; speed is sentences per second" in words
    assert "one trained pair" in " ".join(printed(translation_results(seeds=1)).split())


def test_translation_decision_in_words() -> None:
    lines = decision_lines(translation_results())
    assert "53.6 ms for one sentence in place of 48.2 ms" in lines[1]
    # A distilled model's training comes on top of its teacher's.
    assert "4 min 31 s of training after the teacher's 15 min 01 s" in lines[1]
    assert lines[2].startswith(
        "Quality: BLEU 29.40, the baseline's 29.75: a difference of -0.35 BLEU (95 % interval -0.65 to -0.05). "
        "A drop of 0.5 BLEU or more is ruled out (p = 0.024, corrected for 9 candidates"
    )
    assert lines[3].endswith("5 more seeds or 1,700 new test sentences.")
    assert "Failed: all-S (seed 0: the loss is not finite)." in lines


def test_chrf_is_written_as_people_write_it() -> None:
    metric = find_metric(translation_results() | {"metric": "chrf"})
    assert (metric.titled, metric.value(53.3), metric.difference(-0.5)) == ("chrF", "53.30", "-0.50 chrF")
    assert [metric.margin(value) for value in (0.5, 1)] == ["0.5 chrF", "1 chrF"]


def test_translation_page_shows_scores_and_cost(translation_page: str) -> None:
    assert row_of(translation_page, "encoder-M", "29.61 (28.51, 30.81) 53.71 (52.61, 54.91) 4.6")
    assert row_of(translation_page, "all-S - - -")
    assert "BLEU|nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0" in translation_page
    assert "chrF2|nrefs:1|case:mixed|eff:yes" in translation_page
    assert "Decoded with a beam of 5, at most 50 subwords per sentence" in translation_page
    cost = row_of(translation_page, "cross-slots", "p95")
    for part in ("61.3 s after its teacher's", "32.1 ms p95 40.7 ms", "318 /s 1.5x"):
        assert part in cost
    assert "431 sentences/s" in row_of(translation_page, "baseline", "p95")
    assert "translation, de to en, on multi30k: 29,000 training" in translation_page


def test_translation_page_shows_what_writing_costs(translation_page: str) -> None:
    state, longest = 4 * 6 * (14 + 13) * 128, 4 * 6 * (46 + 50) * 128
    replaced, longest_replaced = (bytes_ // 2 + 12_000 for bytes_ in (state, longest))
    assert row_of(translation_page, "baseline", "kB").startswith(
        f"B baseline 3.9M 100 % 21.1M 100 % 3.71 ms 100 % 0.36 ms 2,790 /s {state / 1000:.1f} kB 100 %"
    )
    assert row_of(translation_page, "cross-slots", "kB") == (
        "7 cross-slots 3.51M 90.0 % 21.1M 100 % 2.47 ms 66.7 % 0.24 ms 4,185 /s "
        f"{replaced / 1000:.1f} kB {100 * replaced / state:.1f} % "
        f"{longest_replaced / 1000:.1f} kB {100 * longest_replaced / longest:.1f} %"
    )
    # For a failed candidate, operations were counted but nothing was timed.
    assert (
        row_of(translation_page, "all-S", "kB") == "9 all-S 3.12M 80.0 % 21.1M 100 % - - 24.0 kB 28.9 % 24.0 kB 8.1 %"
    )
    assert "counted for one hypothesis (the beam keeps 5)" in translation_page
    assert "14 subwords in and 13 out" in translation_page
    assert "The longest are 46 in and 50 out" in translation_page


def test_a_baseline_that_keeps_no_state_is_no_measure() -> None:
    results = translation_results()
    results["baseline"]["decoding"]["state_bytes"] = 0
    assert "0.24 ms 4,185 /s 53.5 kB 159.5 kB 54.1 %" in row_of(render(results), "cross-slots", "kB")


def test_old_translation_results_are_read(tmp_path: Path) -> None:
    """Results of a version that did not count the cost of writing."""
    results = translation_results()
    for row in rows_of(results):
        del row["decoding"], row["ms_per_token"]
    page = written(tmp_path, results)
    assert row_of(page.partition('id="writing"')[2], "7 cross-slots") == "7 cross-slots - - - - - -"
    assert "subwords in and" not in page


def test_greedy_decoding_is_said() -> None:
    results = translation_results(seeds=1)
    results["decode"]["beam"] = 1
    page = render(results)
    assert "Decoded greedily, at most 50 subwords" in page
    assert "counted for one sentence, written" in page


def test_each_task_has_its_own_sections(translation_page: str, page: str) -> None:
    of_text = ("By sentence length", "Examples", "Paired bootstrap", "Which sites, which blocks", "R²", "signatures")
    of_images = ("By class", "McNemar", "<th>Q</th>", "Greatest losses", "test examples")
    for part in of_text:
        assert part in without_plotly(translation_page)
        assert part not in without_plotly(page)
    for part in of_images:
        assert part in without_plotly(page)
        assert part not in without_plotly(translation_page)


def test_translation_page_shows_lengths_and_bootstrap(translation_page: str) -> None:
    # Words, sentences, the baseline's BLEU, and each candidate's BLEU with its difference.
    assert row_of(translation_page, "16-20").startswith("16-20 131 28.15 27.63 -0.73 28.01 -0.20 28.10 -0.07")
    assert row_of(translation_page, "21+ 38")
    assert row_of(translation_page, "p 0.012").startswith("1 encoder-S -0.52 (-1.02, -0.12) p 0.012 -0.52")
    figure = difference_by_slice(translation_results())
    assert figure is not None
    assert figure.layout.xaxis.ticktext[-1] == "21+<br>(38)"
    (heat,) = figure.data
    assert heat.text[4] == ["-2.4", "-3.3", "-4.2", "-5.1", "-6.0"]
    # A failed model does not make the colors of all others pale.
    assert (heat.zmin, heat.zmax) == (-5.0, 5.0)


def test_what_was_removed_and_added_is_shown_by_group_and_by_site(translation_page: str) -> None:
    removed, added = 3 * (3 * (128 * 128 + 128)), 3 * 659_350
    assert f"{removed:,} {added:,} +{added - removed:,} 0.928" in row_of(translation_page, "encoder.0-2.self_attention")
    assert row_of(translation_page, "encoder.1.self_attention feed_forward 49,536 659,350 +609,814 0.928")
    assert row_of(translation_page, "all together 445,824 8,853,384 +8,407,560")  # a candidate that failed
    # The parts of a replaced layer are counted once.
    assert row_of(translation_page, "encoder.0.layer feed_forward 198,272 659,350")
    assert translation_page.count(", site by site</summary>") == 8  # one for each taught candidate


def test_curves_of_token_accuracy_and_loss() -> None:
    curves = learning_curves(translation_results())
    assert list(curves) == ["baseline", "both-M-tuned", "no-mlp"]  # candidates that were only taught have no epochs
    assert list(curves["baseline"]) == ["validation token accuracy in %", "validation loss", "training loss"]
    trace = curves["both-M-tuned"]["validation token accuracy in %"].data[1]
    assert (len(trace.x), trace.y[0]) == (3, pytest.approx(53.212))


def test_teaching_by_layer_and_epoch() -> None:
    results = translation_results()
    shown = teaching_figures(results)
    assert list(shown) == [row["name"] for row in results["candidates"] if row["teaching"]]
    (heat,) = shown["both-M-tuned"]["R² by layer"].data
    assert heat.text == (["0.968", "0.928", "0.888"], ["0.968", "0.928", "0.888"])
    assert shown["both-M-tuned"]["R² by layer"].layout.yaxis.ticktext == ("encoder self", "decoder self")
    lines = shown["both-M-tuned"]["R² by epoch"].data
    assert len(lines) == 6 * 3  # sites, seeds
    assert [line.name for line in lines if line.showlegend] == ["encoder self", "decoder self"]
    (row,) = (row for row in results["candidates"] if row["name"] == "cross-S")
    row["changes"] = [change | {"r2": None, "r2_per_seed": []} for change in row["changes"]]
    row["teaching"] |= {"epochs": 0, "curves": []}  # its teaching failed before the first epoch
    assert "cross-S" not in teaching_figures(results)


def test_far_points_stand_at_the_edge_with_their_numbers() -> None:
    results = translation_results()
    figure = figures.difference(results)
    assert figure is not None
    (far,) = (trace for trace in figure.data if trace.name == "farther left")
    assert (far.x, far.text) == ((-5.0,), ("-24.22",))
    assert figure.layout.xaxis.range[0] > -6
    cost = figures.quality_against_cost(results)["parameters"]
    (far,) = (trace for trace in cost.data if trace.name == "farther down")
    assert (far.y, far.text) == ((24.75,), ("6: 5.53",))
    assert "A candidate that lost more than 5 BLEU is a triangle" in render(results)
    results["accept"]["max_drop"] = 0.0  # then nothing is far
    figure = figures.difference(results)
    assert figure is not None
    assert not any(trace.name == "farther left" for trace in figure.data)


def cells(figure: Any) -> dict[tuple[str, str], str]:
    """(Replaced sites, blocks in their place) -> the text of the cell."""
    notes = {(note.x, note.y): note.text for note in figure.layout.annotations}
    return {
        (across, down): text
        for y, down in enumerate(figure.layout.yaxis.ticktext)
        for x, across in enumerate(figure.layout.xaxis.ticktext)
        if (text := figure.data[0].text[y][x] or notes.get((x, y)))
    }


def test_ablation_by_sites_and_blocks() -> None:
    shown = ablation(translation_results())
    assert list(shown) == ["as taught", "tuned as a whole", "trained from scratch"]
    assert cells(shown["as taught"]) == {
        ("encoder self", "ALR S"): "29.23<br>-0.52",
        ("encoder self", "ALR M"): "29.61<br>-0.14",
        ("encoder self", "ASLR S"): "29.70<br>-0.05",
        ("encoder self", "ELR S"): "28.40<br>-1.35",
        ("decoder self", "ALRR S"): "26.12<br>-3.63",
        ("cross", "ALR S"): "5.53<br>-24.22",
        ("cross", "slots"): "28.84<br>-0.91",
        ("all attention", "ALR S"): "failed",
    }
    assert cells(shown["tuned as a whole"]) == {("encoder self<br>+ decoder self", "ALR M"): "29.40<br>-0.35"}
    assert cells(shown["trained from scratch"]) == {("encoder MLP", "none"): "27.90<br>-1.85"}


def test_ablation_tells_apart_what_else_candidates_differ_in() -> None:
    results = translation_results()
    first, second, third, *_ = results["candidates"]
    first["plan"]["encoder.*.self_attention"] |= {"output": "replaced"}
    second["plan"] = {"encoder.*.self_attention": {"block": "feed_forward", "hidden": 77}}
    third["changes"][0]["changed"] = False
    slots = next(row for row in results["candidates"] if "slots" in row["name"])
    other = copy.deepcopy(slots) | {"name": "two heads"}
    pattern, entry = next(iter(slots["plan"].items()))
    other["plan"] = {pattern: {**({"block": entry} if isinstance(entry, str) else entry), "heads": [0, 5]}}
    results["candidates"].append(other)
    results["candidates"][4] |= {"plan": {"*": "feed_forward"}}  # the size is the block's default
    found = cells(ablation(results)["as taught"])
    assert ("encoder self", "ALR S (output: replaced)") in found
    assert ("encoder self", "ALR H 77") in found
    assert ("encoder self 1, 2", "ASLR S") in found
    assert ("decoder self", "ALRR S") in found
    assert ("cross", "slots (heads: [0, 5])") in found


def test_the_best_of_several_candidates_in_a_cell_is_shown() -> None:
    results = translation_results()
    results["candidates"].append(copy.deepcopy(results["candidates"][0]) | {"name": "again"})
    results["candidates"][-1]["quality"]["mean"] = 29.4
    results["candidates"][-1]["difference"]["mean"] = -0.35
    figure = ablation(results)["as taught"]
    assert cells(figure)["encoder self", "ALR S"] == "29.40<br>-0.35<br>best of 2"
    assert figure.data[0].customdata[0][0].count("encoder-S") + figure.data[0].customdata[0][0].count("again") == 2


def test_no_ablation_where_there_is_nothing_to_compare() -> None:
    assert ablation(example_results()) == {}  # no candidate was distilled
    results = translation_results()
    results["candidates"] = results["candidates"][:1]
    assert ablation(results) == {}
    assert ablation(without_translation_baseline()) == {}


@pytest.mark.parametrize(
    ("baseline", "candidate", "reference", "marked"),
    [
        (
            "A man with a hat.",
            "A man in a cap.",
            "A man in a hat.",
            ("A man [with]- a [hat]+.", "A man [in]+ a [cap]-."),
        ),
        ("So it is.", "", "So it was.", ("[So it]+ [is]-[.]+", "")),
        ("  two  words ", "two  words", "two words", ("  two  words ", "two  words")),
        ("猫が好き", "犬が好き", "猫が好き", ("[猫]+が好き", "[犬]-が好き")),
    ],
)
def test_words_that_differ_are_marked(baseline: str, candidate: str, reference: str, marked: tuple[str, str]) -> None:
    example = {"source": "", "reference": reference, "baseline": baseline, "candidate": candidate}
    (pair,) = side_by_side({"examples": [example | {"baseline_score": 50.0, "candidate_score": 40.0}]})
    signs = {"right": "[{}]+", "wrong": "[{}]-", "": "{}"}
    assert marked == tuple(
        "".join(signs[mark].format(text) for text, mark in pieces) for pieces in (pair.baseline, pair.candidate)
    )


def test_examples_stand_side_by_side(translation_page: str) -> None:
    examples = without_plotly(translation_page).partition('id="examples"')[2]
    assert '<dd lang="de" dir="auto">Leute reparieren das Dach eines Hauses.</dd>' in examples
    assert 'People are <mark class="right">fixing</mark> the roof of a house.</dd>' in examples
    assert '<dt>teacher <span class="score">71.2</span></dt>' in examples
    assert '<dt>candidate <span class="score">33.0</span></dt>' in examples  # a candidate trained from scratch
    assert '<span class="note">nothing</span>' in examples
    assert examples.count('<details class="examples" open>') == 1
    assert "all-S" not in examples.partition("</section>")[0]


def test_translation_page_without_examples() -> None:
    results = translation_results(seeds=1)
    for row in results["candidates"]:
        row["examples"] = []
    assert "There are no examples" in render(results)


def test_translation_page_escapes_what_is_not_its_own(hostile_translation_page: str) -> None:
    assert SCRIPT not in hostile_translation_page
    outline = Outline(hostile_translation_page)
    assert (outline.count("script"), outline.count("img"), outline.count("b")) == (3, 0, 0)


def test_translation_page_without_a_baseline(tmp_path: Path) -> None:
    page = written(tmp_path, without_translation_baseline())
    assert "There are no differences by sentence length" in page
    assert "There are no examples" in page
    assert "No model was trained for a whole epoch" in page
    assert [attributes["data-plot"] for _, attributes in Outline(page).elements if "data-plot" in attributes] == [
        "parameters"
    ]


def test_distilled_image_classifiers_are_shown_like_translators() -> None:
    results = example_results()
    row = results["candidates"][3]
    row |= {"method": "distill", "curves": [{"seed": seed, "epochs": []} for seed in range(3)]}
    row["teaching"] = {"seconds": 3.0, "blocks": 6, "epochs": 2, "curves": []}
    for entry in row["changes"]:
        if entry["kind"] == "self_attention":
            entry |= {"r2": 0.9, "r2_per_seed": [0.9]}
            row["teaching"]["curves"].append({"site": entry["site"], "block": "x", "seed": 0, "r2": [0.5, 0.9]})
    page = render(results)
    assert row_of(page, "encoder.0-5.self_attention", "0.900")
    assert "Which sites, which blocks" in page
    assert "Blocks taught by the baseline" in page


def test_old_image_results_are_read(tmp_path: Path, page: str) -> None:
    old = without_plotly(written(tmp_path, old_results()))
    # The same as in a present file, except for the kept parameters of a changed site, which older files lack.
    here, there = (text.partition('<section id="changes">') for text in (old, without_plotly(page)))
    assert here[0] == there[0]
    assert here[2].partition("<h3>Where")[2] == there[2].partition("<h3>Where")[2]
    assert "100,608" in row_of(old, "collapsed-qk", "encoder.0-5.self_attention")
    assert "99,840" in row_of(page, "collapsed-qk", "encoder.0-5.self_attention")


def test_the_page_has_a_table_of_robustness_where_it_was_measured(page: str, robust_page: str) -> None:
    assert 'id="robust' not in page
    assert 'href="#robustness"' not in page
    table = robust_page.partition('<table id="robust">')[2].partition("</table>")[0]
    assert 'href="#robustness"' in robust_page
    assert [f">{name}<" in table for name in ("blur", "darker", "jpeg", "lighter", "noise", "shift")] == [True] * 6
    baseline, candidate, failed_one = (" ".join(row.split()) for row in Outline(table).rows[1:4])
    assert baseline.startswith("B baseline 96.4 loss -1.0 95.4 loss -2.0")
    assert "extra" not in baseline
    assert "loss -1.0; ▼ extra -1.5 (-2.6, -0.4)" in candidate
    assert candidate.count("▼") == 1
    assert candidate.count("extra") == 6
    assert failed_one.endswith("- - - - - -")
    assert "blur of a moderate severity" in robust_page
    assert table.count('data-label="blur"') == 9  # cards on a phone


# In a browser


LOOKS = [
    ("digits", DESKTOP),
    ("robust", DESKTOP),
    ("robust", PHONE),
    ("digits", PHONE),
    ("hostile", PHONE),
    ("multi30k", DESKTOP),
    ("hostile-multi30k", PHONE),
]
BROWSERS = ("google-chrome", "google-chrome-stable", "chrome", "chromium", "chromium-browser")
BROWSER = next((found for name in BROWSERS if (found := shutil.which(name))), None)
in_browser = pytest.mark.skipif(
    BROWSER is None, reason=f"no browser to look at the page with: none of {', '.join(BROWSERS)}"
)
LOOK = """<!doctype html><body style="margin: 0"><pre id="seen"></pre><script>
const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
const look = async ([name, width]) => {
  const frame = document.createElement("iframe");
  Object.assign(frame, { src: `${name}.html`, width, height: 800 });
  const loaded = new Promise((done) => { frame.onload = done; });
  document.body.append(frame);
  await loaded;
  const page = frame.contentDocument, root = page.documentElement, all = (query) => [...page.querySelectorAll(query)];
  for (let wait = 0; wait < 50 && !root.dataset.drawn; wait++) await pause(100);
  const seen = {
    name,
    width,
    drawn: Number(root.dataset.drawn),
    plots: all(".plot").length,
    empty: all(".plot").filter((plot) => !plot.querySelector(".scatterlayer path, .barlayer path, .heatmaplayer image"))
      .map((plot) => plot.dataset.plot),
    intervals: all("[data-plot=difference] path.xerror").length,
    rows: all("#quality tbody tr").length,
    tooWide: [root, ...all(".cards")].filter((part) => part.scrollWidth > part.clientWidth).map((part) => part.tagName),
    broken: String(frame.contentWindow.broken),
    exampleLines: new Set(all(".examples[open] dl:first-of-type > div").map((part) => part.offsetTop)).size,
    ablationWidth: page.querySelector("[data-plot=ablation]")?.clientWidth,
  };
  if (!seen.drawn || width === PHONE) return seen;
  const title = () => page.querySelector("[data-plot=cost] .xtitle").textContent;
  seen.titles = [title()];
  page.querySelector("input[name=cost]:not(:checked)").click();
  await pause(100);
  seen.titles.push(title());
  const folded = () => all("details:not([open])").length;
  seen.folded = [folded()];
  frame.contentWindow.dispatchEvent(new Event("beforeprint"));
  seen.folded.push(folded());
  frame.contentWindow.dispatchEvent(new Event("afterprint"));
  seen.folded.push(folded());
  return seen;
};
(async () => {
  const looks = [];
  for (const wanted of WANTED) looks.push(await look(wanted));
  document.getElementById("seen").textContent = JSON.stringify(looks);
})();
</script>"""


@pytest.fixture(scope="module")
def seen(
    page: str,
    hostile_page: str,
    robust_page: str,
    translation_page: str,
    hostile_translation_page: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[dict[tuple[str, int], dict[str, Any]], list[str]]:
    """What a browser shows of several pages at several widths, and the lines of its console."""
    assert BROWSER is not None
    directory = tmp_path_factory.mktemp("browser")
    broken = page.replace("Plotly.react(", "Plotly.nothing(")
    pages = {
        "digits": page,
        "hostile": hostile_page,
        "robust": robust_page,
        "multi30k": translation_page,
        "hostile-multi30k": hostile_translation_page,
        "broken": broken,
    }
    for name, text in pages.items():
        (directory / f"{name}.html").write_text(text, encoding="utf-8")
    wanted = [*LOOKS, ("broken", DESKTOP)]
    (directory / "look.html").write_text(
        LOOK.replace("WANTED", json.dumps(wanted)).replace("PHONE", str(PHONE)), encoding="utf-8"
    )
    done = subprocess.run(
        [
            BROWSER,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--allow-file-access-from-files",
            f"--user-data-dir={directory / 'profile'}",
            "--enable-logging=stderr",
            "--virtual-time-budget=60000",
            "--window-size=1300,3600",
            "--dump-dom",
            (directory / "look.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "HOME": str(directory)},
    )
    assert done.returncode == 0, done.stderr
    looks = json.loads(html.unescape(done.stdout.partition('id="seen">')[2].partition("</pre>")[0]))
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return {(look["name"], look["width"]): look for look in looks}, console


@pytest.mark.long
@in_browser
@pytest.mark.parametrize(("name", "width"), LOOKS)
def test_browser_draws_every_plot(name: str, width: int, seen: Any) -> None:
    look = seen[0][name, width]
    plots, intervals, rows = {
        "digits": (4 + 9, 8, 9),
        "robust": (4 + 9, 7, 9),  # one failed
        "hostile": (4 + 13, 11, 13),  # one failed
        # Trained or tuned candidates, and taught ones; one failed, and one is too far off to show its interval.
        "multi30k": (5 + 3 + 8, 8, 11),
        "hostile-multi30k": (5 + 3 + 8, 8, 11),
    }[name]
    assert look["drawn"] == look["plots"] == plots
    assert look["empty"] == []
    assert look["intervals"] == intervals
    assert look["rows"] == rows
    assert look["broken"] == "undefined"


@pytest.mark.long
@in_browser
def test_browser_complains_of_nothing_but_a_broken_page(seen: Any) -> None:
    looks, console = seen
    assert [line for line in console if "broken.html" not in line] == []
    # The check above can fail: the console does show errors of scripts.
    assert any("nothing is not a function" in line for line in console)
    assert not looks["broken", DESKTOP]["drawn"]


@pytest.mark.long
@in_browser
@pytest.mark.parametrize(("name", "width"), LOOKS)
def test_browser_needs_no_sideways_scrolling(name: str, width: int, seen: Any) -> None:
    assert seen[0][name, width]["tooWide"] == []


@pytest.mark.long
@in_browser
@pytest.mark.parametrize(
    ("name", "titles", "folded"),
    [
        ("digits", ["parameters (logarithmic)", "latency of one example (p50), ms"], 6),
        # Also eight tables site by site and eight lists of examples; the ninth list is open.
        ("multi30k", ["latency of one sentence (p50), ms", "parameters (logarithmic)"], 6 + 8 + 8),
    ],
)
def test_browser_shows_another_cost_and_unfolds_for_print(name: str, titles: list[str], folded: int, seen: Any) -> None:
    look = seen[0][name, DESKTOP]
    assert look["titles"] == titles
    assert look["folded"] == [folded, 0, folded]


@pytest.mark.long
@in_browser
def test_examples_are_side_by_side_where_there_is_room(seen: Any) -> None:
    looks = seen[0]
    assert looks["multi30k", DESKTOP]["exampleLines"] == 1
    assert looks["hostile-multi30k", PHONE]["exampleLines"] == 4
    # The figure of an ablation scrolls inside its frame and is not squeezed.
    assert looks["hostile-multi30k", PHONE]["ablationWidth"] > PHONE
