"""``lf.compare``: the decision on models of any maker, from files of their predictions on the same examples."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import ValidationError

from leanformer.config.base import AcceptConfig
from leanformer.core.errors import LeanformerError, quoted
from leanformer.core.fields import described
from leanformer.core.files import make_directory, write_atomically
from leanformer.core.json_files import to_json
from leanformer.core.paths import as_path, check_directory, check_file
from leanformer.decide import judge
from leanformer.decide.decision import decide, weak_baseline, without_acceptances
from leanformer.decide.statistics import design_effect
from leanformer.report.comparison import decided_lines, further_lines, write_page
from leanformer.results.comparison import Compared, ComparedBaseline, ComparedCandidate, ComparedData
from leanformer.results.metrics import CorpusMetric, Metric
from leanformer.results.rows import Quality, Recipe
from leanformer.results.schema import Accept
from leanformer.study.predicted_files import PredictedFiles, listed, metric_of_files

JSON, PAGE = "comparison.json", "comparison.html"


@dataclass(frozen=True)
class Comparison:
    """What a comparison of files of predictions found.

    Args:
        results: The content of ``comparison.json``.
        json: That file; None where no directory was given.
        page: The page with table and figure; None likewise.
    """

    results: dict[str, Any]
    json: Path | None
    page: Path | None

    @property
    def candidates(self) -> list[dict[str, Any]]:
        """For each new file: ``name``, ``quality``, ``difference``, ``decision``, ``reason``, ``p_value``,
        ``p_adjusted`` (corrected for several files), ``more_seeds``, ``more_examples``, ``scope``, ``recipe``."""
        return list(self.results["candidates"])

    @property
    def decision(self) -> Literal["accept", "reject", "undecided"]:
        """``reject`` where one of the new files is rejected, ``accept`` where all are accepted, else ``undecided``."""
        found = {row["decision"] for row in self.candidates}
        return "reject" if "reject" in found else "undecided" if "undecided" in found else "accept"

    @property
    def sentences(self) -> list[str]:
        """The decisions in words."""
        return [*decided_lines(self.results), *further_lines(self.results)]


class _OnLabels(AcceptConfig):
    answers: ClassVar[str] = "labels"


class _OnTexts(AcceptConfig):
    answers: ClassVar[str] = "texts"


def compare(
    old: str | PathLike[str],
    new: str | PathLike[str] | Sequence[str | PathLike[str]],
    *,
    metric: str | None = None,
    max_drop: float | str | None = None,
    confidence: float = 0.95,
    pair: tuple[int, int] | None = None,
    columns: Mapping[str, str] | None = None,
    tokenizer: str = "auto",
    directory: str | PathLike[str] | None = None,
) -> Comparison:
    """Decides whether models may replace another, from their predictions on the same examples.

    The files are CSV, TSV, JSON Lines or parquet with the columns ``id``, ``label`` and ``prediction`` (for texts the
    reference and the hypothesis), and optionally ``seed``, ``group``, ``weight`` and ``source``. Rows are matched by
    their ids.

    Args:
        old: The file of the present model, the baseline.
        new: The file of the model that is to replace it, or several such files.
        metric: A metric of classes or of texts that a study may decide by; by default the share of right classes.
        max_drop: The margin, as ``accept.max_drop`` in a study file; by default the metric's own.
        confidence: Such as 0.95.
        pair: Where the files have seeds: that of the old model and that of the new one which are to be used. The
            decision is then on these two models, and that on all seeds stands beside it (``recipe``).
        columns: What a column holds (``id``, ``label`` ...) -> its name in the files, where that is another one.
        tokenizer: sacreBLEU's tokenizer for metrics that count words, such as ``zh`` or ``char`` for BLEU; by default
            the one that suits the references' script.
        directory: Where ``comparison.json`` and ``comparison.html`` go; by default they are not written.

    Raises:
        LeanformerError: A file cannot be read, the files do not fit together, or an argument is wrong.
    """
    paths = _paths(old, new)
    measured = metric_of_files(metric)
    accept = _accept(measured, max_drop, confidence)
    seeds = _pair(pair)
    out = None if directory is None else as_path(directory, "directory")
    if out is not None:
        check_directory(out)
        for name in (JSON, PAGE):
            check_file(out / name)
    read = PredictedFiles(paths, measured, columns, tokenizer)
    results = _Judged(read, _names(paths), accept, seeds).results().model_dump()
    if out is None:
        return Comparison(results, None, None)
    make_directory(out)
    write_atomically(out / JSON, to_json(results))
    return Comparison(results, out / JSON, write_page(results, out / PAGE))


class _Judged:
    """Files that were read, and the decisions on them.

    Args:
        read: The files, the baseline's first.
        names: The models' names.
        accept: Metric, margin and confidence.
        pair: The seeds of the baseline and of the others that are to be used; None: all.
    """

    def __init__(
        self, read: PredictedFiles, names: Sequence[str], accept: AcceptConfig, pair: tuple[int, int] | None
    ) -> None:
        self.read, self.names, self.accept, self.pair = read, names, accept, pair
        self.metric, self.files, self.groups, self.weights = read.metric, read.files, read.groups, read.weights
        self.has_recipes = all(len(of_seeds) > 1 for of_seeds in read.statistics)
        if pair is None:
            read.check_seeds("say with pair (--pair) which one is to be used")
            return
        for file, seed in zip(self.files, (pair[0], *[pair[1]] * len(self.files[1:])), strict=True):
            if seed not in file.predictions:
                raise LeanformerError(f"pair: {file.path} has no seed {seed}; it has {listed(file.predictions)}")

    def results(self) -> Compared:
        """The content of ``comparison.json``."""
        baseline, rows = self._decided(self.pair)
        recipes = self._decided(None)[1] if self.pair is not None and self.has_recipes else [None] * len(rows)
        seeds = [list(file.predictions) if file.has_seeds else [] for file in self.files]
        candidates = [
            ComparedCandidate(name=name, file=str(file.path), seeds=own, recipe=recipe, **row.model_dump())
            for name, file, own, row, recipe in zip(
                self.names[1:], self.files[1:], seeds[1:], rows, recipes, strict=True
            )
        ]
        units = len(self.files[0].ids) if self.groups is None else len(set(self.groups.tolist()))
        effect = design_effect(self.weights, self.groups)
        signature = self.metric.signature
        return Compared(
            metric=self.metric.key,
            accept=Accept.model_validate(self.accept.model_dump(exclude={"looks"})),
            pair=None if self.pair is None else list(self.pair),
            data=ComparedData(
                test=len(self.files[0].ids),
                groups=None if self.groups is None else units,
                effective=None if self.weights is None else units / effect,
            ),
            signature=None if signature is None else signature(self.read.tokenize, False),
            baseline=ComparedBaseline(
                name=self.names[0], file=str(self.files[0].path), seeds=seeds[0], quality=baseline
            ),
            candidates=candidates,
            method=self._method(),
            environment={name: importlib.metadata.version(name) for name in ("leanformer", "numpy", "scipy")},
        )

    def _decided(self, pair: tuple[int, int] | None) -> tuple[Quality, list[Recipe]]:
        """The baseline's quality, and the decision on each other model, on the seeds of a pair or on all."""
        trainings = [
            list(of_seeds.values()) if pair is None else [of_seeds[pair[min(number, 1)]]]
            for number, of_seeds in enumerate(self.read.statistics)
        ]
        accept, metric = self.accept, self.metric
        qualities = [
            judge.quality(metric, training, accept.confidence, self.groups, self.weights) for training in trainings
        ]
        comparisons = {
            name: judge.compare(
                metric,
                trainings[0],
                training,
                accept.max_drop,
                accept.confidence,
                self.groups,
                weights=self.weights,
                max_ratio=accept.max_ratio,
            )
            for name, training in zip(self.names[1:], trainings[1:], strict=True)
        }
        decisions = decide(comparisons, accept.max_drop, accept.confidence, metric)
        level = qualities[0].mean
        weak = weak_baseline(level, self.read.worthless, accept.margin(level), metric)
        if weak is not None:
            decisions = without_acceptances(decisions, weak)
        rows = [
            Recipe(
                quality=quality,
                difference=judge.difference_of(metric, comparison),
                scope=comparison.scope,
                decision=decision.decision,
                reason=decision.reason,
                p_value=decision.p_value,
                p_adjusted=decision.p_adjusted,
                more_seeds=decision.more_seeds,
                more_examples=decision.more_examples,
                accepted_at=None,
                broken_at_most=None,
            )
            for quality, comparison, decision in zip(
                qualities[1:], comparisons.values(), decisions.values(), strict=True
            )
        ]
        return qualities[0], rows

    def _method(self) -> str:
        """How intervals and decisions are made, in sentences."""
        choice = "examples" if self.groups is None else "groups of examples"
        how = " (paired bootstrap)" if isinstance(self.metric, CorpusMetric) else ""
        over_seeds = self.pair is None and self.has_recipes
        seeds = " and for the choice of seeds (analysis of variance, examples and seeds crossed)" if over_seeds else ""
        counted = "" if self.weights is None else " Examples count by their weights."
        test = "non-inferiority test" if self.accept.max_ratio is None else "test of the ratio of error rates"
        return (
            f"Models are compared on the same examples, matched by their ids. The intervals account for the choice of "
            f"{choice}{how}{seeds}.{counted} The decision is a one-sided {test} with an exact bound where losses are "
            "few, corrected for several models by Holm's method."
        )


