"""The run directory: one study's files, one process at a time."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from leanformer.config import Study, read_study
from leanformer.errors import LeanformerError
from leanformer.files import write_atomically


def to_json(value: Any) -> str:
    """Indented JSON that keeps every digit of its numbers, and refuses what is not a number."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        LeanformerError: The file is damaged; ``remedy`` says what to do.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise LeanformerError(f"{path}: damaged ({error}); {remedy}") from None
    if not isinstance(content, dict):
        raise LeanformerError(f"{path}: damaged (no JSON object); {remedy}")
    return content


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


def files_signature(source: str, endings: Sequence[str] = ()) -> str | None:
    """A hash of the names and sizes of local files; None for what is not there as such, such as a hub id.

    Args:
        source: A directory, a file, or the path of several files up to their endings.
        endings: These endings.
    """
    root = Path(source).expanduser()
    candidates = (
        root.rglob("*") if root.is_dir() else (root, *(root.with_name(f"{root.name}.{end}") for end in endings))
    )
    files = [path for path in sorted(candidates) if path.is_file()]
    if not files and not root.is_dir():
        return None
    base = root if root.is_dir() else root.parent
    lines = [f"{path.relative_to(base)} {path.stat().st_size}" for path in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


class RunDirectory:
    """A study's run directory, held by this process alone while it is open (a context manager).

    Args:
        path: The directory; made if it is not there.
        study: The study that is to run in it.

    Raises:
        LeanformerError: Another process holds it, it belongs to another study, or it cannot be written.
    """

    def __init__(self, path: Path, study: Study) -> None:
        self.path = path
        self._study = study
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LeanformerError(f"{path}: cannot be used as a run directory: {error.strerror}") from None
        self._lock = FileLock(path / ".lock", timeout=0)
        self._own_lock: FileLock | None = None

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
            write_atomically(self.path / "study.yaml", self._study.to_yaml())
        except LeanformerError:
            self._lock.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def work_in(self, number: int) -> None:
        """Holds the directory beside the process that it is held by, for as long as this process lasts.

        Args:
            number: From 1 on, of another process than all others that work in it.
        """
        self._own_lock = FileLock(self.path / f".lock-{number}", timeout=10)
        self._own_lock.acquire()

    def _check_workers(self) -> None:
        """Makes sure that no process is left which worked for one that was killed."""
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
            owner = read_study(study_file)
            if (owner.name, owner.task) != (self._study.name, self._study.task):
                raise LeanformerError(
                    f"{self.path}: this is the run directory of study {owner.name!r} ({owner.task}), not of "
                    f"{self._study.name!r}; give another directory with --out"
                )
        elif any(
            not entry.name.startswith(".lock") and not entry.name.endswith(".partial") for entry in self.path.iterdir()
        ):
            raise LeanformerError(
                f"{self.path}: neither empty nor a run directory (it holds no study.yaml); give another with --out"
            )

    def trial(self, candidate: str, seed: int) -> Path:
        """The directory of one candidate's trial with one seed."""
        return self.path / "trials" / candidate / f"seed-{seed}"

    def search(self, candidate: str, learning_rate: float) -> Path:
        """The directory of one rate's run in a candidate's search."""
        return self.path / "trials" / candidate / "search" / f"rate-{learning_rate:g}"

    def taught(self, seed: int, name: str) -> Path:
        """The place of what was taught with one seed: a block's directory, a checkpoint."""
        return self.path / "teaching" / f"seed-{seed}" / name

    def prepare(self, directory: Path, settings: dict[str, Any]) -> str | None:
        """Makes a trial's directory ready for these settings; what was made with other settings is deleted.

        Returns:
            Why something was deleted, or None.
        """
        settings = json.loads(json.dumps(settings))
        settings_file = directory / "settings.json"
        reason = None
        if directory.exists():
            if settings_file.exists():
                changes = differences(read_json(settings_file, f"delete {directory} and run again"), settings)
                if not changes:
                    return None
                reason = "; ".join(changes[:3]) + (f"; {len(changes) - 3} more" if len(changes) > 3 else "")
            shutil.rmtree(directory)
        write_atomically(settings_file, to_json(settings))
        return reason

    def finished(self, directory: Path) -> dict[str, Any] | None:
        """A trial's result, if it is there."""
        path = directory / "result.json"
        return read_json(path, f"delete {directory} and run again to repeat this trial") if path.exists() else None
