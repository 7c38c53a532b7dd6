"""Bad input of every kind, at every place: one line, exit code 2 in a command, ``LeanformerError`` in Python.

The cases are made from what the code declares (the study's fields, the blocks' arguments, the public functions, what a
results file holds), so that a new key, block or function is among them by itself.
"""

from __future__ import annotations

import copy
import inspect
import io
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, get_args

import pytest
import torch
from cases import most, slow, some
from pydantic import BaseModel
from report_examples import example_results, translation_results
from rich.console import Console
from transformers import PreTrainedModel

import leanformer as lf
from leanformer import cli
from leanformer.blocks.kit.base import BLOCKS
from leanformer.config.base import STUDIES, CandidateConfig
from leanformer.config.images import ImageTrainConfig
from leanformer.core.errors import LeanformerError, printable
from leanformer.core.events import Reporter
from leanformer.model.plan import match
from leanformer.report.summary import decision_lines, results_table
from leanformer.results.reader import read_results
from leanformer.study.prepare import PreparedStudy
from leanformer.study.store import RunDirectory

HUGE = 10**30
ESCAPES = "a\x1b[31m\nb\x07"
LONG = "x" * 5_000
BAD: dict[str, Any] = {
    "a mapping": {"a": 1},
    "a text": "x",
    "true": True,
    "null": None,
    "a list": [1],
    "a list of lists": [[], [[]]],
    "huge": HUGE,
    "negative": -1,
    "nan": math.nan,
    "inf": math.inf,
    "empty": "",
    "long": LONG,
    "control characters": ESCAPES,
}
SECONDS = 10
LONGEST = 500


@contextmanager
def in_time() -> Iterator[None]:
    """Ends what takes longer than a person waits for a mistake to be told.

    That is seconds of this process's own work, as the machine may have other work too; what waits works for none.
    """

    def too_long(_: int, __: FrameType | None) -> None:
        pytest.fail(f"no answer after {SECONDS} seconds")  # which no "except Exception" takes

    before = [signal.signal(number, too_long) for number in (signal.SIGALRM, signal.SIGPROF)]
    signal.alarm(10 * SECONDS)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        for number, handler in zip((signal.SIGALRM, signal.SIGPROF), before, strict=True):
            signal.signal(number, handler)


def refusal(do: Callable[[], object]) -> str | None:
    """The one line by which something is refused; None where it is taken. Anything else that is raised fails."""
    with in_time():
        try:
            do()
        except LeanformerError as error:
            line = str(error)
            assert line
            assert line == printable(line), line
            assert len(line) < LONGEST, line
            return line
    return None


# The study file


def tiny(task: str) -> dict[str, Any]:
    """A study whose data and baseline are read in a moment."""
    if task == "image-classification":
        return {
            "name": "tiny",
            "task": task,
            "data": {"source": "digits", "train_limit": 50},
            "baseline": {
                "model": "vit",
                "config": {
                    "hidden_size": 8,
                    "num_hidden_layers": 1,
                    "num_attention_heads": 2,
                    "intermediate_size": 8,
                    "patch_size": 4,
                },
            },
            "candidates": {"lean": {"plan": {"*.mlp": {"block": "mlp", "hidden": 4}}, "method": "distill"}},
            "train": {"epochs": 1, "batch_size": 16, "learning_rate": [1e-3, 1e-2]},
            "measure": {"device": "cpu"},
        }
    return {
        "name": "tiny",
        "task": task,
        "data": {
            "source": "number-words",
            "numbers": {"train": 50, "validation": 10, "test": 10, "largest": 10_000},
            "tokenizer": {"vocabulary": 300},
            "max_tokens": 64,
        },
        "baseline": {
            "model": "marian",
            "config": {
                "d_model": 8,
                "encoder_layers": 1,
                "decoder_layers": 1,
                "encoder_attention_heads": 2,
                "decoder_attention_heads": 2,
                "encoder_ffn_dim": 8,
                "decoder_ffn_dim": 8,
            },
        },
        "candidates": {"lean": {"plan": {"*.mlp": {"block": "mlp", "hidden": 4}}, "method": "distill"}},
        "train": {"epochs": 1, "learning_rate": [1e-3, 1e-2]},
        "measure": {"device": "cpu"},
    }


