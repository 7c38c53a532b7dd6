"""The study file: every key checked, every default here."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from leanformer import yaml_text
from leanformer.errors import LeanformerError, quoted
from leanformer.fields import (
    Batch,
    Beam,
    Count,
    Deviation,
    Epochs,
    Fraction,
    Language,
    Length,
    Mean,
    Name,
    NonNegative,
    Pixels,
    Positive,
    Rate,
    Section,
    Seed,
    SomeEpochs,
    Text,
    Whole,
    first_of,
    keys_of,
    no_repeats,
    sentence,
)
from leanformer.paths import as_path
from leanformer.without_effect import check_effects


def _as_list(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _rates_differ(rates: tuple[float, ...]) -> tuple[float, ...]:
    if len({f"{rate:g}" for rate in rates}) < len(rates):
        raise ValueError("a rate stands there twice (six digits count); each must be another")
    return rates


Rates = Annotated[
    tuple[Rate, ...], BeforeValidator(_as_list), Field(min_length=1, max_length=100), AfterValidator(_rates_differ)
]


class ImageDataConfig(Section):
    """Where the images come from, and how they are split."""

    source: Text = "digits"
    """``digits`` (built in), a directory (parquet or ``root/class/*.png``), or a hub data set's id."""
    subset: Name | None = None
    """The hub data set's configuration name, where it has several."""
    image_column: Name | None = None
    label_column: Name | None = None
    channels: Annotated[Literal[1, 3] | None, Whole] = None
    """1 converts to grey, 3 to color; by default as the data are (grey stays grey)."""
    image_size: Pixels | tuple[Pixels, Pixels] | None = None
    """Pixels, or (height, width): resize to this. By default the images must share one size."""
    validation_fraction: Fraction = 0.1
    """Part of the training data set aside for validation where the data has no such split."""
    test_fraction: Fraction = 0.2
    """Part of all the data set aside for testing where the data has no such split."""
    split_seed: Seed = 0
    train_limit: Count | None = None
    """Use at most this many training examples (a seeded choice), validation examples not counted."""
    test_limit: Count | None = None
    augment: Annotated[
        tuple[Literal["random_crop", "horizontal_flip", "random_erasing"], ...], AfterValidator(no_repeats("a kind"))
    ] = ()
    normalize: Literal["auto", "data"] | tuple[tuple[Mean, ...], tuple[Deviation, ...]] = "auto"
    """``data``: mean and deviation of the training images; ``auto``: the trained model's own where it has them,
    else ``data``; or ``[[mean, ...], [std, ...]]`` in pixel values from 0 to 1."""
    storage: Literal["auto", "memory", "stream"] = "auto"
    """``memory``: decoded once, kept on the device; ``stream``: decoded batch by batch from disk; ``auto``: memory
    where the decoded images take less than half of what is free."""
    duplicates: Literal["exact", "near", "none"] = "exact"
    """Which images are looked for in two splits: those that are pixel for pixel the same; also those that look alike;
    or none, which while streaming spares the pass over all images in which they are looked at."""


class TokenizerConfig(Section):
    """The subword tokenizer that is trained where the model brings none."""

    kind: Literal["bpe", "unigram"] = "bpe"
    vocabulary: Annotated[int, Field(ge=260, le=10**6)] = 8000
    """Most subwords (a side, where each side has its own), the 256 bytes and three marks among them; fewer where the
    text gives no more."""
    shared: bool = True
    """One vocabulary for both languages, or one a side."""
    lowercase: bool = False
    """Both sides in small letters; scores then do without case too, and their signatures say so."""


class NumberWordsConfig(Section):
    """The built-in text: numbers written out in two languages, by ``num2words``."""

    kinds: Annotated[
        tuple[Literal["cardinal", "ordinal", "year", "currency"], ...],
        Field(min_length=1),
        AfterValidator(no_repeats("a kind")),
    ] = ("cardinal",)
    largest: Annotated[int, Field(ge=100, le=10**12)] = 1_000_000
    """Numbers are drawn from 0 to this, short ones as often as long ones."""
    train: Batch = 20_000
    validation: Batch = 500
    test: Batch = 1_000
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = "EUR"
    """Of the ``currency`` kind, whose numbers count hundredths of it."""


class TextDataConfig(Section):
    """Where the sentence pairs come from, and how they are prepared."""

    source: Text = "number-words"
    """``number-words`` (built in), a hub data set's id, a directory (its local copy, or an IWSLT 2017 archive as
    published), one file of pairs (.tsv, .csv, .tmx, .jsonl, .parquet), or, with two aligned plain files a split, the
    path up to the language, such as ``corpus/train`` for ``corpus/train.de`` and ``corpus/train.en``."""
    subset: Name | None = None
    """The hub data set's configuration name, where it has several."""
    source_language: Language = "de"
    target_language: Language = "en"
    """Language codes; also the names of the columns, of the files' endings, or of the columns in ``translation``."""
    numbers: NumberWordsConfig = NumberWordsConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    max_tokens: Length = 128
    """Sentences with more subwords, the end mark included, are left out of training and counted."""
    validation_fraction: Fraction = 0.05
    """Part of the training sentences set aside for validation where the data has no such split."""
    test_fraction: Fraction = 0.1
    """Part of all source sentences set aside for testing where the data has no such split, with their translations."""
    split_seed: Seed = 0
    train_limit: Count | None = None
    """Use at most this many training pairs (a seeded choice), validation pairs not counted."""
    validation_limit: Count | None = None
    test_limit: Count | None = None


class BaselineConfig(Section):
    """The model that is compared with: a fresh config of a family, or a trained model."""

    model: Text
    """A family (``vit``, ``deit``; ``marian``, ``bart``), a model directory, or a hub id."""
    config: dict[str, Any] = Field(default_factory=dict)
    """The family's own configuration keys (for a fresh model)."""
    fresh: bool = False
    """With a trained model: take its shape alone and train from random weights."""


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
    """Weight of the mean squared error to the teacher's hidden states after each layer, by their variance."""
    average_last: SomeEpochs | None = None
    """As in ``train``, of the tuning's epochs."""
    targets: Literal["auto", "data", "teacher"] = "auto"
    """What is to be learned: the data's targets, or the teacher's own translations of the training sentences
    (sequence-level distillation: Kim and Rush 2016, arXiv 1606.07947). ``auto``: the teacher's where models write text,
    in a study."""
    teacher_beam: Beam = 4
    """Hypotheses that the teacher keeps a sentence there."""

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
    """Batches are so many times as large as in training: wide blocks pay for each step more than for each example."""
    memory_fraction: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Part of the free memory that blocks taught at a time may take; more blocks than fit are taught in groups."""

    def settings(self) -> dict[str, Any]:
        """What taught blocks follow from: all but the memory that they may take."""
        return self.model_dump(mode="json", exclude={"memory_fraction"})


class CandidateConfig(Section):
    """One reduced form."""

    plan: Annotated[dict[str, Any], Field(max_length=1000)]
    """Site patterns -> a block's name, or {block: name, argument: value}; checked against the model. An empty one, or
    one that changes nothing, is for ``distill`` with tuning alone: the control of what is tuned as long."""
    method: Literal["scratch", "distill"] = "scratch"
    """``scratch``: the reduced form is trained as the baseline is; ``distill``: its new blocks are taught by the
    trained baseline, and then the whole is tuned as ``finetune`` says."""
    finetune: FinetuneConfig | None = None
    """With ``distill``: instead of the study's."""

    @model_validator(mode="after")
    def _finetune_goes_with_distill(self) -> CandidateConfig:
        if self.finetune is not None and self.method != "distill":
            raise ValueError("finetune goes with method: distill")
        return self


class TrainConfig(Section):
    """How every model of the study learns, the baseline included."""

    epochs: Epochs = 20
    learning_rate: Rates = (1e-3, 3e-3, 1e-2)
    """One rate, or a list that is searched on the validation split, alike for every model."""
    search_epochs: SomeEpochs | None = None
    """Epochs a rate gets in the search; by default ``epochs``, and the winner's run is the first seed's trial."""
    weight_decay: NonNegative = 0.01
    betas: tuple[Fraction, Fraction] = (0.9, 0.99)
    schedule: Literal["cosine", "one_cycle", "inverse_sqrt", "constant"] = "cosine"
    warmup: Fraction = 0.1
    """Part of all steps in which the rate rises."""
    average_last: SomeEpochs | None = None
    """The trained model is the mean of its weights after each of the last so many epochs (Vaswani et al. 2017, 6.1)."""
    label_smoothing: Fraction = 0.0
    clip_norm: Positive | None = 1.0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """``auto``: bfloat16 autocast on a GPU that has it, float32 elsewhere."""
    compile: bool = False
    checkpoint_seconds: NonNegative = 30.0
    """A checkpoint is written when this much time has passed since the last; 0: after every epoch."""


class ImageTrainConfig(TrainConfig):
    """How image classifiers learn."""

    batch_size: Batch = 256


class TranslationTrainConfig(TrainConfig):
    """How translators learn."""

    batch_tokens: Batch = 4096
    """Subwords a batch at most, padding included, on the longer side; sentences of like length stand together."""
    learning_rate: Rates = (1e-3,)
    betas: tuple[Fraction, Fraction] = (0.9, 0.98)
    label_smoothing: Fraction = 0.1


class AcceptConfig(Section):
    """What may be lost, and how sure one must be."""

    metric: str
    max_drop: NonNegative
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95


class ImageAcceptConfig(AcceptConfig):
    """What an image classifier may lose."""

    metric: Literal["accuracy"] = "accuracy"
    max_drop: Fraction = 0.01
    """Part of the examples: 0.01 is one point of accuracy."""


class TranslationAcceptConfig(AcceptConfig):
    """What a translator may lose."""

    metric: Literal["bleu", "chrf"] = "bleu"
    max_drop: Annotated[float, Field(ge=0, lt=100)] = 0.5
    """Points of BLEU or chrF."""
    tokenize: Literal["auto", "13a", "intl", "zh", "ja-mecab", "ko-mecab", "char", "flores101", "flores200", "none"] = (
        "auto"
    )
    """sacreBLEU's tokenizer for BLEU (chrF has none); ``auto``: what suits the target language."""


class DecodeConfig(Section):
    """How test sentences are translated."""

    beam: Beam = 1
    """1 is greedy."""
    max_tokens: Length | None = None
    """Longest translation, subwords; by default ``data.max_tokens``, or what the model's blocks can take if less."""
    batch_tokens: Batch = 4096


Repeats = Annotated[int, Field(ge=1, le=10**4)]
Calls = Annotated[int, Field(ge=1, le=10**6)]


class MeasureConfig(Section):
    """How cost is measured."""

    repeats: Repeats = 5
    """Rounds over all models; medians are reported."""
    latency_calls: Calls = 50
    """Calls with one example a round."""
    throughput_batch: Batch = 256
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where models are trained and measured."""
    threads: Annotated[int, Field(ge=1, le=4096)] | None = None
    """CPU threads; by default what PyTorch takes."""


class TranslationMeasureConfig(MeasureConfig):
    """How a translator's cost is measured: a call is the translation of one sentence, or of a batch of them."""

    repeats: Repeats = 3
    latency_calls: Calls = 10
    throughput_batch: Batch = 64


BASELINE = "baseline"


_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


def _is_directory(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ValueError(
            f"the name {quoted(name)} makes no directory; take letters, digits, ., _ and -, a letter or digit first"
        )
    if _RESERVED.fullmatch(name) or name.endswith("."):
        raise ValueError(f"no directory can be called {name!r} on every system; take another name")
    return name


class Study(Section):
    """The whole study file: what studies of every task have in common."""

    name: Annotated[str, Field(max_length=100), AfterValidator(_is_directory)]
    """Also the run directory's name."""
    task: str
    data: ImageDataConfig | TextDataConfig
    baseline: BaselineConfig
    candidates: Annotated[dict[str, CandidateConfig], Field(min_length=1, max_length=1000)]
    train: TrainConfig
    distill: DistillConfig = DistillConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1, max_length=1000), AfterValidator(no_repeats("a seed"))] = (
        0,
        1,
        2,
    )
    accept: AcceptConfig
    prefer: Literal["parameters", "latency", "train_seconds"] = "parameters"
    """By which cost the cheapest accepted candidate is recommended."""
    measure: MeasureConfig = MeasureConfig()

    @field_validator("candidates")
    @classmethod
    def _names_make_directories(cls, candidates: dict[str, CandidateConfig]) -> dict[str, CandidateConfig]:
        known: dict[str, str] = {BASELINE: BASELINE}
        for name in candidates:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", name):
                raise ValueError(
                    f"the name {quoted(name)} makes no directory; take letters, digits, - and _, 100 at most"
                )
            _is_directory(name)
            other = known.setdefault(name.lower(), name)
            if name == BASELINE:
                raise ValueError(f"the name {name!r} is taken by the baseline; take another")
            if other != name:
                raise ValueError(
                    f"the names {other!r} and {name!r} differ by case alone, and many disks tell no such files apart; "
                    "take another"
                )
        return candidates

    @model_validator(mode="after")
    def _every_key_has_an_effect(self) -> Study:
        check_effects(self)
        return self

    def to_yaml(self) -> str:
        """The study with every default written out; reads back as the same study."""
        return yaml_text.write(self.model_dump(mode="json"))


class ImageStudy(Study):
    """A study of image classifiers."""

    task: Literal["image-classification"] = "image-classification"
    data: ImageDataConfig = ImageDataConfig()
    baseline: BaselineConfig = BaselineConfig(model="vit")
    train: ImageTrainConfig = ImageTrainConfig()
    accept: ImageAcceptConfig = ImageAcceptConfig()


class TranslationStudy(Study):
    """A study of translators."""

    task: Literal["translation"] = "translation"
    data: TextDataConfig = TextDataConfig()
    baseline: BaselineConfig = BaselineConfig(
        model="marian",
        config={
            "d_model": 128,
            "encoder_layers": 3,
            "decoder_layers": 3,
            "encoder_attention_heads": 8,
            "decoder_attention_heads": 8,
            "encoder_ffn_dim": 512,
            "decoder_ffn_dim": 512,
        },
    )
    train: TranslationTrainConfig = TranslationTrainConfig()
    accept: TranslationAcceptConfig = TranslationAcceptConfig()
    decode: DecodeConfig = DecodeConfig()
    measure: TranslationMeasureConfig = TranslationMeasureConfig()


STUDIES: dict[str, type[Study]] = {"image-classification": ImageStudy, "translation": TranslationStudy}
"""Task -> the study file's form."""


def read_study(path: str | PathLike[str], overrides: Sequence[str] = ()) -> Study:
    """Reads a study file.

    Args:
        path: A YAML file.
        overrides: ``key.key=value`` each, the value as YAML; they replace what the file says.

    Raises:
        LeanformerError: The file is missing, is not YAML, or a key or value is wrong; the message names it.
    """
    data = _read_mapping(path)
    for override in _checked(overrides, "overrides"):
        _apply(override, data)
    return make_study(data, str(path))


def _read_mapping(path: str | PathLike[str]) -> dict[str, Any]:
    data = yaml_text.read_file(as_path(path, "study"))
    if not isinstance(data, dict):
        raise LeanformerError(f"{path}: a study is a mapping with the keys {', '.join(ImageStudy.model_fields)}")
    return data


def _checked(options: object, name: str) -> Sequence[str]:
    if not isinstance(options, list | tuple) or not all(isinstance(option, str) for option in options):
        raise LeanformerError(f"{name}: a list of texts such as ['train.epochs=5'], not {quoted(options)}")
    return options


def read_data(source: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """A study's ``data`` as plain data: with this source, or where the source is a study file (.yaml) that file's.

    Args:
        source: As ``data.source``, or a study file's path.
        overrides: ``key=value`` each, of that section.

    Raises:
        LeanformerError: The file or an override cannot be read.
    """
    data = {"source": source}
    if source.endswith((".yaml", ".yml")):
        data = _read_mapping(source).get("data", {})
        if not isinstance(data, dict):
            raise LeanformerError(f"{source}: data: a mapping of keys, not {quoted(data)}")
    for override in overrides:
        _apply(override, data, "--set", "source_language=de")
    return data


def read_probes(options: Sequence[str]) -> dict[str, Any]:
    """Blocks with their arguments by name, each written ``name={block: slots, rank: 8}``.

    Raises:
        LeanformerError: One is not written so.
    """
    probes: dict[str, Any] = {}
    for option in options:
        name = option.partition("=")[0].strip()
        if name in probes:
            raise LeanformerError(f"--probe {quoted(name)}: the name stands there twice; take another")
        check_probe_name(name, "--probe")
        _apply(option, probes, "--probe", "lean={block: slots, rank: 8}")
    for name, entry in probes.items():
        if isinstance(entry, str):
            probes[name] = {"block": entry}
        elif not isinstance(entry, dict) or "block" not in entry:
            raise LeanformerError(f"--probe {name}: write a block's name or {{block: name, argument: value}}")
    return probes


def check_probe_name(name: object, where: str) -> None:
    """Refuses what no probe of an inspection can be called.

    Raises:
        LeanformerError: It is no text of 1 to 40 letters, digits, spaces, - and _, or the name of something else there.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[\w-]([\w -]{0,38}[\w-])?", name):
        raise LeanformerError(
            f"{where} {quoted(name)}: a probe's name is 1 to 40 letters, digits, spaces, - and _; its block stands "
            "behind it, such as 'lean={block: slots, rank: 8}'"
        )
    if name in ("none", "linear"):
        raise LeanformerError(f"{where} {name!r}: so every inspection calls a comparison of its own; take another name")


def make_study(data: Mapping[str, Any], where: str = "study") -> Study:
    """Checks a study given as plain data.

    Args:
        data: Keys as in a study file, to mappings, lists, texts and numbers; a path may stand for its text.
        where: What to name as the place of a mistake.

    Raises:
        LeanformerError: A key is unknown or missing, or a value is wrong; the message names it and ``where``.
    """
    if not isinstance(data, Mapping):
        raise LeanformerError(f"{where}: a study is a mapping of keys, not {quoted(data)}")
    task = data.get("task", "image-classification")
    if not isinstance(task, str) or task not in STUDIES:
        raise LeanformerError(f"{where}: task: there is no task {quoted(task)}; tasks: {', '.join(STUDIES)}")
    form = STUDIES[task]
    plain = yaml_text.plain(data, where)
    try:
        # By way of JSON: its strict mode takes a list for a tuple, as a YAML file has to write it.
        return form.model_validate_json(json.dumps(plain))
    except ValidationError as error:
        raise LeanformerError(f"{where}: {_problem(error, plain, form)}") from None


def _apply(override: str, data: dict[str, Any], option: str = "--set", example: str = "train.epochs=5") -> None:
    path, equals, value = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise LeanformerError(f"{option} {override}: write key=value, such as {example}")
    if len(keys) > yaml_text.DEEPEST:
        raise LeanformerError(f"{option} {override}: more than {yaml_text.DEEPEST} keys within each other")
    parsed = yaml_text.read_value(value, f"{option} {override}")
    for key in keys[:-1]:
        inner = data.setdefault(key, {})
        if not isinstance(inner, dict):
            raise LeanformerError(f"{option} {override}: {quoted(key)} holds a value, not keys")
        data = inner
    data[keys[-1]] = parsed


def _problem(error: ValidationError, data: Mapping[str, Any], form: type[Study]) -> str:
    """The first mistake in one line: which key, and what would be right."""
    first = first_of(error, data)
    keys = keys_of(first)
    name = ".".join(keys)
    if first["type"] == "extra_forbidden":
        known = _known_keys(keys[:-1], form)
        close = difflib.get_close_matches(keys[-1][:100], known, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return f"unknown key {quoted(name)}; {hint}keys there: {', '.join(known)}"
    if first["type"] == "missing":
        return f"the key {quoted(name)} is missing"
    return f"{name}: {sentence(first)}" if name else sentence(first)


def _known_keys(path: list[str], form: type[Study]) -> list[str]:
    section: type[BaseModel] = form
    for key in path:
        if section is form and key == "candidates":
            section = CandidateConfig
        elif key in section.model_fields:
            annotation = section.model_fields[key].annotation
            for part in (annotation, *get_args(annotation)):
                if isinstance(part, type) and issubclass(part, BaseModel):
                    section = part
    return list(section.model_fields)
