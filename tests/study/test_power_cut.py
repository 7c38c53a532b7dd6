"""After a power cut: the system calls of a study are followed, and what was not flushed to the disk is dropped.

A disk keeps what ``fsync`` was called for: of a file its content at that moment, of a directory its names. After each
system call that changes something the power is cut in two ways, which file systems are known for: nothing is there but
what was flushed; or all names are there, and of the files those contents that were flushed, the others being empty.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from studies import run, without_timings

from leanformer.core.files import add_to_directory, make_directory, replace_directory, write_atomically
from leanformer.model.students import load
from leanformer.study.store import RunDirectory

MakeStudy = Callable[..., dict[str, Any]]
Image = dict[str, bytes]  # path from the root -> content

pytestmark = pytest.mark.skipif(os.name != "posix", reason="flushes directories")


class Disk:
    """A file system that knows what of a directory would survive a power cut.

    Args:
        root: The directory, empty.
        look: Called with each possible content after each change.
    """

    def __init__(self, root: Path, look: Callable[[Image], object]) -> None:
        self.root = root
        self.look = look
        self.contents: dict[int, bytes] = {}
        self.names: dict[int, dict[str, int]] = {os.stat(root).st_ino: {}}
        self.held: dict[int, int] = {}  # open files; a descriptor in use is never reused
        self.cuts = 0

    def flush(self, handle: int) -> None:
        """``os.fsync`` on this disk."""
        found = os.fstat(handle)
        place = Path(f"/proc/self/fd/{handle}")
        self.held.setdefault(found.st_ino, os.dup(handle))
        if stat.S_ISDIR(found.st_mode):
            self.names[found.st_ino] = {name: os.lstat(place / name).st_ino for name in os.listdir(place)}
        else:
            self.contents[found.st_ino] = place.read_bytes()
        self.cut()

    def cut(self) -> None:
        """The power fails now."""
        if not self.root.exists():
            return
        self.cuts += 1
        self.look(dict(self.flushed()))
        self.look({path.relative_to(self.root).as_posix(): self._content(path) for path in self._files()})

    def flushed(self) -> Iterator[tuple[str, bytes]]:
        """All flushed contents, by their path."""
        return self._flushed(os.stat(self.root).st_ino, "")

    def _flushed(self, directory: int, prefix: str) -> Iterator[tuple[str, bytes]]:
        for name, number in self.names.get(directory, {}).items():
            if number in self.names:
                yield from self._flushed(number, f"{prefix}{name}/")
            else:
                yield f"{prefix}{name}", self.contents.get(number, b"")

    def _files(self) -> list[Path]:
        return [Path(place, name) for place, _, names in os.walk(self.root) for name in names]

    def _content(self, path: Path) -> bytes:
        return self.contents.get(os.lstat(path).st_ino, b"")


@pytest.fixture
def follow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path, Callable[[Image], object]], Disk]]:
    """Follows the system calls of this process."""
    disks: list[Disk] = []

    def start(root: Path, look: Callable[[Image], object]) -> Disk:
        disk = Disk(root, look)
        disks.append(disk)
        monkeypatch.setattr(os, "fsync", disk.flush)
        for name in ("rename", "replace", "unlink", "rmdir", "mkdir"):
            call = getattr(os, name)

            def followed(*arguments: Any, call: Any = call, **named: Any) -> Any:
                result = call(*arguments, **named)
                disk.cut()
                return result

            monkeypatch.setattr(os, name, followed)
        return disk

    yield start
    monkeypatch.undo()
    for disk in disks:
        for handle in disk.held.values():
            os.close(handle)


def restore(image: Image, root: Path) -> Path:
    """Writes the surviving files to a new disk."""
    root.mkdir()
    for name, content in image.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


@pytest.mark.long  # checks all files after each system call
def test_what_a_result_speaks_of_is_there_after_any_power_cut(
    digits_study: MakeStudy, tmp_path: Path, follow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = digits_study(candidates={"no-mlp": {"plan": {"*.mlp": "none"}}})
    changed = {**study, "train": {**study["train"], "epochs": 2}}
    expected = []
    # Each in a directory whose siblings have not looked at the test split; the last is the second look in its own.
    for place, wanted in (("alone", changed), ("twice", study), ("twice", changed)):
        result, _ = run(wanted, tmp_path / place / "run")
        expected.append(without_timings(result.results))
    root = tmp_path / "disk"
    root.mkdir()
    (tmp_path / "after").mkdir()
    digests: dict[bytes, str] = {}
    kept: list[Image] = []
    chance = random.Random(0)
    seen: set[int] = set()

    def look(image: Image) -> None:
        for name, content in image.items():
            if not name.endswith("/result.json") or ".removed/" in name or not content:
                continue
            trial = name.removesuffix("result.json")
            result = json.loads(content)  # either whole or absent
            assert result["files"] or result["trained"]["status"] != "ok" or "/search/" in name
            for file, expected_digest in result["files"].items():
                found = image.get(trial + file)
                if found is None or found not in digests:
                    assert found is not None, f"{trial}{file} is missing"
                    digests[found] = hashlib.sha256(found).hexdigest()
                assert digests[found] == expected_digest, f"{trial}{file} is damaged"
        state = hash(tuple(sorted((name, hash(content)) for name, content in image.items())))
        if state not in seen:
            seen.add(state)
            if chance.random() < 0.02:
                kept.append(dict(image))

    disk = follow(root, look)
    finish = RunDirectory.finish

    def finish_and_cut(self: RunDirectory, directory: Path, result: Any) -> None:
        finish(self, directory, result)
        name = (directory / "result.json").relative_to(root).as_posix()
        assert dict(disk.flushed())[name], "what is finished stays"

    monkeypatch.setattr(RunDirectory, "finish", finish_and_cut)
    run(study, root / "run")
    halfway = len(kept)
    run(changed, root / "run")
    assert disk.cuts > 400
    assert len(seen) > 200
    monkeypatch.undo()
    for number, image in enumerate((kept[halfway // 2], kept[halfway], kept[-1])):
        # The setting is put back in the second: nothing that was being deleted counts as finished.
        wanted = study if number == 1 else changed
        result, _ = run(wanted, restore(image, tmp_path / "after" / str(number)) / "run")
        assert without_timings(result.results) == expected[number]
        assert result.model() is not None


def test_a_file_is_there_as_it_was_or_as_it_shall_be(tmp_path: Path, follow: Any) -> None:
    root = tmp_path / "disk"
    root.mkdir()
    (root / "file").write_bytes(b"old")
    images: list[Image] = []
    disk = follow(root, images.append)
    with (root / "file").open("rb") as file:
        os.fsync(file.fileno())
    handle = os.open(root, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)
    del images[:]
    write_atomically(root / "file", b"new")
    assert {image["file"] for image in images} == {b"old", b"new"}
    assert images[-2]["file"] == images[-1]["file"] == b"new"
    make_directory(root / "a" / "b")
    write_atomically(root / "a" / "b" / "file", "text")
    assert images[-2]["a/b/file"] == b"text"
    assert disk.cuts


@pytest.mark.parametrize("write", [replace_directory, add_to_directory])
def test_a_directory_is_there_whole_or_not_at_all(write: Any, tmp_path: Path, follow: Any) -> None:
    root = tmp_path / "disk"
    root.mkdir()
    images: list[Image] = []
    follow(root, images.append)

    def fill(place: Path) -> None:
        (place / "config.json").write_bytes(b"{}")
        (place / "tokenizer").mkdir()
        (place / "tokenizer" / "vocab.json").write_bytes(b"[]")

    write(root / "model", fill)
    found = [{name for name in image if name.startswith("model/")} for image in images]
    assert all(names in (set(), {"model/config.json", "model/tokenizer/vocab.json"}) for names in found)
    assert images[-2] == images[-1] == {"model/config.json": b"{}", "model/tokenizer/vocab.json": b"[]"}


def test_a_saved_model_is_there_after_a_power_cut(make_model: Any, tmp_path: Path, follow: Any) -> None:
    import torch

    import leanformer as lf

    root = tmp_path / "disk"
    root.mkdir()
    images: list[Image] = []
    follow(root, images.append)
    model = lf.reduce(make_model(), {"*.mlp": "none"})
    lf.save(model, root / "model")
    left = restore(images[-2], tmp_path / "left")
    pixels = torch.rand(2, 1, 16, 16)
    assert torch.equal(load(left / "model")(pixels).logits, model.eval()(pixels).logits)
