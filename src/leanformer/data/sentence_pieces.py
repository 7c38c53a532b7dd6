"""A Marian's tokenizer, of two SentencePiece models, in the form of the library ``tokenizers``, giving the same ids."""

from __future__ import annotations

from pathlib import Path

from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import MarianTokenizer

from leanformer.core.errors import LeanformerError
from leanformer.data.normalization import SPACE_MARK

_PENALTY = 10.0  # by which a letter of no piece scores less than the worst piece, as in SentencePiece
_SPACES = 1_000  # more than a translation begins or ends with


def source_form(tokenizer: MarianTokenizer) -> Tokenizer:
    """The source side: from text to ids, each sentence with its end mark.

    The numbers of the ids are those of ``vocab.json``, which holds the pieces of the target side too: these never stand
    in a source, unless one is a single letter, whose id a Marian's tokenizer takes where the source side lacks it.

    Raises:
        LeanformerError: The SentencePiece model is of another kind than unigram (Kudo 2018).
    """
    file = Path(tokenizer.spm_files[0])
    described = sentencepiece_model_pb2.ModelProto.FromString(file.read_bytes())
    if described.trainer_spec.model_type != sentencepiece_model_pb2.TrainerSpec.UNIGRAM:
        raise LeanformerError(
            f"{file}: a SentencePiece model of another kind than unigram, whose form for tokenizers is not known; take "
            "a model with a tokenizer.json"
        )
    segmenter = SentencePieceProcessor(model_proto=described.SerializeToString())
    scores = {
        segmenter.id_to_piece(number): segmenter.get_score(number)
        for number in range(len(segmenter))
        if not segmenter.is_unknown(number) and not segmenter.is_control(number)
    }
    worst = min(scores.values())
    names = {number: piece for piece, number in tokenizer.encoder.items()}
    pieces = []
    for number in range(max(names) + 1):
        piece = names.get(number, "")
        usable = piece in scores or piece in tokenizer.all_special_tokens or len(piece) == 1
        # A piece that cannot stand in a source keeps its number, under a name that no text holds.
        pieces.append((piece if usable else f"\0{number}", scores.get(piece, worst - _PENALTY)))
    form = Tokenizer(models.Unigram(pieces, unk_id=tokenizer.unk_token_id, byte_fallback=False))
    rules = described.normalizer_spec
    steps: list[normalizers.Normalizer] = []
    if rules.precompiled_charsmap:
        steps.append(normalizers.Precompiled(rules.precompiled_charsmap))
    if rules.remove_extra_whitespaces:
        steps += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    form.normalizer = normalizers.Sequence(steps)
    form.pre_tokenizer = pre_tokenizers.Metaspace(
        SPACE_MARK, prepend_scheme="always" if rules.add_dummy_prefix else "never", split=False
    )
    end = tokenizer.eos_token
    form.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, tokenizer.eos_token_id)]
    )
    _add_marks(form, tokenizer)
    form.add_tokens([AddedToken(code, normalized=False) for code in tokenizer.supported_language_codes])
    return form


def target_form(tokenizer: MarianTokenizer) -> Tokenizer:
    """The target side: from ids to text. It is not for encoding."""
    form = Tokenizer(models.WordLevel({piece: number for number, piece in tokenizer.decoder.items()}))
    form.decoder = decoders.Sequence(
        [decoders.Replace(SPACE_MARK, " "), decoders.Fuse(), decoders.Strip(" ", _SPACES, _SPACES)]
    )
    _add_marks(form, tokenizer)
    return form


def _add_marks(form: Tokenizer, tokenizer: MarianTokenizer) -> None:
    """Makes the marks known as such, which are left out of texts."""
    form.add_special_tokens([AddedToken(mark, normalized=False, special=True) for mark in tokenizer.all_special_tokens])
