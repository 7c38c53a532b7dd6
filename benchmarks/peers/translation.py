"""Translation on a CPU against CTranslate2: one sentence at a time and batches of 32, greedy.

The teacher by Hugging Face's ``generate``, the same teacher converted for CTranslate2 in float32 and int8, and students
by ``generate``: subword ids in, subword ids out, so that the tokenizer, which all share, is not in the times. All write
until their end marks, or with ``--tokens`` as many tokens, whatever they would say. Ways are measured in turn, ratios
taken round by round, medians kept; memory is what loading a model and translating a batch adds to a new process that
has imported both libraries. Where the time of ``generate`` goes is told by clocks around encoder and decoder, and by
PyTorch's profiler, which slows small operators down more than large ones.

By default the models are fresh ones of multi30k.yaml, whose times say what those of trained ones do where
all write the same number of tokens. Trained ones are given by name, the teacher first; of those BLEU is measured too:

    python -m benchmarks peers_translation teacher=runs/.../baseline/seed-0/model all=runs/.../all-slots/seed-0/model
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

import leanformer as lf
from benchmarks.kit.benchmark import Benchmark, Result, progress, register
from benchmarks.kit.forms import TINY_TEXT
from benchmarks.kit.measuring import in_turn, median_ratio, seconds
from benchmarks.kit.processes import add_memory_option, megabytes, runner
from benchmarks.kit.profiling import time_by_kind
from benchmarks.kit.tables import Tables, figure_table, table
from benchmarks.peers.libraries import peer, versions
from benchmarks.speed.decoding import open_models, open_task
from leanformer.core.errors import LeanformerError
from leanformer.measure.translation import Translations
from leanformer.model.weights import parameter_count

Ids = list[list[int]]
"""The subwords of sentences: a source's with its end mark, a translation's without."""
Way = Callable[[Ids], Ids]

QUANTIZATIONS = ("float32", "int8")
BATCH = 32
MOST_TOKENS = 100  # of a translation that does not end
FRESH_TOKENS = 20  # that fresh models write, which never end a sentence


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("models", nargs="*", metavar="NAME=DIRECTORY", help="trained ones; by default fresh ones")
    parser.add_argument(
        "--data", default="bentrevett/multi30k", help="Multi30k: a hub id or a local copy in its layout"
    )
    parser.add_argument("--set", action="append", metavar="KEY=VALUE", default=[], help="a key of multi30k.yaml")
    parser.add_argument(
        "--tokens",
        type=int,
        help=f"that every model writes; by default until its end mark, of fresh ones {FRESH_TOKENS}",
    )
    parser.add_argument("--single", type=int, default=16, help="sentences that are translated one at a time")
    parser.add_argument("--batches", type=int, default=2, help=f"batches of {BATCH} sentences")
    parser.add_argument("--rounds", type=int, default=9)
    add_memory_option(parser)


# The two libraries


def generating(model: PreTrainedModel, tokens: int | None) -> Way:
    """Hugging Face's ``generate``, greedy.

    Args:
        model: A translator.
        tokens: It writes so many; None: until the end mark.
    """
    pad, end = model.config.pad_token_id, model.config.eos_token_id

    def translate(sources: Ids) -> Ids:
        rows = [torch.tensor(ids) for ids in sources]
        with torch.inference_mode():
            written = model.generate(
                pad_sequence(rows, batch_first=True, padding_value=pad),
                attention_mask=pad_sequence([torch.ones_like(row) for row in rows], batch_first=True),
                num_beams=1,
                do_sample=False,
                min_new_tokens=tokens,
                max_new_tokens=tokens or MOST_TOKENS,
            )
        without_start = [row[1:] for row in written.tolist()]
        return [row[: row.index(end)] if end in row else row for row in without_start]

    return translate


def convert(model: PreTrainedModel, directory: Path, quantization: str) -> None:
    """Writes a Marian teacher in CTranslate2's format, with its ids in place of subwords.

    CTranslate2's own converter of Marian models takes the last subword for padding, drops it, and starts the decoder
    from a zero vector. Here padding is a subword like others, whose embedding the decoder starts from.

    Args:
        model: From Hugging Face's own class, not a student.
        directory: Where to; it is made.
        quantization: One of ``QUANTIZATIONS``.

    Raises:
        LeanformerError: The model is none of Marian's; CTranslate2 is not installed.
    """
    if model.config.model_type != "marian":
        raise LeanformerError(
            f"the first model is of type {model.config.model_type}; CTranslate2 is measured with a marian teacher, "
            "which comes first"
        )
    peer("ctranslate2", "ctranslate2")
    loaders: Any = peer("ctranslate2.converters.transformers", "ctranslate2")
    model = copy.deepcopy(model)
    config = model.config
    config.normalize_before = config.normalize_embedding = False  # what the loader reads and a Marian's has not
    with torch.no_grad():
        spec = loaders.BartLoader().get_model_spec(model)
    spec.register_source_vocabulary([str(token) for token in range(config.vocab_size)])
    spec.register_target_vocabulary([str(token) for token in range(config.decoder_vocab_size)])
    end = str(config.eos_token_id)
    spec.config.bos_token = spec.config.unk_token = spec.config.eos_token = end
    spec.config.decoder_start_token = str(config.decoder_start_token_id)
    spec.validate()
    spec.optimize(quantization=quantization)
    directory.mkdir(parents=True)
    spec.save(str(directory))


def ctranslating(directory: Path | str, quantization: str, tokens: int | None) -> Way:
    """CTranslate2, greedy, with as many threads as PyTorch."""
    translator = peer("ctranslate2", "ctranslate2").Translator(
        str(directory),
        device="cpu",
        compute_type=quantization,
        inter_threads=1,
        intra_threads=torch.get_num_threads(),
    )

    def translate(sources: Ids) -> Ids:
        results = translator.translate_batch(
            [[str(token) for token in ids] for ids in sources],
            beam_size=1,
            min_decoding_length=tokens or 1,
            max_decoding_length=tokens or MOST_TOKENS,
        )
        return [[int(token) for token in result.hypotheses[0]] for result in results]

    return translate


# Where the time goes


def time_by_part(model: PreTrainedModel, action: Callable[[], object], rounds: int) -> dict[str, float]:
    """The shares of encoder, decoder (with the output layer) and ``generate`` itself in a translation's time.

    Args:
        model: The translator.
        action: Has it translate.
        rounds: How often.
    """
    spent = {"encoder": 0.0, "decoder": 0.0}
    started = dict.fromkeys(spent, 0.0)

    def begin(part: str, *_: object) -> None:
        started[part] = time.perf_counter()

    def end(part: str, *_: object) -> None:
        spent[part] += time.perf_counter() - started[part]

    with ExitStack() as hooks:
        # In generate the encoder runs once, before and outside the model's own forward passes.
        for part, module in (("encoder", model.get_encoder()), ("decoder", model)):
            hooks.callback(module.register_forward_pre_hook(partial(begin, part)).remove)
            hooks.callback(module.register_forward_hook(partial(end, part)).remove)
        whole = sum(seconds(action) for _ in range(rounds))
    return {**{part: own / whole for part, own in spent.items()}, "generate": 1 - sum(spent.values()) / whole}


# Measuring


def loaded(kind: str, directory: str, sources: Ids, tokens: int | None) -> None:
    """Loads a model and translates a batch: what memory is measured of."""
    way = generating(lf.load(directory), tokens) if kind == "generate" else ctranslating(directory, kind, tokens)
    way(sources)


def run_all(way: Way, batches: Sequence[Ids]) -> Ids:
    """The translations of several batches, one behind the other."""
    return [ids for batch in batches for ids in way(batch)]


def cut(sources: Ids, size: int) -> list[Ids]:
    """Sentences in batches."""
    return [sources[start : start + size] for start in range(0, len(sources), size)]


def measure(arguments: argparse.Namespace) -> Result:
    """Times, memory, sizes, quality and agreement of all ways."""
    peer("ctranslate2", "ctranslate2")  # before minutes of work
    task = open_task(arguments)
    models, tokenizer = open_models(arguments, task)
    trained = bool(arguments.models)
    tokens = arguments.tokens or (None if trained else FRESH_TOKENS)
    test = task.data.test
    sources: Ids = tokenizer.encode_source(list(test.sources))
    teacher, *students = models
    run = runner(arguments)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        ways: dict[str, Way] = {}
        places: dict[str, tuple[str, Path]] = {}
        for model_name, model in models.items():
            lf.save(model, directory / model_name)
            places[model_name] = ("generate", directory / model_name)
            ways[model_name] = generating(model.eval(), tokens)
        converted = {}
        for quantization in QUANTIZATIONS:
            label = f"{teacher}, CTranslate2 {quantization}"
            converted[quantization] = label
            places[label] = (quantization, directory / label)
            convert(models[teacher], directory / label, quantization)
            ways[label] = ctranslating(directory / label, quantization, tokens)
        # A mixture of lengths, whatever order the text is in.
        count = BATCH * arguments.batches
        chosen = [sources[index] for index in np.linspace(0, len(sources) - 1, count).astype(int)]
        judged = sources if trained and tokens is None else chosen
        written = {name: run_all(way, cut(judged, BATCH)) for name, way in ways.items()}
        settings = {"1": [[ids] for ids in chosen[: arguments.single]], str(BATCH): cut(chosen, BATCH)}
        taken = {
            setting: in_turn(
                {name: partial(seconds, partial(run_all, way, batches)) for name, way in ways.items()}, arguments.rounds
            )
            for setting, batches in settings.items()
        }
        progress("times: done")
        rows = []
        for name, way in ways.items():
            kind, place = places[name]
            _, memory = run(loaded, kind, str(place), chosen[:BATCH], tokens, imports=("ctranslate2",))
            rows.append(
                {
                    "way": name,
                    "parameters": parameter_count(models[name if name in models else teacher]),
                    "file_bytes": max(path.stat().st_size for path in place.iterdir()),
                    "resident_mb": memory,
                    "bleu": _bleu(written[name], test.sources, test.targets, tokenizer) if judged is sources else None,
                    "same_as_teacher": sum(
                        own == other for own, other in zip(written[name], written[teacher], strict=True)
                    ),
                    "tokens": {setting: sum(map(len, run_all(way, own))) for setting, own in settings.items()},
                    "times": {
                        setting: {
                            "ms_a_sentence": 1000 * statistics.median(found[name]) / sum(map(len, settings[setting])),
                            "speed": median_ratio(found[teacher], found[name]),
                            "times_ctranslate2": median_ratio(found[name], found[converted["float32"]]),
                            "rounds": found[name],
                        }
                        for setting, found in taken.items()
                    },
                }
            )
        shares = []
        for name in (teacher, *students[-1:]):
            for setting, batches in settings.items():
                action = partial(run_all, ways[name], batches)
                shares.append(
                    {
                        "way": name,
                        "sentences": setting,
                        "parts": time_by_part(models[name], action, arguments.rounds),
                        "kinds": time_by_kind(action),
                    }
                )
    return {
        "peers": versions("ctranslate2"),
        "trained": trained,
        "written_tokens": tokens,
        "judged": len(judged),
        "median_source_tokens": statistics.median(map(len, chosen)),
        "rows": rows,
        "shares": shares,
    }


def _bleu(written: Ids, sources: Sequence[str], references: Sequence[str], tokenizer: Any) -> float:
    return Translations(tuple(sources), tuple(references), tuple(tokenizer.decode(written))).score("bleu")


# The page


def tables(result: Result) -> Tables:
    """Every way, and where the time goes."""
    rows = result["rows"]
    settings = tuple(rows[0]["times"])

    def line(row: Mapping[str, Any]) -> tuple[str, ...]:
        times = [row["times"][setting] for setting in settings]
        return (
            row["way"],
            f"{row['parameters']:,}",
            *(
                f"{one['ms_a_sentence']:.2f} ms, {one['speed']:.2f} x, {one['times_ctranslate2']:.1f} x the time"
                for one in times
            ),
            f"{row['file_bytes'] / 1e6:.1f} MB",
            megabytes(row["resident_mb"]),
            f"{row['same_as_teacher']:,}",
            "" if row["bleu"] is None else f"{row['bleu']:.2f}",
        )

    names = {setting: "one at a time" if setting == "1" else f"batches of {setting}" for setting in settings}
    header = (
        "way",
        "parameters",
        *names.values(),
        "file",
        "memory",
        f"same as the teacher's, of {result['judged']:,}",
        "BLEU",
    )
    kinds = list(result["shares"][0]["kinds"])
    parts = list(result["shares"][0]["parts"])
    shares = [
        (
            one["way"],
            one["sentences"],
            *(f"{one['parts'][part]:.0%}" for part in parts),
            *(f"{one['kinds'][kind]:.0%}" for kind in kinds),
        )
        for one in result["shares"]
    ]
    return {
        "ways": table(header, [line(row) for row in rows]),
        "time": table(("way", "sentences", *parts, *kinds), shares),
        "figures": figure_table(
            {
                "CTranslate2": result["peers"]["ctranslate2"],
                "subwords of a test sentence, median": f"{result['median_source_tokens']:g}",
            }
        ),
    }


BENCHMARK = register(
    "peers",
    Benchmark(
        name="peers_translation",
        add_arguments=add_arguments,
        measure=measure,
        tables=tables,
        quick={"set": [*TINY_TEXT], "tokens": 5, "single": 2, "batches": 1, "rounds": 1, "no_memory": True},
    ),
)
