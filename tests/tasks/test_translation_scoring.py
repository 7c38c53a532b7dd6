"""How translations are scored: the form of texts, sacreBLEU's tokenizers, and the remedies in messages."""

from __future__ import annotations

import io
import json
import re
import shutil
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
from sacrebleu import utils
from sacrebleu.metrics.base import Metric as SacrebleuMetric
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.tokenizers import tokenizer_spm
from studies import results_of, rows_of, run
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

import leanformer as lf
from leanformer.config.translation import TranslationStudy
from leanformer.core.errors import LeanformerError
from leanformer.data.normalization import loses_letters, normalizer_of
from leanformer.data.tokenizers import TranslationTokenizer
from leanformer.measure import cost
from leanformer.measure.scoring import Scoring, choose_tokenizer
from leanformer.measure.translation import Translations
from leanformer.tasks.translation import Translation
from leanformer.tasks.translation_details import source_words

CHINESE = ["我昨天去了北京。", "他在看一本有趣的书。", "今天天气很好，我们去公园吧。"]
JAPANESE = ["私は昨日、東京へ行きました。", "彼は面白い本を読んでいます。"]
THAI = ["เมื่อวานฉันไปกรุงเทพ", "เขากำลังอ่านหนังสือที่น่าสนใจ"]
GERMAN = [
    "Gestern fuhr ich mit dem Zug nach Köln.",
    "Er liest gerade ein sehr gutes Buch.",
    "Das Wetter ist heute schön.",
]


def perfect(references: Sequence[str], scoring: Scoring) -> Translations:
    return Translations(tuple(references), tuple(references), tuple(references), scoring)


# BLEU's tokenizer


@pytest.mark.parametrize("tokenize", ["13a", "intl", "zh", "char", "none"])
@pytest.mark.parametrize("lowercase", [False, True])
def test_scores_are_sacrebleus_by_each_tokenizer(tokenize: str, lowercase: bool) -> None:
    references = [*CHINESE, *JAPANESE, *THAI, *GERMAN]
    hypotheses = [*(text[:-3] + text[-1] for text in references[:-3]), *(text.upper() for text in references[-3:])]
    scoring = Scoring(tokenize, lowercase)
    answers = Translations(tuple(references), tuple(references), tuple(hypotheses), scoring)
    official: dict[str, SacrebleuMetric] = {
        "bleu": BLEU(tokenize=tokenize, lowercase=lowercase),
        "chrf": CHRF(lowercase=lowercase),
    }
    for name, metric in official.items():
        expected = metric.corpus_score(hypotheses, [references]).score
        assert answers.score(name) == pytest.approx(expected, abs=1e-9)
        assert scoring.signatures[name] == str(metric.get_signature())
        if not (tokenize == "none" and name == "bleu"):
            assert 0 < expected < 100
    assert f"case:{'lc' if lowercase else 'mixed'}" in scoring.signatures["bleu"]
    assert answers.statistics("exact_match")[:, 0].tolist() == [False] * 7 + [lowercase] * 3
    effective = BLEU(tokenize=tokenize, lowercase=lowercase, effective_order=True)
    pairs = zip(hypotheses, references, strict=True)
    expected_each = [effective.sentence_score(hypothesis, [reference]).score for hypothesis, reference in pairs]
    assert answers.sentence_scores("bleu") == pytest.approx(expected_each, abs=1e-9)


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Removes MeCab and the model of FLORES; returns the path of that model."""
    monkeypatch.setattr("sacrebleu.tokenizers.tokenizer_ja_mecab.MeCab", None)
    monkeypatch.setattr("sacrebleu.tokenizers.tokenizer_ko_mecab.MeCab", None)
    monkeypatch.setattr(utils, "SACREBLEU_DIR", str(tmp_path))
    monkeypatch.setattr(tokenizer_spm, "SACREBLEU_DIR", str(tmp_path))
    (tmp_path / "models").mkdir()
    return tmp_path / "models" / "flores200sacrebleuspm"


@pytest.mark.parametrize(
    ("language", "references", "expected"),
    [
        ("de", GERMAN, "13a"),
        ("zh", CHINESE, "zh"),
        ("zh_CN", CHINESE, "zh"),
        ("zho_Hans", CHINESE, "zh"),
        ("CMN", GERMAN, "zh"),
        ("ja", JAPANESE, "char"),
        ("ko-KR", GERMAN, "char"),
        ("th", THAI, "char"),
        ("target", CHINESE, "zh"),  # a column's name, so that the sentences decide
        ("target", JAPANESE, "char"),
        ("target", THAI, "char"),
        ("target", [*GERMAN, CHINESE[0]], "13a"),
        ("target", [], "13a"),
    ],
)
@pytest.mark.usefixtures("nothing_installed")
def test_the_tokenizer_fits_the_language(language: str, references: list[str], expected: str) -> None:
    assert choose_tokenizer("auto", language, references) == expected
    assert choose_tokenizer("13a", language, references) == "13a"


@pytest.mark.parametrize("references", [CHINESE, JAPANESE, THAI])
@pytest.mark.usefixtures("nothing_installed")
def test_perfect_output_without_spaces_scores_100(references: list[str]) -> None:
    chosen = choose_tokenizer("auto", "target", references)
    assert perfect(references, Scoring(chosen)).score("bleu") == pytest.approx(100)
    assert perfect(references[:1], Scoring("13a")).score("bleu") < 1  # as it was


def test_what_is_installed_goes_first(nothing_installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = nothing_installed
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*JAPANESE, *CHINESE, *THAI] * 10),
        model_writer=model,
        vocab_size=90,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    file.write_bytes(model.getvalue())
    assert [choose_tokenizer("auto", code, []) for code in ("ja", "ko", "th", "zh", "de")] == [
        *["flores200"] * 3,
        "zh",
        "13a",
    ]
    assert choose_tokenizer("flores200", "de", []) == "flores200"
    assert "tok:flores200" in Scoring("flores200").signatures["bleu"]

    class Words:
        """Stands for MeCab's tokenizer."""

        def __init__(self, arguments: str) -> None:
            assert "-Owakati" in arguments

        def dictionary_info(self) -> Any:
            return type("Dictionary", (), {"size": 392126, "next": None})

        def version(self) -> str:
            return "1"

    monkeypatch.setattr("sacrebleu.tokenizers.tokenizer_ja_mecab.MeCab", type("MeCab", (), {"Tagger": Words}))
    monkeypatch.setattr(
        "sacrebleu.tokenizers.tokenizer_ja_mecab.ipadic", type("ipadic", (), {"MECAB_ARGS": ""}), raising=False
    )
    assert choose_tokenizer("auto", "ja", []) == "ja-mecab"
    file.write_bytes(b"damaged")
    with pytest.raises(LeanformerError, match=r"^accept\.tokenize: flores200 cannot be used \(.*\); download .* again"):
        choose_tokenizer("flores200", "de", [])
    assert choose_tokenizer("auto", "th", []) == "char"


