"""The pages of the benchmarks: every table stands on one, and no number in words goes stale."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.kit import pages
from benchmarks.kit.benchmark import RESULTS, names, read_result
from leanformer.core.errors import LeanformerError

INDEX, *PAGES = pages.pages()
MIXER = "`mixer`, `positions: absolute`"
ONE_SCREEN = 60
"""Lines of the index at most."""


FIGURES = {
    "ablation": [("ablation", "add-one", "`heads: 4` |")],
    "architectures": [("architectures", "figures", "the worst of their best students |")],
    "attention_ablation": [
        ("attention_ablation", "quality", f"{where} | ALR |") for where in ("encoder self", "cross")
    ],
    "attention_kernels": [("attention_kernels", "figures", "a training step with at least 48 tokens |")],
    "decoder_block": [
        ("decoder_block", "passes", "real tokens alone | forward |"),
        ("decoder_block", "passes", "`padding_in_norm: true` | forward and backward |"),
    ],
    "decoding": [("decoding", "figures", "speed of the students whose attention is replaced |")],
    "engines": [("engines", "mnist", "grid with a thin MLP | ONNX Runtime |")],
    "growth": [("growth", "figures", "curves")],
    "lengths": [("lengths", "r2", f"{block} |") for block in ("`slots` 64, linear gate, rank 8", MIXER)],
    "minimal": [("minimal", "figures", "MNIST: the best small form")],
    "mnist_blocks": [("mnist_blocks", "forms", "`mixer`, `positions: grid`, ")],
    "multi30k": [
        (run, "further-tuning", "all attention | four epochs on the teacher's own translations |")
        for run in ("multi30k", "multi30k-en-fr-again")
    ],
    "peers_pruning": [("peers_pruning", "ways", "magnitude, zeros in place |")],
    "peers_teaching": [
        ("peers_teaching", "figures", "the published order's time to that of at once |"),
        ("peers_teaching", "figures", "memory of at once to that of one by one |"),
    ],
    "peers_training": [
        ("peers_training", "study", "the study's time to that of one by one |"),
        ("peers_training", "study", "that of --jobs 2 to that of one by one, on as many processor cores |"),
    ],
    "peers_translation": [("peers_translation", "ways", "encoder and decoder self |")],
    "reduction": [("reduction", "figures", "memory from directory to directory |")],
    "reductions": [(pages.ALL, "reductions", "MNIST, 15 epochs | one matrix for queries and keys, no values and ")],
    "second_runs": [(pages.ALL, "other-teachers", "all |")],
    "shipping": [("shipping", "models", "decoder without MLP, half its heads, 3,000 targets | float32 |")],
    "simulate_bleu": [("simulate_bleu", "figures", "false accepts, from the least to the most |")],
    "simulate_decisions": [("simulate_decisions", "figures", "false accepts, from the least to the most |")],
    "simulate_rules": [("simulate_rules", "figures", "promises that hold |")],
    "small_blocks": [("small_blocks", "blocks", "cross | `slots` 64, rank 16 |")],
    "teaching": [("teaching", "times", "ratio of the first to the last |")],
    "training_speed": [("training_speed", "figures", "the faster extreme form, heads: 1")],
    "tuning": [("tuning", "ways", "teacher's translations |")],
}
"""Page -> where the index's figure of it stands: results file, table, and the beginning of the row."""


def known(text: str) -> str:
    """What holds a page's numbers: its tables, the settings of their runs, and what its comments name.

    ``numbers of`` names another page whose numbers it repeats, ``by hand`` numbers that no results file holds:
    constants of a benchmark's code, and others' figures.
    """
    found = re.findall(r"<!-- by hand: (.*?) -->", text)
    for name in re.findall(r"<!-- numbers of: (\w+) -->", text):
        found.append(known((INDEX.parent / "benchmarks" / f"{name}.md").read_text(encoding="utf-8")))
    for _, run, name, table, _ in pages.MARKED.findall(text):
        if name != "run":  # its dates and versions say nothing of a number in words
            found.append(table)
        elif run != pages.ALL:
            settings = read_result(RESULTS / f"{run}.json")["settings"]
            lengths = [len(value) for value in settings.values() if isinstance(value, list)]
            found.append(json.dumps([settings, lengths]))
    return "\n".join(found)


def words(text: str) -> str:
    """What is written by hand, without what is no statement: code, comments, targets of links, papers' numbers."""
    text = pages.MARKED.sub("", text)
    return re.sub(r"```.*?```|<!--.*?-->|`[^`]*`|\]\([^)]*\)|arXiv \S+", " ", text, flags=re.DOTALL)


def numbers(text: str) -> list[str]:
    """The numbers of a text, without their signs."""
    return re.findall(r"(?<![\w.])\d[\d,]*(?:\.\d+)?(?:e-?\d+)?", text)


