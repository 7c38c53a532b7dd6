"""Multi30k: what translators in CTranslate2 gain in time and lose in BLEU, as exported files, float32 and int8.

Two studies. shipping_teacher.yaml trains a model and tunes it on its own translations, which makes the teacher. Of this
one shipping.yaml makes students, and ships all. Every exported directory then translates the validation sentences, by
which students are chosen among those that are fast enough, and is timed in turn with all others. What a student loses
on the test split is held against the teacher and against ``nothing``, the teacher tuned as long, both exported in
float32; the worse of both counts. A run that was cut off goes on with what is there.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import leanformer as lf
from benchmarks.kit.benchmark import CPU, Benchmark, Result, add_runs, progress, register, runs_of
from benchmarks.kit.forms import TINY_TEXT
from benchmarks.kit.tables import Tables, figure_table, table, with_interval
from benchmarks.quality.multi30k import bleu_difference
from leanformer.config.base import Study
from leanformer.core.errors import LeanformerError
from leanformer.measure.rounds import median_ratio
from leanformer.measure.translation import Translations
from leanformer.model.plan import TARGET_VOCABULARY
from leanformer.results.formats import signed
from leanformer.results.schema import rows_of
from leanformer.runtime import Translator
from leanformer.study.bench import bench
from leanformer.study.training import PREDICTIONS
from leanformer.tasks.base import open_task
from leanformer.tasks.translation import Translation

TEACHER_STUDY, STUDY = (Path(__file__).with_name(f"shipping{which}.yaml") for which in ("_teacher", ""))
OF_ONE = (("baseline", "data.tokenizer", "train"), ("candidates", "ship"))
"""What keys that are set for the teacher's study alone, and for that of students, begin with."""
TEACHER, CONTROL, TRIMMED = "baseline", "nothing", "targets"
BATCHES = (1, 32)
LABELS = {
    TEACHER: "the whole teacher",
    CONTROL: "the teacher tuned alike",
    TRIMMED: "the teacher, 3,000 targets",
    "half-heads": "decoder without MLP, half its heads, 3,000 targets",
    "two-thin": "two such decoder layers, thin encoder, 2,000 targets",
}
"""Candidate -> in words."""


@dataclass(frozen=True)
class Wish:
    """A student that is looked for: of those that are fast enough, the best on the validation split.

    Args:
        faster: For each of ``BATCHES``, how many times as fast as another model it is at least.
        precision: Of the student.
        against: That other model and its precision.
    """

    faster: tuple[float, float]
    precision: str
    against: tuple[str, str]


WISHES = (
    Wish((2.5, 1.8), "float32", (TEACHER, "float32")),
    Wish((3.2, 2.8), "float32", (TEACHER, "float32")),
    Wish((2.0, 2.0), "int8", (TEACHER, "int8")),
    Wish((1.5, 1.4), "float32", (TRIMMED, "float32")),
    Wish((1.5, 1.4), "int8", (TRIMMED, "int8")),
)


# Measuring


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument(
        "--data", default="bentrevett/multi30k", help="Multi30k: a hub id or a local copy in its layout"
    )
    parser.add_argument("--only", nargs="+", metavar="CANDIDATE", help="of shipping.yaml; by default all")
    parser.add_argument("--set", action="append", metavar="KEY=VALUE", default=[], help="a key of the study")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time (default 1)")
    add_runs(parser)


