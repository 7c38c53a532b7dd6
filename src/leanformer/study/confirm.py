"""``lf.confirm``: tests a study's recommended model once on data that nobody has seen (docs/confirm.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from leanformer.config.base import BASELINE, Study
from leanformer.config.reader import make_study, read_study
from leanformer.core.errors import LeanformerError, quoted
from leanformer.core.events import Reporter
from leanformer.core.json_files import read_sealed
from leanformer.core.machine import environment, pick_device, threads
from leanformer.core.memory import memory_named
from leanformer.core.paths import as_path
from leanformer.core.progress import console_sink, quiet_libraries
from leanformer.core.signatures import content_signature
from leanformer.core.warning import StudyWarning, rows
from leanformer.decide.decision import Decision, decide, weak_baseline, without_acceptances
from leanformer.decide.judge import difference_of
from leanformer.decide.looks import Look
from leanformer.decide.statistics import Comparison
from leanformer.learn.step import settle_precision
from leanformer.model.family import FAMILIES
from leanformer.model.students import load
from leanformer.report.page import write_report
from leanformer.results.confirmation import Confirmation, ConfirmedModel, NewData, Revised
from leanformer.results.metrics import METRICS
from leanformer.results.reader import read_results
from leanformer.results.schema import Accept, Warned
from leanformer.runtime.loading import load as open_exported
from leanformer.study.arms import accepting
from leanformer.study.bench import identity
from leanformer.study.ledger import Ledger, Seen, is_of_study
from leanformer.study.store import RunDirectory
from leanformer.study.training import PREDICTIONS
from leanformer.tasks.base import Outcome, SplitName, Task, open_task, open_test

MOST_KNOWN = 0.1
"""The greatest share of the new examples that may be in the study's data too."""
CANDIDATE = "candidate"
FILES = {BASELINE: "baseline.parquet", CANDIDATE: "candidate.parquet"}
"""Which of the two models -> the file of its answers."""
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Confirmed:
    """The result of a confirmation.

    Args:
        directory: Where it is kept, inside the run directory.
        result: The content of its ``result.json``.
    """

    directory: Path
    result: dict[str, Any]

    @property
    def decision(self) -> str:
        """``accept``, ``reject`` or ``undecided``."""
        return str(self.result["decision"])


@dataclass(frozen=True)
class _Model:
    """A model of the study that ships.

    Args:
        name: Its row's name.
        trained: The trained model's directory, relative to the run directory.
        exported: The exported directory, likewise; None where the study ships trained models.
        seed: The seed of its training.
    """

    name: str
    trained: str
    exported: str | None
    seed: int

    @property
    def directory(self) -> str:
        """What ships."""
        return self.trained if self.exported is None else self.exported


