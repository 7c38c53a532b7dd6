"""A translator's time a token while it writes: a teacher against its students, in turn, in one process.

Every model writes as many tokens of the same sentences, whatever it would say, so that only the time of a token
differs: greedy for one sentence and for 32 at once, and with a beam of 5 for 16. The first model is the one that the
others are compared with, and once more with its layers opened and nothing replaced; ratios are taken round by round.
What a model would say does not matter, so by default the models are fresh ones of benchmarks/quality/multi30k.yaml: its
teacher, and students of slots, of the published networks and of a synthesizer. Trained ones are given by name:

    python -m benchmarks decoding teacher=runs/.../baseline/seed-0/model slots=runs/.../both-slots/seed-0/model
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

import leanformer as lf
from benchmarks.kit.benchmark import CPU, Benchmark, Result, progress, register
from benchmarks.kit.forms import TINY_TEXT
from benchmarks.kit.measuring import in_turn, median_ratio, seconds
from benchmarks.kit.tables import Tables, figure_table, span, table
from benchmarks.quality.multi30k import STUDY
from leanformer.config.translation import TranslationStudy
from leanformer.core.errors import LeanformerError
from leanformer.data.tokenizers import TranslationTokenizer
from leanformer.tasks.translation import Translation

SETTINGS = ((1, 1), (32, 1), (16, 5))  # sentences, beam
STUDENTS = {
    "encoder, slots": "encoder-slots",
    "encoder and decoder self, slots": "both-slots",
    "cross, slots": "cross-slots-64-lean",
    "all, slots": "all-slots",
    "encoder, feed_forward XS": "encoder-XS",
    "decoder self, feed_forward 50": "decoder-50",
    "decoder self, feed_forward 800": "decoder-800",
    "encoder and decoder self, feed_forward M and 800": "both-M",
    "cross, feed_forward 800, token alone": "cross-sum-800",
    "cross, synthesizer": "cross-synthesizer",
}
"""What is replaced -> the candidate of benchmarks/quality/multi30k.yaml."""
OPENED = "nothing, but open layers"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("models", nargs="*", metavar="NAME=DIRECTORY", help="trained models; by default fresh ones")
    parser.add_argument(
        "--data", default="bentrevett/multi30k", help="Multi30k: a hub id or a local copy in its layout"
    )
    parser.add_argument("--set", action="append", metavar="KEY=VALUE", default=[], help="a key of the study")
    parser.add_argument("--tokens", type=int, default=30, help="that every model writes")
    parser.add_argument("--rounds", type=int, default=11)


def open_task(arguments: argparse.Namespace) -> Translation:
    """The task of benchmarks/quality/multi30k.yaml with what the options set."""
    study = lf.read_study(STUDY, [f"data.source={arguments.data}", *arguments.set])
    assert isinstance(study, TranslationStudy)
    return Translation(study, CPU)


def open_models(arguments: argparse.Namespace, task: Translation) -> tuple[dict[str, Any], TranslationTokenizer]:
    """The models that are compared, by name, and the tokenizer of them all."""
    if arguments.models:
        directories = {}
        for given in arguments.models:
            name, equals, directory = given.partition("=")
            if not (name and equals and directory):
                raise LeanformerError(f"{given}: give each model as NAME=DIRECTORY")
            directories[name] = directory
        models = {name: lf.load(directory) for name, directory in directories.items()}
        return models, TranslationTokenizer.load(next(iter(directories.values())))
    teacher = task.make_baseline(seed=0)
    candidates = task.study.candidates
    students = {name: lf.reduce(teacher, candidates[candidate].plan) for name, candidate in STUDENTS.items()}
    return {"teacher": teacher, **students}, task.tokenizer


def write(model: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor, beam: int, tokens: int) -> None:
    """Writes as many tokens."""
    with torch.inference_mode():
        model.generate(
            ids, attention_mask=mask, num_beams=beam, do_sample=False, min_new_tokens=tokens, max_new_tokens=tokens
        )


def measure(arguments: argparse.Namespace) -> Result:
    """Milliseconds a token of every model in every setting, and its speed as a multiple of the first's."""
    task = open_task(arguments)
    models, tokenizer = open_models(arguments, task)
    name, first = next(iter(models.items()))
    models = {name: first, OPENED: lf.reduce(first, {}), **models}
    encoded = [torch.tensor(ids) for ids in tokenizer.encode_source(list(task.data.test.sources[:32]))]
    rows = []
    for count, beam in SETTINGS:
        ids = pad_sequence(encoded[:count], batch_first=True, padding_value=tokenizer.pad_id)
        mask = pad_sequence([torch.ones_like(one) for one in encoded[:count]], batch_first=True)
        ways = {
            name: partial(seconds, partial(write, model.eval(), ids, mask, beam, arguments.tokens))
            for name, model in models.items()
        }
        taken = in_turn(ways, arguments.rounds)
        first = next(iter(taken.values()))
        for name, values in taken.items():
            milliseconds = 1000 * statistics.median(values) / arguments.tokens
            speed = median_ratio(first, values)
            rows.append({"model": name, "sentences": count, "beam": beam, "ms": milliseconds, "speed": speed})
        progress(f"{count} sentences, beam {beam}: done")
    lengths = [len(ids) for ids in encoded]
    return {"median_source_tokens": statistics.median(lengths), "rows": rows}


def tables(result: Result) -> Tables:
    """Models by settings."""
    found = {(row["model"], row["sentences"], row["beam"]): row for row in result["rows"]}
    first, *others = dict.fromkeys(model for model, _, _ in found)
    runs = list(dict.fromkeys((sentences, beam) for _, sentences, beam in found))
    lines = [
        (f"nothing ({first})", *(f"{found[first, *run]['ms']:.2f} ms a token" for run in runs)),
        *((name, *(f"{found[name, *run]['speed']:.2f} x" for run in runs)) for name in others),
    ]
    header = ("replaced", *(f"sentences: {count}" + (f", beam {beam}" if beam > 1 else "") for count, beam in runs))
    return {
        "speed": table(header, lines),
        "figures": figure_table(
            {
                "subwords of a sentence, median": f"{result['median_source_tokens']:g}",
                "speed of the students whose attention is replaced": f"{speeds(found, others, replaced=True)} x",
                "speed where nothing is replaced, but layers are open": f"{speeds(found, others, replaced=False)} x",
            }
        ),
    }


def speeds(found: Mapping[tuple[str, int, int], Mapping[str, Any]], models: Sequence[str], replaced: bool) -> str:
    """From the slowest to the fastest in any setting."""
    chosen = [row["speed"] for (model, _, _), row in found.items() if model in models and (model != OPENED) == replaced]
    return span(chosen, ".2f") if chosen else ""


BENCHMARK = register(
    "speed",
    Benchmark(
        name="decoding",
        add_arguments=add_arguments,
        measure=measure,
        tables=tables,
        quick={"set": [*TINY_TEXT], "tokens": 3, "rounds": 1},
    ),
)
