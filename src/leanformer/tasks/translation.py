"""Translation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from transformers import PreTrainedModel

from leanformer.config import TranslationStudy
from leanformer.data.pairs import SentencePairs
from leanformer.data.text import load_text
from leanformer.data.text_batches import EncodedPairs, Side, TextBatches, check_lengths, encode_pairs
from leanformer.data.tokenizers import TranslationTokenizer, train_tokenizer
from leanformer.decide.corpus import compare_corpus, corpus_interval, paired_bootstrap
from leanformer.decide.statistics import Comparison
from leanformer.learn.train import Batch, inputs_of
from leanformer.measure.cost import Subject
from leanformer.measure.decoding import Lengths, decoding_costs
from leanformer.measure.translation import Metric, Translated, Translations, corpus_score, most_tokens, translate
from leanformer.model.baseline import TextBaseline, TextGeometry
from leanformer.model.surgery import ResolvedPlan
from leanformer.tasks.base import MakeStep, Outcome, Task, interval_row

METRICS: tuple[Metric, ...] = ("bleu", "chrf")
LENGTHS = (1, 6, 11, 16, 21, 31)  # words of the source at which a bin begins
MOST_EXAMPLES = 8

INTERVAL_METHOD = (
    "Quality and difference are means over the seeds of sacreBLEU's corpus scores; their intervals account for both "
    "kinds of chance, which test sentences (paired bootstrap, the same sentences drawn for every model and seed) and "
    "which seeds (sentences and seeds crossed, analysis of variance, t quantiles with Satterthwaite's degrees of "
    "freedom). The decision is a one-sided non-inferiority test, corrected for several candidates by Holm's method."
)
ONE_SEED_METHOD = (
    "There is one seed, so that nothing can be said about other seeds: intervals and decisions speak of these trained "
    "models alone, and account for which test sentences were drawn (paired bootstrap, the same sentences drawn for "
    "every model). The decision is a one-sided non-inferiority test, corrected for several candidates by Holm's method."
)


class Translation(Task):
    """A study of translators; see ``Task``.

    Args:
        study: The study.
        device: Where models are trained.

    Raises:
        LeanformerError: Data, tokenizer or baseline are wrong, or do not fit each other.
    """

    batch_key = "train.batch_tokens"
    answer_key = "decode.batch_tokens"
    batches: TextBatches

    def __init__(self, study: TranslationStudy, device: torch.device) -> None:
        self.study: TranslationStudy = study
        self.device = device
        config = study.data
        baseline = TextBaseline(study.baseline.model, study.baseline.config, study.baseline.fresh)
        self.data = load_text(config)
        if baseline.trained is None:
            self.tokenizer = train_tokenizer(config.tokenizer, self.data.train.sources, self.data.train.targets)
        else:
            self.tokenizer = TranslationTokenizer.load(study.baseline.model)
        self._geometry = TextGeometry(
            self.tokenizer.source_vocabulary,
            self.tokenizer.target_vocabulary,
            self.tokenizer.shared,
            self.tokenizer.pad_id,
            self.tokenizer.eos_id,
            max(config.max_tokens, study.decode.max_tokens or 0),
        )
        baseline.check(self._geometry, "decode" if (study.decode.max_tokens or 0) > config.max_tokens else "data")
        self._baseline = baseline
        self._metric: Metric = study.accept.metric
        self._train, left_out = encode_pairs(self.data.train, self.tokenizer, config.max_tokens, config.max_tokens)
        self._left_out = left_out
        validation, _ = encode_pairs(self.data.validation, self.tokenizer)
        # The validation split only chooses and is measured as training is; the test split judges, and stays whole.
        long = validation.too_long(config.max_tokens, config.max_tokens)
        self._validation, self._validation_pairs = validation.without(long), self.data.validation.without(long)
        self._test, _ = encode_pairs(self.data.test, self.tokenizer)
        config_of_model = self.make_baseline(seed=0).config
        positions = config_of_model.max_position_embeddings
        check_lengths(self._test, positions, f"the model, in the test split of {config.source}", ["source"])
        self.warnings = self.data.warnings
        self.notes = [*self.data.notes, *baseline.notes, *self._counts(len(left_out), len(long))]
        self._start_id: int = config_of_model.decoder_start_token_id
        self.batches = self.teaching_batches(1)

    def _counts(self, left_out: int, left_out_of_validation: int) -> list[str]:
        tokenizer = self.tokenizer
        vocabulary = f"{tokenizer.source_vocabulary:,}"
        if not tokenizer.shared:
            vocabulary += f" and {tokenizer.target_vocabulary:,}"
        notes = [f"tokenizer: {vocabulary} subwords"]
        for split, count in (("train", left_out), ("validation", left_out_of_validation)):
            if count:
                notes.append(
                    f"{split}: {count:,} pairs left out, as a side has more than {self.study.data.max_tokens} subwords"
                )
        return notes

    # Data and models

    def make_baseline(self, seed: int) -> PreTrainedModel:
        return self._baseline.make(self._geometry, seed)

    def check_plan(self, plan: ResolvedPlan, where: str) -> None:
        for name, entry in plan.items():
            limit = entry.get("max_length")
            if limit is None:
                continue
            sides: list[Side] = ["target"] if name.startswith("decoder") else ["source"]
            if name.startswith("decoder") and ("cross" in name or name.endswith(".layer")):
                sides.append("source")
            for split, pairs in (("train", self._train), ("validation", self._validation), ("test", self._test)):
                # How long a test sentence's translation becomes is the model's to say; it ends at the block's limit.
                seen = [side for side in sides if split != "test" or side == "source"]
                check_lengths(pairs, limit, f"{where} at {name}, in the {split} split", seen)

    def teaching_batches(self, multiple: int) -> TextBatches:
        return self._batches(self._train, self.study.train.batch_tokens * multiple)

    def _batches(self, pairs: EncodedPairs, batch_tokens: int) -> TextBatches:
        return TextBatches(pairs, batch_tokens, self.tokenizer.pad_id, self._start_id, self.device)

    @property
    def writes(self) -> bool:
        return True

    @cached_property
    def _train_sources(self) -> tuple[str, ...]:
        """Those of the training pairs that were not left out; only a teacher's own translations ask for them."""
        return self.data.train.without(self._left_out).sources

    def write_training(self, teacher: PreTrainedModel, beam: int, progress: Callable[[int], object]) -> list[str]:
        return self._translate(teacher, self._train_sources, beam, self.study.data.max_tokens, progress).texts

    def batches_with(self, targets: Sequence[str]) -> TextBatches:
        # A translation that was cut off at the limit has no end mark within it, and is left out: it would teach not
        # to end.
        limit = self.study.data.max_tokens
        pairs, _ = encode_pairs(SentencePairs(self._train_sources, tuple(targets)), self.tokenizer, limit, limit)
        return self._batches(pairs, self.study.train.batch_tokens)

    def validation_batches(self) -> Iterator[Batch]:
        return self.batches.evaluation(self._validation)

    def save_companions(self, directory: Path) -> None:
        self.tokenizer.save(directory)

    def training_batch(self) -> str:
        return f"{self.study.train.batch_tokens} subwords"

    def summary(self) -> dict[str, Any]:
        return {
            "source": self.study.data.source,
            "source_language": self.study.data.source_language,
            "target_language": self.study.data.target_language,
            "train": len(self._train),
            "validation": len(self._validation),
            "test": len(self._test),
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
            pairs = self._validation_pairs
            texts = self._translate(model, pairs.sources, 1, self.study.data.max_tokens).texts
            translations = Translations(pairs.sources, pairs.targets, tuple(texts))
            record |= {f"validation_{name}": score for name, score in self.scores(translations).items()}
        return record

    def progress(self, record: Mapping[str, float]) -> str:
        found = f"val loss {record['validation_loss']:.3f}"
        score = record.get(f"validation_{self._metric}")
        return found if score is None else f"{found}  val {self._metric} {score:.1f}"

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
        texts = self._translate_as_asked(model, self.data.test.sources).texts
        return Translations(self.data.test.sources, self.data.test.targets, tuple(texts))

    def evaluation_settings(self) -> dict[str, Any]:
        decode = self.study.decode
        return {"beam": decode.beam, "max_tokens": decode.max_tokens or self.study.data.max_tokens}

    def training_settings(self) -> dict[str, Any]:
        return {"positions": self._geometry.positions}  # of a fresh model

    def read_answers(self, path: Path) -> Translations:
        return Translations.read(path)

    def scores(self, answers: Translations) -> dict[str, float]:
        return {"bleu": answers.bleu, "chrf": answers.chrf, "exact_match": answers.exact_match}

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
        # Nothing longer is ever written than was asked for, or than the model can read.
        most = min(self.evaluation_settings()["max_tokens"], most_tokens(model)[1])

        median, longest = (
            replace(lengths, target=min(lengths.target, most))
            for lengths in (self._lengths(np.median), self._lengths(np.max))
        )
        return decoding_costs(model, median, longest)

    def subject(self, model: PreTrainedModel, make_step: MakeStep) -> Subject:
        sentences = self.data.test.sources
        by_length = np.argsort(self._test.sources.lengths, kind="stable")
        one = [sentences[by_length[len(by_length) // 2]]]  # of median length
        chosen = np.arange(self.study.measure.throughput_batch) * len(sentences) // self.study.measure.throughput_batch
        many = [sentences[index] for index in chosen]

        def call_batch() -> tuple[int, int]:
            return len(many), self._translate_as_asked(model, many).tokens

        return Subject(
            model,
            lambda: make_step(model),
            lambda: self.batches.training(seed=0, epoch=0),
            lambda: self._translate_as_asked(model, one).tokens,
            call_batch,
        )

    # Deciding

    @property
    def outputs(self) -> None:
        return None

    @property
    def worthless_quality(self) -> float:
        return 0.0

    def _score(self, name: Metric, outcome: Outcome) -> dict[str, Any]:
        counts = [answers.statistics(name) for answers in outcome.each()]
        interval = corpus_interval(counts, partial(corpus_score, name), self.study.accept.confidence)
        return interval_row(interval, [float(corpus_score(name, one.sum(axis=0))) for one in counts])

    def quality(self, outcome: Outcome) -> dict[str, Any]:
        return self._score(self._metric, outcome)

    def compare(self, baseline: Outcome, candidate: Outcome) -> Comparison:
        first, second = ([answers.statistics(self._metric) for answers in arm.each()] for arm in (baseline, candidate))
        accept = self.study.accept
        return compare_corpus(first, second, partial(corpus_score, self._metric), accept.max_drop, accept.confidence)

    def details(self, outcome: Outcome, baseline: Outcome | None) -> dict[str, Any]:
        exact = [answers.exact_match for answers in outcome.each()]
        rival = None if baseline is outcome else baseline
        return {
            **self.no_details(),
            "scores": {
                **{name: self._score(name, outcome) for name in METRICS},
                "exact_match": {"mean": float(np.mean(exact)), "per_seed": exact},
            },
            "paired_bootstrap": [] if rival is None else self._seed_by_seed(outcome, rival),
            "by_length": self._by_length(outcome, rival),
            "examples": [] if rival is None else _examples(outcome, rival),
        }

    def no_details(self) -> dict[str, Any]:
        return {
            "per_class": [],
            "mcnemar": [],
            "scores": None,
            "paired_bootstrap": [],
            "by_length": [],
            "examples": [],
        }

    def _seed_by_seed(self, outcome: Outcome, baseline: Outcome) -> list[dict[str, Any]]:
        found = []
        for seed, answers in outcome.answers.items():
            counts = (baseline.answers[seed].statistics(self._metric), answers.statistics(self._metric))
            test = paired_bootstrap(*counts, partial(corpus_score, self._metric), self.study.accept.confidence)
            difference = {name: getattr(test.difference, name) for name in ("mean", "low", "high")}
            found.append({"seed": seed, "difference": difference, "p_value": test.p_value})
        return found

    def _by_length(self, outcome: Outcome, baseline: Outcome | None) -> list[dict[str, Any]]:
        """The score of sentences of like length, mean over the seeds."""
        words = np.array([len(source.split()) for source in self.data.test.sources])
        ends = [*(start - 1 for start in LENGTHS[1:]), None]
        found = []
        for low, high in zip(LENGTHS, ends, strict=True):
            chosen = (words >= low) & (words <= (words.max() if high is None else high))
            if not chosen.any():
                continue
            score = self._mean_score(outcome, chosen)
            found.append(
                {
                    "low": low,
                    "high": high,
                    "sentences": int(chosen.sum()),
                    "score": score,
                    "difference": None if baseline is None else score - self._mean_score(baseline, chosen),
                }
            )
        return found

    def _mean_score(self, outcome: Outcome, chosen: np.ndarray) -> float:
        sums = np.stack([answers.statistics(self._metric)[chosen].sum(axis=0) for answers in outcome.each()])
        return float(corpus_score(self._metric, sums).mean())

    def interval_method(self) -> str:
        return INTERVAL_METHOD if len(self.study.seeds) > 1 else ONE_SEED_METHOD

    def results(self) -> dict[str, Any]:
        one = Translations(("",), ("",), ("",))
        return {
            "signatures": one.signatures,
            "decode": {**self.study.decode.model_dump(mode="json"), **self.evaluation_settings()},
        }


def _examples(outcome: Outcome, baseline: Outcome) -> list[dict[str, Any]]:
    """The sentences of the first seed at which the two differ most, by chrF: it tells single sentences apart best."""
    mine, theirs = outcome.each()[0], baseline.each()[0]
    mine_scores, their_scores = mine.sentence_scores("chrf"), theirs.sentence_scores("chrf")
    order = np.argsort(-np.abs(mine_scores - their_scores), kind="stable")[:MOST_EXAMPLES]
    return [
        {
            "source": mine.sources[index],
            "reference": mine.references[index],
            "baseline": theirs.hypotheses[index],
            "candidate": mine.hypotheses[index],
            "baseline_score": float(their_scores[index]),
            "candidate_score": float(mine_scores[index]),
        }
        for index in order
        if mine.hypotheses[index] != theirs.hypotheses[index]
    ]