def confirm(
    run: str | PathLike[str],
    data: str | Mapping[str, Any],
    candidate: str | None = None,
    console: Console | None = None,
) -> Confirmed:
    """Tests a model of a finished study once on data that nobody has seen, beside the baseline.

    Both models that ship answer all labeled examples of the new data, whatever splits these have. The decision is one
    non-inferiority test with the study's metric, margin and confidence. Its error is that of the new data alone; looks
    at the study's test split do not count. All models that are confirmed on the same data count in the correction for
    several (Holm), and the same model on the same data has the same result again.

    Args:
        run: The run directory of a study that ran to its end.
        data: A source, as in a study file's ``data.source``, or a mapping of keys of its ``data`` section. What it
            leaves out is as in the study: columns, languages, groups.
        candidate: Another candidate than the recommended one.
        console: Where progress is shown; by default standard error.

    Returns:
        The result, which is also kept in the run directory.

    Raises:
        LeanformerError: There is nothing to confirm; the data are wrong, do not fit the models, or are not new; or a
            model is damaged.
    """
    directory = as_path(run, "run")
    if not isinstance(data, str | Mapping):
        raise LeanformerError(f"data: give a source or a mapping of its keys, not {quoted(data)}")
    if candidate is not None and not isinstance(candidate, str):
        raise LeanformerError(f"candidate: give a candidate's name, not {quoted(candidate)}")
    if console is not None and not isinstance(console, Console):
        raise LeanformerError(f"console: give a rich.console.Console, not {quoted(console)}")
    results = read_results(directory)
    models = {BASELINE: _ships(results["baseline"], directory)}
    models[CANDIDATE] = _ships(_chosen(results, candidate, directory), directory)
    study = make_study(results["study"], str(directory / "results.json"))
    given = {"source": data} if isinstance(data, str) else dict(data)
    # As the baseline that ships reads them: images prepared as its directory says, classes in its order.
    reads = directory / models[BASELINE].trained
    new_study = _with_data(study, _new_data(study, given, results), reads)
    _refuse_same_files(new_study, directory, models[BASELINE])
    with (
        quiet_libraries(),
        threads(study.measure.threads),
        RunDirectory(directory, read_study(directory / "study.yaml")) as store,
        Reporter(study.name, [console_sink(study.name, console)]) as reporter,
    ):
        # 1. the models and the data
        for model in models.values():
            for needed in dict.fromkeys((model.trained, model.directory)):
                store.check_shipped(directory / needed)
        device = pick_device(study.measure.device)
        task = open_test(new_study, device)
        for note in task.notes:
            reporter.say(f"{study.name}: {note}", style="dim")
        task.check_test()
        known, found = _known_examples(study, new_study, reads, task, store)
        # 2. their answers
        identities = {which: "/".join(identity(str(directory / model.directory))) for which, model in models.items()}
        signature = task.test_signature
        place = store.confirmed(signature, models[CANDIDATE].name)
        settings = {"data": signature, "models": identities, "evaluation": task.evaluation_settings()}
        reason = store.prepare(place, settings)
        if reason is not None:
            reporter.warn(f"the confirmation of {models['candidate'].name} runs again: {reason}")
        before = store.finished(place)
        if before is None:
            for which, model in models.items():
                reporter.start(model.name, 0)
                answers = _answers(task, directory, model)
                store.replace_file(place, FILES[which], answers.to_bytes())
                reporter.done("answered")  # no figure is shown before the ledger knows of it
        # 3. the decision, with all others on these data
        ledger = Ledger(directory, signature, planned=1)
        ledger.confirmation(_seen(study, task, place, models, identities))
        warnings = [*task.warnings, *found, *ledger.changes(accepting(study)), *ledger.elsewhere()]
        others = _others(store, place, signature)
        comparisons = {path: _comparison(task, path) for path in (place, *others)}
        decisions = _decided(study, task, ledger, place, comparisons)
        candidates = len(ledger.evaluated("artifact"))
        content = Confirmation(
            study=study.name,
            task=study.task,
            date=datetime.now(UTC).date().isoformat() if before is None else before["date"],
            data=NewData(
                source=new_study.data.source,
                signature=signature,
                examples=task.summary()["test"],
                groups=task.summary()["groups"],
                known=known,
            ),
            metric=study.accept.metric,
            accept=Accept.model_validate(study.accept.model_dump(mode="json")),
            baseline=_described(task, place, BASELINE, models, identities),
            candidate=_described(task, place, CANDIDATE, models, identities),
            difference=difference_of(METRICS[study.accept.metric], comparisons[place]),
            candidates=candidates,
            revised=_revised(others, decisions),
            warnings=[Warned.model_validate(row) for row in rows(warnings)],
            environment=environment(device, settle_precision("float32", device)),
            **_told(decisions[place]),
        ).model_dump(mode="json")
        for path, result in others.items():  # the same correction holds for all
            store.finish(path, {**result, **_told(decisions[path]), "candidates": candidates})
        store.finish(place, content)
        reporter.wrote("results", place / "result.json")
        reporter.wrote("report", write_report(directory))
        for warning in warnings:
            reporter.warn(str(warning))
    return Confirmed(place, content)


# What is confirmed


