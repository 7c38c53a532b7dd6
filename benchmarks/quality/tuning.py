"""Tuning a whole student: which losses, targets and orders of replacing recover most, at equal epochs.

A student of slots is assembled from its taught blocks, as a study does it, and tuned on from there in each way, with
the same batches in the same order. What a way recovers is judged on the validation split alone. Beside the losses that
a study knows (``finetune``), two ways that it does not:

- gradually: the teacher's own attention stands at the decoder's sites until a quarter of the steps (self-attention) or
  half (cross-attention) is over, and until then the block there learns to do the same on the student's own states;
- own inputs: all the while each block also learns to do what the teacher's attention makes of the student's states.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

import leanformer as lf
from benchmarks.kit.benchmark import CPU, Benchmark, Result, add_runs, progress, register, runs_of
from benchmarks.kit.forms import TINY_EXAMPLE
from benchmarks.kit.observer import Observer
from benchmarks.kit.tables import Tables, figure_table, table
from benchmarks.quality.multi30k import STUDY
from leanformer.blocks.kit.inputs import BlockInputs
from leanformer.blocks.kit.site import Site
from leanformer.config.base import FinetuneConfig
from leanformer.core.errors import LeanformerError
from leanformer.core.files import make_directory, write_atomically
from leanformer.core.json_files import to_json
from leanformer.learn.losses import Batch, Loss, relative_error, tuning_loss
from leanformer.learn.observe import frozen_copy
from leanformer.learn.step import make_accelerator
from leanformer.learn.train import Trained, train
from leanformer.measure.attention import weights_of
from leanformer.model.family import find_family
from leanformer.model.stacks import real_tokens
from leanformer.model.students import reduce
from leanformer.model.surgery import module_at, sites
from leanformer.model.weights import parameter_count
from leanformer.tasks.base import open_task
from leanformer.tasks.translation import Translation


@dataclass(frozen=True)
class Way:
    """One way to tune.

    Args:
        finetune: Keys of ``finetune``, beside epochs and rate.
        rate: Times the rate of the others.
        gradually: Whether sites of the decoder are replaced on the way.
        own_inputs: Weight of each block's error on the student's own states.
    """

    finetune: dict[str, Any] = field(default_factory=dict)
    rate: float = 1.0
    gradually: bool = False
    own_inputs: float = 0.0


BOTH = {"cross_entropy": 1.0, "logits": 1.0}
WAYS = {
    "labels": Way({"cross_entropy": 1.0, "logits": 0.0}),
    "logits": Way({"cross_entropy": 0.0, "logits": 1.0}),
    "logits, temperature 1": Way({"cross_entropy": 0.0, "logits": 1.0, "temperature": 1.0}),
    "labels and logits": Way(BOTH),
    "half the rate": Way(BOTH, rate=0.5),
    "twice the rate": Way(BOTH, rate=2.0),
    "and hidden states": Way({**BOTH, "hidden_states": 1.0}),
    "gradually": Way(BOTH, gradually=True),
    "and own inputs": Way(BOTH, own_inputs=0.3),
    "teacher's translations": Way({**BOTH, "targets": "teacher"}),
    "teacher's translations, labels alone": Way({"cross_entropy": 1.0, "logits": 0.0, "targets": "teacher"}),
    "teacher's translations, twice the rate": Way({**BOTH, "targets": "teacher"}, rate=2.0),
}
"""What is compared; ``logits`` and ``labels`` as in the study file."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("--data", default="bentrevett/multi30k", help="Multi30k: a hub id or a local copy")
    parser.add_argument("--study", type=Path, default=STUDY, help="whose baseline is the teacher")
    parser.add_argument("--student", default="all-slots", help="its candidate that is tuned")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the order of the training data")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), metavar="WAY", help="by default all")
    parser.add_argument("--set", action="append", metavar="KEY=VALUE", default=[], help="a key of the study")
    add_runs(parser)


def attend(teacher: PreTrainedModel, site: Site, inputs: BlockInputs) -> torch.Tensor:
    """What the teacher's attention at a site makes of a student's states.

    Args:
        teacher: With open layers.
        site: Where.
        inputs: What the student's block is given.
    """
    module, family = module_at(teacher, site.name), find_family(teacher)
    assert module is not None
    attention = family.attention_weights(module)
    assert attention is not None
    weights = weights_of(family, site, module, inputs)
    assert weights is not None
    read = inputs.hidden_states if inputs.source is None else inputs.source
    values = read @ attention.value
    if attention.value_bias is not None:
        values = values + attention.value_bias
    heads = weights @ values.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
    mixed = heads.transpose(1, 2).flatten(2) @ attention.output
    return mixed if attention.output_bias is None else mixed + attention.output_bias