def missing(said: str, held: str) -> list[str]:
    """The numbers that are not among those held, to as many digits as they are said with."""
    values = [float(number.replace(",", "")) for number in numbers(held)]
    absent = []
    for number in numbers(said):
        plain = number.rstrip(",").replace(",", "")
        half = 0.5 * 10 ** -len(plain.partition(".")[2].partition("e")[0]) if "e" not in plain else 0.0
        if not any(abs(value - float(plain)) <= half * 1.0001 for value in values):
            absent.append(number)
    return absent


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_number_in_words_stands_in_the_results_of_the_page(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not missing(words(text), known(text))


def test_the_index_says_what_the_pages_say() -> None:
    rows = [line for line in INDEX.read_text(encoding="utf-8").splitlines() if "](benchmarks/" in line]
    assert len(rows) > 20
    for row in rows:
        ((name, heading),) = re.findall(r"\]\(benchmarks/(\w+)\.md(#[\w-]+)?\)", row)
        page = (INDEX.parent / "benchmarks" / f"{name}.md").read_text(encoding="utf-8")
        assert not missing(words(row), known(page)), (row, heading)


@pytest.fixture(scope="module")
def every_table() -> dict[tuple[str, str], str]:
    """As the results files give them."""
    return pages.all_tables()


def test_every_page_of_a_question_has_a_figure_in_the_index() -> None:
    assert set(FIGURES) == {page.stem for page in PAGES} - {"running"}


@pytest.mark.parametrize("name", FIGURES)
def test_the_figure_of_the_index_is_that_of_the_results(name: str, every_table: dict[tuple[str, str], str]) -> None:
    (row,) = [line for line in INDEX.read_text(encoding="utf-8").splitlines() if f"[{name}](" in line]
    figure = row.split(" | ")[2]
    held = []
    for run, table, beginning in FIGURES[name]:
        rows = [line for line in every_table[run, table].splitlines() if line.startswith(f"| {beginning}")]
        assert rows, beginning
        held += rows
    assert numbers(figure)
    assert not missing(figure, " ".join(held))
    answer = (INDEX.parent / "benchmarks" / f"{name}.md").read_text(encoding="utf-8").partition("**Answer:**")[2]
    assert not missing(figure, answer.partition("\n\n")[0])


def test_the_index_is_one_screen_and_leads_to_every_page() -> None:
    text = INDEX.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= ONE_SCREEN
    assert {f"benchmarks/{page.name}" for page in PAGES} == set(re.findall(r"\]\((benchmarks/\w+\.md)[)#]", text))


def test_every_benchmark_has_its_page() -> None:
    assert set(names()) <= {page.stem for page in PAGES}
    assert len(set(names())) == len(names())  # of all packages, each of which sees its own alone


def test_every_table_stands_on_one_page(every_table: dict[tuple[str, str], str]) -> None:
    asked = Counter(
        (run, name)
        for page in (INDEX, *PAGES)
        for _, run, name, _, _ in pages.MARKED.findall(page.read_text(encoding="utf-8"))
    )
    assert asked == Counter(every_table.keys())


def test_another_teacher_is_a_caveat_where_the_facts_are(every_table: dict[tuple[str, str], str]) -> None:
    said = "49 of 83"
    assert said in every_table[pages.ALL, "other-teachers"]
    for page in (INDEX, *(page for page in PAGES if page.stem in ("multi30k", "reductions", "second_runs"))):
        assert said in " ".join(page.read_text(encoding="utf-8").split())


@pytest.mark.parametrize("said", ["1.3", "13", "+0.72", "1,001", "2e-05"])
def test_a_number_that_no_table_holds_is_found(said: str) -> None:
    held = "| 1.25 | 1,000 | 0.7194 | 12 | 2.4e-06 |"
    assert missing(said, held) == ([] if said in ("1.3", "+0.72") else [said])


PLACE = "<!-- table: decoder_block figures -->\n<!-- end -->"


@pytest.fixture
def one_page(tmp_path: Path) -> Path:
    """A directory of pages, of which one has a table of one results file."""
    (tmp_path / "results").mkdir()
    shutil.copy(RESULTS / "decoder_block.json", tmp_path / "results")
    docs = tmp_path / "docs"
    (docs / "benchmarks").mkdir(parents=True)
    (docs / "benchmarks.md").write_text("# Benchmarks\n")
    (docs / "benchmarks" / "decoder_block.md").write_text(f"# Block\n\n{PLACE}\n\nWords.\n")
    return docs


def test_only_tables_and_figures_are_written(one_page: Path, tmp_path: Path) -> None:
    results, page = tmp_path / "results", one_page / "benchmarks" / "decoder_block.md"
    assert [path.name for path in pages.stale(results, one_page)] == ["decoder_block.md", "decoder_block.svg"]
    pages.write(results, one_page)
    text = page.read_text()
    assert text.startswith("# Block\n\n<!-- table: decoder_block figures -->\n\n| ")
    assert text.endswith("|\n\n<!-- end -->\n\nWords.\n")
    assert pages.stale(results, one_page) == []
    page.write_text(text.replace("2.4e-06", "2.5e-06"))
    assert pages.stale(results, one_page) == [page]
    page.write_text(text.replace("Words", "Other words"))
    assert pages.stale(results, one_page) == []


def test_a_table_that_is_not_there_is_named(one_page: Path, tmp_path: Path) -> None:
    page = one_page / "benchmarks" / "decoder_block.md"
    for text, said in (
        (PLACE.replace("figures", "figure"), "no table 'figure' of decoder_block; it has by-length, decoding-step"),
        ("<!-- table: block figures -->\n<!-- end -->\n", r"there is no block\.json in benchmarks/results"),
        ("<!-- table: decoder_block figures -->\n", "not closed by <!-- end -->"),
    ):
        page.write_text(text)
        with pytest.raises(LeanformerError, match=said):
            pages.write(tmp_path / "results", one_page)
