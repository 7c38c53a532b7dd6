"""The keys that the study files of all tasks share, with their checks and their defaults."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from leanformer.config import yaml_text
from leanformer.config.without_effect import check_effects
from leanformer.core.errors import quoted
from leanformer.core.fields import (
    OPERATIONAL,
    Batch,
    Beam,
    Epochs,
    Fraction,
    NonNegative,
    Positive,
    Rate,
    Section,
    Seed,
    SomeEpochs,
    Text,
    no_repeats,
    one_of,
)
from leanformer.core.registry import Registry
from leanformer.core.sinks.tracking import TRACKERS
from leanformer.results.costs import preferences
from leanformer.results.metrics import METRICS, AnswerKind, judging


def _as_list(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _rates_differ(rates: tuple[float, ...]) -> tuple[float, ...]:
    if len({f"{rate:g}" for rate in rates}) < len(rates):
        raise ValueError("learning rates must be distinct in their first six digits")
    return rates


Rates = Annotated[
    tuple[Rate, ...],
    BeforeValidator(_as_list),
    Field(min_length=1, max_length=100),
    AfterValidator(_rates_differ),
    OPERATIONAL,  # a training's own settings hold the one rate that it uses
]


SomeSeeds = Annotated[tuple[Seed, ...], Field(min_length=1, max_length=1000), AfterValidator(no_repeats("seeds"))]


class CrossValidationConfig(Section):
    """How the examples of a small data set are divided into folds, each of which is tested in turn."""

    folds: Annotated[int, Field(ge=2, le=20)]
    """Models are trained on all folds but one, and tested on that."""
    fold: Annotated[int, Field(ge=1)] | None = None
    """Of a study of one fold, which a cross-validation writes itself: the fold that is tested, from 1."""
    seed: Seed = 0
    """Likewise: the seed of the cross-validation for which the data are divided, beside ``split_seed``."""

    @model_validator(mode="after")
    def _has_this_fold(self) -> CrossValidationConfig:
        if self.fold is not None and self.fold > self.folds:
            raise ValueError(f"there is no fold {self.fold} of {self.folds}")
        return self


class DataConfig(Section):
    """Where a study's data come from."""

    built_in: ClassVar[str]
    """The source that comes with the package."""
    keys_of_files: ClassVar[tuple[str, ...]]
    """Keys that say how examples are read from any files, or from the hub."""
    keys_of_built_in: ClassVar[tuple[str, ...]]
    """Keys that say what examples of the built-in source are like."""

    source: Text
    unlabelled: Annotated[Text | None, OPERATIONAL] = None  # in the settings of students alone, who learn from them
    """Examples without labels, from which students learn what their teacher answers; never used to judge a model."""
    split_seed: Seed = 0
    cross_validation: Annotated[
        CrossValidationConfig | None,
        BeforeValidator(lambda value: {"folds": value} if isinstance(value, int) else value),
    ] = None
    """The number of folds. Each seed of the study then divides the data anew, and each fold is tested by models that
    are trained on the others; a test split is set aside no more. None: there is a test split."""

    @property
    def is_cross_validated(self) -> bool:
        """Whether all examples are tested in turn; a study of one fold tests that alone."""
        return self.cross_validation is not None and self.cross_validation.fold is None

    @property
    def is_one_fold(self) -> bool:
        """Whether it is a part of a cross-validation, which decides nothing by itself."""
        return self.cross_validation is not None and self.cross_validation.fold is not None

    def file_endings(self) -> tuple[str, ...]:
        """Endings of the files whose path without them is ``source``; empty where ``source`` is a whole path."""
        return ()

    def without_effect(self) -> Iterator[tuple[str, str]]:
        """Keys that are given and do nothing, each with the reason."""
        if self.cross_validation is not None:
            for key in ("test_fraction", "test_limit"):
                if getattr(self, key) != type(self).model_fields[key].default:
                    yield f"data.{key}", "data.cross_validation tests every example in turn"

    def for_new_data(self, source: str) -> dict[str, Any]:
        """Keys and values, as plain data, that hold for new test data of the same kind too.

        Args:
            source: The source of the new data.
        """
        kept = self.keys_of_built_in if source == self.built_in else self.keys_of_files
        return {"source": source, **self.model_dump(mode="json", include=set(kept))}


