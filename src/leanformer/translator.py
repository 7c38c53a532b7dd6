"""``leanformer translate``: lines of text in, their translations out."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from leanformer.data.text_reading import decode_text, read_parts, split_lines
from leanformer.data.tokenizers import TranslationTokenizer
from leanformer.errors import LeanformerError
from leanformer.files import write_atomically
from leanformer.machine import pick_device
from leanformer.measure.translation import translate
from leanformer.model.families import find_family
from leanformer.model.students import load
from leanformer.progress import quiet_libraries


def read_lines(path: Path | None) -> list[str]:
    """The lines of a file or of standard input, as training data are read: in UTF-8, or with a byte order mark.

    Raises:
        LeanformerError: The text cannot be read, or is in another encoding.
    """
    name = "standard input" if path is None else str(path)
    if path is None:
        try:
            content = sys.stdin.buffer.read()
        except OSError as error:
            raise LeanformerError(f"{name}: cannot be read: {error.strerror}") from None
    else:
        content = b"".join(read_parts(path))
    # No other line ends than those: the translations are to stay beside their sentences.
    return split_lines(decode_text(content, name)) if content else []


def translate_lines(
    model: str, lines: list[str], out: Path | None, beam: int, batch_tokens: int, max_tokens: int, device: str
) -> None:
    """Translates lines and writes them, with a bar on standard error where that is a terminal.

    Args:
        model: A directory or hub id.
        lines: One sentence each.
        out: A file, written whole or not at all; None: standard output.
        beam: Hypotheses kept a sentence.
        batch_tokens: Subwords a batch.
        max_tokens: Longest translation, subwords.
        device: ``auto`` or a device's name.

    Raises:
        LeanformerError: There is no such translator, it brings no tokenizer, or a sentence is too long for it.
    """
    with quiet_libraries():
        translator = load(model).to(pick_device(device))
        family = find_family(translator)
        if family.task != "translation":
            raise LeanformerError(f"{model}: a model for {family.task}, not a translator")
        tokenizer = TranslationTokenizer.load(model)
        console = Console(stderr=True)
        columns = (TextColumn("translating"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
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
    # A translation is a line, whatever the model wrote.
    text = "".join(" ".join(line.splitlines()) + "\n" for line in result.texts)
    if out is None:
        sys.stdout.write(text)
    elif out.exists() and not out.is_file() and not out.is_dir():
        _write_to_device(out, text)
    else:
        write_atomically(out, text)


def _write_to_device(device: Path, text: str) -> None:
    """Writes to a terminal, a pipe or ``/dev/null``, in whose place no file may be put.

    Raises:
        LeanformerError: It takes nothing.
    """
    try:
        with device.open("w", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise LeanformerError(f"{device}: cannot be written: {error.strerror}") from None