def _chosen(results: Mapping[str, Any], name: str | None, directory: Path) -> dict[str, Any]:
    """The row of the candidate to confirm: the one that is named, or the recommended one.

    Raises:
        LeanformerError: There is none.
    """
    candidates: dict[str, dict[str, Any]] = {row["name"]: row for row in results["candidates"]}
    others = ", ".join(
        f"{row['name']} ({row['decision']})" for row in candidates.values() if row["difference"] is not None
    )
    others = others or "none, as all trainings failed"
    if name is None:
        name = results["recommended"]
        if name is None or name not in candidates:
            what = "recommends no model" if name is None else "recommends the baseline"
            raise LeanformerError(
                f"{directory}: the study {what}, so that there is nothing to confirm; --candidate NAME takes another: "
                f"{others}"
            )
    if name not in candidates or candidates[name]["difference"] is None:
        raise LeanformerError(f"candidate {quoted(name)}: this study has no result of it; there are: {others}")
    return candidates[name]


def _ships(row: Mapping[str, Any], directory: Path) -> _Model:
    """The one model of a row that ships.

    Raises:
        LeanformerError: The results do not say which.
    """
    artifact = row["artifact"]
    seed = row["decided_seed"] if artifact is None else artifact["seed"]
    trial = next((trial for trial in row["trials"] if trial.endswith(f"/seed-{seed}")), None)
    if seed is None or trial is None:
        raise LeanformerError(
            f"{directory / 'results.json'}: an earlier version wrote it, and it does not say which model of "
            f"{row['name']} ships; run the study again, which trains nothing for that"
        )
    return _Model(row["name"], f"{trial}/model", None if artifact is None else artifact["directory"], seed)


# The new data


def _new_data(study: Study, given: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, Any]:
    """The ``data`` section of the new data: what is given, and for the rest what holds for any data of this study."""
    source = given.get("source", study.data.built_in)
    section = study.data.for_new_data(source if isinstance(source, str) else "")
    trained = study.baseline.model not in FAMILIES and not study.baseline.fresh
    if trained and "channels" in section:  # a trained baseline had the study's images converted to its channels
        section["channels"] = section["channels"] or results["data"]["channels"]
    for key, value in given.items():
        both = isinstance(value, Mapping) and isinstance(section.get(key), Mapping)
        section[key] = {**section[key], **value} if both else value
    return section


def _with_data(study: Study, section: Mapping[str, Any], model: Path) -> Study:
    """The study with other data, and with a trained model as its baseline."""
    plain = study.model_dump(mode="json")
    return make_study({**plain, "baseline": {"model": str(model)}, "data": dict(section)}, "new data")


def _refuse_same_files(new_study: Study, directory: Path, baseline: _Model) -> None:
    """Refuses the files that the study was made with, wherever they lie now.

    Raises:
        LeanformerError: They are the same.
    """
    data = new_study.data
    used = read_sealed(directory / Path(baseline.trained).parent / "settings.json").get("data_content")
    if used is not None and content_signature(data.source, data.file_endings()) == used:
        raise LeanformerError(
            f"data.source {data.source}: these are the study's own files, which its models were trained, chosen and "
            "tested on; give data that nobody has seen"
        )


def _known_examples(
    study: Study, new_study: Study, reads: Path, task: Task, store: RunDirectory
) -> tuple[int | None, list[StudyWarning]]:
    """How many of the new examples are in the study's data, exactly, with the warning; None where these are gone.

    Raises:
        LeanformerError: They are too many, or the study looked at these data.
    """
    source = new_study.data.source
    if is_of_study(store.path, task.test_signature):
        raise LeanformerError(
            f"data.source {source}: the study looked at these data as its test split; give data that nobody has seen"
        )
    section = study.data.model_dump(mode="json")
    for key in ("image_size", "normalize"):  # the model's directory says how images are prepared
        section.pop(key, None)
    try:
        own = open_task(_with_data(study, section, reads), torch.device("cpu"))
        seen = {one for split in SPLITS for one in own.inputs(split)}
    except LeanformerError as error:
        sentence = (
            f"the study's own data cannot be read ({error}), so that nobody has checked whether the new examples are "
            "among them; see to it yourself"
        )
        return None, [StudyWarning("freshness-unknown", sentence, 1)]
    mine = task.inputs("test")
    count = sum(one in seen for one in mine)
    if not count:
        return 0, []
    of_all = f"{count:,} of {len(mine):,} new examples are in the study's own data too"
    if count > MOST_KNOWN * len(mine):
        raise LeanformerError(f"data.source {source}: {of_all}; give data that nobody has seen")
    sentence = f"{of_all}: models may know them; leave them out of the new data"
    return count, [StudyWarning("known-examples", sentence, count)]