def measure(arguments: argparse.Namespace) -> Result:
    """The study's exported models: their BLEU, sizes and times."""
    before = lf.read_study(TEACHER_STUDY, _settings(arguments, 0))
    data = before.model_dump(mode="json")["data"]
    languages = (data["source_language"], data["target_language"])
    name = "shipping" if languages == ("de", "en") else f"shipping-{'-'.join(languages)}"
    with runs_of(name, arguments) as runs:
        first = lf.run(before, runs / "teacher")
        teacher = first.directory / "trials" / CONTROL / f"seed-{before.seeds[0]}" / "model"
        study = _study(arguments, teacher)
        run = lf.run(study, runs / "students", jobs=arguments.jobs)
        results = run.results
        results["study"]["baseline"]["model"] = str(teacher.relative_to(runs))
        models = [row for row in rows_of(results) if row["artifact"] is not None]
        task = open_task(study, CPU)
        assert isinstance(task, Translation)
        data, beam, most = task.data, results["decode"]["beam"], task.evaluation_settings()["max_tokens"]
        directories = [run.directory / row["artifact"]["directory"] for row in models]
        answers = [Translations.read(directory.parent / PREDICTIONS) for directory in directories]
        whole, control = (_float32(models, answers, who) for who in (TEACHER, CONTROL))
        rows = []
        for row, directory, own in zip(models, directories, answers, strict=True):
            artifact = row["artifact"]
            exported = lf.runtime.load(directory, arguments.threads)
            assert isinstance(exported, Translator)
            hypotheses = exported.translate(data.validation.sources, beam=beam, max_tokens=most)
            validated = Translations(data.validation.sources, data.validation.targets, tuple(hypotheses), task.scoring)
            rows.append(
                {
                    "name": row["name"].removesuffix(f"-{artifact['precision']}"),
                    "precision": artifact["precision"],
                    "plan": row["plan"],
                    "parameters": row["parameters"],
                    "bytes": row["bytes"],
                    "agreement": artifact["agreement"],
                    "validation_bleu": validated.score("bleu"),
                    "bleu": own.score("bleu"),
                    "to_teacher": _difference(whole, own, results),
                    "to_control": _difference(control, own, results),
                }
            )
            progress(f"{row['name']}: {rows[-1]['validation_bleu']:.2f} BLEU on the validation split")
        timed = _timed(directories, data.validation.sources, beam, most, arguments)
    for row, times in zip(rows, timed, strict=True):
        row["rounds"] = times
    kept = ("environment", "signatures", "decode", "data", "study", "seeds")
    return {key: results[key] for key in kept} | {"teacher_study": first.results["study"], "rows": rows}


def _settings(arguments: argparse.Namespace, which: int) -> list[str]:
    """What is set in the teacher's study (0) or in that of students (1)."""
    others = OF_ONE[1 - which]
    return [f"data.source={arguments.data}", *(one for one in arguments.set if not one.startswith(others))]


def _study(arguments: argparse.Namespace, teacher: Path) -> Study:
    study = lf.read_study(STUDY, [f"baseline.model={teacher}", *_settings(arguments, 1)])
    if arguments.only is None:
        return study
    for name in arguments.only:
        if name not in study.candidates:
            raise LeanformerError(f"{STUDY.name} has no candidate {name!r}; it has {', '.join(study.candidates)}")
    chosen = {name: study.candidates[name] for name in study.candidates if name in arguments.only}
    return study.model_copy(update={"candidates": chosen})


def _float32(models: Sequence[Mapping[str, Any]], answers: Sequence[Translations], name: str) -> Translations | None:
    """The answers of a model's export in float32; None where it was not exported."""
    found = (own for row, own in zip(models, answers, strict=True) if row["name"] == name)
    return next(found, None)


def _difference(than: Translations | None, own: Translations, results: Mapping[str, Any]) -> dict[str, float] | None:
    """To another model; None where there is none, or it is the same."""
    return None if than is None or than is own else bleu_difference([than], [own], results)


