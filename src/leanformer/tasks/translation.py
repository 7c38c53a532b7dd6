"""Translation."""

from __future__ import annotations

import copy
import hashlib
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from transformers import PreTrainedModel

from leanformer.config.translation import TokenizerConfig, TranslationStudy
from leanformer.core.errors import LeanformerError, quoted
from leanformer.core.translating import Translated
from leanformer.data.alignment import Alignment
from leanformer.data.corruptions import TEXTS
from leanformer.data.pairs import SentencePairs
from leanformer.data.text_batches import (
    EncodedPairs,
    Side,
    TeacherView,
    TextBatches,
    check_lengths,
    check_limit,
    encode_pairs,
)
from leanformer.data.text_checks import unlabelled_leak
from leanformer.data.text_sources import load_tested_text, load_text
from leanformer.data.tokenizers import TranslationTokenizer, train_tokenizer
from leanformer.data.trimming import Trimmed, check_trim
from leanformer.data.unlabelled import read_sentences
from leanformer.decide import judge
from leanformer.decide.corpus import paired_bootstrap
from leanformer.learn.losses import Batch, inputs_of
from leanformer.learn.vocabulary import trim_for
from leanformer.measure.cost import Exported, Subject
from leanformer.measure.engine_memory import translating_memory
from leanformer.measure.scoring import Scoring, choose_tokenizer
from leanformer.measure.translation import Translations
from leanformer.measure.writing import Lengths, decoding_costs
from leanformer.model.family import find_family
from leanformer.model.generate import decoder_start, most_positions, most_tokens, translate
from leanformer.model.plan import TARGET_VOCABULARY, Plan
from leanformer.model.surgery import ResolvedPlan
from leanformer.model.text_baseline import TextBaseline, TextGeometry
from leanformer.model.vocabulary import check_can_be_trimmed, kept_ids, target_vocabulary
from leanformer.results.metrics import METRICS, Metric, metrics_of
from leanformer.results.rows import Quality
from leanformer.results.translation import SeedScores
from leanformer.runtime.translator import Translator
from leanformer.tasks.base import TASKS, MakeStep, Outcome, SplitName, WritingTask
from leanformer.tasks.translation_checks import (
    check_positions,
    check_test_split,
    cut_warning,
    left_out_warnings,
    scoring_notes,
    test_warnings,
    tokenizer_of,
)
from leanformer.tasks.translation_details import by_length, examples, source_words


