"""What the commands read."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

import leanformer as lf
from leanformer.serve.inputs import read_lines


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_is_read_from_any_system(tmp_path: Path, end: str, encoding: str) -> None:
    lines = ["eins", "", "  ", "zwei\u2028und", ""]
    (tmp_path / "in.txt").write_bytes("".join(line + end for line in lines).encode(encoding))
    assert read_lines(tmp_path / "in.txt") == lines
    assert read_lines(Path(os.devnull)) == []
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(lf.LeanformerError, match=r"pipe: cannot be read: it is a pipe, .*; give a file, or < "):
        read_lines(tmp_path / "pipe")


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path, message in ((tmp_path, "Is a directory"), (tmp_path / "none", "No such file or directory")):
        with pytest.raises(lf.LeanformerError, match=rf"^{re.escape(str(path))}: cannot be read \({message}\)$"):
            read_lines(path)
