"""``lf.plan_test``: how many test examples and seeds a margin needs, from stated assumptions or from a pilot."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import AfterValidator, Field

from leanformer.core.errors import LeanformerError, quoted
from leanformer.core.fields import Mean, NonNegative, Section, no_repeats
from leanformer.core.files import make_directory, write_atomically
from leanformer.core.json_files import to_json
from leanformer.core.paths import as_path, check_directory, check_file
from leanformer.decide.decision import POWER
from leanformer.decide.power import FEWEST, MOST, Assumed, Level, least_examples, least_without_losses, levels, power
from leanformer.report.power import write_page
from leanformer.results.formats import confidence as as_percent
from leanformer.results.metrics import METRICS, MeanMetric, Metric, judging

if TYPE_CHECKING:
    from leanformer.study.pilot import Pilot

JSON, PAGE = "plan-test.json", "plan-test.html"
SEEDS = (1, 3, 5, 10)
LOOKS = 2
CHURN = 0.5
CONFIDENCE = 0.95
CURVE = 25
"""Points of a curve."""


@dataclass(frozen=True)
class PlannedTest:
    """What a test needs.

    Args:
        results: The content of ``plan-test.json``.
        json: That file; None where no directory was given.
        page: The page with the curves; None where no directory was given.
    """

    results: dict[str, Any]
    json: Path | None
    page: Path | None


class Assumptions(Section):
    """What ``plan_test`` is given, checked; its docstring says what each is."""

    metric: str | None
    quality: NonNegative | None
    margin: NonNegative | None
    drop: Annotated[float, Field(ge=-1e9, le=1e9)]
    disagree: Mean | None
    deviation: NonNegative | None
    luck: NonNegative | None
    churn: Mean | None
    correlation: Annotated[float, Field(ge=-1, le=1)] | None
    candidates: Annotated[int, Field(ge=1, le=1000)] | None
    looks: Annotated[int, Field(ge=1, le=5)] | None
    confidence: Annotated[float, Field(gt=0.5, lt=1)] | None
    seeds: (
        Annotated[
            tuple[Annotated[int, Field(ge=1, le=1000)], ...], Field(min_length=1), AfterValidator(no_repeats("seeds"))
        ]
        | None
    )
    group_size: Annotated[float, Field(ge=1, le=1e6)]
    intraclass: Mean
    candidate: str | None


@dataclass(frozen=True)
class _Plan:
    """All that is known when the search begins."""

    metric: Metric
    quality: float
    margin: float
    confidence: float
    candidates: int
    looks: int
    seeds: Sequence[int]
    assumed: Assumed
    sentences: Sequence[str]


def plan_test(
    *,
    metric: str | None = None,
    quality: float | None = None,
    margin: float | None = None,
    drop: float = 0.0,
    disagree: float | None = None,
    deviation: float | None = None,
    luck: float | None = None,
    churn: float | None = None,
    correlation: float | None = None,
    candidates: int | None = None,
    looks: int | None = None,
    confidence: float | None = None,
    seeds: Sequence[int] | None = None,
    group_size: float = 1.0,
    intraclass: float = 0.0,
    pilot: str | PathLike[str] | Sequence[str | PathLike[str]] | None = None,
    candidate: str | None = None,
    columns: Mapping[str, str] | None = None,
    tokenizer: str = "auto",
    directory: str | PathLike[str] | None = None,
) -> PlannedTest:
    """How many test examples, and how many seeds, a margin needs for a power of 80 %.

    Values are those of the metric as a study file has them: an accuracy of 95 % is 0.95, and 30 BLEU are 30.

    Args:
        metric: The metric's key; by default accuracy, or the pilot's.
        quality: The baseline's quality; needed without a pilot.
        margin: The study's ``accept.max_drop``; by default the metric's, or the pilot's.
        drop: The candidate's true drop, for which the power is asked; less than the margin.
        disagree: The share of the test examples that one of two trained models gets right and the other wrong. By
            default the rarer of right and wrong answers, or the drop where that is more: as if half of each model's
            errors were the other's too.
        deviation: For a metric that is no share of right answers, such as BLEU: the standard deviation of an example's
            contribution to the difference. Its square, divided by the number of examples, is the variance of the
            difference.
        luck: The standard deviation of a training's true quality from seed to seed. Without it, nothing is said about
            several seeds.
        churn: The part of the examples' variance that is another with each training, so that further seeds average it
            out, from 0 to 1; by default one half.
        correlation: For students that are compared with their own teachers: the correlation of a student's quality with
            its teacher's, from seed to seed. None: seeds are not paired.
        candidates: Candidates that are decided together; by default 1, or the pilot's.
        looks: The planned looks at the test split; by default 2, or the pilot's.
        confidence: By default 0.95, or the pilot's.
        seeds: The numbers of seeds that are considered; 1 is one trained pair, such as two exported models. By default
            1, 3, 5 and 10 where luck is known, else 1.
        group_size: Examples in a group on average, such as sentences of a document; 1: examples are independent.
        intraclass: The correlation of two examples' differences within a group.
        pilot: What has predictions that give the variances: the run directory of an earlier study, or two files of
            predictions as ``lf.compare`` reads them, the baseline's first.
        candidate: The candidate of the run directory; by default the one whose differences vary most.
        columns: What a column of the two files holds (``id``, ``label`` ...) -> its name, where that is another one.
        tokenizer: sacreBLEU's tokenizer that counts the words of the two files; by default the one that suits the
            references' script. A run directory has its own.
        directory: Where ``plan-test.json`` and ``plan-test.html`` go; None: nowhere.

    Raises:
        LeanformerError: An argument is wrong or does nothing, the pilot cannot be read, or no number of examples can
            show the margin.
    """
    path = None if directory is None else as_path(directory, "directory")
    given = Assumptions(
        metric=metric,
        quality=quality,
        margin=margin,
        drop=drop,
        disagree=disagree,
        deviation=deviation,
        luck=luck,
        churn=churn,
        correlation=correlation,
        candidates=candidates,
        looks=looks,
        confidence=confidence,
        seeds=tuple(seeds) if isinstance(seeds, list) else seeds,  # type: ignore[arg-type]
        group_size=group_size,
        intraclass=intraclass,
        candidate=candidate,
    )
    if path is not None:
        check_directory(path)
        for name in (JSON, PAGE):
            check_file(path / name)
    if given.group_size == 1 and given.intraclass:
        raise LeanformerError("intraclass does nothing here: there are no groups; give group_size too")
    read = _read(given, pilot, columns, tokenizer)
    plan = _as_stated(given) if read is None else _from_pilot(given, read)
    found = levels(plan.confidence, plan.candidates, plan.looks)
    results = _results(plan, found, read)
    if path is None:
        return PlannedTest(results, None, None)
    results["curves"] = _curves(plan, found, results["plans"])
    make_directory(path)
    write_atomically(path / JSON, to_json(results))
    return PlannedTest(results, path / JSON, write_page(results, path / PAGE))


def _as_stated(given: Assumptions) -> _Plan:
    """The plan from stated assumptions.

    Raises:
        LeanformerError: One is missing, does nothing, or does not fit the others.
    """
    if given.candidate is not None:
        raise LeanformerError("candidate does nothing here: it is one of a pilot; give pilot too")
    metric = _metric(given.metric or judging("labels")[0].key)
    if given.quality is None:
        raise LeanformerError("quality is missing: give the baseline's quality, such as 0.95, or a pilot")
    if given.quality > metric.greatest:
        raise LeanformerError(f"quality {given.quality:g}: {metric.name} goes from 0 to {metric.greatest:g}")
    if given.luck is None:
        for name, value in (("churn", given.churn), ("correlation", given.correlation)):
            if value is not None:
                raise LeanformerError(f"{name} does nothing here: it is about several seeds; give luck too")
    variance, sentence = _variance(given, metric, given.quality)
    sentences = [f"The baseline has {metric.value(given.quality)}; {sentence}."]
    churn = CHURN if given.churn is None else given.churn
    luck: tuple[float, ...] = ()
    arms = 2 if given.correlation is None else 1
    if given.luck is not None:
        luck = (given.luck**2,) * 2 if given.correlation is None else (2 * given.luck**2 * (1 - given.correlation),)
        teacher = "" if given.correlation is None else f", correlated by {given.correlation:g} with its teacher's"
        sentences.append(
            f"A model's true quality varies from seed to seed with a standard deviation of "
            f"{metric.margin(given.luck)}{teacher}; {as_percent(churn)} of the examples' variance is another with each "
            "training."
        )
    assumed = Assumed(
        drop=given.drop,
        examples=(1 - churn) * variance,
        interaction=(churn * variance / arms,) * arms,
        luck=luck,
        largest=metric.greatest,
        point=_point(metric, given.quality),
        outcomes=_counts(metric),
        group_size=given.group_size,
        intraclass=given.intraclass,
    )
    return _plan(given, metric, given.quality, assumed, sentences, None)


def _variance(given: Assumptions, metric: Metric, quality: float) -> tuple[float, str]:
    """The variance of an example's difference between two trained models, and in words what it follows from.

    Raises:
        LeanformerError: It cannot be found, or not for these models.
    """
    if not _counts(metric):
        if given.disagree is not None:
            raise LeanformerError(f"disagree does nothing for {metric.name}; give deviation, or a pilot")
        if given.deviation is None:
            raise LeanformerError(
                f"deviation is missing: {metric.name} is no share of right answers; give the standard deviation of an "
                "example's contribution to the difference, or a pilot"
            )
        words = metric.margin(given.deviation)
        return given.deviation**2, f"an example's contribution to the difference has a standard deviation of {words}"
    if given.deviation is not None:
        raise LeanformerError(f"deviation does nothing for {metric.name}; give disagree, or a pilot")
    rarer = min(quality, metric.greatest - quality)
    disagree = max(rarer, abs(given.drop)) if given.disagree is None else given.disagree
    lost, gained = (disagree + given.drop) / 2, (disagree - given.drop) / 2
    if lost < 0 or gained < 0:
        raise LeanformerError(
            f"disagree {disagree:g} is less than the drop {given.drop:g}: models differ on as many examples at least"
        )
    if lost > quality or gained > 1 - quality + 1e-12:
        raise LeanformerError(
            f"disagree {disagree:g}: with quality {quality:g} and drop {given.drop:g} two models cannot differ on so "
            "many examples"
        )
    return disagree - given.drop**2, f"baseline and candidate differ on {as_percent(disagree)} of the examples"


def _read(given: Assumptions, pilot: object, columns: Mapping[str, str] | None, tokenizer: str) -> Pilot | None:
    """The pilot: a run directory's, or that of two files of predictions; None where there is none.

    Raises:
        LeanformerError: It cannot be read, or an argument does nothing with it.
    """
    files = isinstance(pilot, list | tuple) and len(pilot) > 1
    for name, unset in (("columns", columns is None), ("tokenizer", tokenizer == "auto")):
        if not files and not unset:
            raise LeanformerError(f"{name} does nothing here: it is about two files of predictions; give them as pilot")
    if pilot is None:
        return None
    paths = [as_path(path, "pilot") for path in (pilot if isinstance(pilot, list | tuple) else [pilot])]
    if not 1 <= len(paths) <= 2:
        raise LeanformerError(f"pilot: give a run directory or two files of predictions, not {len(paths)} paths")
    for name in ("quality", "disagree", "deviation", "luck", "churn", "correlation"):
        if getattr(given, name) is not None:
            raise LeanformerError(f"{name} does nothing here: the pilot says it; give either")
    if files and given.candidate is not None:
        raise LeanformerError("candidate does nothing here: the second file of predictions is the candidate's")
    # Reads PyTorch, which takes seconds and is not needed otherwise.
    from leanformer.study.pilot import read_pilot, read_pilot_files

    if files:
        return read_pilot_files(paths, given.metric, columns, tokenizer)
    if paths[0].is_file():
        raise LeanformerError(f"pilot {paths[0]}: is one file; give two files of predictions, or a run directory")
    return read_pilot(paths[0], given.metric, given.candidate)


def _from_pilot(given: Assumptions, pilot: Pilot) -> _Plan:
    """The plan from predictions that there are.

    Raises:
        LeanformerError: An assumption is given that the pilot replaces, or the pilot does not say what is needed.
    """
    metric, found = pilot.metric, pilot.components
    if pilot.group_size > 1 < given.group_size:
        raise LeanformerError("group_size does nothing here: the pilot says it; give either")
    group_size, intraclass = (
        (pilot.group_size, pilot.intraclass) if pilot.group_size > 1 else (given.group_size, given.intraclass)
    )
    several = pilot.seeds > 1
    assumed = Assumed(
        drop=given.drop,
        examples=found.examples,
        interaction=found.interaction,
        luck=tuple(max(0.0, between) for between in found.seeds) if several else (),
        largest=metric.greatest,
        point=_point(metric, pilot.quality),
        outcomes=_counts(metric),
        group_size=group_size,
        intraclass=intraclass,
    )
    sentences = [
        f"From {found.num_examples:,} test examples and {pilot.seeds} seed{'s' if several else ''} of "
        f"{pilot.described}: an example's difference has a standard deviation of "
        f"{metric.margin(_digits(assumed.of_one_pair**0.5))}."
    ]
    if several:
        luck = sum(assumed.luck) ** 0.5
        sentences.append(
            f"From training to training the difference has a standard deviation of {metric.margin(_digits(luck))}, as "
            f"{pilot.seeds} seeds show."
        )
    return _plan(given, metric, pilot.quality, assumed, sentences, pilot)


def _plan(
    given: Assumptions,
    metric: Metric,
    quality: float,
    assumed: Assumed,
    sentences: Sequence[str],
    pilot: Pilot | None,
) -> _Plan:
    """The whole plan, checked.

    Args:
        given: What was given.
        metric: The metric.
        quality: The baseline's.
        assumed: The variances.
        sentences: These in words.
        pilot: Its study's margin and numbers are the defaults; None without a pilot.

    Raises:
        LeanformerError: The margin cannot be shown, or there is nothing on several seeds.
    """
    accept = {} if pilot is None else pilot.accept
    if given.margin is None and accept.get("max_ratio") is not None:
        raise LeanformerError(
            "margin is missing: the pilot's is a share of the baseline's errors, and plans are for drops; give one, "
            f"such as {metric.max_drop:g}"
        )
    margin = accept.get("max_drop", metric.max_drop) if given.margin is None else given.margin
    if margin >= metric.greatest:
        raise LeanformerError(f"margin {margin:g}: {metric.name} goes from 0 to {metric.greatest:g}; give less")
    if given.drop >= margin:
        raise LeanformerError(
            f"drop {given.drop:g} is not less than the margin {margin:g}: no number of examples can show it"
        )
    seeds = given.seeds or (SEEDS if assumed.luck else (1,))
    if max(seeds) > 1 and not assumed.luck:
        remedy = "give luck, or a pilot with several" if pilot is None else "take one with several"
        raise LeanformerError(
            f"seeds {max(seeds)}: how much trainings differ from seed to seed is not known"
            f"{'' if pilot is None else ' from a pilot with one'}; {remedy}"
        )
    candidates = given.candidates or (1 if pilot is None else pilot.candidates)
    looks = given.looks or accept.get("looks", LOOKS)
    confidence = given.confidence or accept.get("confidence", CONFIDENCE)
    true_drop = f"a {metric.worsening} of {metric.margin(_digits(given.drop))}" if given.drop else "no difference"
    several = "1 candidate" if candidates == 1 else f"{candidates} candidates"
    at = "1 look" if looks == 1 else f"{looks} looks"
    sentences = [
        f"The margin is {metric.margin(margin)}, and in truth there is {true_drop}; {several}, {at}, a confidence of "
        f"{as_percent(confidence)}.",
        *sentences,
    ]
    if assumed.group_size > 1:
        sentences.append(
            f"Groups of {assumed.group_size:.3g} examples, which correlate by {assumed.intraclass:.2g}: design effect "
            f"{assumed.design_effect:.3g}."
        )
    return _Plan(metric, quality, margin, confidence, candidates, looks, sorted(seeds), assumed, sentences)


def _metric(key: str) -> Metric:
    known = [found.key for found in METRICS.values() if found.judges]
    if key not in known:
        raise LeanformerError(f"metric {quoted(key)} is none that decides; give one of {', '.join(known)}")
    return METRICS[key]


def _counts(metric: Metric) -> bool:
    """Whether each example's outcome is 0 or 1."""
    return isinstance(metric, MeanMetric)