class Guide:
    """Has the teacher's attention beside a student's blocks while it is tuned.

    Args:
        teacher: With open layers, frozen.
        student: What is tuned; its blocks get hooks.
        way: How.
        steps: Training steps in all.
    """

    def __init__(self, teacher: PreTrainedModel, student: PreTrainedModel, way: Way, steps: int) -> None:
        self.teacher, self.way, self.steps = teacher, way, steps
        self._step = 0
        self._errors: list[torch.Tensor] = []
        self._masks: dict[bool, torch.Tensor] = {}  # by whether a site is the decoder's
        self._apart = False  # while a block is called for its own lesson
        for site in sites(student):
            if site.name in student.config.plan:
                module = module_at(student, site.name)
                assert module is not None
                self._watch(module, site)

    def _watch(self, block: nn.Module, site: Site) -> None:
        first = 0.0 if not self.way.gradually or not site.causal else 0.5 if site.reads_source else 0.25

        def hook(_: nn.Module, arguments: tuple[BlockInputs], __: torch.Tensor) -> torch.Tensor | None:
            replaced = self._step >= first * self.steps
            if self._apart or not block.training or (replaced and not self.way.own_inputs):
                return None
            (inputs,) = arguments
            with torch.set_grad_enabled(not replaced):
                wanted = attend(self.teacher, site, inputs)
            self._apart = True
            own = block(_detached(inputs))
            self._apart = False
            real = self._masks[site.causal]
            self._errors.append(relative_error(own[real], wanted.detach()[real]))
            return None if replaced else wanted

        block.register_forward_hook(hook)

    def guided(self, loss: Loss) -> Loss:
        """A loss with the blocks' own errors added."""

        def with_errors(student: Any, batch: Batch) -> Iterator[torch.Tensor]:
            source = real_tokens(batch["attention_mask"])
            assert source is not None
            self._masks = {True: batch["labels"] != -100, False: source}
            self._errors.clear()
            total = sum(loss(student, batch), torch.zeros(()))
            if self._errors:
                total = total + (self.way.own_inputs or 1.0) * torch.stack(self._errors).sum()
            self._step += 1
            yield total

        return with_errors


def _detached(inputs: BlockInputs) -> BlockInputs:
    source = None if inputs.source is None else inputs.source.detach()
    return replace(inputs, hidden_states=inputs.hidden_states.detach(), source=source)


def measure(arguments: argparse.Namespace) -> Result:
    """Validation quality of the teacher, of the student as taught, and of the student tuned in each way."""
    unknown = [name for name in arguments.ways if name not in WAYS]
    if unknown:
        raise LeanformerError(f"--ways: there is no way {unknown[0]!r}; ways: {', '.join(map(repr, WAYS))}")
    study = lf.read_study(arguments.study, [f"data.source={arguments.data}", *arguments.set])
    if arguments.student not in study.candidates:
        raise LeanformerError(f"--student: {arguments.study} has no candidate {arguments.student!r}")
    plain = study.model_dump(mode="json")
    plain["candidates"] = {arguments.student: study.candidates[arguments.student].model_dump(mode="json")}
    with runs_of("multi30k", arguments) as runs:
        lf.run(plain, runs)
        task = open_task(study, CPU)
        assert isinstance(task, Translation)
        teacher = lf.load(runs / "trials/baseline/seed-0/model")
        student = lf.load(runs / f"trials/{arguments.student}/seed-0/model")
        # Another teacher, as of other languages, leaves what was measured with this one alone.
        mark = hashlib.sha256((runs / "trials/baseline/seed-0/model/model.safetensors").read_bytes()).hexdigest()[:10]
        kept = runs / f"tuning-{mark}.json"
        rows: dict[str, Any] = _read(kept)
        for name, model in (("teacher", teacher), ("as taught", student)):
            if name not in rows:
                rows[name] = {"validation": task.validate(model, last=True)}
        for seed in arguments.seeds:
            for name in arguments.ways:
                key = f"{name}, seed {seed}, {arguments.epochs} epochs at {arguments.learning_rate:g}"
                if key not in rows:
                    progress(key)
                    way = _tuned(runs / f"answers-{mark}.json", task, teacher, student, name, seed, arguments)
                    rows = {**_read(kept), **rows, key: {"way": name, "seed": seed, **way}}
                    make_directory(kept.parent)
                    write_atomically(kept, to_json(rows))
        wanted = [row for key, row in rows.items() if row.get("way") in arguments.ways and _asked(key, arguments)]
        return {
            "parameters": {"teacher": parameter_count(teacher), "student": parameter_count(student)},
            "teacher": rows["teacher"],
            "as_taught": rows["as taught"],
            "rows": wanted,
        }