class BaselineConfig(Section):
    """The model that the candidates are compared with: a fresh config of a family, or a trained model."""

    model: Text
    """A family (``vit``, ``deit``; ``marian``, ``bart``), a model directory, or a hub id."""
    config: dict[str, Any] = Field(default_factory=dict)
    """The family's own configuration keys (for a fresh model)."""
    fresh: bool = False
    """With a trained model: use only its shape, and train from random weights."""
    seeds: Annotated[SomeSeeds | None, OPERATIONAL] = None
    """Seeds that the baseline is trained with, all of the study's among them; None: the study's. All candidates that
    are trained from scratch are compared with all its trainings: a further one costs as little as one more seed of a
    single candidate."""


class FinetuneConfig(Section):
    """How an assembled student is tuned as a whole after its blocks were taught; 0 epochs: not at all.

    Why these defaults: docs/distilling.md.
    """

    epochs: Epochs = 4
    learning_rate: Rate = 1e-3
    cross_entropy: NonNegative = 1.0
    """Weight of the cross-entropy with the targets."""
    logits: NonNegative = 1.0
    """Weight of the Kullback-Leibler divergence to the teacher's output distribution, times the temperature squared
    (Hinton, Vinyals and Dean 2015, arXiv 1503.02531)."""
    temperature: Positive = 2.0
    hidden_states: NonNegative = 0.0
    """Weight of the mean squared error to the teacher's hidden states after each layer, divided by their variance."""
    average_last: SomeEpochs | None = None
    """As in ``train``, for the epochs of the tuning."""
    dropout: Fraction | None = None
    """Probability of each dropout of the model that is not 0; by default its own. Students, which are smaller than
    their teacher and also learn from it, need less than it did."""
    targets: Literal["auto", "data", "teacher"] = "auto"
    """What is to be learned: the data's targets, or the teacher's own translations of the training sentences
    (sequence-level distillation: Kim and Rush 2016, arXiv 1606.07947). ``auto``: the teacher's in a study whose models
    write text, else the data's."""
    teacher_beam: Beam = 4
    """Hypotheses that the teacher keeps for each sentence when it translates them."""

    @model_validator(mode="after")
    def _learns_from_something(self) -> FinetuneConfig:
        if self.epochs and not (self.cross_entropy or self.logits or self.hidden_states):
            raise ValueError("cross_entropy, logits and hidden_states are all 0; give one of them a weight")
        return self


class DistillConfig(Section):
    """How blocks are taught to do what the teacher's parts at their sites do."""

    epochs: SomeEpochs = 6
    learning_rate: Rate = 2e-3
    warmup: Fraction = 0.05
    weight_decay: NonNegative = 0.0
    batch_multiple: Annotated[int, Field(ge=1, le=10**4)] = 1
    """Batches are so many times as large as in training: the cost of wide blocks grows with the number of steps more
    than with that of examples."""
    memory_fraction: Annotated[float, Field(gt=0, le=1), OPERATIONAL] = 0.5
    """Fraction of the free memory that blocks taught at once may take; where not all fit, they are taught in groups."""


class CandidateConfig(Section):
    """One reduced form."""

    plan: Annotated[dict[str, Any], Field(max_length=1000)]
    """Site patterns -> a block's name, or {block: name, argument: value}; checked against the model. An empty plan, or
    one that changes nothing, goes with ``distill`` and tuning alone: a control that is tuned as long as the others."""
    method: Literal["scratch", "distill"] = "scratch"
    """``scratch``: the reduced form is trained as the baseline is; ``distill``: the trained baseline teaches its new
    blocks, and then the whole model is tuned as ``finetune`` says."""
    finetune: FinetuneConfig | None = None
    """With ``distill``: instead of the study's."""

    @model_validator(mode="after")
    def _finetune_goes_with_distill(self) -> CandidateConfig:
        if self.finetune is not None and self.method != "distill":
            raise ValueError("finetune goes with method: distill")
        return self


