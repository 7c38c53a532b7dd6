"""Studies of translators whose architecture is found: languages, prefixes and start tokens stay with the student."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import slow
from found_translators import BART_SIZES, MADE, T5_SIZES, study_of, write
from studies import results_of, run, without_timings
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, BertConfig, BertForSequenceClassification

import leanformer as lf
import leanformer.auto
from leanformer.config.reader import make_study
from leanformer.core.errors import LeanformerError
from leanformer.data.tokenizers import TranslationTokenizer
from leanformer.model.generate import UNLIMITED, most_tokens, translate
from leanformer.serve.translate import translate_lines
from leanformer.tasks.base import open_task
from leanformer.tasks.translation import Translation

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directories of all translators."""
    root = tmp_path_factory.mktemp("translators")
    for name in MADE:
        write(name, root / name)
    return root


def opened(directory: Path, **data: Any) -> Translation:
    study = study_of(directory)
    task = open_task(make_study({**study, "data": {**study["data"], **data}}, "study"), CPU)
    assert isinstance(task, Translation)
    return task


@pytest.mark.parametrize(
    ("name", "source", "target", "start"),
    [
        ("t5", ("\u2581", "</s>"), ("", "</s>"), "<pad>"),
        ("nllb", ("deu_Latn", "</s>"), ("eng_Latn", "</s>"), "</s>"),
        ("mbart", ("", "de_DE"), ("", "en_XX"), "en_XX"),
        ("pegasus", ("", "</s>"), ("", "</s>"), "<pad>"),
    ],
)
def test_batches_are_what_the_model_was_trained_on(
    place: Path, name: str, source: tuple[str, str], target: tuple[str, str], start: str
) -> None:
    task = opened(place / name)
    model, (side, _) = task.make_baseline(0), task.tokenizer.sides
    batch = next(iter(task.batches.training(0, 0)))
    labels = batch["labels"]
    own = getattr(model, "prepare_decoder_input_ids_from_labels", None)
    if own is not None:
        real = labels != -100
        assert torch.equal(own(labels=labels)[real], batch["decoder_input_ids"][real])
    texts = (batch["input_ids"][0][batch["attention_mask"][0] == 1], labels[0][labels[0] != -100])
    for ids, (first, last) in zip(texts, (source, target), strict=True):
        words = side.convert_ids_to_tokens(ids.tolist())
        assert words[0].startswith(first)
        assert words[-1] == last
    assert side.convert_ids_to_tokens(int(batch["decoder_input_ids"][0, 0])) == start
    # And what it writes begins in the same way, also as a student that was saved.
    student = lf.reduce(model, {"*attention": {"block": "slots", "slots": 2}})
    first_id = task.tokenizer.first_id
    for one in (model, student):
        written = one.generate(batch["input_ids"][:1], max_length=4)[0].tolist()
        assert side.convert_ids_to_tokens(written[0]) == start
        assert first_id is None or written[1] == first_id
        assert one.generation_config.forced_bos_token_id == first_id


def test_a_prefix_comes_from_the_models_own_configuration(place: Path) -> None:
    assert opened(place / "t5").tokenizer.prefix == "translate German to English: "
    assert opened(place / "t5", prefix="to: ").tokenizer.prefix == "to: "
    assert opened(place / "t5", prefix="").tokenizer.prefix == ""
    assert opened(place / "pegasus").tokenizer.prefix == ""


def test_positions_that_do_not_end_limit_nothing(place: Path) -> None:
    task = opened(place / "t5", max_tokens=2000)
    model = task.make_baseline(0)
    assert most_tokens(model) == (UNLIMITED, UNLIMITED)
    text = " ".join(["eins"] * 120)
    found = translate(model, task.tokenizer, [text], beam=2, max_tokens=3, batch_tokens=4096)
    assert found.tokens <= 3