def _asked(key: str, arguments: argparse.Namespace) -> bool:
    return key.endswith(f", {arguments.epochs} epochs at {arguments.learning_rate:g}")


def _read(path: Path) -> dict[str, Any]:
    """What was measured before, by an earlier call that was cut off or by one beside this one."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def _tuned(
    answers: Path,
    task: Translation,
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    name: str,
    seed: int,
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    """Tunes a copy of the student in one way."""
    way = WAYS[name]
    rate = way.rate * arguments.learning_rate
    finetune = FinetuneConfig(epochs=arguments.epochs, learning_rate=rate, **way.finetune)
    student = copy.deepcopy(student).train()
    opened = frozen_copy(reduce(teacher, {}))
    batches, translating = task.batches, 0.0
    if finetune.targets == "teacher":
        targets, translating = _answers(answers, task, teacher, finetune.teacher_beam)
        batches = task.batches_with(targets)
    loss = tuning_loss(opened, finetune, task.study.train.label_smoothing)
    if way.gradually or way.own_inputs:
        loss = Guide(opened, student, way, arguments.epochs * batches.steps_per_epoch).guided(loss)
    config = task.study.train.model_copy(update={"average_last": None})
    started = time.process_time()
    trained: Trained = train(
        student, batches, config, rate, seed, Observer(task), make_accelerator("float32", CPU), None,
        arguments.epochs, loss,
    )  # fmt: skip
    return {
        "finetune": asdict(way),
        "status": trained.status,
        "reason": trained.reason,
        "epochs": trained.epochs,
        "validation": {key: value for key, value in trained.epochs[-1].items() if key.startswith("validation_")},
        "processor_seconds": time.process_time() - started,
        "translating_seconds": translating,
    }


def _answers(path: Path, task: Translation, teacher: PreTrainedModel, beam: int) -> tuple[Sequence[str], float]:
    """The teacher's translations of the training text, and the processor time that they took; kept in a file."""
    if not path.exists():
        started = time.process_time()
        answers = task.write_training(teacher, beam, lambda _: None)
        make_directory(path.parent)
        write_atomically(path, to_json({"answers": answers, "seconds": time.process_time() - started}))
    kept = json.loads(path.read_text(encoding="utf-8"))
    return kept["answers"], kept["seconds"]


def tables(result: Result) -> Tables:
    """Every way of tuning."""
    before, top = result["as_taught"]["validation"], result["teacher"]["validation"]
    rows = []
    for name in dict.fromkeys(row["way"] for row in result["rows"]):
        own = [row for row in result["rows"] if row["way"] == name]
        bleu, loss = (
            statistics.fmean([row["validation"][f"validation_{key}"] for row in own]) for key in ("bleu", "loss")
        )
        minutes = statistics.fmean([row["processor_seconds"] for row in own]) / 60
        translating = own[0]["translating_seconds"] / 60
        rows.append(
            (
                name,
                f"{bleu:.2f}",
                f"{bleu - before['validation_bleu']:+.2f}",
                f"{loss:.3f}",
                f"{minutes:.1f}" + (f" and {translating:.1f}" if translating else ""),
            )
        )
    known = (
        ("the teacher", f"{top['validation_bleu']:.2f}", "", f"{top['validation_loss']:.3f}", ""),
        ("as taught", f"{before['validation_bleu']:.2f}", "", f"{before['validation_loss']:.3f}", ""),
    )
    gap = top["validation_bleu"] - before["validation_bleu"]
    return {
        "ways": table(("way", "BLEU", "recovered", "loss", "minutes"), [*known, *rows]),
        "figures": figure_table({"BLEU that the student is behind its teacher, as taught": f"{gap:.2f}"}),
    }


BENCHMARK = register(
    "quality",
    Benchmark(
        name="tuning",
        add_arguments=add_arguments,
        measure=measure,
        tables=tables,
        quick={
            "study": Path("examples/number-words.yaml"),
            "data": "number-words",
            "student": "slots",
            "epochs": 1,
            "set": [
                "data.numbers={largest: 999, train: 60, validation: 10, test: 10}",
                *TINY_EXAMPLE,
            ],
            "ways": ["labels and logits", "gradually", "and own inputs", "teacher's translations"],
        },
    ),
)