class TrainConfig(Section):
    """How every model of the study learns, the baseline included."""

    batches_differ_in_shape: ClassVar[bool] = False
    """Whether training batches have many shapes, as sentences do; the compiler has to know it beforehand."""

    epochs: Epochs = 20
    learning_rate: Rates = (1e-3, 3e-3, 1e-2)
    """One rate, or a list that is searched on the validation split, for every model alike."""
    search_epochs: Annotated[SomeEpochs | None, OPERATIONAL] = None
    """Epochs for each rate in the search; by default ``epochs``: the best rate of shorter trainings may be another."""
    weight_decay: NonNegative = 0.01
    betas: tuple[Fraction, Fraction] = (0.9, 0.99)
    schedule: Literal["cosine", "one_cycle", "inverse_sqrt", "constant"] = "cosine"
    warmup: Fraction = 0.1
    """Fraction of all steps in which the learning rate rises."""
    average_last: SomeEpochs | None = None
    """The trained model is the mean of its weights after each of this many last epochs (Vaswani et al. 2017, 6.1)."""
    label_smoothing: Fraction = 0.0
    clip_norm: Positive | None = 1.0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """``auto``: bfloat16 autocast on a GPU that has it, float32 elsewhere."""
    compile: bool = False
    checkpoint_seconds: Annotated[NonNegative, OPERATIONAL] = 30.0
    """A checkpoint is written when this much time has passed since the last; 0: after every epoch."""


def _usual_margin(section: dict[str, Any]) -> float:
    # Where the metric is wrong, pydantic reports that, and this default is not used.
    return METRICS[section["metric"]].max_drop if "metric" in section else 0.0


_PERCENT = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,6})?) ?%")


class AcceptConfig(Section):
    """The metric of quality, the margin, and the confidence that a decision needs."""

    answers: ClassVar[AnswerKind]
    """The kind of answer that the task's models give; ``metric`` judges answers of this kind."""

    metric: str
    """A metric of the catalogue (``leanformer.results.metrics``) that judges such answers."""
    max_drop: NonNegative = Field(default_factory=_usual_margin)
    """The margin, in the metric's own units, such as a fraction of the examples (0.01 is one percentage point) or
    points of a score; by default the metric's own margin. ``10%`` in place of a number is a ``max_ratio`` of 1.1."""
    max_ratio: Annotated[float, Field(ge=1, le=100)] | None = None
    """How many times the baseline's error rate a candidate's may be, for a metric that is a share of right answers. It
    is tested in place of a drop, and ``max_drop`` is 0."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    looks: Annotated[int, Field(ge=1, le=5)] = 2
    """How often the test split may be looked at, each time with further seeds or candidates; set before the first look.
    Each look gets an equal share of the error."""

    @model_validator(mode="before")
    @classmethod
    def _read_ratio(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        drop, ratio = given.get("max_drop"), given.get("max_ratio")
        if isinstance(drop, str) and (share := _PERCENT.fullmatch(drop)):
            return {**given, "max_drop": 0.0, "max_ratio": 1 + float(share[1]) / 100}
        return {**given, "max_drop": 0.0} if ratio is not None and "max_drop" not in given else given

    @field_validator("metric", mode="before")
    @classmethod
    def _judges(cls, metric: object) -> object:
        return one_of(lambda: [known.key for known in judging(cls.answers)])(metric)

    @field_validator("max_drop")
    @classmethod
    def _is_less_than_all(cls, max_drop: float, info: ValidationInfo) -> float:
        most = METRICS[info.data["metric"]].span if "metric" in info.data else math.inf
        if max_drop >= most:
            raise PydanticCustomError("less_than", "Input should be less than {most}", {"most": f"{most:g}"})
        return max_drop

    @field_validator("max_ratio")
    @classmethod
    def _is_of_errors(cls, max_ratio: float | None, info: ValidationInfo) -> float | None:
        if max_ratio is None or not {"metric", "max_drop"} <= info.data.keys():
            return max_ratio
        metric = METRICS[info.data["metric"]]
        if not metric.counts_right:
            raise ValueError(
                f"a share of the baseline's errors is a margin for shares of right answers, and {metric.name} is none; "
                f"write max_drop as a number, such as {metric.max_drop:g}"
            )
        if info.data["max_drop"]:
            raise ValueError("max_ratio stands in place of max_drop; leave one of them out")
        return max_ratio

    def margin(self, quality: float) -> float:
        """The margin as a drop from a baseline of this quality."""
        return self.max_drop if self.max_ratio is None else (self.max_ratio - 1) * (1 - quality)

    def without_effect(self) -> Iterator[tuple[str, str]]:
        """Keys that are given and do nothing, each with the reason."""
        yield from ()


Repeats = Annotated[int, Field(ge=1, le=10**4)]


Calls = Annotated[int, Field(ge=1, le=10**6)]


Runtime = Literal["torch", "onnx", "ctranslate2"]
"""What runs a model: PyTorch, or the engine of a format."""

Precision = Literal["float32", "int8", "float16"]


class ShipConfig(Section):
    """The form in which models are shipped: decisions and costs are then those of the exported files."""

    to: Literal["onnx", "ctranslate2"]
    """The format."""
    precision: Annotated[
        tuple[Precision, ...],
        BeforeValidator(_as_list),
        Field(min_length=1),
        AfterValidator(no_repeats("precisions")),
    ] = ("float32",)
    """The precision of the weights, or a list. The baseline has the first; each model in each further precision, the
    baseline too, is one more candidate, called by its name and the precision (``small-int8``)."""


class MeasureConfig(Section):
    """How cost is measured."""

    runtimes: Annotated[
        tuple[Runtime, ...] | None,
        BeforeValidator(lambda value: value if value is None else _as_list(value)),
        AfterValidator(lambda value: value if value is None else no_repeats("runtimes")(value)),
    ] = None
    """What models run in while latency, throughput and memory are measured. Tables and ``prefer`` look at the first; by
    default the engine of ``ship.to``, or PyTorch where there is no ``ship``."""
    repeats: Repeats = 8
    """Short rounds over all models. Medians are reported, and ratios to the baseline with intervals, which take 6."""
    latency_calls: Calls = 30
    """Calls with one example in each round."""
    throughput_batch: Batch = 256
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where models are trained and measured."""
    threads: Annotated[int, Field(ge=1, le=4096)] | None = None
    """CPU threads; by default what PyTorch takes."""
    robustness: Annotated[bool, OPERATIONAL] = False
    """Whether models also answer corrupted test examples, to see whether students lose more there than the baseline."""
    from_: Annotated[Text | None, Field(alias="from"), OPERATIONAL] = None
    """A file that ``leanformer bench --out`` wrote where the models are used: latency and throughput are those in it,
    and it must hold every model of the study. None: they are measured here."""


BASELINE = "baseline"


_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


def _is_directory(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ValueError(
            f"the name {quoted(name)} cannot be a directory's; use letters, digits, ., _ and -, a letter or digit first"
        )
    if _RESERVED.fullmatch(name) or name.endswith("."):
        raise ValueError(f"the name {name!r} cannot be a directory's on every system; choose another name")
    return name


def _is_tracker(name: str) -> str:
    if name not in TRACKERS:
        raise ValueError(f"there is no tracker {quoted(name)}; trackers: {', '.join(TRACKERS)}")
    return name


class Study(Section):
    """The whole study file: the keys that studies of all tasks share."""

    writes: ClassVar[bool] = False
    """Whether its models write text, from which students can learn."""

    name: Annotated[str, Field(max_length=100), AfterValidator(_is_directory)]
    """Also the run directory's name."""
    task: str
    data: DataConfig
    baseline: BaselineConfig
    candidates: Annotated[dict[str, CandidateConfig], Field(min_length=1, max_length=1000)]
    train: TrainConfig
    distill: DistillConfig = DistillConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    seeds: SomeSeeds = (0, 1, 2)
    accept: AcceptConfig
    prefer: Annotated[str, BeforeValidator(one_of(preferences))] = preferences()[0]
    """The cost that decides which accepted candidate is the cheapest, and so recommended."""
    measure: MeasureConfig = MeasureConfig()
    ship: ShipConfig | None = None
    """The format in which models are exported; the decisions are on the exported files. None: decisions are on the
    trained models in PyTorch."""
    report_to: Annotated[
        tuple[Annotated[str, AfterValidator(_is_tracker)], ...], AfterValidator(no_repeats("trackers"))
    ] = ()
    """Experiment trackers that get every epoch and result."""

    @field_validator("candidates")
    @classmethod
    def _names_make_directories(cls, candidates: dict[str, CandidateConfig]) -> dict[str, CandidateConfig]:
        known: dict[str, str] = {BASELINE: BASELINE}
        for name in candidates:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", name):
                raise ValueError(
                    f"the name {quoted(name)} cannot be a directory's; use letters, digits, - and _, 100 at most"
                )
            _is_directory(name)
            other = known.setdefault(name.lower(), name)
            if name == BASELINE:
                raise ValueError(f"the name {name!r} is reserved for the baseline; choose another")
            if other != name:
                raise ValueError(
                    f"the names {other!r} and {name!r} differ only in case, and many disks do not tell such files "
                    "apart; choose another"
                )
        return candidates

    @model_validator(mode="after")
    def _precisions_make_names(self) -> Study:
        """A model in a further precision is a candidate of its own, whose name must be free."""
        for name in (BASELINE, *self.candidates):
            for precision in self.ship.precision[1:] if self.ship else ():
                taken = f"{name}-{precision}"
                if taken.lower() in {other.lower() for other in self.candidates}:
                    raise ValueError(
                        f"the name {taken!r} is that of {name} in {precision}, by ship.precision; choose another name "
                        "for this candidate"
                    )
        return self

    @model_validator(mode="after")
    def _preferred_cost_is_measured(self) -> Study:
        if self.measure.from_ is not None and self.prefer == "memory":
            raise ValueError(
                "prefer: memory is not in the file of measure.from, which holds times; leave measure.from out, or "
                "prefer another cost"
            )
        return self

    @model_validator(mode="after")
    def _baseline_has_all_seeds(self) -> Study:
        missing = [str(seed) for seed in self.seeds if seed not in self.baseline_seeds]
        if missing:
            raise ValueError(
                f"baseline.seeds lacks {', '.join(missing)}, which the study's seeds have; the baseline is trained "
                "with all of them and with more, so name all here"
            )
        return self

    @model_validator(mode="after")
    def _cross_validation_has_all_it_needs(self) -> Study:
        if not self.data.is_cross_validated:
            return self
        for key, given, remedy in (
            ("baseline.seeds", self.baseline.seeds is not None, "each seed divides the data for all models alike"),
            ("measure.robustness", self.measure.robustness, "robustness is that of one model on one test split"),
            ("ship", self.ship is not None, "export the recommended model afterwards (leanformer export RUN)"),
        ):
            if given:
                raise ValueError(f"{key} does not go with data.cross_validation: {remedy}; leave one of them out")
        return self

    @model_validator(mode="after")
    def _every_key_has_an_effect(self) -> Study:
        check_effects(self)
        return self

    @property
    def baseline_seeds(self) -> tuple[int, ...]:
        """The seeds that the baseline is trained with: the study's, and then its own further ones."""
        own = self.seeds if self.baseline.seeds is None else self.baseline.seeds
        return tuple(sorted(own, key=lambda seed: self.seeds.index(seed) if seed in self.seeds else len(self.seeds)))

    @property
    def runtimes(self) -> tuple[Runtime, ...]:
        """What models run in while they are measured; the first is what tables and ``prefer`` look at."""
        return self.measure.runtimes or (("torch",) if self.ship is None else (self.ship.to,))

    @classmethod
    def for_inspection(cls, longest: int | None) -> dict[str, dict[str, Any]]:
        """Section -> its keys for inspecting a trained model: a few thousand examples, in many small batches.

        Args:
            longest: Most tokens that the model takes; None where its configuration does not say.
        """
        return {"data": {"train_limit": INSPECTED}}

    def without_effect(self) -> Iterator[tuple[str, str]]:
        """Keys that are given and do nothing beside others of the study, each with the reason."""
        yield from ()

    def to_yaml(self) -> str:
        """The study with every default written out; reads back as the same study."""
        return yaml_text.write(self.model_dump(mode="json"))


INSPECTED = 4_000
"""Training examples that an inspection uses."""

STUDIES: Registry[type[Study]] = Registry(
    "leanformer.config", order=("image-classification", "translation", "text-classification")
)
"""Task -> the study file's form; a form registers itself in its module."""