# Answers and decisions


def _answers(task: Task, directory: Path, model: _Model) -> Any:
    """A model's answers to the new examples."""
    if model.exported is not None:
        answers = task.evaluate_exported(open_exported(directory / model.exported, torch.get_num_threads()))
    else:
        loaded = load(directory / model.trained).to(task.device)
        key = task.answer_key
        with memory_named(f"answering new data in batches of {key}", f"lower {key} in the study"):
            answers = task.for_model(directory / model.trained).evaluate(loaded)
    return task.with_choices(answers, task.read_answers((directory / model.directory).parent / PREDICTIONS))


def _seen(study: Study, task: Task, place: Path, models: Mapping[str, _Model], identities: Mapping[str, str]) -> Seen:
    """What this confirmation shows of the new data."""
    metric, (_, answers) = METRICS[study.accept.metric], _kept(task, place)
    each = [one for outcome in answers.values() for one in outcome.each()]
    return Seen(
        outcomes=list(dict.fromkeys(known for one in each for known in one.signatures(metric))),
        candidates={"artifact": {models[CANDIDATE].name: identities[CANDIDATE]}, "recipe": {}},
        seeds=sorted({model.seed for model in models.values()}),
        accept=accepting(study),
    )


def _others(store: RunDirectory, place: Path, signature: str) -> dict[Path, dict[str, Any]]:
    """The directory of each other confirmation on these data -> its result."""
    found = {}
    for path in sorted(place.parent.glob(f"{signature[:12]}-*")):
        result = store.finished(path) if path.is_dir() and path != place else None
        if result is not None and result["data"]["signature"] == signature:
            found[path] = result
    return found


def _kept(task: Task, place: Path) -> tuple[Task, dict[str, Outcome]]:
    """The answers of both models as they are kept, and the task with the groups in their order: the same data may have
    been given in another order since."""
    answers = {which: task.read_answers(place / file) for which, file in FILES.items()}
    return task.grouped_as(answers[BASELINE].groups), {which: Outcome({0: one}) for which, one in answers.items()}


def _comparison(task: Task, place: Path) -> Comparison:
    task, answers = _kept(task, place)
    return task.compare(answers[BASELINE], answers[CANDIDATE])


def _decided(
    study: Study, task: Task, ledger: Ledger, place: Path, comparisons: Mapping[Path, Comparison]
) -> dict[Path, Decision]:
    """The decisions on all candidates that were confirmed on these data, at the whole error of the study."""
    accept, metric = study.accept, METRICS[study.accept.metric]
    others = max(0, len(ledger.evaluated("artifact")) - len(comparisons))
    names = {str(path): path for path in comparisons}
    decisions = decide(
        {name: comparisons[path] for name, path in names.items()},
        accept.max_drop,
        accept.confidence,
        metric,
        Look(others=others),
    )
    task, answers = _kept(task, place)
    level = task.quality(answers[BASELINE]).mean
    weak = weak_baseline(level, task.worthless_quality, accept.margin(level), metric)
    if weak is not None:
        decisions = without_acceptances(decisions, weak)
    return {names[name]: decision for name, decision in decisions.items()}


def _revised(others: Mapping[Path, Mapping[str, Any]], decisions: Mapping[Path, Decision]) -> list[Revised]:
    """The earlier confirmations on these data whose decision changes."""
    return [
        Revised(candidate=result["candidate"]["name"], before=result["decision"], now=decisions[path].decision)
        for path, result in others.items()
        if result["decision"] != decisions[path].decision
    ]


def _told(decision: Decision) -> dict[str, Any]:
    """What a result says of a decision."""
    keys = ("decision", "reason", "p_value", "p_adjusted", "more_examples")
    return {key: value for key, value in asdict(decision).items() if key in keys}


def _described(
    task: Task, place: Path, which: str, models: Mapping[str, _Model], identities: Mapping[str, str]
) -> ConfirmedModel:
    """One of the two models, with its quality on the new data."""
    task, answers = _kept(task, place)
    model, quality = models[which], task.quality(answers[which])
    return ConfirmedModel(name=model.name, directory=model.directory, identity=identities[which], quality=quality)