def keys_of(form: type[BaseModel], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key of a section, those of the sections in it too."""
    for field_name, field in form.model_fields.items():
        name = field.alias or field_name  # "from" cannot be a name in Python
        yield (*prefix, name)
        if name == "candidates":
            yield from keys_of(CandidateConfig, (*prefix, name, "lean"))
        for part in (field.annotation, *get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from keys_of(part, (*prefix, name))


STUDY_KEYS = [(task, keys) for task, form in STUDIES.items() for keys in keys_of(form)]
# Each once: those that both kinds of study have, of the one whose data are read faster.
QUICK_KEYS = list({keys: (task, keys) for task, keys in sorted(STUDY_KEYS)}.values())


def with_value(data: dict[str, Any], keys: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """A copy with a value at a place."""
    data = copy.deepcopy(data)
    inner: Any = data
    for key in keys[:-1]:
        inner = inner[key] if isinstance(inner, list) else inner.setdefault(key, {})
    inner[keys[-1]] = value
    return data


@pytest.mark.parametrize(
    ("task", "keys"),
    some(STUDY_KEYS, *QUICK_KEYS),
    ids=lambda value: value if value in STUDIES else ".".join(value),
)
def test_every_key_with_every_bad_value(task: str, keys: tuple[str, ...], tmp_path: Path) -> None:
    name = ".".join(keys)
    for kind, value in BAD.items():
        data = with_value(tiny(task), keys, value)
        line = refusal(lambda data=data: lf.make_study(data, "study.yaml"))  # type: ignore[misc]
        if line is not None:
            assert line.startswith("study.yaml"), line
            continue
        assert kind not in ("a mapping", "huge", "nan", "inf", "long", "control characters") or keys[-1] in (
            "config",
            "plan",
            "class_weights",
            "cost_matrix",
        ), f"{name}: {kind} was taken"
        study = lf.make_study(data)
        (tmp_path / "resolved.yaml").write_text(study.to_yaml(), encoding="utf-8")
        assert lf.read_study(tmp_path / "resolved.yaml") == study

        def read_data_and_baseline(study: lf.Study = study, kind: str = kind) -> None:
            reporter = Reporter("tiny")
            with RunDirectory(tmp_path / kind, study) as directory, reporter:
                PreparedStudy(study, directory, reporter)

        refusal(read_data_and_baseline)


MINIMAL = "name: a\ncandidates: {b: {plan: {'*.mlp': none}}}\n"
TEXT = f"{MINIMAL}task: translation\n"
TWO = "name: a\ncandidates: {b: {plan: {'*.mlp': none}}, c: {plan: {'*.mlp': none}%s}}\n"
WRONG_STUDIES: dict[str, tuple[str, list[str]]] = {
    "octal": (f"{MINIMAL}train: {{epochs: 010}}", ["train.epochs", "'010'", "decimal digits"]),
    "octal of YAML 1.2": (f"{MINIMAL}train: {{epochs: 0o10}}", ["train.epochs", "'0o10'"]),
    "hexadecimal": (f"{MINIMAL}train: {{epochs: 0x1F}}", ["train.epochs", "'0x1F'"]),
    "binary": (f"{MINIMAL}train: {{epochs: 0b11}}", ["train.epochs", "'0b11'"]),
    "minutes": (f"{MINIMAL}train: {{epochs: 1:30}}", ["train.epochs", "'1:30'", "colons"]),
    "minutes with a point": (f"{MINIMAL}train: {{weight_decay: 1:30.5}}", ["train.weight_decay", "'1:30.5'"]),
    "underscores": (f"{MINIMAL}train: {{epochs: 1_000}}", ["train.epochs", "'1_000'", "underscores"]),
    "truth for a number": (f"{MINIMAL}train: {{epochs: true}}", ["train.epochs", "integer", "True"]),
    "truth for a choice": (f"{MINIMAL}data: {{channels: true}}", ["data.channels", "whole number", "True"]),
    "a fraction for a choice": (f"{MINIMAL}data: {{channels: 1.0}}", ["data.channels", "whole number", "1.0"]),
    "truth for a rate": (f"{MINIMAL}train: {{learning_rate: true}}", ["train.learning_rate", "number", "True"]),
    "truth for a size": (f"{MINIMAL}data: {{image_size: [8, true]}}", ["data.image_size", "integer"]),
    "a word for a truth value": (f"{MINIMAL}train: {{compile: yes}}", ["train.compile", "true or false", "'yes'"]),
    "off": (f"{MINIMAL}train: {{compile: off}}", ["train.compile", "true or false", "'off'"]),
    "a number for a text": (f"{MINIMAL}data: {{source: 5}}", ["data.source", "string", "5"]),
    "a date for a number": (f"{MINIMAL}train: {{epochs: 2024-01-01}}", ["train.epochs", "2024-01-01"]),
    "beyond any number": (f"{MINIMAL}train: {{weight_decay: 1e400}}", ["train.weight_decay", "finite"]),
    "infinite": (f"{MINIMAL}train: {{weight_decay: .inf}}", ["train.weight_decay", "finite"]),
    "no number": (f"{MINIMAL}data: {{test_fraction: .nan}}", ["data.test_fraction", "finite"]),
    "infinite deviation": (f"{MINIMAL}data: {{normalize: [[0.5], [.inf]]}}", ["data.normalize", "finite"]),
    "10^30 epochs": (f"{MINIMAL}train: {{epochs: {HUGE}}}", ["train.epochs", "30 digits"]),
    "10,000 digits": (f"{MINIMAL}train: {{epochs: {'9' * 10_000}}}", ["line 3", "more than 30 digits"]),
    "ten million epochs": (f"{MINIMAL}train: {{epochs: 10000000}}", ["train.epochs", "less than or equal to 1000000"]),
    "a beam of a million": (f"{TEXT}decode: {{beam: 1000000}}", ["decode.beam", "less than or equal to 1000"]),
    "a rate of a million": (f"{MINIMAL}train: {{learning_rate: 1e6}}", ["train.learning_rate", "less than or equal"]),
    "a million threads": (f"{MINIMAL}measure: {{threads: 1000000}}", ["measure.threads", "4096"]),
    "an image of a million": (f"{MINIMAL}data: {{image_size: 1000000}}", ["data.image_size", "10000"]),
    "a bomb of aliases": (
        "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
        + "".join(
            f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
        ),
        ["line 5", "more than 50,000 values"],
    ),
    "an alias within itself": (f"{MINIMAL}data: &d {{source: *d}}", ["line 3", "'d'", "inside of what it refers to"]),
    "deep lists": (f"{MINIMAL}data: {'[' * 100_000}", ["line 3", "more than 24"]),
    "deep mappings": ("".join(f"{' ' * depth}a:\n" for depth in range(900)), ["line 24", "more than 24"]),
    "a tag": (f"{MINIMAL}data: !!python/object/apply:os.getcwd []", ["line 3", "the tag", "os.getcwd", "not allowed"]),
    "two documents": (f"{MINIMAL}---\n{MINIMAL}", ["line 3", "several documents"]),
    "an empty file": ("", ["a study is a mapping"]),
    "a tab": (f"{MINIMAL}data:\n\tsource: digits", ["line 4", "'\\t'"]),
    "a null character": (f"{MINIMAL}data: {{source: a\0}}", ["U+0000"]),
    "an escape in a text": (f'{MINIMAL}data: {{source: "a\\e[31m"}}', ["data.source", "control characters"]),
    "a line feed in a text": (f'{MINIMAL}data: {{subset: "a\\nb"}}', ["data.subset", "control characters"]),
    "an escape in a key": (f'{MINIMAL}"\\e[31m": 1', ["unknown key", "x1b[31m"]),
    "a large file": (f"{MINIMAL}#{'x' * 1_000_000}", ["1,000,0", "bytes", "at most 1,000,000"]),
    "many values": (f"{MINIMAL}data: [{'1, ' * 60_000}1]", ["line 3", "more than 50,000 values"]),
    "a number as a key": (f"{MINIMAL}1: 2", ["line 3", "the key 1 as a number", "quotes"]),
    "a list as a key": (f"{MINIMAL}? [a]\n: 1", ["line 3", "a key must be a text"]),
    "a key twice under a merge": (
        "name: a\nbase: &b {plan: {'*.mlp': none}}\ncandidates: {b: {<<: *b, plan: {}, plan: {}}}",
        ["line 3", "'plan' is given twice"],
    ),
    "names that differ only in case": (TWO.replace("c:", "B:") % "", ["candidates", "'b' and 'B' differ only in case"]),
    "the baseline's name in capitals": (
        MINIMAL.replace("b:", "Baseline:"),
        ["'baseline' and 'Baseline'", "only in case"],
    ),
    "a name that Windows keeps": (MINIMAL.replace("b:", "con:"), ["candidates", "'con'", "cannot be a directory's"]),
    "a study that Windows keeps": (
        MINIMAL.replace("name: a", "name: nul.txt"),
        ["'nul.txt'", "cannot be a directory's"],
    ),
    "a name that ends in a dot": (MINIMAL.replace("name: a", "name: a."), ["name", "'a.'", "cannot be a directory's"]),
    "dots for a name": (MINIMAL.replace("name: a", "name: '..'"), ["name", "'..'", "letters, digits"]),
    "a text for a list": (f"{MINIMAL}data: {{augment: random_crop}}", ["data.augment", "a list", "'random_crop'"]),
    "a text for a section": (f"{MINIMAL}baseline: vit", ["baseline", "a mapping of keys", "'vit'"]),
    "a long name": (MINIMAL.replace("name: a", f"name: {'a' * 101}"), ["name", "at most 100"]),
    "a long candidate": (MINIMAL.replace("b:", f"{'b' * 101}:"), ["candidates", "100 at most"]),
    "the same candidate twice": (TWO % "", ["candidates.b and candidates.c are the same"]),
    "the same plan in other words": (
        TWO.replace("c: {plan: {'*.mlp': none}", "c: {plan: {'*.mlp': {block: none}}") % "",
        ["candidates.b and candidates.c are the same"],
    ),
    "a seed twice": (f"{MINIMAL}seeds: [1, 1]", ["seeds must be distinct"]),
    "a seed of the baseline twice": (
        f"{MINIMAL}baseline: {{model: vit, seeds: [0, 1, 2, 2]}}",
        ["seeds must be distinct"],
    ),
    "a seed that the baseline lacks": (
        f"{MINIMAL}baseline: {{model: vit, seeds: [0, 3, 4]}}",
        ["baseline.seeds lacks 1, 2", "name all"],
    ),
    "two thousand seeds": (f"{MINIMAL}seeds: {list(range(2_000))}", ["seeds", "at most 1000"]),
    "an augmentation twice": (f"{MINIMAL}data: {{augment: [random_crop, random_crop]}}", ["data.augment", "distinct"]),
    "a kind twice": (f"{TEXT}data: {{numbers: {{kinds: [year, year]}}}}", ["data.numbers.kinds", "distinct"]),
    "a language that is a path": (f"{TEXT}data: {{source_language: ../de}}", ["data.source_language"]),
    "a language of dots": (f"{TEXT}data: {{source_language: ..}}", ["data.source_language", "no language"]),
    # What would do nothing
    "a search of one rate": (
        f"{MINIMAL}train: {{learning_rate: 1e-3, search_epochs: 2}}",
        ["train.search_epochs does nothing", "one learning rate"],
    ),
    "seeds of a baseline that is not trained": (
        f"{MINIMAL}baseline: {{model: vit, seeds: [0, 1, 2, 3]}}\ntrain: {{epochs: 0}}",
        ["baseline.seeds does nothing", "train.epochs is 0"],
    ),
    "seeds of a baseline that only teaches": (
        MINIMAL.replace("none}", "none}, method: distill") + "baseline: {model: vit, seeds: [0, 1, 2, 3]}",
        ["baseline.seeds does nothing", "every candidate is distilled"],
    ),
    "the mean of more epochs than there are": (
        f"{MINIMAL}train: {{epochs: 3, average_last: 5}}",
        ["train.average_last 5 does nothing", "there are 3 epochs"],
    ),
    "teaching where nobody is taught": (f"{MINIMAL}distill: {{epochs: 3}}", ["distill does nothing", "no candidate"]),
    "tuning where nobody is taught": (f"{MINIMAL}finetune: {{epochs: 3}}", ["finetune does nothing", "no candidate"]),
    "tuning that nobody takes": (
        MINIMAL.replace("none}", "none}, method: distill, finetune: {epochs: 2}") + "finetune: {epochs: 3}",
        ["finetune does nothing", "of its own"],
    ),
    "a temperature without weight": (
        MINIMAL.replace("none}", "none}, method: distill, finetune: {logits: 0, temperature: 3}"),
        ["candidates.b.finetune.temperature does nothing", "logits is 0"],
    ),
    "a beam for images": (
        MINIMAL.replace("none}", "none}, method: distill") + "finetune: {teacher_beam: 5}",
        ["finetune.teacher_beam does nothing", "the data's"],
    ),
    "a subset of what is built in": (f"{MINIMAL}data: {{subset: a}}", ["data.subset does nothing", "built in"]),
    "groups of built-in images": (f"{MINIMAL}data: {{group: writer}}", ["data.group does nothing", "built in"]),
    "groups of built-in text": (f"{TEXT}data: {{group: talk}}", ["data.group does nothing", "built in"]),
    "groups by nothing": (f"{MINIMAL}data: {{source: a, group: {{}}}}", ["data.group", "one of column and pattern"]),
    "groups by a number": (f"{MINIMAL}data: {{source: a, group: 3}}", ["data.group", "not 3"]),
    "groups by a broken pattern": (
        f"{MINIMAL}data: {{source: a, group: {{pattern: '('}}}}",
        ["data.group.pattern: '(' is no regular expression"],
    ),
    "a column of what is built in": (f"{MINIMAL}data: {{label_column: a}}", ["data.label_column does nothing"]),
    "numbers of a file": (
        f"{TEXT}data: {{source: pairs.tsv, numbers: {{train: 5}}}}",
        ["data.numbers does nothing", "number-words"],
    ),
    "a currency that is not written": (
        f"{TEXT}data: {{numbers: {{currency: USD}}}}",
        ["data.numbers.currency does nothing", "kinds"],
    ),
    "fresh weights of a family": (
        f"{MINIMAL}baseline: {{model: vit, fresh: true, config: {{patch_size: 4}}}}",
        ["baseline.fresh does nothing", "vit"],
    ),
}


@pytest.mark.parametrize("case", most(WRONG_STUDIES, "many values"))
def test_what_was_read_wrongly_is_refused_and_named(case: str, tmp_path: Path) -> None:
    content, words = WRONG_STUDIES[case]
    path = tmp_path / "study.yaml"
    path.write_text(content, encoding="utf-8")
    line = refusal(lambda: lf.run(path, tmp_path / "run", Console(file=io.StringIO())))
    assert line is not None
    for word in words:
        assert word in line, line
    assert not list(tmp_path.glob("run/trials"))


def test_words_of_older_yaml_stay_words(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(
        "\ufeffname: 2024-01-01\ntask: translation\ndata: {source: 010, subset: on, source_language: no}\n"
        "candidates: {no: &no {plan: {'*.mlp': none}}, 1e: {<<: *no, method: distill}}\n",
        encoding="utf-8",
    )
    study: Any = lf.read_study(path)
    assert study.name == "2024-01-01"
    assert (study.data.source, study.data.subset, study.data.source_language) == ("010", "on", "no")
    assert list(study.candidates) == ["no", "1e"]
    assert study.candidates["1e"].plan == {"*.mlp": "none"}
    assert study.candidates["1e"].method == "distill"


def test_a_resolved_study_reads_back_as_the_same(tmp_path: Path) -> None:
    for number, text in enumerate(("010", "1e-3", "1:30", "no", ".5", "~", "0x1F", "2024-01-01", "true", "<<")):
        study = lf.make_study({**tiny("translation"), "data": {"source": "./pairs.tsv", "subset": text}})
        path = tmp_path / f"{number}.yaml"
        path.write_text(study.to_yaml(), encoding="utf-8")
        assert lf.read_study(path) == study


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--set=train.epochs=010", ["train.epochs", "'010'"]),
        ("--set=train.epochs=" + "9" * 10_000, ["--set", "more than 30 digits"]),
        ("--set=train.epochs=" + "[" * 5_000, ["--set", "more than 24"]),
        ("--set=" + ".".join("a" * 1_000) + "=1", ["--set", "more than 24 deep"]),
        ("--set=data=!!set {a}", ["--set", "tag"]),
        ("--set=data.source=\x1b[31m", ["--set", "U+001B"]),
        ("--set=train.epochs=1\n---\n2", ["--set", "several documents"]),
        ("--set=seeds=[1, 1]", ["seeds must be distinct"]),
    ],
)
def test_settings_are_read_as_files_are(
    option: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "study.yaml").write_text(MINIMAL)
    code, line = command(monkeypatch, capsys, "run", str(tmp_path / "study.yaml"), option)
    assert code == 2
    for word in words:
        assert word in line


# Plans

ARGUMENTS = [(name, argument) for name, block in BLOCKS.items() for argument in (*block.Arguments.model_fields, "xyz")]


@pytest.mark.parametrize(("name", "argument"), ARGUMENTS)
def test_every_argument_with_every_bad_value(name: str, argument: str, make_model: Callable[..., Any]) -> None:
    sites = lf.sites(make_model())
    place = next((site for site in sites if site.kind in BLOCKS[name].kinds), None)
    if place is None:
        pytest.skip("stands at no site of an image classifier")
    for kind, value in BAD.items():
        line = refusal(lambda value=value: match({place.name: {"block": name, argument: value}}, sites))  # type: ignore[misc]
        if line is None:
            assert argument != "xyz"
            assert kind in ("null", "true", "a list", "negative", "a text"), f"{kind} was taken"
        else:
            assert place.name in line


PLANS: dict[str, Any] = {
    "none": None,
    "a number": 5,
    "a list": [1],
    "a text": "x",
    "a number as a pattern": {1: "none"},
    "an empty pattern": {"": "none"},
    "a long pattern": {LONG: "none"},
    "an escape in a pattern": {ESCAPES: "none"},
    "an entry that is a number": {"*.mlp": 5},
    "an entry that is a list": {"*.mlp": [["none"]]},
    "an entry without a block": {"*.mlp": {}},
    "a block that is a number": {"*.mlp": {"block": 1}},
    "a long block": {"*.mlp": LONG},
    "a block with escapes": {"*.mlp": ESCAPES},
    "a number as an argument": {"*.mlp": {"block": "mlp", 1: 2}},
    "a deep entry": {"*.mlp": {"block": "mlp", "hidden": [[[[[[[[[[[[1]]]]]]]]]]]]}},
    "ten thousand digits": {"*.mlp": {"block": "mlp", "hidden": 10**10_000}},
    "a huge number": {"*.mlp": {"block": "mlp", "hidden": 10**12}},
    "numbers of heads": {"*.self_attention": {"block": "slots", "heads": [0, HUGE]}},
}


@pytest.mark.parametrize("case", PLANS)
def test_bad_plans(case: str, make_model: Callable[..., PreTrainedModel]) -> None:
    line = refusal(lambda: match(PLANS[case], lf.sites(make_model())))
    assert line is not None
    assert "plan" in line


def test_a_block_that_the_memory_does_not_hold_is_named(
    make_model: Callable[..., PreTrainedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: 10 bytes")

    monkeypatch.setattr(BLOCKS["mlp"], "build", no_memory)
    line = refusal(lambda: lf.reduce(make_model(), {"encoder.1.mlp": {"block": "mlp", "hidden": 4}}))
    assert line is not None
    assert "out of memory while making block 'mlp' at encoder.1.mlp; give it smaller arguments" in line


# Results files


def leaves_of(value: Any, keys: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in results; of a list that of the first."""
    if keys:
        yield keys
    if keys in (("study",), ("environment",), ("baseline",)):
        return  # anything; and the baseline's row is as a candidate's
    inner = value.items() if isinstance(value, dict) else list(enumerate(value))[:1] if isinstance(value, list) else ()
    for key, part in inner:
        yield from leaves_of(part, (*keys, key))


def slim(value: Any) -> Any:
    """Results with at most three of everything."""
    if isinstance(value, dict):
        return {key: slim(part) for key, part in value.items()}
    return [slim(part) for part in value[:3]] if isinstance(value, list) else value


def slim_results(results: dict[str, Any]) -> dict[str, Any]:
    """Results of the candidate that is recommended alone."""
    chosen = [row for row in results["candidates"] if row["name"] == results["recommended"]]
    slimmed: dict[str, Any] = slim(results | {"candidates": chosen})
    return slimmed


RESULTS: dict[str, dict[str, Any]] = {
    "images": slim_results(example_results()),
    "text": slim_results(translation_results()),
}
RESULTS_KEYS = [(task, keys) for task, results in RESULTS.items() for keys in leaves_of(results)]


@pytest.mark.parametrize("task", some(RESULTS, "images"))
def test_every_key_of_a_results_file_with_every_bad_value(task: str, tmp_path: Path) -> None:
    results = copy.deepcopy(RESULTS[task])

    def show() -> None:
        read = read_results(tmp_path)
        decision_lines(read)
        results_table(read)

    for keys in (keys for of, keys in RESULTS_KEYS if of == task):
        inner: Any = results
        for key in keys[:-1]:
            inner = inner[key]
        right = inner[keys[-1]]
        for kind, value in BAD.items():
            if kind in ("a text", "a list of lists", "nan"):
                continue  # each as another one here: such files are read in a tenth of the time of all others
            inner[keys[-1]] = value
            (tmp_path / "results.json").write_text(json.dumps(results), encoding="utf-8")
            refusal(show)
        inner[keys[-1]] = right


def changed(task: str, /, **values: Any) -> dict[str, Any]:
    """Results with other values, a place given as ``candidates__0__name``."""
    results = RESULTS[task]
    for place, value in values.items():
        keys = tuple(int(key) if key.isdigit() else key for key in place.split("__"))
        results = with_value(results, keys, value)
    return results


INTERVAL = {"mean": 0.0, "low": 0.01, "high": -0.01}
WRONG_RESULTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "a confidence of 2": (changed("images", accept__confidence=2.0), ["accept.confidence", "less than 1"]),
    "a confidence of nothing": (changed("text", accept__confidence=0.0), ["accept.confidence", "greater than 0.5"]),
    "a margin of all": (changed("images", accept__max_drop=1.0), ["accept.max_drop is 1"]),
    "a negative margin": (changed("text", accept__max_drop=-0.5), ["accept.max_drop", "greater than or equal to 0"]),
    "a negative ratio": (changed("images", candidates__0__parameters_ratio=-0.5), ["parameters_ratio", "equal to 0"]),
    "negative operations": (changed("text", candidates__0__flops_ratio=-1.0), ["flops_ratio", "equal to 0"]),
    "200 % accuracy": (changed("images", candidates__0__quality__mean=2.0), ["quality is 2", "from 0 to 1"]),
    "200 BLEU": (changed("text", baseline__quality__per_seed=[200.0] * 3), ["baseline", "from 0 to 100"]),
    "an interval upside down": (changed("images", candidates__0__difference=INTERVAL), ["difference", "low is 0.01"]),
    "a difference of more than all": (
        changed("images", candidates__0__difference={"mean": -1.5, "low": -2.0, "high": 0.0}),
        ["its difference is -1.5"],
    ),
    "a p of 3": (changed("images", candidates__0__p_value=3.0), ["p_value", "less than or equal to 1"]),
    "a negative time": (changed("text", candidates__0__latency_ms__p50=-1.0), ["latency_ms.p50", "equal to 0"]),
    "latencies upside down": (
        changed("text", candidates__0__latency_ms={"p50": 5.0, "p95": 1.0}),
        ["candidates.0.latency_ms", "p50 is 5 and p95 1; p50 must not exceed p95"],
    ),
    "another metric": (changed("text", accept__metric="chrf"), ["accept.metric is 'chrf' and metric 'bleu'"]),
    "no parameters": (changed("images", baseline__parameters=0), ["baseline.parameters", "greater than or equal to 1"]),
    "a model of no recommendation": (
        changed("images", recommended=None),
        ["recommended is None and ship 'trials/", "ship must be the recommended candidate's model"],
    ),
    "a recommendation without a model": (changed("text", ship=None), ["and ship None"]),
    "an unknown decision": (changed("images", candidates__0__decision="maybe"), ["decision", "'accept'", "'reject'"]),
    "a name of markup": (changed("images", candidates__0__name="<b>lean</b>"), ["candidates.0.name", "match"]),
    "a name with escapes": (changed("text", candidates__0__name=ESCAPES), ["candidates.0.name", "match"]),
    "a study's name with escapes": (changed("text", name=ESCAPES), ["name", "match"]),
    "a name twice": (changed("images", candidates__0__name="baseline"), ["2 models are called 'baseline'"]),
    "a model elsewhere": (changed("images", ship="../../etc/passwd"), ["ship", "not a path inside the run directory"]),
    "a model at the root": (changed("images", ship="/etc"), ["ship", "not a path inside the run directory"]),
    "a model on another disk": (changed("images", ship="C:\\x"), ["ship", "not a path inside the run directory"]),
    "other seeds": (
        changed("text", candidates__0__seeds=[5, 6, 7]),
        ["its seeds are [5, 6, 7]", "[0, 1, 2]"],
    ),
    "a seed twice": (changed("text", seeds=[0, 0, 1]), ["seeds must be distinct"]),
    "a quality too few": (changed("text", candidates__0__quality__per_seed=[1.0]), ["1 qualities for 3 seeds"]),
    "nobody is recommended": (changed("images", recommended="nobody"), ["recommended: there is no candidate 'nobody'"]),
    "a rejected one is recommended": (changed("images", candidates__0__decision="reject"), ["was not accepted"]),
    "a format of true": (changed("images", format=True), ["its format is True"]),
    "a task that is a list": (changed("images", task=[1]), ["the task [1] is not known"]),
}


