"""Reads text files: packed by gzip or not, with a byte order mark or not, from any system.

Lines end at line feeds alone, with or without a carriage return before; in a file without any line feed, as old Macs
wrote them, they end at carriage returns. The other characters that Unicode counts as line ends occur inside of
sentences, and would shift all later sentences of one side.
"""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from leanformer.core.errors import LeanformerError, first_line

GZIP = b"\x1f\x8b"  # how packed files begin, whatever they are called
AT_A_TIME = 2**20  # bytes
UNPACKED_FREELY = 2**28  # bytes
MOST_EXPANSION = 100  # times, for larger files; text is packed to about a tenth

MARKS = (  # that of UTF-32 first: it begins as that of UTF-16 does
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def unpacked_name(file: Path) -> Path:
    """The path without a ``.gz`` at its end."""
    return file.with_suffix("") if file.suffix.lower() == ".gz" else file


def read_parts(file: Path) -> Iterator[bytes]:
    """The content of a file, a part at a time; if it is packed by gzip, the unpacked content.

    Raises:
        LeanformerError: for a file that cannot be read, is packed but not whole, or unpacks to far more than text does.
    """
    try:
        with file.open("rb") as raw:
            if raw.peek(len(GZIP))[: len(GZIP)] != GZIP:  # peeked at, not read: a pipe cannot be rewound
                while part := raw.read(AT_A_TIME):
                    yield part
                return
            left = max(UNPACKED_FREELY, MOST_EXPANSION * file.stat().st_size)
            with gzip.GzipFile(fileobj=raw) as content:
                while part := content.read(AT_A_TIME):
                    left -= len(part)
                    if left < 0:
                        raise LeanformerError(
                            f"{file}: unpacks to more than {MOST_EXPANSION} times its size, which text does not; if "
                            "the file is right, unpack it (gunzip) and give the unpacked file"
                        )
                    yield part
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise LeanformerError(
            f"{file}: not a whole gzip file ({first_line(error)}); copy or download it again"
        ) from error
    except OSError as error:
        raise LeanformerError(f"{file}: cannot be read ({error.strerror or first_line(error)})") from error


def decode_text(content: bytes, name: str) -> str:
    """Decodes UTF-8, or UTF-16 and UTF-32 with a byte order mark, which is removed.

    Args:
        content: The bytes.
        name: The file's name, for the message.

    Raises:
        LeanformerError: for other encodings, with the line's number.
    """
    mark, encoding = marked_encoding(content) or (b"", "utf-8")
    content = content.removeprefix(mark)
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].decode(encoding, "replace").count("\n") + 1
        raise LeanformerError(
            f"{name}, line {line}: byte 0x{content[error.start]:02x} is not {encoding[:6].upper().rstrip('-')}; "
            "convert the file to UTF-8"
        ) from error
    if (place := text.find("\0")) >= 0:  # UTF-16 looks so when it is read as UTF-8
        raise LeanformerError(
            f"{name}, line {text.count(chr(10), 0, place) + 1}: holds a NUL character, as UTF-16 without a byte order "
            "mark does; convert the file to UTF-8, or remove the character"
        )
    return text


def marked_encoding(content: bytes) -> tuple[bytes, str] | None:
    """The byte order mark that a text begins with, and its encoding."""
    return next(((mark, encoding) for mark, encoding in MARKS if content.startswith(mark)), None)


def split_lines(text: str) -> list[str]:
    """The lines of a text, without their ends."""
    lines = [line.removesuffix("\r") for line in text.split("\n")] if "\n" in text else text.split("\r")
    return lines[:-1] if lines[-1] == "" else lines


def read_text(file: Path) -> str:
    """The text of a file, as ``decode_text`` understands it.

    Raises:
        LeanformerError: for a file that cannot be read, is empty, or is in another encoding.
    """
    text = decode_text(b"".join(read_parts(file)), str(file))
    if not text.strip():
        raise LeanformerError(f"{file}: is empty; fill it or remove it")
    return text


def read_lines(file: Path) -> list[str]:
    """The lines of a file, as ``read_text`` reads it."""
    return split_lines(read_text(file))
