"""Inspecting a trained model: linear maps, how attention spreads, what blocks can learn, what the model loses."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from studies import run
from torch import nn
from transformers import PreTrainedModel

import leanformer as lf
from leanformer import cli
from leanformer.blocks.kit.inputs import BlockInputs
from leanformer.blocks.kit.site import Site
from leanformer.blocks.kit.state import DecodingState
from leanformer.config.reader import read_probes
from leanformer.config.translation import NumberWordsConfig, TextDataConfig, TokenizerConfig
from leanformer.core.events import Reporter
from leanformer.data.number_words import number_words
from leanformer.data.tokenizers import train_tokenizer
from leanformer.learn.lessons import Explained
from leanformer.learn.observe import frozen_copy
from leanformer.learn.probes import HeadsProbe, LeastSquares, LinearModule, features
from leanformer.measure.attention import HeadSpread, weights_of
from leanformer.model.baseline import fresh_model
from leanformer.model.family import find_family
from leanformer.model.surgery import build, module_at, resolve
from leanformer.report.inspection import inspection_table, layers_table
from leanformer.study.inspector import Inspector

MakeModel = Callable[..., PreTrainedModel]
TEACH = lf.DistillConfig(epochs=2, learning_rate=3e-3)


def site(model: PreTrainedModel, name: str) -> Site:
    return next(one for one in lf.sites(model) if one.name == name)


# How attention spreads


def spread(weights: torch.Tensor, causal: bool = False, **masks: torch.Tensor) -> HeadSpread:
    found = HeadSpread(causal)
    found.add(weights, masks.get("mask"), masks.get("read_mask"))
    return found


def test_spread_of_known_weights() -> None:
    """Head 0 weights all tokens equally, head 1 reads only the token itself, head 2 reads half of the tokens."""
    half = torch.zeros(6, 6)
    half[:, :3] = 1 / 3
    found = spread(torch.stack([torch.full((6, 6), 1 / 6), torch.eye(6), half])[None])
    log = torch.tensor([3.0, 6.0]).log()
    assert found.entropy == pytest.approx([1.0, 0.0, float(log[0] / log[1])])
    assert found.effective_rank == pytest.approx([1.0, 6.0, 1.0])
    assert found.tokens_read == 6


def test_a_causal_token_chooses_among_those_before_it() -> None:
    even = torch.ones(5, 5).tril() / torch.arange(1, 6)[:, None]
    assert spread(even[None, None], causal=True).entropy == pytest.approx([1.0])
    assert spread(even[None, None]).entropy[0] < 0.9


def test_padding_does_not_count_in_a_spread() -> None:
    torch.manual_seed(0)
    short = torch.rand(1, 2, 4, 3).softmax(dim=-1)
    padded = torch.zeros(1, 2, 6, 7)
    padded[:, :, :4, :3] = short
    padded[:, :, 4:, 5] = 1.0  # weights of padding queries
    mask, read_mask = torch.arange(6)[None] < 4, torch.arange(7)[None] < 3
    one, other = spread(short), spread(padded, mask=mask, read_mask=read_mask)
    assert one.entropy == pytest.approx(other.entropy)
    assert one.effective_rank == pytest.approx(other.effective_rank)
    assert one.tokens_read == other.tokens_read


@pytest.mark.parametrize("family", ["vit", "deit"])
def test_weights_are_those_of_transformers_images(make_model: MakeModel, family: str) -> None:
    model = make_model(family, attn_implementation="eager")
    opened = frozen_copy(lf.reduce(model, {}))
    pixels = torch.randn(3, 1, 16, 16)
    outputs = model(pixels, output_attentions=True, output_hidden_states=True)
    module = module_at(opened, "encoder.1.self_attention")
    assert module is not None
    given: list[torch.Tensor] = []
    module.register_forward_pre_hook(lambda _, arguments: given.append(arguments[0]))
    opened(pixels)
    weights = weights_of(find_family(opened), site(opened, "encoder.1.self_attention"), module, BlockInputs(given[0]))
    torch.testing.assert_close(weights, outputs.attentions[1], rtol=1e-4, atol=1e-6)


def test_weights_are_those_of_transformers_texts(make_translator: MakeModel) -> None:
    model = make_translator("marian", attn_implementation="eager")
    ids = torch.randint(2, 40, (2, 7))
    mask = torch.arange(7) < torch.tensor([7, 4])[:, None]
    decoder_ids = torch.randint(2, 40, (2, 5))
    outputs = model(ids, attention_mask=mask.long(), decoder_input_ids=decoder_ids, output_attentions=True)
    opened = frozen_copy(lf.reduce(model, {}))
    found: dict[str, Any] = {}
    names = ("encoder.0.self_attention", "decoder.1.self_attention", "decoder.1.cross_attention")
    for name in names:

        def keep(_: nn.Module, arguments: Any, named: Any, name: str = name) -> None:
            found[name] = arguments[0] if arguments else named["hidden_states"]

        module_at(opened, name).register_forward_pre_hook(keep, with_kwargs=True)  # type: ignore[union-attr]
    source = opened(ids, attention_mask=mask.long(), decoder_input_ids=decoder_ids).encoder_last_hidden_state
    theirs = (outputs.encoder_attentions[0], outputs.decoder_attentions[1], outputs.cross_attentions[1])
    for name, expected in zip(names, theirs, strict=True):
        own = mask if name.startswith("encoder") else None
        module = module_at(opened, name)
        assert module is not None
        weights = weights_of(
            find_family(opened), site(opened, name), module, BlockInputs(found[name], own, source, mask)
        )
        torch.testing.assert_close(weights, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "form",
    [
        {"qk": "symmetric", "vo": "none", "heads": 1},
        {"qk": "collapsed", "vo": "none", "heads": 4, "temperature": True},
        {"qk": "separate", "vo": "none", "heads": 2, "qk_norm": True},
    ],
)
@pytest.mark.parametrize("place", ["encoder.0.self_attention", "decoder.0.self_attention", "decoder.0.cross_attention"])
def test_weights_of_a_minimal_attention_average_its_tokens(
    make_translator: MakeModel, form: dict[str, Any], place: str
) -> None:
    student = lf.reduce(make_translator(), {place: {"block": "minimal_attention", **form}})
    module = module_at(student, place)
    assert module is not None
    x, source = torch.randn(2, 6, 16), torch.randn(2, 8, 16)
    mask, source_mask = torch.arange(6) < torch.tensor([6, 4])[:, None], torch.arange(8) < torch.tensor([3, 8])[:, None]
    where = site(student, place)
    own = None if where.causal else mask
    weights = weights_of(find_family(student), where, module, BlockInputs(x, own, source, source_mask))
    assert weights is not None
    read = (source if where.reads_source else x).unflatten(-1, (form["heads"], -1)).transpose(1, 2)
    expected = module(BlockInputs(x, own, *((source, source_mask) if where.reads_source else ())))
    torch.testing.assert_close((weights @ read).transpose(1, 2).flatten(2), expected, rtol=1e-4, atol=1e-5)


# Linear maps


def test_least_squares_find_a_linear_map() -> None:
    torch.manual_seed(0)
    true = torch.randn(9, 4, dtype=torch.double)
    fit = LeastSquares()
    for _ in range(3):
        given = torch.randn(30, 9, dtype=torch.double)
        fit.add(given, (given @ true).float())
    torch.testing.assert_close(fit.solve(), true, rtol=1e-4, atol=1e-4)


def test_features_are_the_token_and_the_mean_of_what_it_may_read() -> None:
    x, source = torch.randn(2, 4, 3), torch.randn(2, 5, 3)
    mask, source_mask = torch.arange(4) < torch.tensor([4, 2])[:, None], torch.arange(5) < torch.tensor([5, 3])[:, None]

    def of(kind: str, causal: bool, reads_source: bool) -> torch.Tensor:
        where = Site(f"x.0.{kind}", kind, "attention", 3, 1, 0, 0, causal, reads_source)  # type: ignore[arg-type]
        return features(where, BlockInputs(x, mask, source, source_mask))[1, 1].float()

    token, one = x[1, 1], torch.ones(1)
    torch.testing.assert_close(of("mlp", False, False), torch.cat([token, one]))
    torch.testing.assert_close(of("mlp", True, False), torch.cat([token, one]))
    torch.testing.assert_close(of("self_attention", False, False), torch.cat([token, x[1, :2].mean(dim=0), one]))
    torch.testing.assert_close(of("self_attention", True, False), torch.cat([token, x[1, :2].mean(dim=0), one]))
    torch.testing.assert_close(of("cross_attention", True, True), torch.cat([token, source[1, :3].mean(dim=0), one]))
    first = features(Site("d.0.s", "self_attention", "attention", 3, 1, 0, 0, True), BlockInputs(x, mask))[0]
    torch.testing.assert_close(first[0, 3:6].float(), x[0, 0])
    torch.testing.assert_close(first[2, 3:6].float(), x[0, :3].mean(dim=0))


def test_a_fitted_map_does_not_decode() -> None:
    where = Site("decoder.0.self_attention", "self_attention", "attention", 3, 1, 0, 0, True)
    module = LinearModule(where, torch.randn(7, 3, dtype=torch.double))
    state = DecodingState()
    assert module(BlockInputs(torch.randn(1, 4, 3), state=state)).shape == (1, 4, 3)
    state.length = 4
    with pytest.raises(NotImplementedError, match="not for decoding"):
        module(BlockInputs(torch.randn(1, 1, 3), state=state))


def test_r2_by_groups() -> None:
    torch.manual_seed(0)
    found, target = Explained(), torch.randn(50, 6)
    given = target.clone()
    given[:, 2:4] = 5.0  # worse than the mean
    given[:, 4:] = target[:, 4:].mean(dim=0)
    for part in (slice(0, 20), slice(20, 50)):
        found.add(given[part], target[part])
    first, second, third = found.r2_by(3)
    assert first == pytest.approx(1.0)
    assert second < -1
    assert third == pytest.approx(0.0, abs=1e-6)
    spread_all = (target - target.mean(dim=0)).square().sum()
    assert found.r2() == pytest.approx(1 - float((given - target).square().sum() / spread_all))


@pytest.mark.parametrize(
    "entry",
    [
        {"block": "slots", "gate": "linear"},
        {"block": "mixer"},
        {"block": "mixer", "positions": "absolute", "max_length": 8},
        {"block": "synthesizer", "max_length": 8},
    ],
)
def test_a_probe_of_heads_is_its_block(make_translator: MakeModel, entry: dict[str, Any]) -> None:
    """A probe's heads, through the attention's own projection, equal its output at the site."""
    opened = frozen_copy(lf.reduce(make_translator(), {}))
    name = "encoder.1.self_attention"
    where = site(opened, name)
    block = build(opened, where, resolve(opened, {name: entry})[name], take_over=True)
    attention = find_family(opened).attention_weights(module_at(opened, name))
    assert attention is not None
    assert attention.output_bias is not None
    probe = HeadsProbe(block, attention)  # type: ignore[arg-type]
    for parameter in probe.taught_parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    x, mask = torch.randn(2, 5, 16), torch.arange(5) < torch.tensor([5, 3])[:, None]
    projected = probe.taught(BlockInputs(x, mask)) @ attention.output + attention.output_bias
    torch.testing.assert_close(probe(BlockInputs(x, mask))[mask], projected[mask], rtol=1e-4, atol=1e-5)


# Whole inspections


def inspected(model: Path, data: Any, tmp_path: Path, **settings: Any) -> dict[str, Any]:
    console = Console(file=io.StringIO(), width=100)
    found = lf.inspect(model, data, tmp_path / "found", teach=TEACH, console=console, **settings)
    assert json.loads(found.json.read_text()) == found.results
    page = found.page.read_text()
    assert all(row["site"] in page for row in found.results["sites"])
    return found.results


@pytest.fixture
def digits(
    digits_study: Callable[..., dict[str, Any]], make_model: MakeModel, tmp_path: Path
) -> tuple[Path, dict[str, Any]]:
    """The directory of a classifier with random weights whose MLPs are linear, and data for it."""
    study = digits_study()
    settings = study["baseline"]["config"] | {"image_size": 8, "num_labels": 10, "hidden_act": "linear"}
    lf.save(make_model(**settings, hidden_dropout_prob=0.0), tmp_path / "model")
    return tmp_path / "model", study["data"]


def test_an_image_classifier(digits: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    found = inspected(*digits, tmp_path)
    model = lf.load(digits[0])
    rows = {row["site"]: row for row in found["sites"]}
    for layer in (0, 1):
        mlp, attention = rows[f"encoder.{layer}.mlp"], rows[f"encoder.{layer}.self_attention"]
        assert mlp["r2"]["linear"] == pytest.approx(1.0, abs=1e-5)
        assert abs(mlp["replaced"]["linear"]["loss"]) < 1e-3
        assert mlp["r2_by_head"]["linear"] is mlp["entropy"] is mlp["effective_rank"] is None
        assert mlp["r2"]["slots"] is None
        assert attention["heads"] == len(attention["entropy"]) == len(attention["r2_by_head"]["slots"]) == 2
        assert all(0 <= value <= 1 for value in attention["entropy"])
        assert all(1 <= value <= attention["tokens_read"] for value in attention["effective_rank"])
        assert attention["r2"]["linear"] < 0.999
        assert set(attention["probe_parameters"]) == {"slots", "synthesizer", "mixer", "feed_forward"}
    assert set(found["order"]) == {"encoder.0.self_attention", "encoder.1.self_attention"}
    # Emptying the site does what a reduced model does.
    emptied = lf.reduce(model, {"encoder.0.mlp": "none"})
    [step] = found["layers"]["encoder"]
    assert {step["left_out"], *step["keep"]} in ({"encoder.0.layer", 1}, {"encoder.1.layer", 0})
    assert f"&#34;encoder.layers&#34;: {{keep: {step['keep']}}}" in (tmp_path / "found/inspection.html").read_text()
    assert {"loss", "accuracy"} <= set(found["quality"])
    assert rows["encoder.0.mlp"]["replaced"]["none"]["loss"] != 0
    assert sum(parameter.numel() for parameter in emptied.parameters()) < sum(p.numel() for p in model.parameters())


@pytest.mark.long
def test_minimal_attentions_are_looked_into(digits: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    form = {"block": "minimal_attention", "qk": "collapsed", "vo": "none", "heads": 2}
    lf.save(lf.reduce(lf.load(digits[0]), {"*.self_attention": form}), tmp_path / "student")
    probes: dict[str, Any] = {
        "few": {"block": "slots", "slots": 2, "gate": "linear"},
        "near": {"block": "mixer", "max_distance": 2},  # needs no max_length
        "by place": {"block": "mixer", "positions": "absolute"},  # needs one
    }
    found = inspected(tmp_path / "student", digits[1], tmp_path, probes=probes)
    row = found["sites"][0]
    assert row["block"] == "minimal_attention"
    assert len(row["entropy"]) == 2
    assert all(len(row["r2_by_head"][probe]) == 2 for probe in ("linear", *probes))
    assert list(found["probes"]) == list(probes)
    # Each head is one convex mean of tokens: its R² is that of the mean of the heads' explained parts.
    assert min(row["r2_by_head"]["linear"]) <= row["r2"]["linear"] <= max(row["r2_by_head"]["linear"])


@pytest.mark.long
def test_a_probe_without_projection_learns_what_the_site_gives(
    digits_study: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    study = digits_study(seeds=[0], candidates={"x": {"plan": {"*.mlp": "none"}}})
    study["baseline"]["config"] |= {"hidden_act": "linear", "hidden_dropout_prob": 0.0}
    study["train"] |= {"epochs": 12, "learning_rate": 1e-2}
    run(study, tmp_path / "run")
    trained = tmp_path / "run/trials/baseline/seed-0/model"
    bare = {"block": "mixer", "vo": "none"}
    probes: dict[str, Any] = {"bare": bare, "whole": {"block": "mixer"}}
    for row in inspected(trained, study["data"], tmp_path, probes=probes)["sites"]:
        if row["site"].endswith("self_attention"):
            assert row["r2"]["bare"] > 0
            assert row["r2_by_head"]["bare"] is None
            assert len(row["r2_by_head"]["whole"]) == 2


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The directory of a translator with random weights and its tokenizer, which tests must not change; its data."""
    numbers = {"train": 300, "validation": 30, "test": 20, "largest": 2000}
    data = {"source": "number-words", "numbers": numbers, "max_tokens": 40}
    pairs = number_words(TextDataConfig(numbers=NumberWordsConfig(train=300, validation=30, test=20, largest=2000)))[
        "train"
    ]
    tokenizer = train_tokenizer(TokenizerConfig(vocabulary=300), pairs.sources, pairs.targets)
    torch.manual_seed(0)
    model = fresh_model(
        "marian",
        {
            "vocab_size": 300,
            "d_model": 16,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 16,
            "decoder_ffn_dim": 16,
            "init_std": 0.3,
            "pad_token_id": tokenizer.pad_id,
            "eos_token_id": tokenizer.eos_id,
            "decoder_start_token_id": tokenizer.pad_id,
            "forced_eos_token_id": None,
        },
    )
    directory = tmp_path_factory.mktemp("translator")
    lf.save(model, directory)
    tokenizer.save(directory)
    return directory, data


