"""Studies of text classifiers: from random weights, from trained encoders, with every method; and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from places import ROOT
from studies import run, without_timings
from tiny_texts import ENCODERS, opinions, tiny_tokenizer, write_encoder, write_texts

import leanformer as lf
from leanformer.cli import app
from leanformer.core.errors import LeanformerError
from leanformer.learn.losses import inputs_of
from leanformer.tasks.base import open_task
from leanformer.tasks.text_classification import TextClassification

CPU = torch.device("cpu")
SLOTS = {"encoder.0.self_attention": "slots"}
SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
FRESH: dict[str, Any] = {"model": "bert", "config": SIZES}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("texts") / "data"
    for name, count, seed in (("train", 80, 0), ("dev", 20, 1), ("test", 40, 2)):
        write_texts(directory / f"{name}.tsv", opinions(count, seed), ())
    return directory


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("bert"))


def study_of(texts: Path, baseline: dict[str, Any], **keys: Any) -> dict[str, Any]:
    """A study of a few seconds."""
    return {
        "name": "opinions",
        "task": "text-classification",
        "data": {"source": str(texts), "max_tokens": 32, **keys.pop("data", {})},
        "baseline": baseline,
        "candidates": {"slots": {"plan": SLOTS, "method": "distill"}},
        "train": {"epochs": 1, "batch_tokens": 256, "learning_rate": 1e-3, **keys.pop("train", {})},
        "distill": {"epochs": 1},
        "finetune": {"epochs": 1},
        "seeds": [0],
        "measure": {"repeats": 1, "latency_calls": 1, "throughput_batch": 4, "device": "cpu"},
        **keys,
    }


def new_head(directory: Path) -> dict[str, Any]:
    return {"model": str(directory), "head": "new"}


def task_of(texts: Path, baseline: dict[str, Any], **keys: Any) -> TextClassification:
    task = open_task(lf.make_study(study_of(texts, baseline, **keys)), CPU)
    assert isinstance(task, TextClassification)
    return task


def error_of(texts: Path, baseline: dict[str, Any], **keys: Any) -> str:
    with pytest.raises(LeanformerError) as caught:
        task_of(texts, baseline, **keys).check_keys()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_study_from_random_weights(texts: Path, tmp_path: Path) -> None:
    fresh = {**FRESH, "config": {**SIZES, "initializer_range": 0.2, "hidden_dropout_prob": 0.0}}
    study = study_of(texts, fresh, data={"tokenizer": {"vocabulary": 300}}, train={"epochs": 15, "batch_tokens": 128})
    result, _ = run(study, tmp_path / "run", report=True)
    baseline, slots = result.results["baseline"], result.results["candidates"][0]
    assert baseline["quality"]["mean"] > 0.8
    assert (
        slots["flips"]["lost"] + slots["flips"]["gained"]
        == slots["mcnemar"][0]["baseline_only"] + (slots["mcnemar"][0]["candidate_only"])
    )
    assert sum(map(sum, baseline["confusion"]["matrix"])) == 40
    page = (tmp_path / "run/report.html").read_text(encoding="utf-8")
    assert 'id="flips"' in page
    assert 'class="confusion"' in page
    assert all(flip["correct"] in (flip["baseline"], flip["candidate"]) for flip in slots["flips"]["shown"])
    again, log = run(study, tmp_path / "run")
    assert without_timings(again.results) == without_timings(result.results)
    assert "teaching" not in log


@pytest.mark.long
def test_every_method_from_a_trained_encoder(texts: Path, bert: Path, tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("".join(f"{text}\n" for text, _ in opinions(20, seed=5)))
    candidates = {
        "slots": {"plan": SLOTS, "method": "distill"},
        "lean": {
            "plan": {
                "*.self_attention": {"block": "minimal_attention", "vo": "separate", "init": "teacher"},
                "encoder.1.mlp": {"block": "mlp", "hidden": 16, "init": "teacher"},
            },
            "method": "distill",
        },
        "one-head": {"plan": {"*.self_attention": {"block": "attention", "keep_heads": 1}}, "method": "distill"},
        "shorter": {"plan": {"encoder.1.layer": "none"}},
    }
    study = study_of(
        texts,
        new_head(bert),
        candidates=candidates,
        data={"unlabelled": str(tmp_path / "more.txt")},
        train={"class_weights": "balanced", "head_learning_rate": 0.01},
        finetune={"epochs": 1, "hidden_states": 0.5},
        measure={"repeats": 1, "latency_calls": 1, "throughput_batch": 4, "device": "cpu", "robustness": True},
    )
    result, _ = run(study, tmp_path / "run")
    rows = [result.results["baseline"], *result.results["candidates"]]
    assert {row["status"] for row in rows} == {"ok"}
    assert result.results["data"]["unlabelled"] == 20
    assert {one["name"] for one in result.results["corruptions"]} == {"typos", "upper-case"}
    assert rows[4]["parameters"] < rows[2]["parameters"] < rows[0]["parameters"]
    new = write_texts(tmp_path / "new.tsv", opinions(30, seed=9))
    confirmed = lf.confirm(tmp_path / "run", str(new), candidate="slots")
    assert confirmed.result["data"]["examples"] == 30
    probes = {"lean": {"block": "slots", "slots": 2}}
    for name in ("baseline", "lean"):
        directory = tmp_path / f"run/trials/{name}/seed-0/model"
        teach = lf.DistillConfig(epochs=1)
        found = lf.inspect(directory, {"source": str(texts), "max_tokens": 32}, tmp_path / name, probes, teach)
        sites = {row["site"]: row["replaced"] for row in found.results["sites"]}
        assert {"encoder.0.self_attention", "encoder.1.mlp"} <= set(sites)
        assert all(change["linear"] is not None for change in sites.values())


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in ENCODERS if name != "bert"])
def test_studies_from_other_encoders(name: str, texts: Path, tmp_path: Path) -> None:
    model = write_encoder(tmp_path / "model", name)
    result, _ = run(study_of(texts, new_head(model)), tmp_path / "run")
    assert [row["status"] for row in result.results["candidates"]] == ["ok"]


@pytest.mark.long
@pytest.mark.parametrize("model", ["distilbert", "roberta", "modernbert"])
def test_small_models_of_other_types_from_random_weights(model: str, texts: Path, tmp_path: Path) -> None:
    sizes = {"distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}}
    fresh = {"model": model, "config": sizes.get(model, SIZES)}
    result, _ = run(study_of(texts, fresh, data={"tokenizer": {"vocabulary": 300}}), tmp_path / "run")
    assert [row["status"] for row in result.results["candidates"]] == ["ok"]


@pytest.mark.long
def test_cross_validation_of_pairs(tmp_path: Path) -> None:
    rows = [(text, f"{text} indeed", label) for text, label in opinions(60)]
    file = write_texts(tmp_path / "pairs.tsv", rows, ("sentence1", "sentence2", "label"))
    keys = {"data": {"cross_validation": 2, "tokenizer": {"vocabulary": 300}, "max_tokens": 60}}
    result, _ = run(study_of(file, FRESH, **keys), tmp_path / "run")
    assert [row["status"] for row in result.results["candidates"]] == ["ok"]
    assert result.results["data"]["pairs"]


def test_answers_are_in_the_order_of_the_texts(texts: Path, bert: Path) -> None:
    task = task_of(texts, new_head(bert))
    model = task.make_baseline(0).eval()
    answers = task.evaluate(model)
    assert answers.labels.tolist() == task.data.test.labels.tolist()
    assert answers.logits is None
    assert answers.losses is not None
    for row in (0, 7, 39):
        (batch,) = task.batches.chosen(task.labelled.test, [torch.tensor([row]).numpy()])
        with torch.no_grad():
            loss = torch.nn.functional.cross_entropy(model(**inputs_of(batch)).logits, batch["labels"])
        assert abs(float(loss) - answers.losses[row]) < 1e-5


def test_padding_changes_nothing_for_blocks(texts: Path, bert: Path) -> None:
    task = task_of(texts, new_head(bert))
    plan: dict[str, Any] = {
        "encoder.0.self_attention": "slots",
        "encoder.1.self_attention": {"block": "linear_attention"},
    }
    student = lf.reduce(task.make_baseline(0), plan).eval()
    test = task.labelled.test
    both = torch.tensor([int(test.tokens.lengths.argmin()), int(test.tokens.lengths.argmax())]).numpy()
    together, alone = task.batches.chosen(test, [both, both[:1]])
    assert together["input_ids"].shape[1] > alone["input_ids"].shape[1]
    with torch.no_grad():
        padded, bare = (student(**inputs_of(batch)).logits[0] for batch in (together, alone))
    assert torch.allclose(padded, bare, atol=1e-5)


def test_a_new_head_and_pooling_learn_faster(texts: Path, tmp_path: Path) -> None:
    task = task_of(texts, new_head(write_encoder(tmp_path, "bert for masked words")))
    first, again, second = (task.make_baseline(seed) for seed in (0, 0, 1))
    factors = task.rate_factors(first, 1e-3)
    assert set(factors) == {
        f"{part}.{kind}" for part in ("bert.pooler.dense", "classifier") for kind in ("weight", "bias")
    }
    assert set(factors.values()) == {10}
    for name, weight in first.named_parameters():
        assert torch.equal(weight, again.get_parameter(name))
        assert torch.equal(weight, second.get_parameter(name)) == (name not in factors or name.endswith("bias"))


def test_a_trained_classifier_is_a_baseline_with_its_classes(texts: Path, tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    config = hf.BertConfig(
        vocab_size=tokenizer.vocabulary,
        **{**SIZES, **tokenizer.marks},
        id2label={0: "good", 1: "bad"},
        label2id={"good": 0, "bad": 1},
    )
    write_encoder(tmp_path / "model", model=hf.BertForSequenceClassification(config))
    task = task_of(texts, {"model": str(tmp_path / "model")}, train={"epochs": 0})
    assert task.data.classes == ("good", "bad")
    assert not task.rate_factors(task.make_baseline(0), 1e-3)


def test_predictions_of_a_student(texts: Path, bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = task_of(texts, new_head(bert))
    student = lf.reduce(task.make_baseline(0), SLOTS)
    lf.save(student, tmp_path / "model")
    task.save_companions(tmp_path / "model")
    lines = [text for text, _ in opinions(5, seed=3)]
    (tmp_path / "lines.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "objects.jsonl").write_text("".join(json.dumps({"text": line, "id": 1}) + "\n" for line in lines))
    for name in ("lines.txt", "objects.jsonl"):
        app(["predict", str(tmp_path / "model"), str(tmp_path / name)], standalone_mode=False)
        told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [one["text"] for one in told] == lines
        assert all(
            one["label"] in ("bad", "good") and abs(sum(one["probabilities"].values()) - 1) < 1e-5 for one in told
        )
    app(["predict", str(tmp_path / "model"), str(tmp_path / "lines.txt"), "--format", "lines"], standalone_mode=False)
    assert [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()] == [one["label"] for one in told]


def test_distilling_without_a_study(bert: Path) -> None:
    config = hf.BertConfig(vocab_size=300, **SIZES)
    teacher = hf.BertForSequenceClassification(config)
    ids = torch.randint(3, 300, (4, 6))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.tensor([0, 1, 1, 0])}
    student = lf.distill(teacher, SLOTS, [batch], teach=lf.DistillConfig(epochs=1))
    assert student(**inputs_of(batch)).logits.shape == (4, 2)
    with pytest.raises(LeanformerError, match="2 is among the labels"):
        lf.distill(teacher, SLOTS, [{**batch, "labels": torch.tensor([0, 1, 2, 0])}])


def test_what_no_study_can_start_from(texts: Path, bert: Path, tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    sizes = {"n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": tokenizer.vocabulary}
    language = write_encoder(tmp_path / "gpt2", model=hf.GPT2LMHeadModel(hf.GPT2Config(**sizes)))
    assert "whose tokens read only those before them; take an encoder" in error_of(texts, new_head(language))
    assert "is for other work (GPT2LMHeadModel), the study is of text-classification" in error_of(
        texts, {"model": str(language)}
    )
    marian = {"d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 10, "pad_token_id": 0}
    marian |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    hf.MarianMTModel(hf.MarianConfig(**marian, decoder_start_token_id=0)).save_pretrained(tmp_path / "marian")
    assert "is for translation" in error_of(texts, {"model": str(tmp_path / "marian")})
    assert "is a MarianMTModel, of which transformers has no classifier of texts by an encoder alone" in error_of(
        texts, new_head(tmp_path / "marian")
    )
    assert "baseline.head: new" in error_of(texts, {"model": str(bert)})
    assert "is neither a family (the model type of any encoder, such as bert" in error_of(texts, {"model": "brt"})
    assert "a fresh bert has a new head anyway" in error_of(texts, {**FRESH, "head": "new"})
    assert "data.max_tokens: 64 subwords, but the model has 40 positions" in error_of(
        texts, new_head(bert), data={"max_tokens": 64}
    )
    roberta = write_encoder(tmp_path / "roberta", "roberta")  # which counts from the id of padding, 2
    assert "but the model has 37 positions" in error_of(texts, new_head(roberta), data={"max_tokens": 38})
    assert "data.max_tokens: 2 leaves no subword" in error_of(texts, new_head(bert), data={"max_tokens": 2})

    bare = tmp_path / "bare"
    ENCODERS["bert"](vocab_size=300).save_pretrained(bare)
    assert "holds no tokenizer" in error_of(texts, new_head(bare))
    unpadded = write_encoder(tmp_path / "unpadded")
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        path = unpadded / file
        if path.is_file():
            kept = {key: value for key, value in json.loads(path.read_text()).items() if key != "pad_token"}
            path.write_text(json.dumps(kept))
    assert "has no padding token" in error_of(texts, new_head(unpadded))
    foreign = write_encoder(tmp_path / "foreign", model=ENCODERS["bert"](vocab_size=100))
    assert "subwords, the model 100; they do not belong together" in error_of(texts, new_head(foreign))

    assert "data.tokenizer does nothing here" in error_of(
        texts, new_head(bert), data={"tokenizer": {"vocabulary": 300}}
    )
    assert "have no class 'x'; classes: bad, good" in error_of(
        texts, new_head(bert), train={"class_weights": {"x": 2.0}}
    )


def test_what_cannot_be_done_with_text_classifiers(texts: Path, bert: Path, tmp_path: Path) -> None:
    with pytest.raises(LeanformerError, match="text classifiers are not exported yet; leave ship out"):
        run(study_of(texts, new_head(bert), ship={"to": "onnx"}), tmp_path / "run")
    short = {"short": {"plan": {"*.self_attention": {"block": "feed_forward", "max_length": 4}}, "method": "distill"}}
    with pytest.raises(LeanformerError, match=r"set data\.max_tokens to 4"):
        run(study_of(texts, new_head(bert), candidates=short), tmp_path / "run")
    assert not (tmp_path / "run/trials").exists()


@pytest.mark.long
def test_the_study_of_the_page_runs(tmp_path: Path) -> None:
    page = (ROOT / "docs/text-classification.md").read_text(encoding="utf-8")
    (tmp_path / "study.yaml").write_text(page.partition("```yaml\n")[2].partition("```")[0], encoding="utf-8")
    shorter = ["train.epochs=1", "train.search_epochs=1", "distill.epochs=1", "finetune.epochs=1"]
    shorter += ["data.numbers={train: 200, validation: 40, test: 60}", "measure.repeats=1", "measure.device=cpu"]
    result, _ = run(lf.read_study(tmp_path / "study.yaml", shorter), tmp_path / "run")
    assert {row["status"] for row in result.results["candidates"]} == {"ok"}