def _paths(old: object, new: object) -> list[Path]:
    """All files, the old one first."""
    others = new if isinstance(new, list | tuple) else [new]
    if not others:
        raise LeanformerError("new: give a file of predictions, or several")
    return [as_path(old, "old"), *(as_path(path, "new") for path in others)]


def _names(paths: Sequence[Path]) -> list[str]:
    """Short names of the models: of the files, or whole paths where these are alike."""
    short = [path.stem for path in paths]
    return short if len(set(short)) == len(short) else [fspath(path) for path in paths]


def _accept(metric: Metric, max_drop: object, confidence: object) -> AcceptConfig:
    """Metric, margin and confidence, as a study file has them."""
    form = _OnLabels if metric.answers == "labels" else _OnTexts
    given = {"metric": metric.key, "confidence": confidence} | ({} if max_drop is None else {"max_drop": max_drop})
    try:
        return form.model_validate(given)
    except ValidationError as error:
        name, _, what = described(error, given).partition(": ")
        raise LeanformerError(f"{name} (--{name.replace('_', '-')}): {what}") from None


def _pair(pair: object) -> tuple[int, int] | None:
    if pair is None:
        return None
    if isinstance(pair, list | tuple) and len(pair) == 2:
        old, new = pair
        if all(isinstance(seed, int) and not isinstance(seed, bool) for seed in pair):
            return old, new
    raise LeanformerError(f"pair: give the seeds of the old and of the new model, such as (0, 1), not {quoted(pair)}")
