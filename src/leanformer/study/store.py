"""The run directory: the files of one study, locked for one run at a time, and checked for damage by checksums."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from leanformer.config.base import Study
from leanformer.config.reader import read_study
from leanformer.core.errors import LeanformerError
from leanformer.core.files import (
    PARTIAL,
    REMOVED,
    make_directory,
    remove,
    remove_leftovers,
    set_aside,
    sha256,
    write_atomically,
)
from leanformer.core.json_files import DamagedError, read_sealed, sealed
from leanformer.runtime.manifest import CARD, MANIFEST

CHECKPOINT = "checkpoint.safetensors"
FOLDS = "folds"
"""The directory of the folds' run directories, in that of a cross-validation."""
SECONDS_BETWEEN_CHECKS = 1.0
LOADED = (".json", ".jinja", ".safetensors", ".bin", ".pt", ".pth", ".gguf", ".py", ".model", ".spm", ".txt")
"""Endings of files that loading may read from a model's directory, where a foreign one could change the model."""
ADDED = ("data_content", "baseline_content")
"""Settings that trials of the first version lack; they are compared only where a trial has them."""


def differences(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What differs between two nested settings, such as ``train.epochs: 5 -> 10``."""
    found = []
    for key in [*before, *(key for key in after if key not in before)]:
        old, new = before.get(key), after.get(key)
        if old == new:
            # The order of a plan's patterns matters, and equal mappings may differ in it.
            if isinstance(old, Mapping) and isinstance(new, Mapping) and list(old) != list(new):
                found.append(f"{prefix}{key}: another order")
        elif isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, f"{prefix}{key}.")
        else:
            found.append(f"{prefix}{key}: {json.dumps(old)} -> {json.dumps(new)}")
    return found


class RunDirectory:
    """A study's run directory, held by this process alone while it is open (a context manager).

    Args:
        path: The directory; it is made if it does not exist.
        study: The study to run in it.

    Raises:
        LeanformerError: Another process holds it, it belongs to another study, or it cannot be written.
    """

    def __init__(self, path: Path, study: Study) -> None:
        self.path = path
        self._study = study
        self._defaults = study.default_settings()
        cannot = f"{path}: cannot be used as a run directory"
        if os.path.lexists(path) and not path.is_dir():
            what = "a link that leads to no directory" if path.is_symlink() else "not a directory"
            raise LeanformerError(f"{cannot}: it is {what}; give another with --out")
        try:
            os.fspath(path).encode()
            make_directory(path)
        except UnicodeEncodeError:  # weights could not be read from it
            raise LeanformerError(f"{cannot}: its name is not UTF-8; give another with --out") from None
        except LeanformerError as error:
            raise LeanformerError(f"{cannot}: {getattr(error.__cause__, 'strerror', error)}") from None
        self._lock = FileLock(path / ".lock", timeout=0)
        self._own_lock: FileLock | None = None
        self._identities: dict[Path, tuple[int, int]] = {}
        self._last_check = 0.0
        self._checked: dict[Path, int] = {}  # results whose files were checked -> when they were written

    def __enter__(self) -> RunDirectory:
        self._check_owner()
        try:
            self._lock.acquire()
        except Timeout:
            raise self._is_in_use() from None
        except OSError as error:
            raise LeanformerError(f"{self.path}: cannot be written: {error.strerror}") from None
        try:
            self._check_workers()
            remove_leftovers(self.path)
            write_atomically(self.path / "study.yaml", self._study.to_yaml())
            self._hold()
        except LeanformerError:
            self._lock.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def work_in(self, number: int) -> None:
        """Holds the directory as a worker of the process that has locked it, until this process ends.

        Args:
            number: The worker's number, from 1; no other worker may have it.
        """
        self._own_lock = FileLock(self.path / f".lock-{number}", timeout=10)
        self._own_lock.acquire()
        self._hold()

    def _hold(self) -> None:
        for path in (self.path, self.path / ".lock", self.path / "study.yaml"):
            identity = _identity(path)
            if identity is not None:
                self._identities[path] = identity

    def check(self, at_once: bool = True) -> None:
        """Checks that the directory, its lock and its study file are still those that this process has locked.

        Args:
            at_once: False checks only if the last check is a second ago, for callers that call it very often.

        Raises:
            LeanformerError: The directory was moved or deleted, or its lock or study file was deleted or replaced.
        """
        now = time.monotonic()
        if not at_once and now - self._last_check < SECONDS_BETWEEN_CHECKS:
            return
        self._last_check = now
        for path, identity in self._identities.items():
            if _identity(path) != identity:
                raise LeanformerError(
                    f"{path}: moved, deleted or replaced while the study runs in {self.path}; put it back and run "
                    "again to go on"
                )

    def _check_workers(self) -> None:
        """Checks that no worker of an earlier, killed run still works here."""
        for path in self.path.glob(".lock-*"):
            try:
                FileLock(path, timeout=0).acquire().lock.release()
            except Timeout:
                raise self._is_in_use() from None

    def _is_in_use(self) -> LeanformerError:
        return LeanformerError(
            f"{self.path}: another leanformer process runs in this directory; wait for it, or give --out"
        )

    def _check_owner(self) -> None:
        study_file = self.path / "study.yaml"
        if study_file.exists():
            try:
                owner = read_study(study_file)
            except LeanformerError as error:
                raise LeanformerError(
                    f"{error}; this file is the copy of the study that ran here: replace it with your study file, "
                    "under this name, and run again"
                ) from None
            if (owner.name, owner.task) != (self._study.name, self._study.task):
                raise LeanformerError(
                    f"{self.path}: this is the run directory of study {owner.name!r} ({owner.task}), not of "
                    f"{self._study.name!r}; give another directory with --out"
                )
        elif any(
            not entry.name.startswith(".lock") and not entry.name.endswith((PARTIAL, REMOVED))
            for entry in self.path.iterdir()
        ):
            raise LeanformerError(
                f"{self.path}: neither empty nor a run directory (it holds no study.yaml); give another with --out"
            )

    def fold(self, seed: int, fold: int) -> Path:
        """The run directory of one fold of a cross-validation."""
        return self.path / FOLDS / f"seed-{seed}-fold-{fold}"

    def trial(self, candidate: str, seed: int) -> Path:
        """The directory of one candidate's trial with one seed."""
        return self.path / "trials" / candidate / f"seed-{seed}"

    def search(self, candidate: str, learning_rate: float) -> Path:
        """The directory of one learning rate in a candidate's search."""
        return self.path / "trials" / candidate / "search" / f"rate-{learning_rate:g}"

    def exported(self, candidate: str, form: str) -> Path:
        """The directory of a candidate's export in one form, such as ``onnx-int8``."""
        return self.path / "exports" / candidate / form

    def robust(self, candidate: str, form: str, corruption: str) -> Path:
        """The directory of a candidate's answers to corrupted examples, in ``torch`` or in a form of export."""
        return self.path / "robustness" / candidate / form / corruption

    def confirmed(self, data: str, candidate: str) -> Path:
        """The directory of a candidate's confirmation on new data, which their signature names."""
        return self.path / "confirmations" / f"{data[:12]}-{candidate}"

    def taught(self, seed: int, name: str) -> Path:
        """The path of a taught block's directory, or of a checkpoint, of one seed."""
        return self.path / "teaching" / f"seed-{seed}" / name

    def prepare(self, directory: Path, settings: dict[str, Any]) -> str | None:
        """Makes a trial's directory ready for these settings.

        A trial of other settings is deleted. A damaged one is set aside under another name.

        Args:
            directory: The trial's directory.
            settings: All settings that determine its result.

        Returns:
            Why the trial must run again, or None.

        Raises:
            LeanformerError: The directory is a link, or cannot be read or written.
        """
        self.check()
        self._refuse_links(directory)
        settings = json.loads(json.dumps(settings))
        reason = None
        if directory.exists():
            try:
                changes = self._changes(directory, settings)
                if changes == []:
                    self._check_sums(directory)
                    return None
            except DamagedError as error:
                reason = f"{error}; what was there is now {set_aside(directory)}"
            else:
                if changes:
                    reason = "; ".join(changes[:3]) + (f"; {len(changes) - 3} more" if len(changes) > 3 else "")
                remove(directory)
        make_directory(directory)
        write_atomically(directory / "settings.json", sealed(settings))
        return reason

    def _changes(self, directory: Path, settings: Mapping[str, Any]) -> list[str] | None:
        """What differs from the settings that a trial was made with; None where it has not begun."""
        path = directory / "settings.json"
        if path.exists():
            known = read_sealed(path)
            return differences(known, _as_far_as_known(known, settings, self._defaults))
        if (directory / "result.json").exists():
            raise DamagedError(f"{path}: missing")
        return None

    def finished(self, directory: Path) -> dict[str, Any] | None:
        """A trial's result, or None where it is not finished."""
        path = directory / "result.json"
        return read_sealed(path, f"delete {directory} and run again to repeat this trial") if path.exists() else None

    def finish(self, directory: Path, result: Mapping[str, Any]) -> None:
        """Writes a trial's result, which is its last file, with the SHA-256 of every file beside it."""
        self.check()
        sums = {
            path.relative_to(directory).as_posix(): sha256(path)
            for path in sorted(directory.rglob("*"))
            if path.is_file() and not path.name.startswith((".", "settings.json", "result.json", CHECKPOINT, CARD))
        }
        path = directory / "result.json"
        write_atomically(path, sealed({**result, "files": sums}))
        self._checked[path] = path.stat().st_mtime_ns
        (directory / CHECKPOINT).unlink(missing_ok=True)

    def replace_file(self, directory: Path, name: str, content: bytes) -> None:
        """Replaces a file of a finished trial, before ``finish``; a kill in between leaves the old file or the new one.

        Args:
            directory: The trial's directory.
            name: The file's, relative to it.
            content: All of it.
        """
        self.check()
        result = self.finished(directory)
        if result is not None and name in result.get("files", {}):
            sums = f"{result['files'][name]} {hashlib.sha256(content).hexdigest()}"
            write_atomically(directory / "result.json", sealed({**result, "files": {**result["files"], name: sums}}))
        write_atomically(directory / name, content)

    def _check_sums(self, directory: Path) -> None:
        """Compares the files of a finished trial with their SHA-256, once in each process.

        Raises:
            DamagedError: A file is missing, damaged or foreign.
            LeanformerError: A file cannot be read.
        """
        path = directory / "result.json"
        if not path.exists() or self._checked.get(path) == path.stat().st_mtime_ns:
            return
        sums = read_sealed(path).get("files", {})  # studies of the first version have none
        for name, expected in sums.items():
            file = directory / name
            try:
                if sha256(file) not in expected.split():  # two sums after a kill during its replacement
                    raise DamagedError(f"{file}: damaged (its SHA-256 does not match)")
            except FileNotFoundError:
                raise DamagedError(f"{file}: missing") from None
            except OSError as error:
                raise LeanformerError(f"{file}: cannot be read: {error.strerror}") from None
        for file in sorted((directory / "model").rglob("*")) if sums else ():
            if file.suffix in LOADED and file.relative_to(directory).as_posix() not in sums and file.is_file():
                raise DamagedError(f"{file}: foreign (this study did not write it)")
        self._checked[path] = path.stat().st_mtime_ns

    def check_shipped(self, model: Path) -> None:
        """Checks that the recommended model exists and is undamaged.

        Args:
            model: The model's directory, inside its trial's; or an exported directory, inside its export's.

        Raises:
            LeanformerError: A file is missing or damaged; the message names it.
        """
        self._checked.pop(model.parent / "result.json", None)
        try:
            self._check_sums(model.parent)
            if not any((model / name).is_file() for name in ("config.json", MANIFEST)):
                raise DamagedError(f"{model / 'config.json'}: missing")
        except DamagedError as error:
            raise LeanformerError(f"{error}; the model to ship cannot be used: run the study again") from None

    def _refuse_links(self, directory: Path) -> None:
        for place in (directory, *directory.parents):
            if place == self.path:
                return
            if place.is_symlink():
                raise LeanformerError(
                    f"{place}: is a link; a study writes and deletes here, so put the directory itself in its place"
                )


def _as_far_as_known(
    known: Mapping[str, Any], settings: Mapping[str, Any], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """Settings without those that an earlier version did not have, as far as they have their defaults.

    Args:
        known: The settings of a trial that was made, perhaps by an earlier version.
        settings: Those of today.
        defaults: Of the study's keys; a teacher's settings have the same.
    """
    found = {}
    for key, value in settings.items():
        default = defaults if key == "teacher" else defaults.get(key)
        if key not in known:
            if key in ADDED or (key in defaults and value == default):
                continue
        elif isinstance(value, Mapping) and isinstance(known[key], Mapping):
            value = _as_far_as_known(known[key], value, default if isinstance(default, Mapping) else {})
        found[key] = value
    return found


def _identity(path: Path) -> tuple[int, int] | None:
    """The device and inode of a file, which another file of the same name does not share; None without a file."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino
