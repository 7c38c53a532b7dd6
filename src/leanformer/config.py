"""The study file: every key checked, every default here."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from leanformer.errors import LeanformerError


class Section(BaseModel):
    """A part of the study file: unknown keys are errors, values are not coerced from other types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _as_list(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]


Seed = Annotated[int, Field(ge=0, lt=2**32)]


class DataConfig(Section):
    """Where the examples come from, and how they are split."""

    source: str = "digits"
    """``digits`` (built in), a directory (parquet or ``root/class/*.png``), or a hub data set's id."""
    subset: str | None = None
    """The hub data set's configuration name, where it has several."""
    image_column: str | None = None
    label_column: str | None = None
    channels: Literal[1, 3] | None = None
    """1 converts to grey, 3 to color; by default as the data are (grey stays grey)."""
    image_size: Count | tuple[Count, Count] | None = None
    """Pixels, or (height, width): resize to this. By default the images must share one size."""
    validation_fraction: Fraction = 0.1
    """Part of the training data set aside for validation where the data has no such split."""
    test_fraction: Fraction = 0.2
    """Part of all the data set aside for testing where the data has no such split."""
    split_seed: Seed = 0
    train_limit: Count | None = None
    """Use at most this many training examples (a seeded choice), validation examples not counted."""
    test_limit: Count | None = None
    augment: tuple[Literal["random_crop", "horizontal_flip", "random_erasing"], ...] = ()
    normalize: Literal["auto", "data"] | tuple[tuple[NonNegative, ...], tuple[Positive, ...]] = "auto"
    """``data``: mean and deviation of the training images; ``auto``: the trained model's own where it has them,
    else ``data``; or ``[[mean, ...], [std, ...]]`` in pixel values from 0 to 1."""
    storage: Literal["auto", "memory", "stream"] = "auto"
    """``memory``: decoded once, kept on the device; ``stream``: decoded batch by batch from disk; ``auto``: memory
    where the decoded images take less than half of what is free."""


class BaselineConfig(Section):
    """The model that is compared with: a fresh config of a family, or a trained model."""

    model: str = "vit"
    """A family (``vit``, ``deit``), a model directory, or a hub id."""
    config: dict[str, Any] = Field(default_factory=dict)
    """The family's own configuration keys (for a fresh model)."""
    fresh: bool = False
    """With a trained model: take its shape alone and train from random weights."""


class CandidateConfig(Section):
    """One reduced form."""

    plan: Annotated[dict[str, Any], Field(min_length=1)]
    """Site patterns -> a block's name, or {block: name, argument: value}; checked against the model."""
    method: Literal["scratch"] = "scratch"


class TrainConfig(Section):
    """How every model of the study learns, the baseline included."""

    epochs: Annotated[int, Field(ge=0)] = 20
    batch_size: Count = 256
    learning_rate: Annotated[tuple[Positive, ...], BeforeValidator(_as_list), Field(min_length=1)] = (1e-3, 3e-3, 1e-2)
    """One rate, or a list that is searched on the validation split, alike for every model."""
    search_epochs: Count | None = None
    """Epochs a rate gets in the search; by default ``epochs``, and the winner's run is the first seed's trial."""
    weight_decay: NonNegative = 0.01
    betas: tuple[Fraction, Fraction] = (0.9, 0.99)
    schedule: Literal["cosine", "one_cycle", "constant"] = "cosine"
    warmup: Fraction = 0.1
    """Part of all steps in which the rate rises."""
    label_smoothing: Fraction = 0.0
    clip_norm: Positive | None = 1.0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """``auto``: bfloat16 autocast on a GPU that has it, float32 elsewhere."""
    compile: bool = False
    checkpoint_seconds: NonNegative = 30.0
    """A checkpoint is written when this much time has passed since the last; 0: after every epoch."""


class AcceptConfig(Section):
    """What may be lost, and how sure one must be."""

    metric: Literal["accuracy"] = "accuracy"
    max_drop: Fraction = 0.01
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95


class MeasureConfig(Section):
    """How cost is measured."""

    repeats: Count = 5
    """Rounds over all models; medians are reported."""
    latency_calls: Count = 50
    """Calls with one example a round."""
    throughput_batch: Count = 256
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where models are trained and measured."""
    threads: Count | None = None
    """CPU threads; by default what PyTorch takes."""


BASELINE = "baseline"


class Study(Section):
    """The whole study file."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Also the run directory's name."""
    task: Literal["image-classification"] = "image-classification"
    data: DataConfig = DataConfig()
    baseline: BaselineConfig = BaselineConfig()
    candidates: Annotated[dict[str, CandidateConfig], Field(min_length=1)]
    train: TrainConfig = TrainConfig()
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0, 1, 2)
    accept: AcceptConfig = AcceptConfig()
    prefer: Literal["parameters", "latency", "train_seconds"] = "parameters"
    """By which cost the cheapest accepted candidate is recommended."""
    measure: MeasureConfig = MeasureConfig()

    @field_validator("candidates")
    @classmethod
    def _names_make_directories(cls, candidates: dict[str, CandidateConfig]) -> dict[str, CandidateConfig]:
        for name in candidates:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
                raise ValueError(f"the name {name!r} makes no directory; take letters, digits, - and _")
            if name == BASELINE:
                raise ValueError(f"the name {name!r} is taken by the baseline; take another")
        return candidates

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed stands there twice; each must be another")
        return seeds

    def to_yaml(self) -> str:
        """The study with every default written out; reads back as the same study."""
        text: str = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)
        return text


class _Loader(yaml.SafeLoader):
    """YAML without three surprises: a key that stands twice and a key that is no text are errors, 1e-3 is a number."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[str] = set()
    for key, _ in node.value:
        if key.value in seen:
            raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} stands there twice", problem_mark=key.start_mark)
        seen.add(key.value)
    mapping = loader.construct_mapping(node, deep=True)
    for (key, _), value in zip(node.value, mapping, strict=True):
        if not isinstance(value, str):
            raise yaml.MarkedYAMLError(
                problem=f"YAML reads the key {key.value} as {value!r}; put it in quotes", problem_mark=key.start_mark
            )
    return mapping


# YAML 1.1 wants 1.0e-3; YAML 1.2 and people write 1e-3.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)
_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_study(path: str | Path, overrides: Sequence[str] = ()) -> Study:
    """Reads a study file.

    Args:
        path: A YAML file.
        overrides: ``key.key=value`` each, the value as YAML; they replace what the file says.

    Raises:
        LeanformerError: The file is missing, is not YAML, or a key or value is wrong; the message names it.
    """
    path = Path(path)
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise LeanformerError(f"{path}{line}: {error.problem}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        problem = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise LeanformerError(f"{path}: the study file cannot be read: {problem}") from None
    if not isinstance(data, dict):
        raise LeanformerError(f"{path}: a study is a mapping with the keys {', '.join(Study.model_fields)}")
    for override in overrides:
        _apply(override, data)
    return make_study(data, str(path))


def make_study(data: Mapping[str, Any], where: str = "study") -> Study:
    """Checks a study given as plain data.

    Raises:
        LeanformerError: A key is unknown or missing, or a value is wrong; the message names it and ``where``.
    """
    try:
        # By way of JSON: its strict mode takes a list for a tuple, as a YAML file has to write it.
        return Study.model_validate_json(json.dumps(data, default=str))
    except ValidationError as error:
        raise LeanformerError(f"{where}: {_problem(error)}") from None


def _apply(override: str, data: dict[str, Any]) -> None:
    path, equals, value = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise LeanformerError(f"--set {override}: write key=value, such as train.epochs=5")
    try:
        parsed = yaml.load(value, _Loader)
    except yaml.YAMLError:
        raise LeanformerError(f"--set {override}: the value is not YAML") from None
    for key in keys[:-1]:
        inner = data.setdefault(key, {})
        if not isinstance(inner, dict):
            raise LeanformerError(f"--set {override}: {key!r} holds a value, not keys")
        data = inner
    data[keys[-1]] = parsed


def _problem(error: ValidationError) -> str:
    """The first mistake in one line: which key, and what would be right."""
    first = error.errors()[0]
    # Where several types are possible, pydantic puts the type's name behind the key.
    keys = [str(part) for part in first["loc"] if not str(part).startswith(("literal[", "constrained-", "tuple["))]
    name = ".".join(keys)
    if first["type"] == "extra_forbidden":
        known = _known_keys(keys[:-1])
        close = difflib.get_close_matches(keys[-1], known, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return f"unknown key {name!r}; {hint}keys there: {', '.join(known)}"
    if first["type"] == "missing":
        return f"the key {name!r} is missing"
    message = first["msg"].removeprefix("Value error, ")
    given = "" if first["type"] == "value_error" else f", not {first['input']!r}"
    return f"{name}: {message[0].lower()}{message[1:]}{given}"


def _known_keys(path: list[str]) -> list[str]:
    section: type[BaseModel] = Study
    for key in path:
        if section is Study and key == "candidates":
            section = CandidateConfig
        elif key in section.model_fields:
            annotation = section.model_fields[key].annotation
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                section = annotation
    return list(section.model_fields)
