"""The main job: data and a baseline in, trained candidates, a table and a decision out."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from rich.console import Console
from transformers import PreTrainedModel
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from leanformer.config import BASELINE, CandidateConfig, Study, make_study, read_study
from leanformer.data.batches import ImageBatches
from leanformer.data.images import ImageData, load_images
from leanformer.errors import LeanformerError
from leanformer.files import write_atomically
from leanformer.learn.train import Trained, TrainingStep, make_accelerator, settle_precision, train
from leanformer.machine import environment, pick_device, threads
from leanformer.measure.cost import Subject, forward_flops, measure_costs, parameters_by_kind
from leanformer.measure.quality import Predictions, predict
from leanformer.model.baseline import Baseline, ImageGeometry
from leanformer.model.students import load, reduce, save
from leanformer.model.surgery import parameter_count, resolve, sites
from leanformer.progress import Reporter, quiet_libraries
from leanformer.report.page import write_report
from leanformer.results import CandidateOutcome, assemble
from leanformer.rundir import RunDirectory, directory_signature, read_json, to_json

CHECKPOINT = "checkpoint.safetensors"


@dataclass(frozen=True)
class StudyResult:
    """What a study came to.

    Args:
        directory: The run directory.
        results: The content of its ``results.json``.
        report: The report's page.
    """

    directory: Path
    results: dict[str, Any]
    report: Path

    @property
    def recommended(self) -> str | None:
        """The candidate to ship, or ``baseline``; None where the baseline itself failed."""
        name: str | None = self.results["recommended"]
        return name

    def model(self) -> PreTrainedModel:
        """The recommended model, loaded.

        Raises:
            LeanformerError: Nothing was recommended.
        """
        if self.results["ship"] is None:
            raise LeanformerError(self.results["recommendation"])
        return load(self.directory / self.results["ship"])


def run(
    study: Study | Mapping[str, Any] | str | Path,
    directory: str | Path | None = None,
    console: Console | None = None,
) -> StudyResult:
    """Runs a study: trains the baseline and every candidate with every seed, measures, decides, reports.

    What the run directory holds already is not done again; a training that was cut off goes on from its last
    checkpoint; what the study has changed since is done anew, and the console says why.

    Args:
        study: A study, its plain data, or the path of its file.
        directory: The run directory; by default ``runs/`` and the study's name.
        console: Where progress is shown; by default standard error.

    Returns:
        The results, which are also in the directory as ``results.json`` and ``report.html``.

    Raises:
        LeanformerError: Anything in the study, its data, its models or the directory is wrong.
    """
    # 1. the study
    if isinstance(study, str | Path):
        study = read_study(study)
    elif not isinstance(study, Study):
        study = make_study(study)
    path = Path(directory) if directory is not None else Path("runs") / study.name
    console = console or Console(stderr=True)
    with quiet_libraries(), threads(study.measure.threads), RunDirectory(path, study) as run_directory:
        with Reporter(study.name, console) as reporter:
            # 2. data and baseline, checked before anything is trained
            job = StudyJob(study, run_directory, reporter)
            # 3. train and evaluate
            outcomes = job.outcomes()
            # 4. measure
            costs = job.costs(outcomes)
            # 5. decide
            results = assemble(study, job.data, outcomes, costs, environment(job.device, job.precision))
            write_atomically(path / "results.json", to_json(results))
        # 6. report
        return StudyResult(path, results, write_report(path))


class StudyJob:
    """What the steps of one study share: data, baseline, device.

    Args:
        study: The study.
        directory: Its run directory, open.
        reporter: Shows progress.

    Raises:
        LeanformerError: Data, baseline and plans do not fit together.
    """

    def __init__(self, study: Study, directory: RunDirectory, reporter: Reporter) -> None:
        self.study = study
        self.directory = directory
        self.reporter = reporter
        self.device = pick_device(study.measure.device)
        self.precision = settle_precision(study.train.precision, self.device)
        self.accelerator: Accelerator = make_accelerator(self.precision, self.device)
        config = study.baseline
        self.baseline = Baseline(config.model, config.config, config.fresh)
        self.data: ImageData = load_images(study.data, self.device, self.baseline.image_size, self.baseline.channels)
        for note in self.data.notes:
            reporter.say(f"{study.name}: {note}", style="dim")
        self.geometry = ImageGeometry(self.data.channels, self.data.height, self.data.width, self.data.classes)
        self.baseline.check(self.geometry)
        self.candidates = {BASELINE: None, **study.candidates}
        model = self.baseline.make(self.geometry, seed=0)
        for name, candidate in study.candidates.items():
            try:
                if not resolve(model, candidate.plan):
                    raise LeanformerError("the plan changes nothing; the baseline is trained anyway")
            except LeanformerError as error:
                raise LeanformerError(f"candidates.{name}: {error}") from None
        mean, std = self._normalization()
        self.batches = ImageBatches(self.data, study.train.batch_size, study.data.augment, mean, std)

    def _normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        wanted = self.study.data.normalize
        own = self.baseline.normalization() if wanted == "auto" else None
        mean, std = own or (self.data.mean, self.data.std) if isinstance(wanted, str) else wanted
        if len(mean) != self.data.channels or len(std) != self.data.channels:
            raise LeanformerError(
                f"data.normalize: {len(mean)} means and {len(std)} deviations for images of {self.data.channels} "
                "channels; give one a channel"
            )
        return mean, std

    # Trials

    def outcomes(self) -> list[CandidateOutcome]:
        """Trains and evaluates everything that is not there yet; the baseline's outcome is the first."""
        rates = len(self.study.train.learning_rate) if self._searches() else 0
        shared = 1 if rates and self.study.train.search_epochs is None else 0
        self.reporter.plan(len(self.candidates) * (rates + len(self.study.seeds) - shared))
        return [self._outcome(name) for name in self.candidates]

    def _outcome(self, name: str) -> CandidateOutcome:
        candidate = self.candidates[name]
        search = self._search(name) if self._searches() else []
        learning_rate = _best_rate(search) if search else self.study.train.learning_rate[0]
        trials, predictions, directories = {}, {}, {}
        for seed in self.study.seeds:
            directory = self.directory.trial(name, seed)
            trials[seed] = self._trial(name, seed, learning_rate)
            directories[seed] = directory.relative_to(self.directory.path).as_posix()
            if trials[seed]["trained"]["status"] == "ok":
                predictions[seed] = Predictions.read(directory / "predictions.parquet")
        # Models of the search were only for the winner to be taken over.
        for rate in self.study.train.learning_rate:
            shutil.rmtree(self.directory.search(name, rate) / "model", ignore_errors=True)
        return CandidateOutcome(
            name,
            "scratch" if candidate is None else candidate.method,
            {} if candidate is None else candidate.plan,
            self._structure(candidate),
            [
                {key: run[key] for key in ("learning_rate", "accuracy", "loss")} | {"status": run["trained"]["status"]}
                for run in search
            ],
            trials,
            predictions,
            directories,
        )

    def _searches(self) -> bool:
        return len(self.study.train.learning_rate) > 1 and self.study.train.epochs > 0

    def _search(self, name: str) -> list[dict[str, Any]]:
        """One training a rate with the first seed, judged on the validation split."""
        seed = self.study.seeds[0]
        runs = []
        for rate in self.study.train.learning_rate:
            directory = self.directory.search(name, rate)
            epochs = self.study.train.search_epochs or self.study.train.epochs
            self._prepare(directory, f"{name}, search at rate {rate:g}", name, seed, rate, epochs)
            result = self.directory.finished(directory)
            if result is None:
                model = self._model(name, seed)
                trained = self._train(model, directory, f"{name} · rate {rate:g}", rate, seed, epochs)
                last = trained.epochs[-1] if trained.status == "ok" else {}
                result = {
                    "learning_rate": rate,
                    "accuracy": last.get("validation_accuracy"),
                    "loss": last.get("validation_loss"),
                    "trained": asdict(trained),
                }
                if trained.status == "ok":
                    self._save(model, directory / "model")
                self._finish(directory, result)
            else:
                self.reporter.skip()
            runs.append(result)
        return runs

    def _trial(self, name: str, seed: int, rate: float) -> dict[str, Any]:
        directory = self.directory.trial(name, seed)
        epochs = self.study.train.epochs
        self._prepare(directory, f"{name}, seed {seed}", name, seed, rate, epochs)
        # The search has trained the first seed at this very rate, unless its budget was another.
        shared = self._searches() and seed == self.study.seeds[0] and self.study.train.search_epochs is None
        result = self.directory.finished(directory)
        if result is not None:
            if not shared:
                self.reporter.skip()
            return result
        searched = self.directory.search(name, rate)
        found = self.directory.finished(searched) if shared else None
        if found is not None and found["trained"]["status"] != "ok":
            trained = Trained(**found["trained"])
        elif found is not None and (searched / "model").is_dir():
            trained = Trained(**found["trained"])
            shutil.rmtree(directory / "model", ignore_errors=True)
            shutil.copytree(searched / "model", directory / "model")
            model = load(directory / "model").to(self.device)
        else:
            model = self._model(name, seed)
            trained = self._train(model, directory, f"{name} · seed {seed}", rate, seed, epochs)
            if trained.status == "ok":
                self._save(model, directory / "model")
        result = {"candidate": name, "seed": seed, "learning_rate": rate, "trained": asdict(trained)}
        if trained.status == "ok":
            answers = predict(model, self.batches.evaluation(self.data.test))
            write_atomically(directory / "predictions.parquet", answers.to_bytes())
            result |= {"accuracy": answers.accuracy, "loss": answers.loss}
        self._finish(directory, result)
        return result

    def _prepare(self, directory: Path, what: str, name: str, seed: int, rate: float, epochs: int) -> None:
        """Makes the directory ready, and says so where the study has changed since."""
        reason = self.directory.prepare(directory, self._settings(name, seed, rate, epochs))
        if reason is not None:
            self.reporter.say(f"{self.study.name}: {what} runs again: {reason}", style="yellow")

    def _settings(self, name: str, seed: int, rate: float, epochs: int) -> dict[str, Any]:
        """Everything that a training's outcome follows from."""
        study = self.study.model_dump(mode="json")
        train = {
            key: value
            for key, value in study["train"].items()
            if key not in ("learning_rate", "search_epochs", "checkpoint_seconds")
        }
        candidate = self.candidates[name]
        return {
            "data": study["data"],
            "data_files": directory_signature(self.study.data.source),
            "baseline": study["baseline"],
            "baseline_files": directory_signature(self.study.baseline.model),
            "plan": {} if candidate is None else candidate.plan,
            "method": "scratch" if candidate is None else candidate.method,
            "train": {**train, "epochs": epochs, "precision": self.precision},
            "device": self.device.type,
            "learning_rate": rate,
            "seed": seed,
        }

    def _model(self, name: str, seed: int) -> PreTrainedModel:
        """The model as a trial starts with it, on the study's device."""
        candidate = self.candidates[name]
        model = self.baseline.make(self.geometry, seed)
        student = copy.deepcopy(model) if candidate is None else reduce(model, candidate.plan)
        return student.to(self.device)

    def _train(
        self, model: PreTrainedModel, directory: Path, title: str, rate: float, seed: int, epochs: int
    ) -> Trained:
        self.reporter.start(title, epochs)
        observer = TrialObserver(self, epochs)
        checkpoint = directory / CHECKPOINT
        trained = train(
            model, self.batches, self.study.train, rate, seed, observer, self.accelerator, checkpoint, epochs
        )
        self.reporter.done("" if trained.status == "ok" else f"failed: {trained.reason}")
        return trained

    def _save(self, model: PreTrainedModel, directory: Path) -> None:
        """The model, and how its images are prepared, so that it can be used elsewhere."""
        save(model, directory)
        processor = ViTImageProcessorPil(
            size={"height": self.data.height, "width": self.data.width},
            image_mean=list(self.batches.mean),
            image_std=list(self.batches.std),
        )
        write_atomically(directory / "preprocessor_config.json", processor.to_json_string())

    def _finish(self, directory: Path, result: dict[str, Any]) -> None:
        write_atomically(directory / "result.json", to_json(result))
        (directory / CHECKPOINT).unlink(missing_ok=True)

    # Structure and cost

    def _structure(self, candidate: CandidateConfig | None) -> dict[str, Any]:
        """What the model is made of, and what the plan changed, site by site."""
        model = self.baseline.make(self.geometry, seed=0)
        before = {site.name: site for site in sites(model)}
        student = model if candidate is None else reduce(model, candidate.plan)
        plan = {} if candidate is None else resolve(model, candidate.plan)
        changes = []
        for site in sites(student):
            was = before[site.name]
            changes.append(
                {
                    "site": site.name,
                    "kind": site.kind,
                    "block": site.block,
                    "arguments": {key: value for key, value in plan.get(site.name, {}).items() if key != "block"},
                    "changed": site.name in plan,
                    "parameters_before": was.parameters + was.norm_parameters,
                    "parameters_after": site.parameters + site.norm_parameters,
                }
            )
        pixels = torch.zeros(1, self.data.channels, self.data.height, self.data.width)
        return {
            "changes": changes,
            "parameters": parameter_count(student),
            "parameters_by_kind": parameters_by_kind(student),
            "flops_per_example": forward_flops(student.cpu().eval(), {"pixel_values": pixels}),
        }

    def costs(self, outcomes: list[CandidateOutcome]) -> dict[str, dict[str, Any]]:
        """Time and memory of every model whose trials ended well, measured together."""
        names = {outcome.name: outcome.directories for outcome in outcomes if outcome.ok}
        settings = {
            "measure": self.study.measure.model_dump(mode="json"),
            "models": {
                name: read_json(self.directory.path / next(iter(directories.values())) / "settings.json", "delete it")
                for name, directories in names.items()
            },
        }
        path = self.directory.path / "costs.json"
        if path.exists():
            known = read_json(path, "delete it and run again to measure anew")
            if known["settings"] == settings:
                costs: dict[str, dict[str, Any]] = known["costs"]
                return costs
        if not names:
            return {}
        self.reporter.say(f"{self.study.name}: measuring time and memory of {len(names)} models in turn")
        subjects = {
            name: self._subject(load(self.directory.path / next(iter(directories.values())) / "model").to(self.device))
            for name, directories in names.items()
        }
        measured = measure_costs(subjects, self.device, self.study.measure.repeats, self.study.measure.latency_calls)
        costs = {name: cost.summary() for name, cost in measured.items()}
        write_atomically(path, to_json({"settings": settings, "costs": costs}))
        return costs

    def _subject(self, model: PreTrainedModel) -> Subject:
        size = self.study.measure.throughput_batch
        wanted = torch.arange(size) % len(self.data.test)  # a small test split is taken more than once
        (batch,) = ImageBatches(self.data, size, (), self.batches.mean, self.batches.std).chosen(self.data.test, wanted)
        del batch["labels"]
        rate = self.study.train.learning_rate[0]
        return Subject(
            model,
            lambda: TrainingStep(copy.deepcopy(model).train(), self.study.train, rate, self.accelerator),
            lambda: self.batches.training(seed=0, epoch=0),
            batch,
        )


