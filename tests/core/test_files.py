"""Only plain files are ever replaced, links are never followed where nobody meant to, and nothing is left half."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import leanformer as lf
from leanformer.core.files import (
    PARTIAL,
    add_to_directory,
    make_directory,
    remove,
    remove_leftovers,
    replace_directory,
    set_aside,
    write_atomically,
)

posix = pytest.mark.skipif(os.name != "posix", reason="of POSIX systems")


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_plain_file_is_replaced_and_keeps_its_rights(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o640)
    write_atomically(path, "new")
    assert path.read_text() == "new"
    assert os.name != "posix" or stat.S_IMODE(path.stat().st_mode) == 0o640
    assert names(tmp_path) == ["file"]


@posix
def test_a_device_is_written_into(tmp_path: Path) -> None:
    device = tmp_path / "null"
    try:
        os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        device.write_bytes(b"")
    except PermissionError:
        pytest.skip("no rights to make or to open a device")
    write_atomically(device, "text")
    assert stat.S_ISCHR(device.lstat().st_mode)
    assert names(tmp_path) == ["null"]


@posix
def test_the_systems_own_null_device_stays() -> None:
    before = os.stat(os.devnull)
    write_atomically(Path(os.devnull), b"text")
    after = os.stat(os.devnull)
    assert stat.S_ISCHR(after.st_mode)
    assert (before.st_ino, before.st_rdev) == (after.st_ino, after.st_rdev)


@posix
def test_a_pipe_is_written_into(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write_atomically(pipe, "text")
    reader.join(10)
    assert read == [b"text"]
    assert stat.S_ISFIFO(pipe.lstat().st_mode)


@posix
def test_standard_output_is_written_into_wherever_it_leads(tmp_path: Path) -> None:
    """A shell's ``>>`` keeps what is in the file."""
    script = (
        "from pathlib import Path; from leanformer.core.files import write_atomically as write; "
        "write(Path('/dev/stdout'), 'b\\n')"
    )
    path = tmp_path / "log"
    path.write_text("a\n")
    with path.open("ab") as log:
        subprocess.run([sys.executable, "-c", script], stdout=log, check=True)
    assert path.read_text() == "a\nb\n"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout == b"b\n"


@posix
@pytest.mark.parametrize("kind", ["directory", "socket"])
def test_what_is_no_file_is_refused(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    path = Path("it")
    if kind == "directory":
        path.mkdir()
        (path / "file").touch()
    else:
        socket.socket(socket.AF_UNIX).bind("it")
    with pytest.raises(lf.LeanformerError, match=r"^it: cannot be written: it is not a regular file"):
        write_atomically(path, "text")
    assert names(Path()) == ["it"]


@posix
def test_a_link_stays_and_its_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    file, link = tmp_path / "there" / "file", tmp_path / "link"
    file.write_text("old")
    link.symlink_to(file)
    write_atomically(link, "new")
    assert link.is_symlink()
    assert file.read_text() == "new"
    assert names(tmp_path / "there") == ["file"]
    file.unlink()
    write_atomically(link, "made")
    assert file.read_text() == "made"


@posix
@pytest.mark.parametrize("write", [write_atomically, replace_directory, add_to_directory])
def test_a_link_with_the_partial_name_is_never_followed(tmp_path: Path, write: Callable[..., Any]) -> None:
    (tmp_path / "precious").mkdir()
    precious = tmp_path / "precious" / "file"
    precious.write_text("precious")
    partial = tmp_path / ".it.partial"
    partial.symlink_to(precious if write is write_atomically else precious.parent)
    if write is write_atomically:
        write(tmp_path / "it", "text")
    else:
        write(tmp_path / "it", lambda place: (place / "file").write_text("text"))
    assert precious.read_text() == "precious"
    assert names(tmp_path) == ["it", "precious"]
    assert not (tmp_path / "it").is_symlink()


@posix
def test_to_delete_a_link_deletes_nothing_behind_it(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "precious", target_is_directory=True)
    (tmp_path / ".it.removed").symlink_to(tmp_path / "precious", target_is_directory=True)
    (tmp_path / "it").mkdir()
    remove(tmp_path / "link")
    remove(tmp_path / "it")
    remove(tmp_path / "nothing")
    assert names(tmp_path) == ["precious"]
    assert names(tmp_path / "precious") == ["file"]


@posix
def test_leftovers_of_killed_processes_are_deleted(tmp_path: Path) -> None:
    (tmp_path / "a" / ".model.partial").mkdir(parents=True)
    (tmp_path / "a" / ".model.partial" / "file").touch()
    (tmp_path / ".seed-0.removed" / "deep").mkdir(parents=True)
    (tmp_path / ".file.partial").touch()
    (tmp_path / "a" / "kept.partial").touch()
    (tmp_path / ".hidden").touch()
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    (tmp_path / ".link.partial").symlink_to(tmp_path / "precious")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [".hidden", "a", "precious"]
    assert names(tmp_path / "a") == ["kept.partial"]
    assert names(tmp_path / "precious") == ["file"]


def test_what_fails_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old").touch()

    def fails(place: Path) -> None:
        (place / "new").touch()
        raise OSError(28, "No space left on device")

    for write in (replace_directory, add_to_directory):
        with pytest.raises(lf.LeanformerError, match="model: cannot be written: No space left"):
            write(tmp_path / "model", fails)
        assert names(tmp_path) == ["model"]
        assert names(tmp_path / "model") == ["old"]


def test_what_is_added_to_a_directory_leaves_the_rest(tmp_path: Path) -> None:
    make_directory(tmp_path / "a" / "model")
    (tmp_path / "a" / "model" / "notes.txt").write_text("mine")
    add_to_directory(tmp_path / "a" / "model", lambda place: (place / "config.json").write_text("{}"))
    assert names(tmp_path / "a" / "model") == ["config.json", "notes.txt"]
    replace_directory(tmp_path / "a" / "model", lambda place: (place / "config.json").write_text("{}"))
    assert names(tmp_path / "a" / "model") == ["config.json"]


def test_a_file_where_a_directory_shall_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(lf.LeanformerError, match="cannot be written"):
        make_directory(tmp_path / "file" / "below")
    with pytest.raises(lf.LeanformerError, match="file: cannot be written: it is not a directory"):
        add_to_directory(tmp_path / "file", lambda place: None)
    assert (tmp_path / "file").is_file()


def test_what_is_set_aside_replaces_nothing(tmp_path: Path) -> None:
    for expected in ("it.damaged", "it.damaged-2", "it.damaged-3"):
        (tmp_path / "it").touch()
        assert set_aside(tmp_path / "it") == tmp_path / expected


def test_a_directory_that_cannot_take_the_place_leaves_the_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, rename = tmp_path / "model", os.rename
    replace_directory(place, lambda directory: (directory / "a").write_text("old"))

    def fails(source: Path, target: Path) -> None:
        if source.name.endswith(PARTIAL):
            raise OSError("the disk is gone")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fails)
    with pytest.raises(lf.LeanformerError, match="model: cannot be written: the disk is gone"):
        replace_directory(place, lambda directory: (directory / "a").write_text("new"))
    assert (place / "a").read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]