def test_a_tokenizer_that_is_not_there_is_one_line(nothing_installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_spm, "download_file", lambda *_: pytest.fail("downloaded"))
    expected = {
        "flores200": f"needs its model on the disk; download https://tinyurl.com/flores200sacrebleuspm to "
        f"{nothing_installed}, or take char",
        "ja-mecab": "cannot be used (RuntimeError); run pip install 'sacrebleu[ja]', or take char",
        "ko-mecab": "cannot be used (RuntimeError); run pip install 'sacrebleu[ko]', or take char",
    }
    for name, message in expected.items():
        with pytest.raises(LeanformerError) as caught:
            choose_tokenizer(name, "ja", JAPANESE)
        assert str(caught.value) == f"accept.tokenize: {name} {message}"
    assert choose_tokenizer("char", "ja", JAPANESE) == "char"


# The tokenizer's own normaliser

DECOMPOSED = unicodedata.normalize("NFD", "Fünf schöne Größen  und é")
TEXT = "Ｆünf  ﬁne\u00a0Ünten, CAFÉ 1½"


def fast(*steps: normalizers.Normalizer) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    if steps:
        backend.normalizer = normalizers.Sequence(list(steps)) if len(steps) > 1 else steps[0]
    backend.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=backend)


@pytest.mark.parametrize(
    ("steps", "text", "expected"),
    [
        ([], DECOMPOSED, unicodedata.normalize("NFC", DECOMPOSED)),
        ([normalizers.NFD()], "é 한국", "é 한국"),  # scored composed, in whichever form it was cut
        ([normalizers.NFKC()], TEXT, "Fünf  fine Ünten, CAFÉ 1\u2044".replace("1\u2044", "11\u20442")),
        ([normalizers.BertNormalizer(lowercase=True)], "Müller's  CAFÉ", "muller's  cafe"),
        ([normalizers.BertNormalizer(lowercase=False)], "Müller's  CAFÉ", "Müller's  CAFÉ"),
        ([normalizers.NFD(), normalizers.Lowercase(), normalizers.StripAccents()], "Ärger", "arger"),
        # As in Llama's and T5's: marks of word beginnings are not text.
        ([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")], "ein zwei", "ein zwei"),
        ([normalizers.Strip(), normalizers.Replace("  ", "▁")], " ein  zwei ", "ein zwei"),
        ([normalizers.Replace("``", '"'), normalizers.Prepend("▁")], "``ein``", '"ein"'),
        ([normalizers.Sequence([normalizers.Sequence([normalizers.Lowercase()]), normalizers.NFC()])], "Ä", "ä"),
        ([normalizers.NFC(), normalizers.ByteLevel()], "é ü", "é ü"),
    ],
)
def test_each_kind_of_normalizer_keeps_text_text(steps: list[normalizers.Normalizer], text: str, expected: str) -> None:
    normalize = normalizer_of(fast(*steps))
    assert normalize(text) == expected
    assert normalize(normalize(text)) == normalize(text)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("nmt_nfkc", "Fünf fine Ünten, CAFÉ 11⁄2"),
        ("nmt_nfkc_cf", "fünf fine ünten, café 11⁄2"),
        ("identity", "Ｆünf ﬁne\u00a0Ünten, CAFÉ 1½"),
    ],
)
def test_the_rules_of_sentencepiece(rule: str, expected: str) -> None:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(GERMAN * 20),
        model_writer=model,
        vocab_size=60,
        hard_vocab_limit=False,
        minloglevel=2,
        normalization_rule_name=rule,
    )
    other = type("Other", (), {"sp_model": sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())})
    target = type("Marian", (), {"spm_source": None, "spm_target": other.sp_model})  # type: ignore[attr-defined]
    for tokenizer in (other(), target()):
        normalize = normalizer_of(tokenizer)
        assert normalize(f" {TEXT} ") == expected
        assert normalize(unicodedata.normalize("NFD", TEXT)) == expected
        assert normalize("") == ""


