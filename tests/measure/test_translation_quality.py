"""Scores compared with sacreBLEU's, the table of translations, and batches compared with single sentences."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from cases import slow
from sacrebleu.metrics.base import Metric as SacrebleuMetric
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from transformers import MarianConfig, MarianMTModel

from leanformer.core.errors import LeanformerError
from leanformer.measure.translation import Translations
from leanformer.model.generate import translate
from leanformer.results.metrics import METRICS

SOURCES = (
    "A man in an orange hat, starring at something.",
    "Five people wearing winter jackets - and helmets - stand in the snow.",
    "People are fixing the roof of a house.",
    "It's 3.5 km (2.2 miles)!",
    "",
    "A dog runs.",
    "Nothing.",
)
REFERENCES = (
    "Ein Mann mit einem orangefarbenen Hut, der etwas anstarrt.",
    "Fünf Leute in Winterjacken und mit Helmen stehen im Schnee, mit Schneemobilen im Hintergrund.",
    "Leute reparieren das Dach eines Hauses.",
    "Es sind 3,5 km (2,2 Meilen)!",
    "",
    "Ein Hund rennt.",
    "Nichts & niemand.",
)
CLOSE = (
    "Ein Mann mit einem orangen Hut, der etwas anstarrt.",
    "Fünf Menschen in Winterjacken und mit Helmen stehen im Schnee.",
    " Leute reparieren das Dach eines Hauses.\n",
    "Es sind 3,5 km (2.2 Meilen)!",
    "",
    "Ein Hund rennt über eine Wiese, auf der ein Hund rennt.",
    "",
)
SYSTEMS = {
    "close": CLOSE,
    "perfect": REFERENCES,
    "empty": ("",) * 7,
    "wrong": ("Qqq",) * 7,
    "one word each": ("Ein", "Fünf", "Leute", "Es", "x", "Ein", "Nichts"),
    "no long match": ("Mann Ein Hut", "Leute Fünf im", "das Leute Dach", "km Es", "", "Hund Ein", "Nichts niemand"),
}
OFFICIAL: dict[str, SacrebleuMetric] = {"bleu": BLEU(), "chrf": CHRF()}
NAMES = ("bleu", "chrf")


@pytest.mark.parametrize("metric", NAMES)
@pytest.mark.parametrize("system", SYSTEMS)
def test_corpus_scores_are_sacrebleus(metric: str, system: str) -> None:
    translations = Translations(SOURCES, REFERENCES, SYSTEMS[system])
    expected = OFFICIAL[metric].corpus_score(SYSTEMS[system], [REFERENCES])
    assert translations.score(metric) == pytest.approx(expected.score, abs=1e-9)
    assert translations.scoring.signatures[metric] == str(OFFICIAL[metric].get_signature())


@pytest.mark.parametrize("metric", NAMES)
def test_many_corpora_at_once(metric: str) -> None:
    chosen = np.random.default_rng(0).integers(0, 7, (2, 20, 7))
    counts = Translations(SOURCES, REFERENCES, CLOSE).statistics(metric)
    found = METRICS[metric].score(counts[chosen].sum(axis=2))
    assert found.shape == (2, 20)
    expected = [
        OFFICIAL[metric].corpus_score([CLOSE[i] for i in drawn], [[REFERENCES[i] for i in drawn]]).score
        for drawn in chosen.reshape(-1, 7)
    ]
    assert found.ravel() == pytest.approx(expected, abs=1e-9)
    assert len(set(expected)) > 30


@pytest.mark.parametrize("system", SYSTEMS)
def test_sentence_scores_are_sacrebleus(system: str) -> None:
    translations = Translations(SOURCES, REFERENCES, SYSTEMS[system])
    pairs = list(zip(SYSTEMS[system], REFERENCES, strict=True))
    effective = BLEU(effective_order=True)
    expected = [effective.sentence_score(hypothesis, [reference]).score for hypothesis, reference in pairs]
    assert translations.sentence_scores("bleu") == pytest.approx(expected, abs=1e-9)
    expected = [OFFICIAL["chrf"].sentence_score(hypothesis, [reference]).score for hypothesis, reference in pairs]
    assert translations.sentence_scores("chrf") == pytest.approx(expected, abs=1e-9)


def test_exact_match_ignores_outer_spaces() -> None:
    translations = Translations(SOURCES, REFERENCES, CLOSE)
    assert translations.statistics("exact_match")[:, 0].tolist() == [False, False, True, False, True, False, False]
    assert translations.score("exact_match") == pytest.approx(2 / 7)


def test_sentences_that_do_not_pair() -> None:
    with pytest.raises(ValueError, match="7 sources, 7 references and 6 hypotheses"):
        Translations(SOURCES, REFERENCES, CLOSE[:6])
    with pytest.raises(ValueError, match="0 sources"):
        Translations((), (), ())


def test_table_reads_back(tmp_path: Path) -> None:
    translations = Translations(SOURCES, REFERENCES, CLOSE)
    path = tmp_path / "predictions.parquet"
    path.write_bytes(translations.to_bytes())
    assert Translations.read(path) == translations
    table = pq.read_table(path)
    assert table.column_names == ["example", "source", "reference", "hypothesis", "bleu", "chrf"]
    assert table["example"].to_pylist() == list(range(7))
    assert table["bleu"].to_numpy() == pytest.approx(translations.sentence_scores("bleu"))
    assert table["chrf"].to_numpy() == pytest.approx(translations.sentence_scores("chrf"))


def test_damaged_tables_are_named(tmp_path: Path) -> None:
    path = tmp_path / "predictions.parquet"
    for content in (b"", b"PAR1", Translations(SOURCES, REFERENCES, CLOSE).to_bytes()[:-50]):
        path.write_bytes(content)
        with pytest.raises(LeanformerError, match=r"predictions\.parquet: not readable as translations .*run again"):
            Translations.read(path)
    with pytest.raises(LeanformerError, match="nowhere"):
        Translations.read(tmp_path / "nowhere")


class Letters:
    """A tokenizer of lower-case letters, with separate ids for the end mark and padding."""

    pad_id, eos_id = 28, 0
    alphabet = "abcdefghijklmnopqrstuvwxyz "

    def encode_source(self, texts: list[str]) -> list[list[int]]:
        return [[self.alphabet.index(letter) + 1 for letter in text] + [self.eos_id] for text in texts]

    def decode(self, ids: list[list[int]]) -> list[str]:
        return ["".join(self.alphabet[number - 1] for number in row) for row in ids]


SENTENCES = ["the quick brown fox", "a", "", "jumps", "over the lazy dog", "  ", "again and again and again", "b"]


@pytest.fixture
def model() -> MarianMTModel:
    config = MarianConfig(
        vocab_size=29,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        max_position_embeddings=30,
        pad_token_id=28,
        eos_token_id=0,
        decoder_start_token_id=28,
        bad_words_ids=[[28]],
        dropout=0.5,
    )
    torch.manual_seed(3)
    model = MarianMTModel(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.normal_()
        model.model.decoder.layers[0].encoder_attn.out_proj.weight.mul_(3)  # makes the source matter more
        model.final_logits_bias[0, 0] = 11.0  # so that some end early
    return model


@pytest.mark.parametrize("beam", [*slow(1), 3])
def test_batches_translate_as_one_by_one(model: MarianMTModel, beam: int) -> None:
    batched = translate(model, Letters(), SENTENCES, beam=beam, max_tokens=12, batch_tokens=60 * beam)
    single = [
        translate(model, Letters(), [sentence], beam=beam, max_tokens=12, batch_tokens=1) for sentence in SENTENCES
    ]
    assert batched.texts == [one.texts[0] for one in single]
    assert batched.tokens == sum(one.tokens for one in single)
    assert len(set(batched.texts)) > 3
    written = [len(text) for text, source in zip(batched.texts, SENTENCES, strict=True) if source.strip()]
    assert max(written) == 11  # and the end mark
    assert min(written) < 11
    assert batched.tokens == sum(written) + len(written)


def test_generate_says_the_same(model: MarianMTModel) -> None:
    model.eval()
    found = translate(model, Letters(), ["the lazy dog"], beam=4, max_tokens=8, batch_tokens=100)
    ids = torch.tensor(Letters().encode_source(["the lazy dog"]))
    expected = model.generate(ids, num_beams=4, max_length=9, do_sample=False)[0].tolist()
    assert expected[0] == Letters.pad_id
    assert expected[-1] == Letters.eos_id
    assert found.texts == Letters().decode([expected[1:-1]])
    assert found.tokens == len(expected) - 1


@pytest.mark.parametrize("beam", [1, 3])
def test_batches_keep_their_budget(model: MarianMTModel, beam: int, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []
    generate = model.generate

    def recording(inputs: torch.Tensor, attention_mask: torch.Tensor, **settings: object) -> torch.Tensor:
        shapes.append(tuple(inputs.shape))
        assert torch.equal(attention_mask == 0, inputs == Letters.pad_id)
        return generate(inputs, attention_mask=attention_mask, **settings)

    monkeypatch.setattr(model, "generate", recording)
    done: list[int] = []
    translate(model, Letters(), SENTENCES, beam=beam, max_tokens=3, batch_tokens=40 * beam, progress=done.append)
    assert shapes == [(1, 26), (2, 20), (3, 6)]  # by length; three of 20 would be too many
    assert done == [2, 1, 2, 3]  # the empty ones first


def test_the_model_stays_as_it_was(model: MarianMTModel) -> None:
    model.train()
    model.model.encoder.eval()
    model.generation_config.max_new_tokens = 2
    model.generation_config.do_sample = True
    settings = copy.deepcopy(model.generation_config)
    first = translate(model, Letters(), SENTENCES, max_tokens=12, batch_tokens=100)
    assert first == translate(model, Letters(), SENTENCES, max_tokens=12, batch_tokens=100)  # no dropout, no sampling
    assert max(len(text) for text in first.texts) == 11
    assert model.generation_config == settings
    assert model.training
    assert not model.model.encoder.training
    assert model.model.decoder.training


def test_no_sentences(model: MarianMTModel) -> None:
    assert translate(model, Letters(), [], max_tokens=5, batch_tokens=100).texts == []
    found = translate(model, Letters(), ["", " "], max_tokens=5, batch_tokens=100)
    assert (found.texts, found.tokens) == (["", ""], 0)


def test_more_tokens_than_positions(model: MarianMTModel) -> None:
    fits = translate(model, Letters(), ["a" * 29], max_tokens=500, batch_tokens=100)
    assert len(fits.texts[0]) <= 29
    with pytest.raises(LeanformerError, match="sentence 3 has 31 tokens, and the model takes at most 30"):
        translate(model, Letters(), ["a", "", "a" * 30], max_tokens=5, batch_tokens=100)
    model.train()
    with pytest.raises(LeanformerError):
        translate(model, Letters(), ["a" * 30], max_tokens=5, batch_tokens=100)
    assert model.training
