"""A translator's time a token while it writes: a teacher against its students, in turn, in one process.

    python benchmarks/decoding.py --data ../shared/data/multi30k --source-language de --target-language en \\
        teacher=runs/multi30k/trials/baseline/seed-0/model slots=runs/multi30k/trials/both-slots/seed-0/model \\
        --out benchmarks/results/decoding.json

Every model writes as many tokens of the same sentences, whatever it would say, so that only the time of a token
differs: greedy for one sentence and for 32 at once, and with a beam of 5 for 16. The first model is the one that the
others are compared with; ratios are taken round by round.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch
from torch.nn.utils.rnn import pad_sequence

import leanformer as lf
from leanformer.config import TextDataConfig
from leanformer.data.text import load_text
from leanformer.data.tokenizers import TranslationTokenizer
from leanformer.files import write_atomically
from leanformer.machine import environment, threads
from leanformer.progress import quiet_libraries
from leanformer.rundir import to_json

SETTINGS = ((1, 1), (32, 1), (16, 5))  # sentences, beam


@torch.inference_mode()
def main() -> None:
    """Measures, prints a table, writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="NAME=DIRECTORY")
    parser.add_argument("--data", required=True)
    parser.add_argument("--source-language", default="de")
    parser.add_argument("--target-language", default="en")
    parser.add_argument("--tokens", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    directories = dict(model.split("=", 1) for model in arguments.models)
    with quiet_libraries(), threads(arguments.threads):
        models = {name: lf.load(directory) for name, directory in directories.items()}
        tokenizer = TranslationTokenizer.load(next(iter(directories.values())))
        data = TextDataConfig(
            source=arguments.data,
            source_language=arguments.source_language,
            target_language=arguments.target_language,
            train_limit=1,
        )
        sentences = load_text(data).test.sources
        rows = []
        for count, beam in SETTINGS:
            encoded = [torch.tensor(ids) for ids in tokenizer.encode_source(list(sentences[:count]))]
            ids = pad_sequence(encoded, batch_first=True, padding_value=tokenizer.pad_id)
            mask = pad_sequence([torch.ones_like(one) for one in encoded], batch_first=True)

            def seconds(
                model: torch.nn.Module, ids: torch.Tensor = ids, mask: torch.Tensor = mask, beam: int = beam
            ) -> float:
                started = time.perf_counter()
                model.generate(  # type: ignore[operator]
                    ids,
                    attention_mask=mask,
                    num_beams=beam,
                    do_sample=False,
                    min_new_tokens=arguments.tokens,
                    max_new_tokens=arguments.tokens,
                )
                return (time.perf_counter() - started) / arguments.tokens

            for model in models.values():
                seconds(model)
            taken: dict[str, list[float]] = {name: [] for name in models}
            for _ in range(arguments.rounds):
                for name, model in models.items():
                    taken[name].append(seconds(model))
            first = next(iter(taken.values()))
            for name, values in taken.items():
                ratio = statistics.median(base / value for base, value in zip(first, values, strict=True))
                median = 1000 * statistics.median(values)
                rows.append({"model": name, "sentences": count, "beam": beam, "ms": median, "speed": ratio})
                print(f"{count:3} sentences, beam {beam}: {name:24} {median:7.2f} ms a token, {ratio:.2f} x")
    if arguments.out:
        settings = {"tokens": arguments.tokens, "rounds": arguments.rounds, "threads": torch.get_num_threads()}
        kept = {"environment": environment(torch.device("cpu"), "float32"), **settings, "rows": rows}
        write_atomically(arguments.out, to_json(kept))


if __name__ == "__main__":
    main()