@pytest.mark.parametrize("name", ["t5", "m2m_100"])
def test_a_fresh_model_of_any_encoder_decoder(name: str, tmp_path: Path) -> None:
    sizes = T5_SIZES if name == "t5" else BART_SIZES
    study = study_of(tmp_path, baseline={"model": name, "config": sizes})
    study["data"]["tokenizer"] = {"vocabulary": 300}
    task = open_task(make_study(study, "study"), CPU)
    assert isinstance(task, Translation)
    model: Any = task.make_baseline(0)
    assert model.config.model_type == name
    assert model.config.vocab_size == task.tokenizer.source_vocabulary
    marks = (model.config.pad_token_id, model.config.eos_token_id, model.config.decoder_start_token_id)
    assert marks == (task.tokenizer.pad_id, task.tokenizer.eos_id, task.tokenizer.pad_id)


def line_of(study: dict[str, Any]) -> str:
    with pytest.raises(LeanformerError) as caught:
        open_task(make_study(study, "study"), CPU)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("nllb", {"language_codes": {"de": "deutsch"}}, "data.language_codes: 'deutsch' is none of the 202 languages"),
        ("t5", {"language_codes": {"de": "deu"}}, "data.language_codes does nothing here"),
        ("pegasus", {"max_tokens": 65}, "data.max_tokens: 65 subwords, but the model has 64 positions"),
    ],
)
def test_data_that_do_not_fit_are_one_line(place: Path, name: str, data: dict[str, Any], said: str) -> None:
    study = study_of(place / name)
    assert said in line_of({**study, "data": {**study["data"], **data}})


def test_a_model_for_something_else_is_one_line(tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "num_hidden_layers": 1}
    BertForSequenceClassification(BertConfig(vocab_size=40, **sizes)).save_pretrained(tmp_path)
    line = line_of(study_of(tmp_path))
    assert "is for text-classification, the study is of translation" in line
    assert "marian, bart, or the model type of any other encoder-decoder, such as t5" in line


def test_a_model_without_a_tokenizer_is_one_line(tmp_path: Path) -> None:
    MADE["t5"]()[0].save_pretrained(tmp_path)
    assert "holds no tokenizer" in line_of(study_of(tmp_path))


@pytest.mark.parametrize(
    ("key", "value"), [("prefix", "translate: "), ("language_codes", {"de": "deu_Latn"})], ids=["prefix", "codes"]
)
def test_keys_of_trained_models_say_that_they_do_nothing(key: str, value: Any, tmp_path: Path) -> None:
    study = study_of(tmp_path, baseline={"model": "t5", "config": T5_SIZES})
    study["data"] |= {"tokenizer": {"vocabulary": 300}, key: value}
    task = open_task(make_study(study, "study"), CPU)
    with pytest.raises(LeanformerError, match=f"data.{key} does nothing here"):
        task.check_keys()


def test_a_decoder_that_transformers_cannot_write_with_is_one_line(tmp_path: Path) -> None:
    study = study_of(tmp_path, baseline={"model": "t5", "config": {**T5_SIZES, "num_decoder_layers": 3}})
    study["data"]["tokenizer"] = {"vocabulary": 300}
    assert "has 3 num_decoder_layers and 2 num_layers" in line_of(study)


@pytest.mark.parametrize(
    ("to", "model", "kind"),
    [
        ("onnx", "switch_transformers", "SwitchTransformersForConditionalGeneration, and which of its experts"),
        ("ctranslate2", "t5", "T5ForConditionalGeneration"),
    ],
)
def test_what_is_not_exported_is_one_line_before_training(tmp_path: Path, to: str, model: str, kind: str) -> None:
    pytest.importorskip({"onnx": "onnxruntime"}.get(to, to))
    study = study_of(
        tmp_path, baseline={"model": model, "config": {**T5_SIZES, "num_decoder_layers": 2}}, ship={"to": to}
    )
    study["data"]["tokenizer"] = {"vocabulary": 300}
    with pytest.raises(LeanformerError, match=f"baseline: not shippable in the format {to}: this is a {kind}"):
        run(study, tmp_path / "run")