def test_what_a_normalizer_loses() -> None:
    assert loses_letters("café", "cafe")
    assert loses_letters("naïve 12", "naïve")
    for kept in ("CAFÉ", "cafe\u0301", "ｃａｆé", "  café !", "“café”"):
        assert not loses_letters(kept, "café"), kept


# In a study


@pytest.fixture(autouse=True)
def _no_memory_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "peak_memory", lambda action, device: 1)


NUMBERS = ["null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"]


def german(number: int) -> str:
    """Such as "Eins und zwei und drei und VÖLLIG vier"."""
    words = [NUMBERS[int(digit)] for digit in f"{number:03}"]
    return f"{' und '.join(words).capitalize()} und VÖLLIG {words[0]}"


def sources_and_targets(write: Callable[[int], str] = german, count: int = 300) -> list[tuple[str, str]]:
    return [(" ".join(f"{number:03}"), write(number)) for number in range(count)]


def corpus(path: Path, pairs: Sequence[tuple[str, str]]) -> Path:
    path.write_text("".join(f"{source}\t{target}\n" for source, target in pairs))
    return path


def tiny(source: Path, **changes: Any) -> dict[str, Any]:
    study: dict[str, Any] = {
        "name": "tiny",
        "task": "translation",
        "data": {
            "source": str(source),
            "source_language": "digits",
            "target_language": "de",
            "tokenizer": {"vocabulary": 320},
        },
        "baseline": {
            "model": "marian",
            "config": {
                "d_model": 16,
                "encoder_layers": 1,
                "decoder_layers": 1,
                "encoder_attention_heads": 2,
                "decoder_attention_heads": 2,
                "encoder_ffn_dim": 16,
                "decoder_ffn_dim": 16,
            },
        },
        "candidates": {"lean": {"plan": {"encoder.*.self_attention": {"block": "minimal_attention"}}}},
        "train": {"epochs": 1, "batch_tokens": 512, "learning_rate": 1e-2},
        "seeds": [0],
        "decode": {"max_tokens": 40},
        "measure": {"repeats": 1, "latency_calls": 1, "throughput_batch": 4, "device": "cpu", "threads": 1},
    }
    for key, value in changes.items():
        study[key] = {**study[key], **value} if isinstance(study.get(key), dict) else value
    return study


def task_of(study: dict[str, Any]) -> Translation:
    made = lf.make_study(study)
    assert isinstance(made, TranslationStudy)
    task = Translation(made, torch.device("cpu"))
    task.check_test()
    return task


def test_who_decides_nothing_is_not_warned_of_the_test_split(tmp_path: Path) -> None:
    """An inspection, for example, has almost no test data."""
    study = lf.make_study(
        tiny(
            corpus(tmp_path / "p.tsv", sources_and_targets()), data={"source": str(tmp_path / "p.tsv"), "test_limit": 1}
        )
    )
    assert isinstance(study, TranslationStudy)
    assert Translation(study, torch.device("cpu")).warnings == []


