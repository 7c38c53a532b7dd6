"""Reads a run directory's results.json, checks it, and converts it where an older version wrote it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from leanformer.core.errors import LeanformerError, quoted
from leanformer.core.paths import read_text
from leanformer.results.migrate import migrate
from leanformer.results.schema import FORMAT, FORMS, VERSION

MOST_BYTES = 200_000_000


def read_results(directory: Path) -> dict[str, Any]:
    """Reads and checks a run directory's ``results.json``.

    Args:
        directory: The run directory.

    Returns:
        The file's content in the form of this version.

    Raises:
        LeanformerError: The file is missing, damaged, of another version, or not leanformer's.
    """
    path = directory / "results.json"
    if not os.path.lexists(path):
        raise LeanformerError(f"{path}: there is no such file; give the directory of a study that ran to its end")
    text = read_text(path, MOST_BYTES)
    try:
        content = json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise LeanformerError(f"{path}: damaged (lists are nested too deep); run the study again") from None
    except ValueError as error:
        raise LeanformerError(f"{path}: damaged ({error}); run the study again to write it again") from None
    if not isinstance(content, dict) or "format" not in content:
        raise LeanformerError(f"{path}: not the results of a leanformer study (there is no key 'format')")
    if content["format"] != FORMAT or isinstance(content["format"], bool):
        raise LeanformerError(
            f"{path}: its format is {quoted(content['format'])}, and this version of leanformer reads format {FORMAT}"
        )
    version = content.get("version", 1)
    if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= VERSION:
        raise LeanformerError(
            f"{path}: its version is {quoted(version)}, and this version of leanformer reads versions 1 to {VERSION}"
        )
    task = content.get("task")
    form = FORMS.get(task) if isinstance(task, str) else None
    if form is None:
        raise LeanformerError(
            f"{path}: the task {quoted(task)} is not known to this version of leanformer; tasks: {', '.join(FORMS)}"
        )
    try:
        return form.model_validate(migrate(content, version)).content()
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"{part}: " for part in [".".join(str(part) for part in first["loc"])] if part)
        message = first["msg"].removeprefix("Value error, ")
        raise LeanformerError(
            f"{path}: not the results of a leanformer study: {where}{message[0].lower()}{message[1:]}"
        ) from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")