@pytest.mark.parametrize("case", WRONG_RESULTS)
def test_results_that_no_study_wrote_are_refused(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content, words = WRONG_RESULTS[case]
    (tmp_path / "results.json").write_text(json.dumps(content), encoding="utf-8")
    code, line = command(monkeypatch, capsys, "report", str(tmp_path))
    assert code == 2
    for word in words:
        assert word in line, line
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[" * 200_000, "lists are nested too deep"),
        (b'{"format": ' + b"9" * 10_000 + b"}", "damaged"),
        (b'{"format": 1e999}', "its format is inf"),
        (b'{"format": 1, "name": "\xff"}', "byte 24 is not UTF-8"),
        ("{}".encode("utf-16"), "not UTF-8"),
        (b"", "damaged"),
    ],
)
def test_files_that_are_no_results(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_bytes(content)
    line = refusal(lambda: read_results(tmp_path))
    assert line is not None
    assert words in line


# Commands


def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """The exit code of a command, and the one line that it wrote to standard error as its mistake."""
    monkeypatch.setattr("sys.argv", ["leanformer", *arguments])
    capsys.readouterr()
    with in_time(), pytest.raises(SystemExit) as ended:
        cli.main()
    captured = capsys.readouterr()
    lines = [line for line in captured.err.split("\n") if line.startswith("leanformer: error: ")]
    assert len(lines) == 1, captured.err
    assert captured.err.endswith(f"{lines[0]}\n"), captured.err
    for text in (captured.err, captured.out):
        assert all(line == printable(line) for line in text.split("\n")), text
        assert "Traceback" not in text
    assert len(lines[0]) < LONGEST
    return int(ended.value.code or 0), lines[0]


def a_file(path: Path) -> str:
    path.write_text("some words\n", encoding="utf-8")
    return str(path)


def a_directory(path: Path) -> str:
    path.mkdir()
    (path / "words.txt").write_text("some words\n", encoding="utf-8")
    return str(path)


def not_utf8(path: Path) -> str:
    path.write_bytes(b"name: caf\xe9\n")
    return str(path)


def a_pipe(path: Path) -> str:
    os.mkfifo(path)
    return str(path)


def unreadable(path: Path) -> str:
    """By its rights, which do not bind root; for whom it is a loop of links, which nobody reads."""
    if os.geteuid():
        path.write_text("x")
        path.chmod(0)
    else:
        path.symlink_to(path)
    return str(path)


PLACES: dict[str, Callable[[Path], str]] = {
    "a file": a_file,
    "a directory": a_directory,
    "the device null": lambda _: "/dev/null",
    "the device zero": lambda _: "/dev/zero",
    "the device urandom": lambda _: "/dev/urandom",
    "a pipe": a_pipe,
    "missing": str,
    "below a file": lambda path: f"{a_file(path)}/below",
    "unreadable": unreadable,
    "not UTF-8": not_utf8,
    "a name that is not UTF-8": lambda path: f"{path}\udcff",
    "a name with escapes": lambda path: f"{path}{ESCAPES}",
    "a long name": lambda path: f"{path}{LONG}",
}
COMMANDS: dict[str, list[str]] = {
    "the study of run": ["run", "PLACE"],
    "the directory of run": ["run", "study.yaml", "--out", "PLACE"],
    "the model of sites": ["sites", "PLACE"],
    "the model of translate": ["translate", "PLACE", "text.txt"],
    "the text of translate": ["translate", "./nowhere", "PLACE"],
    "the result of translate": ["translate", "./nowhere", "text.txt", "--out", "PLACE"],
    "the model of predict": ["predict", "PLACE", "image.png"],
    "the input of predict": ["predict", "./nowhere", "PLACE"],
    "the result of predict": ["predict", "./nowhere", "text.txt", "--out", "PLACE"],
    "the model of inspect": ["inspect", "PLACE", "digits"],
    "the data of inspect": ["inspect", "./nowhere", "PLACE"],
    "the directory of inspect": ["inspect", "./nowhere", "digits", "--out", "PLACE"],
    "the model of export": ["export", "PLACE", "--to", "ctranslate2"],
    "the directory of export": ["export", "./nowhere", "--to", "ctranslate2", "--out", "PLACE"],
    "the data of export": ["export", "./nowhere", "--to", "ctranslate2", "--data", "PLACE"],
    "the run of confirm": ["confirm", "PLACE", "digits"],
    "the data of confirm": ["confirm", "./nowhere", "PLACE"],
    "the directory of report": ["report", "PLACE"],
    "the model of bench": ["bench", "PLACE"],
    "the result of bench": ["bench", "./nowhere", "--out", "PLACE"],
    "the data of bench": ["bench", "./nowhere", "--data", "PLACE"],
    "the pilot of plan-test": ["plan-test", "--pilot", "PLACE"],
    "the directory of plan-test": ["plan-test", "--pilot", "./nowhere", "--out", "PLACE"],
    "the old file of compare": ["compare", "PLACE", "new.csv"],
    "the new file of compare": ["compare", "./nowhere.csv", "PLACE"],
    "the directory of compare": ["compare", "./nowhere.csv", "new.csv", "--out", "PLACE"],
}


@pytest.mark.parametrize("place", some(PLACES, "a directory", "a pipe", "a name with escapes"))
@pytest.mark.parametrize("what", COMMANDS)
def test_every_command_with_every_bad_path(
    what: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("one\n")
    # Its data are nowhere, so that a run that takes the path ends there.
    (tmp_path / "study.yaml").write_text(MINIMAL + "data: {source: ./nowhere}\n")
    path = PLACES[place](tmp_path / "place")
    before = os.stat("/dev/null").st_mode
    code, line = command(monkeypatch, capsys, *(path if part == "PLACE" else part for part in COMMANDS[what]))
    assert code == 2, line
    assert os.stat("/dev/null").st_mode == before


EMPTY = {
    **COMMANDS,
    "the model of convert": ["convert", "PLACE", "out"],
    "the result of convert": ["convert", "m", "PLACE"],
}


@pytest.mark.parametrize("what", EMPTY)
def test_an_empty_path_is_named_and_stands_for_nothing(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unset variable of the shell; it is not the current directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text(MINIMAL)
    (tmp_path / "text.txt").write_text("one\n")
    parts = EMPTY[what]
    code, line = command(monkeypatch, capsys, *("" if part == "PLACE" else part for part in parts))
    before = parts[parts.index("PLACE") - 1]
    name = before if before.startswith("--") else ""
    assert code == 2
    assert f"Invalid value for '{name}" in line
    assert f"it is empty, as an unset shell variable is; give a value; see leanformer {parts[0]} --help" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["study.yaml", "text.txt"]


@pytest.mark.parametrize("what", some(EMPTY, "the study of run", "the model of predict", "the result of bench"))
def test_home_is_written_out_where_the_shell_did_not(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "study.yaml").write_text(MINIMAL + "data: {source: ./nowhere}\n")
    (tmp_path / "text.txt").write_text("one\n")
    code, _ = command(monkeypatch, capsys, *("~/x.yaml" if part == "PLACE" else part for part in EMPTY[what]))
    assert code == 2
    assert not (tmp_path / "~").exists()


def test_a_study_of_home_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "study.yaml").write_text(MINIMAL + "data: {source: ./nowhere}\n")
    code, line = command(monkeypatch, capsys, "run", "~/study.yaml", "--out", "~/run")
    assert code == 2
    assert "./nowhere" in line
    assert lf.read_study("~/study.yaml").data.source == "./nowhere"


OPTIONS: list[list[str]] = [
    ["run", "s", "--jobs"],
    ["translate", "m", "--beam"],
    ["translate", "m", "--batch-tokens"],
    ["translate", "m", "--max-tokens"],
    ["translate", "m", "--device"],
    ["translate", "m", "--threads"],
    ["predict", "m", "--batch"],
    ["predict", "m", "--top"],
    ["predict", "m", "--threads"],
    ["predict", "m", "--format"],
    ["predict", "m", "--device"],
    ["inspect", "m", "digits", "--epochs"],
    ["inspect", "m", "digits", "--device"],
    ["inspect", "m", "digits", "--probe"],
    ["bench", "m", "--batch"],
    ["bench", "m", "--length"],
    ["bench", "m", "--beam"],
    ["bench", "m", "--max-tokens"],
    ["bench", "m", "--threads"],
    ["bench", "m", "--rounds"],
    ["bench", "m", "--device"],
    ["plan-test", "--candidates"],
    ["plan-test", "--looks"],
    ["plan-test", "--confidence"],
    ["plan-test", "--seeds"],
    ["compare", "o", "n", "--metric"],
    ["compare", "o", "n", "--confidence"],
    ["compare", "o", "n", "--pair"],
    ["run", "s", "--nonsense"],
    ["nonsense"],
]


@pytest.mark.parametrize(
    "value", ["x", *slow("", "0", "-1", "1.5", "nan", str(HUGE), "9" * 5_000, LONG), ESCAPES, *slow("\udcff")]
)
@pytest.mark.parametrize("option", OPTIONS, ids=" ".join)
def test_every_option_with_every_bad_value(
    option: list[str], value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, line = command(monkeypatch, capsys, *option[:-1], f"{option[-1]}={value}")
    assert code == 2
    assert option[-1][:12] in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["translate", "m", "--beam", "1000000"], ["--beam", "1000"]),
        (["run", "s", "--jobs", "100000"], ["--jobs", "256"]),
        (["translate", "m", "--device", "gpu"], ["--device", "cpu", "cuda"]),
        (["translate"], ["Missing argument", "translate --help"]),
        (["run", "s", "--jobs"], ["--jobs", "see leanformer run --help"]),
        (["inspect", "m", "digits", "--out"], ["--out", "see leanformer inspect --help"]),
        (["plan-test", "--margin", "nan"], ["margin"]),
        (["plan-test", "--quality", "0.9", "--drop", "nan"], ["drop", "a finite number, not nan"]),
        (["plan-test", "--disagree", "2"], ["--disagree", "less than or equal to 1"]),
        (["plan-test", "--quality", "-1"], ["--quality", "greater than or equal to 0"]),
        (["compare", "o", "n", "--max-drop", "nan"], ["--max-drop", "nan"]),
        (["compare", "o", "n", "--max-drop=-1"], ["--max-drop", "-1"]),
        (["nonsense", "--jobs"], ["nonsense", "see leanformer --help"]),
        (["inspect", "./m", "digits", "--probe", "a={block: slots}", "--probe", "a={block: mlp}"], ["'a'", "twice"]),
        (["inspect", "./m", "digits", "--probe", "a\x1b[31m={block: slots}"], ["--probe", "letters"]),
    ],
)
def test_options_are_bounded(
    arguments: list[str], words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, line = command(monkeypatch, capsys, *arguments)
    assert code == 2
    for word in words:
        assert word in line


def test_closed_streams_are_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", None)
    _, line = command(monkeypatch, capsys, "translate", "./nowhere")
    assert "standard input is closed; give a file" in line


def test_a_reader_that_has_seen_enough_is_no_mistake() -> None:
    command_line = [sys.executable, "-m", "leanformer", "--help"]
    read, write = os.pipe()
    os.close(read)  # as of "| true", which never reads
    ended = subprocess.run(command_line, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert ended.returncode == 1
    assert ended.stderr == b""


# The Python API

VALUES: dict[str, Any] = {
    "None": None,
    "a number": 5,
    "true": True,
    "a list": [1],
    "a mapping": {"a": 1},
    "a long text": LONG,
    "escapes": ESCAPES,
    "bytes": b"x",
    "nan": math.nan,
    "a wrong model": torch.nn.Linear(2, 2),
    "an object": object(),
}
FUNCTIONS = [
    (name, parameter)
    for name in lf.__all__
    if inspect.isfunction(getattr(lf, name))
    for parameter in inspect.signature(getattr(lf, name)).parameters
]


@pytest.fixture
def right_arguments(make_model: Callable[..., PreTrainedModel], tmp_path: Path) -> dict[str, Any]:
    """What each argument of a public function may be, by its name; a study and an inspection end at missing data."""
    model = make_model()
    lf.save(model, tmp_path / "model")
    images = torch.randn(2, 1, 16, 16)
    return {
        "model": model,
        "teacher": model,
        "plan": {"*.mlp": {"block": "mlp", "hidden": 4}},
        "batches": [{"pixel_values": images, "labels": torch.tensor([0, 1])}],
        "directory": tmp_path / "made",
        "source": tmp_path / "model",
        "data": {"name": "a", "candidates": {"b": {"plan": {"*.mlp": "none"}}}, "source": "./nowhere"},
        "study": {"name": "a", "candidates": {"b": {"plan": {"*.mlp": "none"}}}, "data": {"source": "./nowhere"}},
        "path": tmp_path / "study.yaml",
        "teach": lf.DistillConfig(epochs=1),
    }


@pytest.mark.parametrize(("function", "parameter"), FUNCTIONS)
def test_every_public_function_with_every_bad_argument(
    function: str, parameter: str, right_arguments: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text(MINIMAL)
    called = getattr(lf, function)
    parameters = inspect.signature(called).parameters
    given = {
        name: right_arguments.get(name, tmp_path / "made")
        for name, declared in parameters.items()
        if declared.default is inspect.Parameter.empty or name == "teach"
    }
    if function == "inspect":
        given |= {"model": tmp_path / "model", "data": "./nowhere"}
    for kind, value in VALUES.items():
        if callable(value) and "Callable" in str(parameters[parameter].annotation):
            continue  # a callback may be any of them, and raises what it raises
        line = refusal(lambda value=value: called(**{**given, parameter: value}))  # type: ignore[misc]
        # A path may hold what a terminal must not see.
        if parameters[parameter].default is inspect.Parameter.empty and kind != "escapes":
            assert line is not None, f"{function}({parameter}={kind}) was taken"


SECTIONS = [
    name for name in lf.__all__ if isinstance(getattr(lf, name), type) and issubclass(getattr(lf, name), BaseModel)
]


@pytest.mark.parametrize("name", SECTIONS)
def test_sections_made_in_python_are_checked(name: str) -> None:
    section: type[BaseModel] = getattr(lf, name)
    for key in section.model_fields:
        for kind, value in VALUES.items():
            line = refusal(lambda key=key, value=value: section(**{key: value}))  # type: ignore[misc]
            assert line is None or line.startswith(f"{name}: "), line
            assert line is not None or kind in ("None", "a number"), f"{name}({key}={kind}) was taken"
    made: Any = section
    for arguments in ((5,), (None,), ({"epochs": 1},)):
        assert f"{name}: give its keys by name" in str(refusal(lambda arguments=arguments: made(*arguments)))  # type: ignore[misc]
    assert f"{name}: unknown key 'x'" in str(refusal(lambda: made(x=1)))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"train": {"betas": [0.9]}}, "train.betas: the list should have 2 items, not [0.9]"),
        ({"train": {"betas": []}}, "train.betas: the list should have 2 items, not []"),
        ({"train": {"betas": [0.9, 0.9, 0.9]}}, "train.betas: the list should have at most 2 items, not 3"),
        ({"data": {"image_size": [8]}}, "data.image_size: the list should have 2 items, not [8]"),
        ({"data": {"image_size": [8, 8, 8]}}, "data.image_size: the list should have at most 2 items, not 3"),
        ({"data": {"image_size": "x"}}, "data.image_size: input should be a valid integer, not 'x'"),
        ({"data": {"normalize": [[1], [1], [1]]}}, "data.normalize: the list should have at most 2 items, not 3"),
        ({"data": {"normalize": [[1]]}}, "data.normalize: the list should have 2 items, not [[1]]"),
        ({"data": {"normalize": "x"}}, "data.normalize: input should be 'auto' or 'data', not 'x'"),
        (
            {"train": {"learning_rate": "1e-3"}},
            "train.learning_rate: input should be a valid number, not '1e-3' (write it without quotes)",
        ),
        ({"train": {"learning_rate": 0}}, "train.learning_rate: input should be greater than 0, not 0"),
        ({"train": {"learning_rate": [0.1, 0]}}, "train.learning_rate.1: input should be greater than 0, not 0"),
        (
            {"train": {"epochs": 1, "average_last": 2}},
            "train.average_last 2 does nothing here: there is one epoch; leave it out",
        ),
        ({"candidates": {}}, "candidates: the mapping should have at least 1 item, not 0"),
    ],
)
def test_lists_and_numbers_are_told_of_as_the_file_has_them(changes: dict[str, Any], line: str) -> None:
    study = {"name": "a", "candidates": {"b": {"plan": {"*.mlp": "none"}}}, **changes}
    assert refusal(lambda: lf.make_study(study)) == f"study: {line}"