def written(task: Translation, references: Sequence[str]) -> Translations:
    """The translations of a perfect model: the references, encoded and decoded again."""
    texts = task.tokenizer.decode([ids[:-1] for ids in task.tokenizer.encode_target(list(references))])
    return Translations(tuple(references), tuple(references), tuple(texts), task.scoring)


def codes(task: Translation) -> list[str]:
    return [warning.code for warning in task.warnings]


def test_references_in_decomposed_letters(tmp_path: Path) -> None:
    pairs = sources_and_targets(lambda number: unicodedata.normalize("NFD", german(number)))
    task = task_of(tiny(corpus(tmp_path / "p.tsv", pairs)))
    answers = written(task, task.data.test.targets)
    assert answers.hypotheses != answers.references
    assert [answers.score(name) for name in ("bleu", "chrf", "exact_match")] == pytest.approx([100, 100, 1])
    assert Translations(answers.sources, answers.references, answers.hypotheses).score("bleu") < 70
    assert "30 of 30 test references are scored in the form that the tokenizer gives them" in task.notes
    assert codes(task) == []


def test_lowercase_is_scored_so_and_says_so(tmp_path: Path) -> None:
    task = task_of(
        tiny(
            corpus(tmp_path / "p.tsv", sources_and_targets()),
            data={"tokenizer": {"vocabulary": 320, "lowercase": True}} | {"source": str(tmp_path / "p.tsv")},
        )
    )
    answers = written(task, task.data.test.targets)
    assert answers.hypotheses[0] == answers.references[0].lower() != answers.references[0]
    assert [answers.score(name) for name in ("bleu", "chrf", "exact_match")] == pytest.approx([100, 100, 1])
    assert all("case:lc" in signature for signature in task.results()["signatures"].values())
    assert answers.references == task.data.test.targets  # the given texts are kept
    kept = tmp_path / "predictions.parquet"
    kept.write_bytes(answers.to_bytes())
    assert task.read_answers(kept).score("bleu") == pytest.approx(100)
    assert codes(task) == []