@pytest.fixture
def beside(words: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests run in a directory of their own, in which the translator is called ``model``."""
    monkeypatch.chdir(tmp_path)
    Path("model").symlink_to(words[0], target_is_directory=True)


@pytest.mark.long
def test_a_translator(words: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    found = inspected(*words, tmp_path)
    rows = {row["site"]: row for row in found["sites"]}
    assert list(rows) == [
        "encoder.0.self_attention",
        "encoder.0.mlp",
        "decoder.0.self_attention",
        "decoder.0.cross_attention",
        "decoder.0.mlp",
    ]
    assert [rows[name]["heads"] for name in rows] == [2, None, 4, 4, None]
    assert rows["encoder.0.self_attention"]["r2"]["mixer"] is not None
    assert rows["decoder.0.cross_attention"]["r2"]["mixer"] is None  # it cannot stand there
    assert all(len(row["r2_by_head"]["slots"]) == row["heads"] for row in rows.values() if row["heads"])
    # Slots start from the attention itself: they explain more than a linear map of means in every head together.
    for name in ("decoder.0.self_attention", "decoder.0.cross_attention"):
        assert rows[name]["r2"]["slots"] > 0
    console = Console(width=80, file=io.StringIO())
    console.print(inspection_table(found))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 6
    assert "decoder.0.cross_attention" in lines[4]


def test_layers_go_in_the_order_in_which_they_are_missed_least(make_translator: MakeModel) -> None:
    """Of all sets of layers that one more could leave, and what is left after each, by models made of a plan."""
    model = make_translator(decoder_layers=4)
    ids = torch.randint(2, 40, (8, 6), generator=torch.Generator().manual_seed(0))

    class Task:
        def validate(self, model: Any, last: bool) -> dict[str, float]:
            with torch.no_grad():
                return {"validation_loss": float(model(input_ids=ids, labels=ids).loss)}

    task: Any = Task()
    inspector = Inspector(task, model, None, TEACH, Reporter("x", []))
    inspector.quality = task.validate(model, last=False)
    before = {name: tensor.clone() for name, tensor in inspector.opened.state_dict().items()}
    inspector.shrink()
    after = inspector.opened.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert [len(step["keep"]) for step in inspector.layers["decoder"]] == [3, 2, 1]
    assert [len(step["keep"]) for step in inspector.layers["encoder"]] == [1]
    left = {0, 1, 2, 3}
    for step in inspector.layers["decoder"]:
        losses = {}
        for layer in left:
            student = lf.reduce(model, {"decoder.layers": {"keep": sorted(left - {layer})}})
            losses[layer] = task.validate(student, last=False)["validation_loss"]
        least = min(losses, key=lambda layer: losses[layer])
        left.remove(least)
        assert (step["left_out"], step["keep"]) == (f"decoder.{least}.layer", sorted(left))
        assert step["change"]["loss"] == pytest.approx(losses[least] - inspector.quality["validation_loss"], abs=1e-5)
    console = Console(width=80, file=io.StringIO())
    console.print(layers_table({"layers": inspector.layers}))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 5
    assert f'"decoder.layers": {{keep: [{left.pop()}]}}' in lines[4]
    assert layers_table({"layers": {"encoder": []}}) is None


def inspect_command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["leanformer", "inspect", *arguments])
    try:
        cli.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@pytest.mark.usefixtures("beside")
def test_the_command(
    words: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Inspects a translator, with a study file for the data."""
    Path("study.yaml").write_text(json.dumps({"name": "x", "task": "translation", "data": words[1]}))
    arguments = (
        "model",
        "study.yaml",
        "--epochs",
        "1",
        "--probe",
        "few={block: slots, slots: 2}",
        "--probe",
        "all=mixer",
    )
    assert inspect_command(monkeypatch, *arguments, "--set", "train_limit=100") == 0
    output = capsys.readouterr().out
    assert "encoder.0.self_attention" in output
    assert "page: inspections/model/inspection.html" in output
    found = json.loads(Path("inspections/model/inspection.json").read_text())
    assert found["data"]["train"] == 100
    assert found["probes"] == {"few": {"block": "slots", "slots": 2}, "all": {"block": "mixer"}}
    rows = {row["site"]: row for row in found["sites"]}
    assert [(name, row["heads"]) for name, row in rows.items()] == [
        ("encoder.0.self_attention", 2),
        ("encoder.0.mlp", None),
        ("decoder.0.self_attention", 4),
        ("decoder.0.cross_attention", 4),
        ("decoder.0.mlp", None),
    ]
    assert all(len(row["r2_by_head"]["few"]) == row["heads"] for row in rows.values() if row["heads"])
    assert rows["decoder.0.self_attention"]["r2"]["all"] is not None
    assert rows["decoder.0.cross_attention"]["r2"]["all"] is None  # a mixer cannot stand there


@pytest.mark.parametrize("name", ["", " ", "x" * 41, "a\nb", "a\x1b[31m", "a/b", "a.b", "none", "linear", 5])
def test_a_probe_has_the_same_names_in_python_as_in_the_command(name: Any) -> None:
    with pytest.raises(lf.LeanformerError, match=r"^probes: .*(name)") as raised:
        lf.inspect("nowhere/at/all", "number-words", probes={name: {"block": "mixer"}})
    assert "\n" not in str(raised.value)
    if isinstance(name, str) and name.strip():
        with pytest.raises(lf.LeanformerError, match=r"^--probe "):
            read_probes([f"{name}=mixer"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere/at/all", "number-words"), "no such model directory"),
        (("model", "nowhere/at/all.tsv"), "nowhere/at/all.tsv"),
        (("model", "no.yaml"), "no.yaml: cannot be read"),
        (("model", "number-words", "--set", "langage=de"), "unknown key 'data.langage'"),
        (("model", "number-words", "--set", "source_language=xx"), "xx"),
        (("model", "number-words", "--probe", "x={block: slots, slots: 0}"), "argument 'slots' of block 'slots'"),
        (("model", "number-words", "--probe", "x={slots: 4}"), "--probe x: write a block's name or {block: name"),
        (("model", "number-words", "--probe", "slots"), "--probe slots: write key=value, such as lean={block"),
        (("model", "number-words", "--probe", "x=nothing"), "unknown block 'nothing'"),
        (("model", "nowhere/at/all.tsv", "--probe", "x=nothing"), "unknown block 'nothing'"),  # before data are read
        (("model", "nowhere/at/all.tsv", "--probe", "x=mlp"), "probe x: this block stands there already; give it arg"),
        (("model", "nowhere/at/all.tsv", "--probe", "x=attention"), "probe x: this block stands there already"),
        (
            ("model", "nowhere/at/all.tsv", "--probe", "linear=mixer"),
            "--probe 'linear': every inspection has a comparison",
        ),
        (("model", "nowhere/at/all.tsv", "--probe", "a/b=mixer"), "--probe 'a/b': a probe's name has 1 to 40"),
        pytest.param(
            ("model", "number-words", "--set", "train_limit=50", "--probe", "x={block: synthesizer, max_length: 2}"),
            "its synthesizer block reads at most 2 tokens",
            marks=pytest.mark.long,  # it teaches before it comes there
        ),
        (("model", "number-words", "--device", "abacus"), "--device"),
    ],
)
@pytest.mark.usefixtures("beside")
def test_what_cannot_be_inspected_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert inspect_command(monkeypatch, *arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("leanformer: error: ")
    assert message in error
    assert not Path("inspections").exists()
