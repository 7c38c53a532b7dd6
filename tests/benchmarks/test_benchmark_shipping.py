"""Which student the benchmark of shipping takes for each speed that is asked for."""

from __future__ import annotations

from typing import Any

from benchmarks.quality.shipping import LABELS, tables

LIMITS = {"targets": 3000, "half-heads": 3000, "two-thin": 2000}


def row(
    name: str, validation: float, ms: float, precision: str = "float32", lost: tuple[float, float] = (0.0, 0.0)
) -> dict[str, Any]:
    """What is kept of a model that takes so long in every round, and has lost so much on the test split."""
    times = {"tokens": 9, "wall_ms": [ms] * 6, "cpu_ms": [ms / 2] * 6}
    return {
        "name": name,
        "precision": precision,
        "plan": {} if name in ("baseline", "nothing") else {"target_vocabulary": {"limit": LIMITS[name]}},
        "parameters": 10,
        "bytes": 2_000_000,
        "agreement": 1.0,
        "validation_bleu": validation,
        "bleu": 40.0,
        "to_teacher": None if name == "baseline" else {"mean": lost[0], "low": lost[0] - 1, "high": lost[0] + 1},
        "to_control": None if name == "nothing" else {"mean": lost[1], "low": lost[1] - 1, "high": lost[1] + 1},
        "rounds": {"1": times, "32": times},
    }


def chosen(*rows: dict[str, Any]) -> list[list[str]]:
    """The cells of the table of the students that were taken."""
    study = {"finetune": {"epochs": 1, "learning_rate": 1e-3, "teacher_beam": 4, "dropout": 0.05}}
    teacher = {
        **study,
        "data": {"tokenizer": {"vocabulary": 8000}},
        "baseline": {"config": {"dropout": 0.1}},
        "train": {"epochs": 1, "learning_rate": [1e-3]},
    }
    data = {"train": 1, "validation": 1, "test": 1}
    found = tables({"rows": list(rows), "study": study, "teacher_study": teacher, "data": data, "decode": {"beam": 1}})
    lines = found.get("chosen", "").splitlines()[2:]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]


BASE = (row("baseline", 40.0, 8.0), row("nothing", 40.4, 8.0), row("targets", 39.0, 6.0))


def test_the_best_of_those_that_are_fast_enough_is_taken() -> None:
    # The teacher tuned alike is the better one: 40.4 is what a student is held against.
    good, fast = row("half-heads", 39.95, 3.0, lost=(-0.2, -0.7)), row("two-thin", 39.3, 2.0, lost=(-1.4, -1.2))
    first, second, trimmed = chosen(*BASE, good, fast)
    assert first[:3] == ["2.5 and 1.8", f"{LABELS['baseline']}, float32", f"{LABELS['half-heads']}, float32"]
    assert first[3].startswith("2.67 (2.67 to 2.67), CPU 2.67")
    assert first[5:] == ["-0.45", "-0.70 (-1.70 to +0.30)"]  # the greater of both losses
    assert second[2] == f"{LABELS['two-thin']}, float32"
    assert second[4].startswith("4.00")
    assert second[5:] == ["-1.10", "-1.40 (-2.40 to -0.40)"]
    assert trimmed[:3] == ["1.5 and 1.4", f"{LABELS['targets']}, float32", f"{LABELS['half-heads']}, float32"]
    assert trimmed[3].startswith("2.00")


def test_both_batches_have_to_be_fast() -> None:
    slow = row("half-heads", 39.95, 3.0)
    slow["rounds"]["32"] = {**slow["rounds"]["32"], "wall_ms": [5.0] * 6}
    assert chosen(*BASE, slow) == []


def test_precisions_are_compared_with_their_own() -> None:
    eight = [
        row(name, bleu, ms, "int8")
        for name, bleu, ms in (("baseline", 39.9, 4.0), ("targets", 39, 3), ("half-heads", 39.6, 1.0))
    ]
    lines = chosen(*BASE, *eight)
    assert [line[2] for line in lines] == [f"{LABELS['half-heads']}, int8"] * 2
    assert [line[3].split()[0] for line in lines] == ["4.00", "3.00"]


def test_a_trimmed_teacher_is_beside_students_with_as_many_targets() -> None:
    lines = chosen(*BASE, row("two-thin", 40.3, 1.0))
    assert [line[0] for line in lines] == ["2.5 and 1.8", "3.2 and 2.8"]


def test_nothing_is_taken_where_all_are_too_slow() -> None:
    assert chosen(*BASE, row("two-thin", 40.4, 7.0)) == []