def test_a_tokenizer_that_loses_accents_is_told(tmp_path: Path) -> None:
    source = corpus(tmp_path / "p.tsv", sources_and_targets())
    model = tmp_path / "model"
    trained = task_of(tiny(source))
    lf.save(trained.make_baseline(0), model)
    trained.tokenizer.save(model)
    file = model / "tokenizer.json"
    rules = json.loads(file.read_text())
    rules["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "StripAccents"}]}
    file.write_text(json.dumps(rules))
    study = tiny(source) | {"baseline": {"model": str(model)}}
    task = task_of(study)
    assert TranslationTokenizer.load(model).normalize("VÖLLIG") == "VOLLIG"
    assert codes(task) == ["lossy-normalizer"]
    assert "VOLLIG" in str(task.warnings[0])
    assert written(task, task.data.test.targets).score("bleu") == pytest.approx(100)


def test_chinese_is_scored_in_a_study(tmp_path: Path) -> None:
    digits = "零一二三四五六七八九"
    pairs = sources_and_targets(
        lambda number: "我有" + "".join(digits[int(digit)] for digit in f"{number:03}") + "本书。"
    )
    study = tiny(corpus(tmp_path / "p.tsv", pairs), data={"target_language": "zh"}, decode={"max_tokens": 60})
    task = task_of(study)
    assert written(task, task.data.test.targets).score("bleu") == pytest.approx(100)
    assert "tok:zh" in task.results()["signatures"]["bleu"]
    assert "BLEU counts words as sacreBLEU's tokenizer zh splits them" in task.notes
    assert codes(task) == []
    for tokenize in ("13a", "intl", "none"):
        with pytest.raises(
            LeanformerError,
            match=rf"has 4 words in a row as BLEU counts them \(tokenizer {tokenize}\), so that perfect translations "
            r"would score 0; leave accept\.tokenize out: then zh, which fits the language, is used$",
        ):
            task_of(study | {"accept": {"tokenize": tokenize}})
    mixed = [(source, target if index % 3 else f"{target} a b c d") for index, (source, target) in enumerate(pairs)]
    study["data"]["source"] = str(corpus(tmp_path / "mixed.tsv", mixed))
    assert codes(task_of(study)) == []
    (short,) = task_of(study | {"accept": {"tokenize": "13a"}}).warnings
    assert short.code == "short-references"
    assert short.sentence.endswith(
        "they hardly change it; leave accept.tokenize out: then zh, which fits the language, is used"
    )
    with pytest.raises(LeanformerError, match=r"accept\.tokenize: input should be 'auto', '13a'"):
        lf.make_study(study | {"accept": {"tokenize": "moses"}})


def weights(directory: Path) -> dict[Path, int]:
    """The time at which each model was written."""
    return {path: path.stat().st_mtime_ns for path in directory.rglob("model.safetensors")}


@pytest.mark.long
def test_another_tokenizer_rescores_and_trains_nothing(tmp_path: Path) -> None:
    """Results and files are as if the study had asked for it at first, also for runs of older versions."""
    study = tiny(corpus(tmp_path / "p.tsv", sources_and_targets(count=60)))
    run(study, tmp_path / "run")
    before, models = rows_of(tmp_path / "run"), weights(tmp_path / "run")
    for file in (tmp_path / "run").rglob("result.json"):  # an older version did not write its scoring settings
        result = json.loads(file.read_text())
        del result["sha256"]  # nor checksums
        assert "tok:13a" in result.pop("scoring")["bleu"]
        file.write_text(json.dumps(result))
    other = {**study, "accept": {"tokenize": "char"}}
    _, log = run(other, tmp_path / "run")
    assert "loss" not in log
    assert "measuring" not in log
    assert weights(tmp_path / "run") == models
    after = rows_of(tmp_path / "run")
    run(other, tmp_path / "fresh")
    fresh = rows_of(tmp_path / "fresh")
    assert "tok:char" in results_of(tmp_path / "run")["signatures"]["bleu"]
    for name in ("baseline", "lean"):
        assert after[name]["quality"] != before[name]["quality"]
        for key in ("quality", "scores", "by_length"):
            assert after[name][key] == fresh[name][key], key
        trials = [tmp_path / where / f"trials/{name}/seed-0" for where in ("run", "fresh")]
        kept, expected = (json.loads((trial / "result.json").read_text()) for trial in trials)
        assert (kept["bleu"], kept["scoring"]) == (expected["bleu"], expected["scoring"])
        assert (trials[0] / "predictions.parquet").read_bytes() == (trials[1] / "predictions.parquet").read_bytes()


@pytest.mark.long  # three studies
def test_another_tokenizer_judges_the_search_anew(tmp_path: Path) -> None:
    """Kept translations are scored again; a model is trained only where another rate is best. (Three studies.)"""
    study = tiny(
        corpus(tmp_path / "p.tsv", sources_and_targets(count=60)),
        train={"epochs": 1, "learning_rate": [3e-3, 1e-2], "batch_tokens": 512, "search_epochs": 1},
    )
    study["candidates"] = {"lean": {"plan": {"encoder.0.mlp": "none"}}}
    run(study, tmp_path / "run")
    before = rows_of(tmp_path / "run")
    other = {**study, "accept": {"tokenize": "char"}}
    run(other, tmp_path / "run")
    run(other, tmp_path / "fresh")
    after, fresh = rows_of(tmp_path / "run"), rows_of(tmp_path / "fresh")
    assert before["lean"]["learning_rate_search"] != after["lean"]["learning_rate_search"]
    for name in ("baseline", "lean"):
        for key in ("learning_rate_search", "learning_rate"):
            assert after[name][key] == fresh[name][key]
        assert after[name]["quality"] == fresh[name]["quality"]


def test_letters_that_a_tokenizer_does_not_know_are_told(tmp_path: Path) -> None:
    source = corpus(tmp_path / "p.tsv", sources_and_targets())
    model = tmp_path / "model"
    trained = task_of(tiny(source))
    lf.save(trained.make_baseline(0), model)
    trained.tokenizer.save(model)
    file = model / "tokenizer.json"
    rules = json.loads(file.read_text())
    # A language without capitals: the vocabulary has its single letters, and no bytes.
    letters = dict.fromkeys(["</s>", "<unk>", "<pad>", *"abcdefghijklmnopqrstuvwxyzäöü 0123456789"])
    rules["model"] = {
        "type": "BPE",
        "unk_token": "<unk>",
        "vocab": {letter: number for number, letter in enumerate(letters)},
        "merges": [],
    }
    rules["pre_tokenizer"] = None
    rules["decoder"] = {"type": "Fuse"}
    file.write_text(json.dumps(rules))
    changes: dict[str, Any] = {"baseline": {"model": str(model)}, "decode": {"max_tokens": 80}}
    task = task_of(tiny(source) | changes)
    assert codes(task) == ["unknown-letters"]
    assert "30 of 30 test references have letters that the tokenizer does not know" in str(task.warnings[0])
    small = corpus(tmp_path / "s.tsv", [(source, target.lower()) for source, target in sources_and_targets()])
    assert codes(task_of(tiny(small) | changes)) == []


def model_with(tmp_path: Path, name: str, change: Callable[[dict[str, Any]], object], file: str) -> Path:
    """A trained model whose tokenizer has changed rules."""
    trained = task_of(tiny(corpus(tmp_path / "p.tsv", sources_and_targets())))
    model = tmp_path / name
    lf.save(trained.make_baseline(0), model)
    trained.tokenizer.save(model)
    rules = json.loads((model / file).read_text())
    change(rules)
    (model / file).write_text(json.dumps(rules))
    return model


def test_a_tokenizer_that_does_not_give_texts_back_is_told(tmp_path: Path) -> None:
    """Tokenizers such as BERT's decode "it's" as "it ' s"."""
    letters = "abcdefghijklmnopqrstuvwxyzäöüABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÜ0123456789'"
    vocabulary = ["</s>", "<unk>", "<pad>", *letters, *(f"##{letter}" for letter in letters)]

    def change(rules: dict[str, Any]) -> None:
        rules["model"] = {
            "type": "WordPiece",
            "unk_token": "<unk>",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {piece: number for number, piece in enumerate(vocabulary)},
        }
        rules["pre_tokenizer"] = {"type": "BertPreTokenizer"}
        rules["decoder"] = {"type": "WordPiece", "prefix": "##", "cleanup": False}

    model = model_with(tmp_path, "bert", change, "tokenizer.json")
    changes: dict[str, Any] = {"baseline": {"model": str(model)}, "decode": {"max_tokens": 80}}
    pairs = sources_and_targets(lambda number: german(number) + " ist's")
    task = task_of(tiny(corpus(tmp_path / "a.tsv", pairs)) | changes)
    reached = written(task, task.data.test.targets)
    assert reached.hypotheses[0] == reached.references[0].replace("ist's", "ist ' s")
    assert 50 < reached.score("bleu") < 99
    (told,) = task.warnings
    assert (told.code, told.count) == ("lossy-tokenizer", 30)
    assert f"a perfect translation scores {reached.score('bleu'):.1f} BLEU, not 100" in told.sentence
    assert re.search(r"""ist's" of a test reference becomes ".* ist ' s", and""", told.sentence)
    assert reached.score("chrf") > 99  # chrF ignores spaces
    assert codes(task_of(tiny(tmp_path / "a.tsv") | changes | {"accept": {"metric": "chrf"}})) == []
    as_written = [(source, target.replace("ist's", "ist ' s")) for source, target in pairs]
    assert codes(task_of(tiny(corpus(tmp_path / "b.tsv", as_written)) | changes)) == []  # as the warning advises


def test_an_end_mark_within_a_reference_ends_its_translation(tmp_path: Path) -> None:
    def change(settings: dict[str, Any]) -> None:
        settings["split_special_tokens"] = False

    model = model_with(tmp_path, "marks", change, "tokenizer_config.json")
    pairs = sources_and_targets(lambda number: f"{german(number)} </s> und noch {german(number)}")
    own = tiny(corpus(tmp_path / "a.tsv", pairs), decode={"max_tokens": 90})
    assert codes(task_of(own)) == []  # a fresh tokenizer treats it as text
    task = task_of(own | {"baseline": {"model": str(model)}})
    references = task.data.test.targets
    cut = tuple(text.split(" </s>")[0] for text in references)
    best = Translations(references, references, cut).score("bleu")
    (told,) = task.warnings
    assert told.code == "lossy-tokenizer"
    assert f"a perfect translation scores {best:.1f} BLEU, not 100" in told.sentence


def test_a_few_texts_that_change_are_not_worth_a_warning(tmp_path: Path) -> None:
    def change(settings: dict[str, Any]) -> None:
        settings["split_special_tokens"] = False

    model = model_with(tmp_path, "marks", change, "tokenizer_config.json")
    marked = [(source, f"{target} </s>") if source == TEST[3][0] else (source, target) for source, target in TEST]
    root = split_corpus(tmp_path / "c", train=TRAIN, validation=VALIDATION, test=marked)
    assert codes(task_of(tiny(root, decode={"max_tokens": 90}) | {"baseline": {"model": str(model)}})) == []


def test_words_of_a_source_without_spaces() -> None:
    assert source_words(["ein Satz, kurz", "wort"], "de").tolist() == [3, 1]
    assert source_words(CHINESE, "zh").tolist() == [len(text) for text in CHINESE]
    assert source_words(THAI, "source").min() > 10


@pytest.mark.usefixtures("prepared")
@pytest.mark.parametrize("section", ["data", "decode"])
def test_more_subwords_than_a_trained_model_has_positions(tmp_path: Path, section: str) -> None:
    source = corpus(tmp_path / "p.tsv", sources_and_targets())
    study = tiny(source)
    study["baseline"]["config"]["max_position_embeddings"] = 45
    study["data"]["max_tokens"] = 40
    task = task_of(study)
    lf.save(task.make_baseline(0), tmp_path / "model")
    task.tokenizer.save(tmp_path / "model")
    study["baseline"] = {"model": str(tmp_path / "model")}
    del study["data"]["tokenizer"]  # the model has its own
    study[section]["max_tokens"] = 60
    found = re.match(rf"{section}\.max_tokens: 60 subwords, but the model has (\d+) positions; set", error_of(study))
    assert found
    study[section]["max_tokens"] = int(found[1])
    assert is_prepared(study)


# Test splits on which no decision is possible, and whether the remedies in errors help


def split_corpus(root: Path, **splits: Sequence[tuple[str, str]]) -> Path:
    root.mkdir()
    for name, pairs in splits.items():
        corpus(root / f"{name}.tsv", pairs)
    return root


PAIRS = sources_and_targets()
TRAIN, VALIDATION, TEST = PAIRS[:200], PAIRS[200:240], PAIRS[240:]


def error_of(study: dict[str, Any]) -> str:
    with pytest.raises(LeanformerError) as caught:
        run(study, Path("unused"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Studies end where training would begin, so that only the checks before it run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "leanformer.study.held_out.announce", lambda _: pytest.fail("Nothing was wrong.", pytrace=False)
    )


def is_prepared(study: dict[str, Any]) -> bool:
    with pytest.raises(pytest.fail.Exception, match=r"Nothing was wrong\."):
        run(study, Path("prepared"))
    shutil.rmtree("prepared")
    return True


@pytest.mark.usefixtures("prepared")
def test_one_test_sentence_is_too_few(tmp_path: Path) -> None:
    study = tiny(split_corpus(tmp_path / "c", train=TRAIN, validation=VALIDATION, test=TEST), data={"test_limit": 1})
    study["data"]["source"] = str(tmp_path / "c")
    assert error_of(study) == (
        "data: the test split has 1 sentence pair, and a decision needs 2 or more; give it more pairs, or raise "
        "its limit (data.test_limit, data.test_fraction, data.numbers.test)"
    )
    study["data"]["test_limit"] = 2
    assert is_prepared(study)
    assert codes(task_of(study)) == ["small-test-split"]


@pytest.mark.usefixtures("prepared")
def test_references_too_short_for_bleu(tmp_path: Path) -> None:
    short = [(source, " ".join(target.split()[:3])) for source, target in TEST]
    root = split_corpus(tmp_path / "c", train=TRAIN, validation=VALIDATION, test=short)
    message = error_of(tiny(root))
    assert "no reference of the test split has 4 words in a row as BLEU counts them (tokenizer 13a)" in message
    assert "set accept.metric to chrf" in message
    assert is_prepared(tiny(root) | {"accept": {"metric": "chrf"}})
    corpus(root / "test.tsv", [*short[:31], *TEST[31:]])
    assert codes(task_of(tiny(root))) == ["short-references", "leaked-sentences"][:1]
    assert codes(task_of(tiny(root) | {"accept": {"metric": "chrf"}})) == []


LONG = ("9 " * 30 + "9", "Neun und neun und VÖLLIG lang")


@pytest.mark.usefixtures("prepared")
def test_a_block_too_short_for_the_test_split(tmp_path: Path) -> None:
    root = split_corpus(tmp_path / "c", train=TRAIN, validation=VALIDATION, test=[*TEST, LONG])

    def study(max_length: int, max_tokens: int = 50) -> dict[str, Any]:
        block = {"block": "feed_forward", "hidden": 4, "max_length": max_length}
        plan = {"encoder.*.self_attention": block}
        return tiny(root, data={"max_tokens": max_tokens}) | {"candidates": {"alr": {"plan": plan}}}

    message = error_of(study(20))
    found = re.fullmatch(
        r"1 of 61 source sentences are longer than the 20 positions of candidates\.alr at encoder\.0\.self_attention, "
        r"in the test split; give the block max_length: (\d+)",
        message,
    )
    assert found, message
    assert error_of(study(20, 20)) == message  # it does not advise what is already set
    assert is_prepared(study(int(found[1])))
    assert "the test split" in error_of(study(int(found[1]) - 1))


@pytest.mark.usefixtures("prepared")
def test_a_block_too_short_for_the_training_split(tmp_path: Path) -> None:
    root = split_corpus(tmp_path / "c", train=[*TRAIN, LONG], validation=[*VALIDATION, LONG], test=TEST)

    def study(max_length: int, max_tokens: int = 50) -> dict[str, Any]:
        block = {"block": "feed_forward", "hidden": 4, "max_length": max_length}
        return tiny(root, data={"max_tokens": max_tokens}) | {
            "candidates": {"alr": {"plan": {"encoder.*.self_attention": block}}}
        }

    message = error_of(study(30))
    found = re.search(
        r"in the train split; set data\.max_tokens to (\d+) or give the block max_length: (\d+)$", message
    )
    assert found, message
    assert is_prepared(study(30, int(found[1])))
    assert is_prepared(study(int(found[2])))
    # A lower limit is not advised where it would leave no pairs.
    found = re.search(r"in the (train|test) split; give the block max_length: (\d+)$", error_of(study(2)))
    assert found
    assert is_prepared(study(int(found[2])))


@pytest.mark.usefixtures("prepared")
@pytest.mark.parametrize("settings", [{}, {"max_position_embeddings": 60}])
def test_a_test_sentence_beyond_a_fresh_models_positions(tmp_path: Path, settings: dict[str, Any]) -> None:
    long = ("9 " * 1500, "lang")
    root = split_corpus(tmp_path / "c", train=TRAIN, validation=VALIDATION, test=[*TEST, long])
    study = tiny(root, data={"max_tokens": 50}, train={"batch_tokens": 4096})
    study["baseline"]["config"] |= {**settings}
    message = error_of(study)
    assert "1 of 61 source sentences of the test split have more subwords" in message
    assert "such as '9 9 9 9" in message
    found = re.search(r"; set (data\.max_tokens|baseline\.config\.max_position_embeddings) to (\d+)", message)
    assert found, message
    section, key = found[1].rsplit(".", 1)
    (study["data"] if section == "data" else study["baseline"]["config"])[key] = int(found[2])
    assert is_prepared(study)


@pytest.mark.usefixtures("prepared")
def test_limits_that_leave_nothing(tmp_path: Path) -> None:
    root = split_corpus(tmp_path / "c", train=TRAIN, validation=[LONG, LONG], test=TEST)
    for max_tokens, pairs in ((2, "200 training pairs and all 2 validation pairs"), (30, "2 validation pairs")):
        study = tiny(root, data={"max_tokens": max_tokens})
        found = re.match(rf"data\.max_tokens: all {pairs} are longer than .* set it to (\d+),", error_of(study))
        assert found
        study["data"]["max_tokens"] = int(found[1])
        assert is_prepared(study)  # the other split keeps some pairs too


@pytest.mark.usefixtures("prepared")
def test_a_batch_too_small_for_a_sentence(tmp_path: Path) -> None:
    study = tiny(split_corpus(tmp_path / "c", train=TRAIN, validation=VALIDATION, test=TEST), train={"batch_tokens": 3})
    found = re.match(r"train\.batch_tokens: the longest sentence has .* set it to (\d+) or more", error_of(study))
    assert found
    study["train"]["batch_tokens"] = int(found[1]) - 1
    assert error_of(study)
    study["train"]["batch_tokens"] = int(found[1])
    assert is_prepared(study)


def test_many_left_out_and_cut_translations_are_told(tmp_path: Path) -> None:
    root = split_corpus(tmp_path / "c", train=[*TRAIN, *[LONG] * 40], validation=VALIDATION, test=TEST)
    task = task_of(tiny(root, data={"max_tokens": 25}, decode={"max_tokens": 5}))
    assert codes(task) == ["pairs-left-out", "cut-translations"]
    left_out, cut = map(str, task.warnings)
    assert "train: 40 of 240 pairs left out, as a side has more than 25 subwords; raise data.max_tokens" in left_out
    found = re.search(r"60 of 60 test references have more than the 5 subwords .* set decode\.max_tokens to (\d+)", cut)
    assert found, cut
    assert codes(task_of(tiny(root, decode={"max_tokens": int(found[1])}))) == []


def test_a_teacher_that_ends_no_translation(tmp_path: Path) -> None:
    task = task_of(tiny(split_corpus(tmp_path / "c", train=TRAIN, validation=VALIDATION, test=TEST)))
    endless = ["neun und " * 200] * len(TRAIN)
    with pytest.raises(
        LeanformerError, match=r"^finetune\.targets: none of the teacher's 200 translations .* to data$"
    ):
        task.batches_with(endless)
    # One that is longer than a batch takes is left out too.
    limited = task_of(tiny(tmp_path / "c", train={"batch_tokens": 60}))
    assert limited.batches_with(["neun und " * 90, *["neun"] * (len(TRAIN) - 1)]).train.lengths.max() <= 60