@TASKS.register("translation")
class Translation(WritingTask):
    """A study of translators; see ``Task``.

    Args:
        study: The study.
        device: Where models are trained.
        all_tested: Whether all data are for testing a trained baseline.

    Raises:
        LeanformerError: Data, tokenizer or baseline are wrong, or do not fit together.
    """

    batch_key = "train.batch_tokens"
    answer_key = "decode.batch_tokens"
    tokenizer: TranslationTokenizer
    batches: TextBatches
    _untrimmed: Translation | None = None
    """The task as the teacher sees it, where this one is that of a model with fewer target subwords."""
    _alignment: Alignment | None = None
    _train_view: TeacherView | None = None
    _validated: tuple[weakref.ref[PreTrainedModel], Translations] | None = None

    def __init__(self, study: TranslationStudy, device: torch.device, all_tested: bool = False) -> None:
        self.study: TranslationStudy = study
        self.device = device
        self.batch = f"{study.train.batch_tokens} subwords"
        config = study.data
        baseline = TextBaseline(study.baseline.model, study.baseline.config, study.baseline.fresh)
        self.data = load_tested_text(config) if all_tested else load_text(config)
        if baseline.trained is None:
            self.tokenizer = train_tokenizer(config.tokenizer, self.data.train.sources, self.data.train.targets)
        else:
            self.tokenizer = tokenizer_of(baseline, config)
        self._geometry = TextGeometry(
            self.tokenizer.source_vocabulary,
            self.tokenizer.target_vocabulary,
            self.tokenizer.shared,
            self.tokenizer.pad_id,
            self.tokenizer.eos_id,
            max(config.max_tokens, study.decode.max_tokens or 0),
            self.tokenizer.first_id,
            self.tokenizer.last_id,
        )
        baseline.check(self._geometry, "decode" if (study.decode.max_tokens or 0) > config.max_tokens else "data")
        self._baseline = baseline
        self._metric = METRICS[study.accept.metric]
        self.scoring = Scoring(
            choose_tokenizer(study.accept.tokenize, config.target_language, self.data.test.targets),
            self.tokenizer.lowercases,
            self.tokenizer.normalize,
        )
        train, validation, self._test = (
            encode_pairs(pairs, self.tokenizer) for pairs in (self.data.train, self.data.validation, self.data.test)
        )
        limited = {"new": train} if all_tested else {"training": train, "validation": validation}
        check_limit(limited, config.max_tokens)
        self._unlabelled = () if all_tested else self._read_unlabelled()
        self._left_out = train.too_long(config.max_tokens, config.max_tokens)
        self._train = train.without(self._left_out) if len(self._left_out) else train
        # Long pairs are left out of the validation split as of the training split; the test split stays complete.
        long = validation.too_long(config.max_tokens, config.max_tokens)
        self._validation, self._validation_pairs = validation.without(long), self.data.validation.without(long)
        self._positions = most_positions(self.baseline_outline)
        check_positions(self.data.test.sources, self._test.sources.lengths, self._positions, baseline)
        # What each model of the study can read, in subwords; tasks of candidates share the list.
        self._source_limits = [self._positions]
        counts = {} if all_tested else {"train": len(self._left_out), "validation": len(long)}
        self.notes = [
            *self.data.notes,
            *baseline.notes,
            *self._counts(counts),
            *scoring_notes(self.scoring, self.data.test.targets),
        ]
        leaks = (
            unlabelled_leak(self._unlabelled, pairs, role)
            for role, pairs in (("validation", self.data.validation), ("test", self.data.test))
        )
        self.warnings = [
            *self.data.warnings,
            *(leak for leak in leaks if leak is not None),
            *left_out_warnings(self.data, counts, config.max_tokens),
        ]
        self._trimmed: dict[int, Trimmed] = {}  # by the limit on target subwords
        self._start_id = decoder_start(self.baseline_outline)
        self.batches = self.teaching_batches(1)

    def _read_unlabelled(self) -> tuple[str, ...]:
        """The sentences of ``data.unlabelled`` that a model can read as training sentences."""
        if self.study.data.unlabelled is None:
            return ()
        sentences = read_sentences(self.study.data.unlabelled)
        most = self.study.data.max_tokens
        lengths = map(len, self.tokenizer.encode_source(sentences))
        return tuple(sentence for sentence, length in zip(sentences, lengths, strict=True) if length <= most)

    def _counts(self, left_out: Mapping[str, int]) -> list[str]:
        tokenizer = self.tokenizer
        vocabulary = f"{tokenizer.source_vocabulary:,}"
        if not tokenizer.shared:
            vocabulary += f" and {tokenizer.target_vocabulary:,}"
        notes = [f"tokenizer: {vocabulary} subwords"]
        for split, count in left_out.items():
            if count:
                notes.append(
                    f"{split}: {count:,} pairs left out, as a side has more than {self.study.data.max_tokens} subwords"
                )
        if self._unlabelled:
            notes.append(
                f"{len(self._unlabelled):,} sentences without a translation, for students to learn what their teacher "
                f"says; those of more than {self.study.data.max_tokens} subwords are left out"
            )
        return notes

    # Data and models

    def make_baseline(self, seed: int) -> PreTrainedModel:
        return self._baseline.make(self._geometry, seed)

    @cached_property
    def baseline_outline(self) -> PreTrainedModel:
        return self._baseline.outline(self._geometry)

    def settle_plan(self, plan: Plan) -> Plan:
        entry = plan.get(TARGET_VOCABULARY)
        if entry is None:
            return plan
        check_can_be_trimmed(self.baseline_outline, find_family(self.baseline_outline))
        if not isinstance(entry, Mapping) or set(entry) != {"limit"}:
            raise LeanformerError(
                f"plan {TARGET_VOCABULARY!r}: write {{limit: 2000}}, the most subwords to keep, not {quoted(entry)}"
            )
        limit = entry["limit"]
        check_trim(limit, self.tokenizer.target_vocabulary)
        if limit not in self._trimmed:
            texts = self.data.train.without(self._left_out).targets
            self._trimmed[limit] = trim_for(self.baseline_outline, self.tokenizer, texts, limit)
        return {**plan, TARGET_VOCABULARY: {"ids": list(self._trimmed[limit].ids)}}

    def for_plan(self, plan: ResolvedPlan, where: str) -> Translation:
        ids = kept_ids(plan)
        if ids is None:
            return self
        task = copy.copy(self)
        trimmed = next(one for one in self._trimmed.values() if list(one.ids) == ids)
        task.tokenizer = trimmed.tokenizer
        assert self._start_id is not None  # of a marian
        task._start_id = ids.index(self._start_id)
        task._validated = None
        most = self.study.data.max_tokens
        train, validation, task._test = (
            encode_pairs(pairs, task.tokenizer)
            for pairs in (self.data.train.without(self._left_out), self._validation_pairs, self.data.test)
        )
        check_limit({f"training (as {where} has them)": train, f"validation (as {where} has them)": validation}, most)
        task._untrimmed = self
        task._alignment = Alignment(self.tokenizer, trimmed, self._train.targets, train.targets)
        # Texts have more of fewer subwords, and some are too long now. Translations of all are scored as of any model.
        task._train_view = task._view(self._train, train).without(train.too_long(most, most))
        task._train, task._validation = (pairs.without(pairs.too_long(most, most)) for pairs in (train, validation))
        task.batches = task.teaching_batches(1)
        more = len(task._train.targets.tokens) / len(task._train) / (len(self._train.targets.tokens) / len(self._train))
        note = f"{where}: {len(ids):,} target subwords, with which targets have {more - 1:.1%} more tokens"
        if len(task._train) < len(self._train):
            note += f"; {len(self._train) - len(task._train):,} pairs are too long for it, and left out of its training"
        self.notes = [*self.notes, note]
        limit = min(self.evaluation_settings()["max_tokens"], self._positions)
        cut, before = (int((test.targets.lengths > limit).sum()) for test in (task._test, self._test))
        if cut > before:
            self.warnings = [*self.warnings, cut_warning(task._test.targets.lengths, limit, self._positions, where)]
        return task

    def check_plan(self, plan: ResolvedPlan, where: str) -> None:
        for name, entry in plan.items():
            limit = entry.get("max_length")
            if limit is None:
                continue
            sides: list[Side] = ["target"] if name.startswith("decoder") else ["source"]
            if name.startswith("decoder") and ("cross" in name or name.endswith(".layer")):
                sides.append("source")
            if "source" in sides:
                self._source_limits.append(limit)
            # Translations of test sentences need no check: they end at the block's limit.
            of_test: list[Side] = [side for side in sides if side == "source"]
            check_lengths(
                {"train": self._train, "validation": self._validation, "test": self._test},
                limit,
                f"{where} at {name}",
                {"train": sides, "validation": sides, "test": of_test},
            )

    def check_keys(self) -> None:
        if self._baseline.trained is not None and self.study.data.tokenizer != TokenizerConfig():
            raise LeanformerError(
                f"data.tokenizer does nothing here: {self.study.baseline.model} has its own tokenizer; leave the "
                "section out"
            )
        for key in ("prefix", "language_codes"):
            if self._baseline.trained is None and getattr(self.study.data, key):
                raise LeanformerError(
                    f"data.{key} does nothing here: a fresh {self.study.baseline.model} learns one pair of languages "
                    "alone; leave it out"
                )

    def check_export(self) -> None:
        self.tokenizer.library_forms()

    def check_test(self) -> None:
        references = self.data.test.targets
        fitting = choose_tokenizer("auto", self.study.data.target_language, references)
        check_test_split(references, self._metric, self.scoring, fitting)
        most = min(self.evaluation_settings()["max_tokens"], self._positions)
        limits = (most, self._positions)
        found = test_warnings(
            references, self._test.targets, limits, self.tokenizer, self._metric, self.scoring, fitting
        )
        self.warnings = [*self.warnings, *found]
        self.check_groups()

    @cached_property
    def test_signature(self) -> str:
        texts = "\0".join((*self.data.test.sources, *self.data.test.targets))
        return hashlib.sha256(texts.encode(errors="surrogatepass")).hexdigest()

    def inputs(self, split: SplitName) -> list[str]:
        pairs: SentencePairs = getattr(self.data, split)
        return [hashlib.blake2b(source.encode(), digest_size=16).hexdigest() for source in pairs.sources]

    def for_model(self, directory: Path) -> Translation:
        task = copy.copy(self)
        task.tokenizer = TranslationTokenizer.load(str(directory))
        return task

    def teaching_batches(self, multiple: int) -> TextBatches:
        return self._batches(self._train, self.study.train.batch_tokens * multiple, self._train_view)

    def _batches(self, pairs: EncodedPairs, batch_tokens: int, view: TeacherView | None) -> TextBatches:
        return TextBatches(pairs, batch_tokens, self.tokenizer.pad_id, self._start_id, self.device, view)

    def _view(self, before: EncodedPairs, after: EncodedPairs) -> TeacherView:
        """Pairs as the teacher of a student with fewer subwords reads them.

        Args:
            before: The pairs in the teacher's ids.
            after: The same in the student's.
        """
        teacher = self._untrimmed
        assert teacher is not None
        assert self._alignment is not None
        assert teacher._start_id is not None
        heads = np.full(target_vocabulary(self.baseline_outline.config), self.tokenizer.target_vocabulary)
        heads[: len(self._alignment.heads)] = self._alignment.heads
        places = self._alignment.places(before.targets, after.targets)
        return TeacherView(before, places, heads, teacher._start_id, teacher.tokenizer.pad_id)

    @property
    def _told_sources(self) -> tuple[str, ...]:
        """The sentences that a teacher translates for its students: those of the training pairs, and others."""
        return (*self._train_sources, *self._unlabelled)

    @cached_property
    def _train_sources(self) -> tuple[str, ...]:
        """The sources of the training pairs that were not left out; needed only for a teacher's own translations."""
        return self.data.train.without(self._left_out).sources

    def write_training(self, teacher: PreTrainedModel, beam: int, progress: Callable[[int], object]) -> list[str]:
        return self._translate(teacher, self._told_sources, beam, self.study.data.max_tokens, progress).texts

    def told_batches(self, answers: Sequence[str], multiple: int) -> TextBatches:
        own = self.data.train.without(self._left_out).targets
        pairs = encode_pairs(SentencePairs(self._told_sources, (*own, *answers[len(own) :])), self.tokenizer)
        most = self.study.data.max_tokens
        return self._batches(pairs.without(pairs.too_long(most, most)), self.study.train.batch_tokens * multiple, None)

    def batches_with(self, targets: Sequence[str]) -> TextBatches:
        # A translation without an end mark within the limit is left out: students would learn not to end.
        limit = min(self.study.data.max_tokens, self.study.train.batch_tokens)
        told = SentencePairs(self._told_sources, tuple(targets))
        pairs = encode_pairs(told, self.tokenizer)
        long = pairs.too_long(limit, limit)
        if len(long) == len(pairs):
            raise LeanformerError(
                f"finetune.targets: none of the teacher's {len(long):,} translations of the training sentences ends "
                f"within {limit} subwords, so that there is nothing to learn from them; train the baseline for longer, "
                "or set finetune.targets to data"
            )
        view = None
        if self._untrimmed is not None:
            view = self._view(encode_pairs(told, self._untrimmed.tokenizer), pairs).without(long)
        return self._batches(pairs.without(long), self.study.train.batch_tokens, view)

    def validation_batches(self) -> Iterator[Batch]:
        return self.batches.evaluation(self._validation)

    def sentences(self) -> Mapping[str, Sequence[str]]:
        return {"test": self.data.test.sources, "validation": self.data.validation.sources}

    def samples(self, most: int) -> Iterator[str]:
        for sentences in (self._validation_pairs.sources, self._train_sources):
            count = min(most, len(sentences))
            most -= count
            yield from (sentences[number * len(sentences) // count] for number in range(count))

    def save_companions(self, directory: Path) -> None:
        self.tokenizer.save(directory)

    def summary(self) -> dict[str, Any]:
        return {
            "source": self.study.data.source,
            "source_language": self.study.data.source_language,
            "target_language": self.study.data.target_language,
            "train": len(self._train),
            "validation": len(self._validation),
            "test": len(self._test),
            "unlabelled": len(self._unlabelled),
            "groups": None if self.test_groups is None else len(np.unique(self.test_groups)),
            "notes": list(self.notes),
        }

    # Measuring

    @torch.inference_mode()
    def validate(self, model: PreTrainedModel, last: bool) -> dict[str, float]:
        model.eval()
        loss = torch.zeros((), device=self.device, dtype=torch.float64)
        right = torch.zeros((), device=self.device, dtype=torch.int64)
        tokens = 0
        for batch in self.validation_batches():
            logits = model(**inputs_of(batch)).logits.float()  # (batch, tokens, subwords)
            labels = batch["labels"]
            loss += F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
            right += (logits.argmax(dim=-1) == labels).sum()
            tokens += int((labels != -100).sum())
        record = {"validation_loss": float(loss) / tokens, "validation_token_accuracy": int(right) / tokens}
        if last:
            self._validated = (weakref.ref(model), self._validation_translations(model))
            record |= {f"validation_{name}": score for name, score in self.scores(self._validated[1]).items()}
        return record

    def _validation_translations(self, model: PreTrainedModel) -> Translations:
        pairs = self._validation_pairs
        texts = self._translate(model, pairs.sources, 1, self.study.data.max_tokens).texts
        return Translations(pairs.sources, pairs.targets, tuple(texts), self.scoring)

    def validation_answers(self, model: PreTrainedModel) -> Translations:
        if self._validated is not None and self._validated[0]() is model:
            return self._validated[1]
        return self._validation_translations(model)

    def progress(self, record: Mapping[str, float]) -> str:
        found = f"val loss {record['validation_loss']:.3f}"
        score = record.get(f"validation_{self._metric.key}")
        return found if score is None else f"{found}  val {self._metric.progress(score)}"

    def _translate(
        self,
        model: PreTrainedModel,
        sentences: Sequence[str],
        beam: int,
        max_tokens: int,
        progress: Callable[[int], object] | None = None,
    ) -> Translated:
        return translate(
            model,
            self.tokenizer,
            sentences,
            beam=beam,
            max_tokens=max_tokens,
            batch_tokens=self.study.decode.batch_tokens,
            progress=progress,
        )

    def _translate_as_asked(self, model: PreTrainedModel, sentences: Sequence[str]) -> Translated:
        return self._translate(model, sentences, **self.evaluation_settings())

    def evaluate(self, model: PreTrainedModel) -> Translations:
        return self._answers(self._translate_as_asked(model, self.data.test.sources).texts)

    def _answers(self, texts: Sequence[str]) -> Translations:
        test = self.data.test
        return Translations(test.sources, test.targets, tuple(texts), self.scoring, test.groups)

    def evaluation_settings(self) -> dict[str, Any]:
        decode = self.study.decode
        return {"beam": decode.beam, "max_tokens": decode.max_tokens or self.study.data.max_tokens}

    def scoring_settings(self) -> dict[str, Any]:
        return dict(self.scoring.signatures)

    def training_settings(self) -> dict[str, Any]:
        return {"positions": self._geometry.positions}  # of a fresh model

    def read_answers(self, path: Path) -> Translations:
        return Translations.read(path, self.scoring)

    @property
    def test_rows(self) -> NDArray[np.int64] | None:
        return self.data.test_rows

    def pooled(self, folds: Sequence[tuple[NDArray[np.int64], Translations]]) -> Translations:
        texts = {int(row): text for rows, answers in folds for row, text in zip(rows, answers.hypotheses, strict=True)}
        return self._answers([texts[row] for row in range(len(texts))])

    def scores(self, answers: Translations) -> dict[str, float]:
        return {metric.key: answers.score(metric.key) for metric in metrics_of("texts")}

    def _lengths(self, of: Callable[[NDArray[np.int64]], np.floating | np.integer]) -> Lengths:
        """A statistic of the lengths in the test split."""
        return Lengths(*(int(of(side.lengths)) for side in (self._test.sources, self._test.targets)))

    def example(self) -> Batch:
        median = self._lengths(np.median)
        ones = torch.full((1, median.source), self.tokenizer.eos_id)
        return {
            "input_ids": ones,
            "attention_mask": torch.ones_like(ones),
            "decoder_input_ids": torch.full((1, median.target), self.tokenizer.eos_id),
        }

    def decoding(self, model: PreTrainedModel) -> dict[str, Any]:
        # Translations are limited by the study's setting and by the model's positions.
        most = min(self.evaluation_settings()["max_tokens"], most_tokens(model)[1])

        median, longest = (
            replace(lengths, target=min(lengths.target, most))
            for lengths in (self._lengths(np.median), self._lengths(np.max))
        )
        return decoding_costs(model, median, longest)

    def subject(self, model: PreTrainedModel, make_step: MakeStep) -> Subject:
        call_one, call_batch = self._timed(lambda sentences: self._translate_as_asked(model, sentences))
        return Subject(
            model=model,
            make_step=lambda: make_step(model),
            training=lambda: self.batches.training(seed=0, epoch=0),
            call_one=call_one,
            call_batch=call_batch,
        )

    def _timed(
        self, translate: Callable[[Sequence[str]], Translated]
    ) -> tuple[Callable[[], int], Callable[[], tuple[int, int]]]:
        """The calls with one sentence, of median length, and with many, spread over the test split."""
        sentences, many = self.data.test.sources, self._many()
        by_length = np.argsort(self._test.sources.lengths, kind="stable")
        one = [sentences[by_length[len(by_length) // 2]]]
        return lambda: translate(one).tokens, lambda: (len(many), translate(many).tokens)

    def _many(self) -> list[str]:
        sentences, size = self.data.test.sources, self.study.measure.throughput_batch
        return [sentences[index] for index in np.arange(size) * len(sentences) // size]

    @cached_property
    def _corrupted(self) -> dict[str, tuple[str, ...]]:
        """Corruption -> the corrupted source sentences, where it changes any.

        A sentence that would have more subwords than each model of the study can read stays as it is.
        """
        clean, most = self.data.test.sources, min(self._source_limits)
        found = {}
        for name, corruption in TEXTS.items():
            changed = [corruption(sentence, number) for number, sentence in enumerate(clean)]
            ids = self.tokenizer.encode_source(changed)
            sources = tuple(
                after if len(tokens) <= most else before
                for before, after, tokens in zip(clean, changed, ids, strict=True)
            )
            if sources != clean:
                found[name] = sources
        return found

    @property
    def corruptions(self) -> Mapping[str, str]:
        return {name: TEXTS[name].meaning for name in self._corrupted}

    def corrupted(self, name: str) -> Translation:
        task = copy.copy(self)
        task.data = replace(self.data, test=replace(self.data.test, sources=self._corrupted[name]))
        return task

    def corruption_settings(self, name: str) -> dict[str, Any]:
        # Which sentences stay as they are depends on the study's other models.
        sentences = "\n".join(self._corrupted[name])
        return {**super().corruption_settings(name), "sources": hashlib.sha256(sentences.encode()).hexdigest()}

    def evaluate_exported(self, model: Translator) -> Translations:
        return self._answers(self._translate_exported(model, self.data.test.sources).texts)

    def _translate_exported(self, model: Translator, sentences: Sequence[str]) -> Translated:
        batch_tokens = self.study.decode.batch_tokens
        return model.translated(sentences, batch_tokens=batch_tokens, **self.evaluation_settings())

    def exported(self, directory: Path, model: Translator) -> Exported:
        call_one, call_batch = self._timed(lambda sentences: self._translate_exported(model, sentences))
        settings = {**self.evaluation_settings(), "batch_tokens": self.study.decode.batch_tokens}
        return Exported(
            call_one=call_one,
            call_batch=call_batch,
            memory=lambda: translating_memory(directory, self._many(), settings, torch.get_num_threads()),
        )

    # Deciding

    @property
    def test_group_names(self) -> tuple[str, ...] | None:
        return self.data.test.groups

    @property
    def worthless_quality(self) -> float:
        """The quality of a model that writes nothing."""
        test = self.data.test
        return Translations(test.sources, test.targets, ("",) * len(test), self.scoring).score(self._metric.key)

    def _score(self, metric: Metric, outcome: Outcome) -> Quality | SeedScores:
        trainings = outcome.statistics(metric)
        if metric.judges:
            return judge.quality(metric, trainings, self.study.accept.confidence, self.test_groups, folds=self.folds)
        per_seed = [metric.of(training) for training in trainings]
        return SeedScores(mean=float(np.mean(per_seed)), per_seed=per_seed)

    def details(self, outcome: Outcome, baseline: Outcome | None) -> dict[str, Any]:
        words = source_words(self.data.test.sources, self.study.data.source_language)
        rival = None if baseline is outcome else baseline
        return {
            "scores": {metric.key: self._score(metric, outcome) for metric in metrics_of("texts")},
            "paired_bootstrap": [] if rival is None else self._seed_by_seed(outcome, rival),
            "by_length": by_length(self._metric, words, outcome, rival),
            "examples": [] if rival is None else examples(outcome, rival),
        }

    def _seed_by_seed(self, outcome: Outcome, baseline: Outcome) -> list[dict[str, Any]]:
        found = []
        for seed, answers in outcome.answers.items():
            counts = (baseline.answers[seed].statistics(self._metric.key), answers.statistics(self._metric.key))
            test = paired_bootstrap(*counts, self._metric.score, self.study.accept.confidence, self.test_groups)
            difference = {name: getattr(test.difference, name) for name in ("mean", "low", "high")}
            found.append({"seed": seed, "difference": difference, "p_value": test.p_value})
        return found

    def results(self) -> dict[str, Any]:
        return {
            "signatures": self.scoring.signatures,
            "decode": {**self.study.decode.model_dump(mode="json"), **self.evaluation_settings()},
        }