def test_a_section_made_in_python_tells_of_a_rate_by_its_own_name() -> None:
    assert refusal(lambda: lf.DistillConfig(learning_rate="1")) == (  # type: ignore[arg-type]
        "DistillConfig: learning_rate: input should be a valid number, not '1' (write it without quotes)"
    )
    made: Any = ImageTrainConfig
    assert str(refusal(lambda: made(learning_rate=0))).startswith("ImageTrainConfig: learning_rate: ")


@pytest.mark.parametrize("key", ["name", "nonsense"])
def test_a_study_that_was_made_is_not_changed(key: str) -> None:
    study: Any = lf.make_study(tiny("image-classification"))
    before = study.to_yaml()
    for change in (lambda: setattr(study, key, "b"), lambda: delattr(study, key)):
        line = str(refusal(change))
        assert line == f"ImageStudy: '{key}' cannot be changed once the section is made; make another section"
    assert study.to_yaml() == before
    assert study.model_copy(update={"name": "b"}).name == "b"


def test_results_of_no_study_have_no_model(tmp_path: Path) -> None:
    result = lf.StudyResult(tmp_path, {}, tmp_path / "report.html")
    for ask, key in ((result.model, "ship"), (lambda: result.recommended, "recommended")):
        assert refusal(ask) == f"results: the key '{key}' is missing; take the StudyResult that lf.run returns"


