"""Keys of a study file that would do nothing: each is a mistake, because its writer expects an effect.

A key that has its default is accepted: the study file in a run directory writes every default out. ``epochs: 0`` is
accepted too: it switches a training off, and the other keys of its section may stay for the next time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import BaseModel

if TYPE_CHECKING:
    from leanformer.config.base import CandidateConfig, FinetuneConfig, Study


def check_effects(study: Study) -> None:
    """Makes sure that every key that a study gives can have an effect, as far as the study file shows.

    Raises:
        ValueError: A key cannot, or two candidates are the same.
    """
    for name, why in _without_effect(study):
        raise ValueError(f"{name} does nothing here: {why}; leave it out")
    seen: dict[str, str] = {}
    for name, candidate in study.candidates.items():
        other = seen.setdefault(_recipe(study, candidate), name)
        if other != name:
            raise ValueError(f"candidates.{other} and candidates.{name} are the same; leave one of them out")


def _without_effect(study: Study) -> Iterator[tuple[str, str]]:
    yield from study.data.without_effect()
    yield from study.accept.without_effect()
    yield from study.without_effect()
    train = study.train
    if study.baseline.seeds is not None and train.epochs == 0:
        yield "baseline.seeds", "train.epochs is 0, so that the baseline is not trained"
    if study.baseline.seeds is not None and all(one.method == "distill" for one in study.candidates.values()):
        yield "baseline.seeds", "every candidate is distilled, and compared with its teacher of the same seed"
    if train.search_epochs is not None and len(train.learning_rate) == 1:
        yield "train.search_epochs", "there is one learning rate, and nothing to search"
    if train.average_last is not None and train.epochs and train.average_last > train.epochs:
        yield f"train.average_last {train.average_last}", _number_of(train.epochs)
    distilled = {name: candidate for name, candidate in study.candidates.items() if candidate.method == "distill"}
    if study.data.unlabelled is not None and not distilled:
        yield "data.unlabelled", "only students learn from it, and no candidate has method: distill"
    if _given(study.distill) and not distilled:
        yield "distill", "no candidate has method: distill"
    if (
        _given(study.finetune)
        and study.finetune.epochs
        and all(candidate.finetune is not None for candidate in distilled.values())
    ):
        why = "every distilled candidate has a finetune of its own" if distilled else "no candidate has method: distill"
        yield "finetune", why
    yield from _of_finetune("finetune", study.finetune, study.writes)
    for name, candidate in distilled.items():
        if candidate.finetune is not None:
            yield from _of_finetune(f"candidates.{name}.finetune", candidate.finetune, study.writes)


def _of_finetune(where: str, finetune: FinetuneConfig, writes: bool) -> Iterator[tuple[str, str]]:
    if not finetune.epochs:
        return
    defaults = type(finetune)()
    if finetune.temperature != defaults.temperature and not finetune.logits:
        yield f"{where}.temperature", "logits is 0"
    from_data = finetune.targets == "data" or (finetune.targets == "auto" and not writes)
    if finetune.teacher_beam != defaults.teacher_beam and from_data:
        yield f"{where}.teacher_beam", "the targets are the data's"
    if finetune.average_last is not None and finetune.average_last > finetune.epochs:
        yield f"{where}.average_last {finetune.average_last}", _number_of(finetune.epochs)


def _number_of(epochs: int) -> str:
    return "there is one epoch" if epochs == 1 else f"there are {epochs} epochs"


def _given(section: BaseModel) -> bool:
    """Whether a section says anything but its defaults."""
    return section != type(section)()


def _recipe(study: Study, candidate: CandidateConfig) -> str:
    """What a candidate's model depends on; the order of a plan's patterns counts, that of arguments does not."""
    plan = [
        [pattern, json.dumps({"block": entry} if isinstance(entry, str) else entry, sort_keys=True)]
        for pattern, entry in candidate.plan.items()
    ]
    finetune = None
    if candidate.method == "distill":
        finetune = (candidate.finetune or study.finetune).model_dump(mode="json")
    return json.dumps([plan, candidate.method, finetune])