def _point(metric: Metric, quality: float) -> float:
    """See ``Assumed``; in a score of a whole corpus at least one point, as in ``corpus``."""
    return metric.greatest if _counts(metric) else max(1 / metric.scale, quality)


def _digits(value: float) -> float:
    """A number with three digits, for sentences."""
    return float(f"{value:.3g}")


def _results(plan: _Plan, found: Sequence[Level], pilot: Pilot | None) -> dict[str, Any]:
    """The content of ``plan-test.json`` but for the curves.

    Raises:
        LeanformerError: No number of examples can show the margin, with any number of seeds.
    """
    plans: list[dict[str, Any]] = [
        {
            "seeds": seeds,
            "scope": "one trained pair" if seeds == 1 else "seeds and examples",
            "examples": {level.key: least_examples(plan.assumed, seeds, plan.margin, level.level) for level in found},
        }
        for seeds in plan.seeds
    ]
    if not any(number for entry in plans for number in entry["examples"].values()):
        raise LeanformerError(
            f"no number of examples up to {MOST:,} shows a margin of {plan.metric.margin(plan.margin)} with at most "
            f"{max(plan.seeds)} seed{'s' if max(plan.seeds) > 1 else ''}; take more seeds, or a larger margin"
        )
    return {
        "version": 1,
        "metric": plan.metric.key,
        "quality": plan.quality,
        "margin": plan.margin,
        "confidence": plan.confidence,
        "candidates": plan.candidates,
        "looks": plan.looks,
        "power": POWER,
        "pilot": None if pilot is None else pilot.described,
        "assumed": asdict(plan.assumed) | {"largest": _finite(plan.assumed.largest)},
        "assumptions": list(plan.sentences),
        "levels": [
            asdict(level)
            | {
                "without_losses": math.ceil(
                    least_without_losses(plan.margin, plan.assumed.largest, level.level) * plan.assumed.group_size
                )
            }
            for level in found
        ],
        "plans": plans,
        "curves": [],
        "environment": {"leanformer": importlib.metadata.version("leanformer")},
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _curves(plan: _Plan, found: Sequence[Level], plans: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Power against the number of examples, for each level and number of seeds."""
    numbers = [number for entry in plans for number in entry["examples"].values() if number]
    least, most = (bound / plan.assumed.group_size for bound in (min(numbers) / 10, 3 * max(numbers)))
    units = sorted({max(FEWEST, round(number)) for number in np.geomspace(least, most, CURVE)})
    return [
        {
            "level": level.key,
            "seeds": seeds,
            "examples": [math.ceil(number * plan.assumed.group_size) for number in units],
            "power": [power(plan.assumed, seeds, number, plan.margin, level.level) for number in units],
        }
        for level in found
        for seeds in plan.seeds
    ]
