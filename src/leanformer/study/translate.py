"""``leanformer translate``: translates lines of text."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from leanformer.core.errors import LeanformerError
from leanformer.core.files import make_directory, write_atomically
from leanformer.core.machine import pick_device
from leanformer.core.memory import memory_named
from leanformer.core.progress import quiet_libraries
from leanformer.data.text_reading import decode_text, read_parts, split_lines
from leanformer.data.tokenizers import TranslationTokenizer
from leanformer.model.family import find_family
from leanformer.model.generate import translate
from leanformer.model.students import load


def read_lines(path: Path | None) -> list[str]:
    """The lines of a file or of standard input, read as training data are: in UTF-8, or with a byte order mark.

    Raises:
        LeanformerError: The text cannot be read, or is in another encoding.
    """
    name = "standard input" if path is None else str(path)
    if path is not None and (path.is_char_device() or path.is_block_device()) and not path.samefile(os.devnull):
        raise LeanformerError(f"{name}: cannot be read: it is a device, which may never end; give a file")
    if path is not None and path.is_fifo() and path.parts[:2] != ("/", "dev"):  # not the shell's <(zcat text.gz)
        raise LeanformerError(f"{name}: cannot be read: it is a pipe, which may wait forever; give a file, or < {name}")
    if path is None:
        try:
            content = sys.stdin.buffer.read()
        except OSError as error:
            raise LeanformerError(f"{name}: cannot be read: {error.strerror}") from None
    else:
        content = b"".join(read_parts(path))
    # Split at the line ends of training data alone, so that translations stay in line with their sentences.
    return split_lines(decode_text(content, name)) if content else []


def translate_lines(
    model: str, text: Path | None, out: Path | None, beam: int, batch_tokens: int, max_tokens: int, device: str
) -> None:
    """Translates lines and writes the translations, with a progress bar if standard error is a terminal.

    Args:
        model: A directory or hub id.
        text: A file with one sentence per line; with None, standard input, which is read after the model is loaded.
        out: A file, written whole or not at all; with None, standard output.
        beam: Hypotheses per sentence.
        batch_tokens: Subwords per batch.
        max_tokens: Longest translation, in subwords.
        device: ``auto`` or a device's name.

    Raises:
        LeanformerError: There is no such translator, it has no tokenizer, the text cannot be read, or a sentence is
            too long for it.
    """
    if out is not None and out.is_dir():  # checked before the work, not after it
        raise LeanformerError(f"{out}: cannot be written: it is a directory; give a file's path")
    if out is None and sys.stdout is None:
        raise LeanformerError("standard output is closed; give --out")
    if text is None and sys.stdin is None:
        raise LeanformerError("standard input is closed; give a file")
    lines = read_lines(text) if text is not None else None
    with quiet_libraries():
        translator = load(model).to(pick_device(device, "--device"))
        family = find_family(translator)
        if not translator.config.is_encoder_decoder:
            raise LeanformerError(f"{model}: a model for {family.task}, not a translator")
        tokenizer = TranslationTokenizer.load(model)
        if lines is None:
            lines = read_lines(None)
        console = Console(stderr=True)
        columns = (TextColumn("translating"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with (
            Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar,
            memory_named(f"translating batches of {batch_tokens:,} subwords", "lower --batch-tokens or --beam"),
        ):
            task = bar.add_task("", total=len(lines))
            result = translate(
                translator,
                tokenizer,
                lines,
                beam=beam,
                max_tokens=max_tokens,
                batch_tokens=batch_tokens,
                progress=lambda done: bar.advance(task, done),
            )
    # A translation must be one line, even where the model wrote line breaks.
    written = "".join(" ".join(line.splitlines()) + "\n" for line in result.texts)
    if out is None:
        sys.stdout.write(written)
    else:
        make_directory(out.parent)
        write_atomically(out, written)