class TrialObserver:
    """Validates after each epoch and shows a training's progress.

    Args:
        job: The study's data and reporter.
        epochs: Epochs of the training.
    """

    def __init__(self, job: StudyJob, epochs: int) -> None:
        self._job = job
        self._epochs = epochs

    def validate(self, model: torch.nn.Module) -> dict[str, float]:
        """Loss and accuracy on the validation split."""
        answers = predict(model, self._job.batches.evaluation(self._job.data.validation))
        return {"validation_loss": answers.loss, "validation_accuracy": answers.accuracy}

    def step_ended(self, epoch: int, step: int, steps_per_epoch: int) -> None:
        """Moves the bar."""
        self._job.reporter.step(epoch, step, steps_per_epoch)

    def epoch_ended(self, record: dict[str, float], examples_per_second: float) -> None:
        """Shows the epoch's numbers."""
        self._job.reporter.epoch(record, self._epochs, examples_per_second)

    def rolled_back(self, reason: str) -> None:
        """Says that training went back to its last good state."""
        self._job.reporter.say(f"{self._job.study.name}: {reason}", style="yellow")


def _best_rate(search: list[dict[str, Any]]) -> float:
    """The rate of the best validation accuracy; of equals the smaller loss, then the first."""
    good = [run for run in search if run["trained"]["status"] == "ok"]
    best = max(good or search[:1], key=lambda run: (run["accuracy"] or 0.0, -(run["loss"] or 0.0)))
    return float(best["learning_rate"])
