"""What leanformer relies on in sacreBLEU without a promise: each fails when sacreBLEU changes that thing."""

from __future__ import annotations

from importlib.metadata import metadata
from pathlib import Path
from unittest.mock import Mock

import pytest
from sacrebleu import utils
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.tokenizers import tokenizer_spm

from leanformer.core import sacrebleu_internals
from leanformer.results.metrics import METRICS

HYPOTHESES = ("the cat sat on the mat today", "two dogs bark", "it rains")
REFERENCES = ("the cat sat on a mat today", "two dogs are barking", "it is raining")


def test_counts_of_bleu_are_lengths_matches_and_n_grams() -> None:
    counts = sacrebleu_internals.sentence_counts(BLEU(), HYPOTHESES, REFERENCES)
    assert counts.shape == (3, 10)
    assert counts[1].tolist() == [3, 4, 2, 1, 0, 0, 3, 2, 1, 0]
    expected = BLEU().corpus_score(HYPOTHESES, [REFERENCES]).score
    assert METRICS["bleu"].of(counts) == pytest.approx(expected, abs=1e-9)


def test_counts_of_chrf_are_by_order() -> None:
    counts = sacrebleu_internals.sentence_counts(CHRF(), HYPOTHESES, REFERENCES)
    assert counts.shape == (3, 3 * sacrebleu_internals.chrf_form()[0])
    assert counts[2, :3].tolist() == [7, 11, 7]  # letters of "it rains", of "it is raining", of both
    expected = CHRF().corpus_score(HYPOTHESES, [REFERENCES]).score
    assert METRICS["chrf"].of(counts) == pytest.approx(expected, abs=1e-9)


def test_chrf_is_of_six_letters_and_counts_recall_twice() -> None:
    assert sacrebleu_internals.chrf_form() == (6, 2)


def test_a_signature_tells_of_one_reference() -> None:
    assert sacrebleu_internals.signature(BLEU()).startswith("nrefs:1|")
    assert sacrebleu_internals.signature(CHRF()).startswith("nrefs:1|")


class _StoppedError(Exception):
    """In place of a download."""


def test_sacrebleu_looks_where_we_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    download = Mock(side_effect=_StoppedError)
    monkeypatch.setattr(utils, "SACREBLEU_DIR", str(tmp_path))
    monkeypatch.setattr(tokenizer_spm, "SACREBLEU_DIR", str(tmp_path))
    monkeypatch.setattr(tokenizer_spm, "download_file", download)
    for name in sacrebleu_internals.DOWNLOADED:
        with pytest.raises(_StoppedError):
            BLEU(tokenize=name)
        assert download.call_args.args[:2] == (
            sacrebleu_internals.model_url(name),
            sacrebleu_internals.model_file(name),
        )


def test_the_extras_are_sacrebleus() -> None:
    extras = metadata("sacrebleu").get_all("Provides-Extra") or []
    assert set(sacrebleu_internals.EXTRAS.values()) <= set(extras)
    assert set(sacrebleu_internals.EXTRAS) <= set(BLEU.TOKENIZERS)
