"""``leanformer translate``: translates lines of text."""

from __future__ import annotations

import sys
from pathlib import Path

from leanformer.core.errors import LeanformerError
from leanformer.serve.inputs import read_lines
from leanformer.serve.opening import open_translator
from leanformer.serve.outputs import check_output, progress_bar, write

MAX_TOKENS = 256
"""Longest translation in subwords, if nothing else is asked for."""


def translate_lines(
    model: str,
    text: Path | None,
    out: Path | None,
    beam: int,
    batch_tokens: int,
    max_tokens: int,
    device: str,
    threads: int | None,
) -> None:
    """Translates lines and writes the translations, with a progress bar if standard error is a terminal.

    Args:
        model: An exported directory, any other translator's directory, or a hub id.
        text: A file with one sentence per line; with None, standard input, which is read after the model is loaded.
        out: A file, written whole or not at all; with None, standard output.
        beam: Hypotheses per sentence.
        batch_tokens: Subwords per batch.
        max_tokens: Longest translation, in subwords.
        device: ``auto`` or a device's name.
        threads: CPU threads; with None, what the engine takes.

    Raises:
        LeanformerError: There is no such translator, it has no tokenizer, the text cannot be read, or a sentence is
            too long for it.
    """
    check_output(out)
    if text is None and sys.stdin is None:
        raise LeanformerError("standard input is closed; give a file")
    lines = read_lines(text) if text is not None else None
    translator = open_translator(model, device, threads)
    if lines is None:
        lines = read_lines(None)
    with progress_bar("translating", len(lines)) as advance:
        texts = translator.translate(lines, beam, max_tokens, batch_tokens, advance)
    write(out, [one_line(line) + "\n" for line in texts])


def one_line(translation: str) -> str:
    """A translation on one line, even where the model wrote line breaks."""
    return " ".join(translation.splitlines())
