"""A translator's time a token while it writes: a teacher against its students, in turn, in one process.

Every model writes as many tokens of the same sentences, whatever it would say, so that only the time of a token
differs: greedy for one sentence and for 32 at once, and with a beam of 5 for 16. The first model is the one that the
others are compared with, and once more with its layers opened and nothing replaced; ratios are taken round by round.
What a model would say does not matter, so by default the models are fresh ones of benchmarks/multi30k.yaml: its
teacher, and students of slots, of the published networks and of a synthesizer. Trained ones are given by name:

    python -m benchmarks decoding teacher=runs/.../baseline/seed-0/model slots=runs/.../both-slots/seed-0/model
"""

from __future__ import annotations

import argparse
import statistics
from functools import partial
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

import leanformer as lf
from benchmarks.forms import TINY_TEXT
from benchmarks.measuring import in_turn, median_ratio, seconds
from benchmarks.multi30k import STUDY
from benchmarks.room import CPU, Benchmark, Result, progress, span, table
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
"""What is replaced -> the candidate of benchmarks/multi30k.yaml."""
FRESH = " The models are fresh: what they write does not matter here."
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
    """The task of benchmarks/multi30k.yaml with what the options set."""
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


def section(result: Result) -> str:
    """Models by settings."""
    settings = result["settings"]
    found = {(row["model"], row["sentences"], row["beam"]): row for row in result["rows"]}
    first, *others = dict.fromkeys(model for model, _, _ in found)
    runs = list(dict.fromkeys((sentences, beam) for _, sentences, beam in found))
    lines = [
        (f"nothing ({first})", *(f"{found[first, *run]['ms']:.2f} ms a token" for run in runs)),
        *((name, *(f"{found[name, *run]['speed']:.2f} x" for run in runs)) for name in others),
    ]
    header = ("replaced", *(f"sentences: {count}" + (f", beam {beam}" if beam > 1 else "") for count, beam in runs))
    return f"""\
A teacher with its cache of keys and values, against its students: each writes {settings["tokens"]} tokens
for the same sentences ({result["median_source_tokens"]:g} subwords in the median), rounds in turn:
{settings["rounds"]}, medians of the ratios. Above 1 is faster.{"" if settings["models"] else FRESH}

{table(header, lines)}

A sentence this short has fewer tokens than there are slots, and in a model this small a step is mostly the work
around its products. A student takes a shorter way through these than Hugging Face's own model, whatever stands in it:
the line of open layers has the same attention as the teacher. What slots give is a state that does not grow: K·d
numbers a layer at cross-attention and K·(d + h) in the decoder, whatever the length. The published networks keep sums
of a fixed size too."""


def summary(result: Result) -> str:
    """The slowest and the fastest student."""
    first = result["rows"][0]["model"]
    opened = [row["speed"] for row in result["rows"] if row["model"] == OPENED]
    students = [row["speed"] for row in result["rows"] if row["model"] not in (first, OPENED)]
    way = ""
    if opened:
        way = f", and with all of it left as it is, by a shorter way through the layers, {span(opened, '.2f')} times"
    return (
        "While they write short sentences, small translators whose attention is replaced have "
        f"{span(students, '.2f')} times their teacher's speed{way}."
    )


BENCHMARK = Benchmark(
    name="decoding",
    title="Time of a token while writing",
    add_arguments=add_arguments,
    measure=measure,
    section=section,
    quick={"set": [*TINY_TEXT], "tokens": 3, "rounds": 1},
    summary=summary,
)