def _timed(
    directories: Sequence[Path], sentences: Sequence[str], beam: int, max_tokens: int, arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """For each directory and batch size the milliseconds of a call in each round."""
    with tempfile.TemporaryDirectory() as name:
        file = Path(name, "sentences.txt")
        file.write_text("".join(f"{sentence}\n" for sentence in sentences), encoding="utf-8")
        found = bench(
            [str(directory) for directory in directories],
            batches=BATCHES,
            data=file,
            beam=beam,
            max_tokens=max_tokens,
            threads=arguments.threads,
            rounds=arguments.rounds,
        )
    return [
        {str(timing.batch): {"tokens": timing.tokens, **timing.rounds.model_dump()} for timing in model.timings}
        for model in found.models
    ]


# The page


Rows = Mapping[tuple[str, str], Mapping[str, Any]]
"""Name and precision -> what is kept of a model."""


def tables(result: Result) -> Tables:
    """All exported models, the students that were looked for, and single figures."""
    rows = {(row["name"], row["precision"]): row for row in result["rows"]}
    found = {"models": _models(rows), "figures": figure_table(_facts(result, rows))}
    chosen = _chosen(rows)
    return {**found, "chosen": chosen} if chosen else found


def _models(rows: Rows) -> str:
    header = ["model", "weights", "parameters", "file", "validation BLEU", "test BLEU"]
    header += ["less the teacher's", "less the teacher's tuned alike"]
    header += [f"{batch} at a time, times the teacher" for batch in BATCHES]
    lines = []
    for key, row in rows.items():
        lines.append(
            [
                LABELS[row["name"]],
                row["precision"],
                f"{row['parameters']:,}",
                f"{row['bytes'] / 1e6:.2f} MB",
                f"{row['validation_bleu']:.2f}",
                f"{row['bleu']:.2f}",
                with_interval(row["to_teacher"], 2),
                with_interval(row["to_control"], 2),
                *(_speed(rows, key, (TEACHER, "float32"), batch) for batch in BATCHES),
            ]
        )
    return table(header, lines)


def _ratio(rows: Rows, key: tuple[str, str], against: tuple[str, str], batch: int, clock: str = "wall_ms") -> Any:
    return median_ratio(*(rows[which]["rounds"][str(batch)][clock] for which in (against, key)))


def _speed(rows: Rows, key: tuple[str, str], against: tuple[str, str], batch: int) -> str:
    wall, cpu = (_ratio(rows, key, against, batch, clock) for clock in ("wall_ms", "cpu_ms"))
    return f"{wall.median:.2f} ({wall.low:.2f} to {wall.high:.2f}), CPU {cpu.median:.2f}"


def _lost_in_validation(rows: Rows, key: tuple[str, str]) -> float:
    """BLEU less than the better of the teacher and the teacher tuned alike, in float32."""
    best = max(rows[name, "float32"]["validation_bleu"] for name in (TEACHER, CONTROL) if (name, "float32") in rows)
    return float(best - rows[key]["validation_bleu"])


def _targets(row: Mapping[str, Any]) -> Any:
    """How many target subwords a model's plan keeps; None: all."""
    return row["plan"].get(TARGET_VOCABULARY)


def _chosen(rows: Rows) -> str | None:
    """For each wish the student that was chosen on the validation split, with what it does on the test split."""
    lines = []
    for wish in WISHES:
        fast = [key for key in rows if wish.against in rows and _fulfils(rows, key, wish)]
        if not fast:
            continue
        chosen = min(fast, key=lambda key: _lost_in_validation(rows, key))
        row = rows[chosen]
        lost = min((row[than] for than in ("to_teacher", "to_control") if row[than]), key=lambda d: d["mean"])
        lines.append(
            [
                f"{wish.faster[0]:g} and {wish.faster[1]:g}",
                f"{LABELS[wish.against[0]]}, {wish.against[1]}",
                f"{LABELS[row['name']]}, {row['precision']}",
                *(_speed(rows, chosen, wish.against, batch) for batch in BATCHES),
                signed(-_lost_in_validation(rows, chosen), 2),
                with_interval(lost, 2),
            ]
        )
    header = ["times at least", "than", "student", *(f"{batch} at a time, times" for batch in BATCHES)]
    return table([*header, "validation BLEU", "test BLEU"], lines) if lines else None


def _fulfils(rows: Rows, key: tuple[str, str], wish: Wish) -> bool:
    """Whether a model is a student as a wish has it; a trimmed teacher is beside students that keep as many targets."""
    if key[0] in (TEACHER, CONTROL, TRIMMED) or key[1] != wish.precision:
        return False
    if wish.against[0] == TRIMMED and _targets(rows[key]) != _targets(rows[wish.against]):
        return False
    speeds = (_ratio(rows, key, wish.against, batch).median for batch in BATCHES)
    return all(speed >= least for speed, least in zip(speeds, wish.faster, strict=True))


def _facts(result: Result, rows: Rows) -> dict[str, str]:
    data, study, teacher = result["data"], result["study"], result["teacher_study"]
    facts = {
        "sentences to learn from, to validate and to test": (
            f"{data['train']:,} / {data['validation']:,} / {data['test']:,}"
        ),
        "subwords": f"{teacher['data']['tokenizer']['vocabulary']:,}",
        "epochs of the teacher, and of its tuning": f"{teacher['train']['epochs']} and {teacher['finetune']['epochs']}",
        "epochs of students and of the teacher tuned alike": f"{study['finetune']['epochs']}",
        "rates of training and of tuning": (
            f"{teacher['train']['learning_rate'][0]:g} and {study['finetune']['learning_rate']:g}"
        ),
        "dropout of the teacher's training, and of tuning": (
            f"{teacher['baseline']['config']['dropout']:g} and {study['finetune']['dropout']:g}"
        ),
        "beam": str(result["decode"]["beam"]),
        "beam of the teacher's translations": str(study["finetune"]["teacher_beam"]),
    }
    for name in (TEACHER, "half-heads"):
        if (name, "int8") in rows:
            facts[f"answers of {LABELS[name]} that int8 leaves as they are"] = f"{rows[name, 'int8']['agreement']:.1%}"
    return facts


BENCHMARK = register(
    "quality",
    Benchmark(
        name="shipping",
        add_arguments=add_arguments,
        measure=measure,
        tables=tables,
        quick={
            "only": [CONTROL, "half-heads"],
            "rounds": 6,
            "set": [
                *TINY_TEXT,
                "candidates.half-heads.plan.target_vocabulary.limit=280",
                "finetune.epochs=1",
                "finetune.targets=data",
                "finetune.average_last=null",
            ],
        },
    ),
)