def test_a_study_of_no_task_is_refused(tmp_path: Path) -> None:
    known = lf.make_study(tiny("image-classification"))
    fields = {name: getattr(known, name) for name in lf.Study.model_fields}
    line = refusal(lambda: lf.run(lf.Study(**fields), tmp_path / "run"))
    assert "Study has no task; make the study with lf.make_study" in str(line)


def test_data_for_a_study_are_plain() -> None:
    circle: dict[str, Any] = {}
    circle["a"] = circle
    for data, words in (
        (None, "a study is a mapping of keys, not None"),
        ({1: 2}, "unknown key '1'"),
        ({True: 2}, "a key must be a text, not True"),
        ({10**5_000: 2}, "a whole number of more than 30 digits"),
        ({"data": {(1, 2): 3}}, "data: a key must be a text, not (1, 2)"),
        ({"name": {1, 2}}, "name: {1, 2} is neither"),
        ({"name": object()}, "is neither a mapping, a list, a text nor a number"),
        (circle, "more than 24"),
        ({"name": "\ud800"}, "half a character"),
        ({"seeds": [10**5_000]}, "seeds: a whole number of more than 30 digits"),
        ({"task": ["translation"]}, "there is no task ['translation']"),
    ):
        assert words in str(refusal(lambda data=data: lf.make_study(data)))  # type: ignore[misc]
    given = {"data": {"source": Path("./images")}, "seeds": (3, 4)}
    given["baseline"] = {"model": "vit", "config": {"id2label": {0: "cat", 1: "dog"}}}
    study = lf.make_study({**tiny("image-classification"), **given})
    assert (study.data.source, study.seeds) == ("images", (3, 4))
    assert study.baseline.config == {"id2label": {"0": "cat", "1": "dog"}}


# What a message looks like


def test_messages_are_one_short_line_whatever_they_quote() -> None:
    for word in (LONG, ESCAPES * 500, "\u202e" * 5_000, " ".join("abc" for _ in range(5_000))):
        line = str(LeanformerError(f"study.yaml: the name {word} cannot be a directory's; use letters"))
        assert line == printable(line)
        assert len(line) < LONGEST - len("leanformer: error: ")
        assert line.startswith("study.yaml: the name ")
        assert line.endswith("cannot be a directory's; use letters")


def test_there_are_many_cases() -> None:
    commands = len(COMMANDS) * len(PLACES) + len(OPTIONS) * 11
    assert len(STUDY_KEYS) * len(BAD) + commands + len(FUNCTIONS) * len(VALUES) >= 600
    assert len(WRONG_STUDIES) + len(WRONG_RESULTS) >= 45