def test_a_tokenizer_that_is_not_exported_is_one_line_before_training(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(_: TranslationTokenizer) -> None:
        raise LeanformerError("it has no form for the library tokenizers")

    monkeypatch.setattr(TranslationTokenizer, "library_forms", none)
    with pytest.raises(LeanformerError, match="no form for the library tokenizers"):
        run(study_of(place / "t5", ship={"to": "onnx"}), tmp_path / "run")
    assert not list((tmp_path / "run").glob("trials/*"))


@pytest.mark.long
def test_a_t5_ships_to_onnx(place: Path, tmp_path: Path) -> None:
    candidates = {
        "prefixes": {
            "method": "distill",
            "plan": {"encoder.*.self_attention": "mixer", "decoder.*.self_attention": "ssru", "decoder.1.mlp": "none"},
        }
    }
    directory = tmp_path / "run"
    run(study_of(place / "t5", candidates=candidates, ship={"to": "onnx"}), directory)
    results = results_of(directory)
    rows = [results["baseline"], *results["candidates"]]
    for row in rows:
        assert (row["status"], row["artifact"]["format"], row["artifact"]["agreement"]) == ("ok", "onnx", 1.0)
        assert row["latency_ms"]["p50"] > 0
    shipped = rows[-1]
    text = tmp_path / "text.txt"
    text.write_text("zwei\neinhundert\nsiebenundvierzig\n", encoding="utf-8")
    written = []
    for model in (directory / shipped["artifact"]["directory"], directory / shipped["trials"][0] / "model"):
        translate_lines(str(model), text, tmp_path / "out.txt", 1, 1024, 12, "cpu", None)  # leanformer translate
        written.append((tmp_path / "out.txt").read_text(encoding="utf-8"))
    assert written[0] == written[1]


def test_fewer_target_subwords_are_for_marian_alone(place: Path, tmp_path: Path) -> None:
    study = study_of(place / "t5")
    study["candidates"]["few"] = {"plan": {"target_vocabulary": {"limit": 50}}}
    with pytest.raises(LeanformerError, match="t5 has one vocabulary for both sides"):
        run(study, tmp_path / "run")


@pytest.mark.parametrize("name", slow(*MADE))
def test_a_study_from_end_to_end(place: Path, tmp_path: Path, name: str) -> None:
    study = study_of(place / name)
    study["candidates"] |= {
        "without": {"plan": {"encoder.1.mlp": "none", "decoder.1.layer": "none"}},
        "prefixes": {
            "method": "distill",
            "plan": {"encoder.*.self_attention": "mixer", "decoder.*.self_attention": "ssru", "*.mlp": "mlp"},
        },
    }
    directory = tmp_path / "run"
    run(study, directory)
    results = results_of(directory)
    rows = {row["name"]: row for row in [results["baseline"], *results["candidates"]]}
    assert all(row["status"] == "ok" for row in rows.values())
    assert all(row["decoding"]["flops_per_token"] > 0 for row in rows.values())
    taught = [change for change in rows["slots"]["changes"] if change["changed"]]
    assert len(taught) == 6
    assert all(change["r2"] is not None for change in taught)
    # Again, nothing is left to do.
    _, log = run(study, directory)
    assert "[1/" not in log
    assert without_timings(results_of(directory)) == without_timings(results)
    # The student's directory is all that is needed.
    student = directory / "trials/slots/seed-0/model"
    text, out = tmp_path / "text.txt", tmp_path / "out.txt"
    text.write_text("zwei\neinhundert\n", encoding="utf-8")
    translate_lines(str(student), text, out, 1, 1024, 6, "cpu", None)  # leanformer translate
    written = out.read_text(encoding="utf-8").splitlines()
    assert len(written) == 2
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(student), AutoTokenizer.from_pretrained(student)
    prefix = json.loads((student / "tokenizer_config.json").read_text()).get("source_prefix") or ""
    ids = tokenizer([f"{prefix}zwei"], return_tensors="pt").input_ids
    own = tokenizer.batch_decode(model.generate(ids, max_new_tokens=6), skip_special_tokens=True)[0]
    assert own.strip().startswith(written[0].strip())  # the last of its six tokens is no end mark
