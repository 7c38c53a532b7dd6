"""``lf.push_to_hub``: puts a model on the hub, with its card and all that is needed to use it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from os import PathLike, fspath
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import HfApi, ModelCard, get_token, try_to_load_from_cache

from leanformer.config.base import Study
from leanformer.core.errors import LeanformerError, first_line, quoted
from leanformer.core.files import write_atomically
from leanformer.core.paths import as_path
from leanformer.core.progress import quiet_libraries
from leanformer.export.student_card import Provenance, is_own, model_card
from leanformer.model.conversion import COMPANIONS, copy_companions
from leanformer.model.directory import SAFETENSORS, find_directory
from leanformer.model.students import load, save
from leanformer.results.reader import read_results
from leanformer.results.schema import rows_of
from leanformer.runtime.manifest import CARD
from leanformer.study.export import find_model

_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
"""The form of a hub id."""


def push_to_hub(model: str | PathLike[str], repository: str, private: bool = False) -> str:
    """Publishes a model on the Hugging Face hub, with all that is needed to use it, and with its card.

    A card in the model's directory that was changed by hand is published as it is.

    Args:
        model: A run directory, whose recommended model is taken; or a model's directory.
        repository: The hub id, ``owner/name``. The repository is made where there is none.
        private: Whether a new repository is to be private.

    Returns:
        The repository's address.

    Raises:
        LeanformerError: There is no such model, nobody is logged in to the hub, or the hub does not take it.
    """
    as_path(model, "model")
    if not isinstance(repository, str) or not _ID.fullmatch(repository):
        raise LeanformerError(f"repository: give a hub id, owner/name, not {quoted(repository)}")
    source = find_model(fspath(model), "torch", "float32")[0]
    directory = find_directory(source, [*SAFETENSORS, "model-*.safetensors", *COMPANIONS])
    if get_token() is None:
        raise LeanformerError(f"{repository}: nobody is logged in to the hub; run 'hf auth login', or set HF_TOKEN")
    with quiet_libraries(), TemporaryDirectory() as staged:
        there = Path(staged)
        save(load(source), there)
        copy_companions(directory, there)
        own = directory / CARD
        edited = own.is_file() and not is_own(own.read_text(encoding="utf-8"))
        text = own.read_text(encoding="utf-8") if edited else model_card(there, _provenance(source), repository)
        (there / CARD).write_text(text, encoding="utf-8")
        try:
            hub = HfApi()
            address = hub.create_repo(repository, private=private, exist_ok=True)
            hub.upload_folder(repo_id=repository, folder_path=there, commit_message="A model of leanformer")
        except Exception as error:  # whatever the hub's and the network's libraries raise
            raise LeanformerError(f"{repository}: the hub does not take it ({first_line(error)})") from error
    return str(address)


def write_card(run: Path, results: Mapping[str, Any]) -> None:
    """Writes the card of the model that a study recommends into its directory, unless somebody has changed it there.

    Args:
        run: The run directory.
        results: The content of its ``results.json``.
    """
    if results["ship"] is None:
        return
    directory = run / results["ship"]
    card = directory / CARD
    there = card.read_text(encoding="utf-8") if card.is_file() else None
    if there is None or is_own(there):
        text = model_card(directory, _provenance(str(directory)))
        if text != there:
            write_atomically(card, text)


def _provenance(source: str) -> Provenance:
    """Where a model comes from; nothing where it lies in no run directory."""
    _, origin, study = find_model(source, "torch", "float32")
    if study is None:
        return Provenance()
    parts = Path(os.path.expanduser(source)).absolute().parts
    run, trial = Path(*parts[:-4]), "/".join(parts[-4:-1])
    results = row = None
    if (run / "results.json").is_file():
        results = read_results(run)
        row = next((one for one in rows_of(results) if trial in one["trials"]), None)
    base = _base_model(study)
    return Provenance(
        results=results,
        row=row,
        decision=origin.decision,
        seed=origin.seed,
        base_model=None if base is None else _hub_id(base) or Path(os.path.expanduser(base)).absolute().name,
        license=None if base is None else _license(base),
        dataset=_hub_id(study.data.source),
    )


def _base_model(study: Study) -> str | None:
    """The trained model that a study starts from: a hub id, or a directory; None where the baseline is a fresh one."""
    given = study.baseline.model
    return given if _hub_id(given) or Path(os.path.expanduser(given)).is_dir() else None


def _hub_id(source: str) -> str | None:
    return source if _ID.fullmatch(source) and not os.path.exists(source) else None


def _license(base: str) -> str | None:
    """What a model's card says of its license, where the card lies on this machine."""
    directory = Path(os.path.expanduser(base))
    card = directory / CARD if directory.is_dir() else try_to_load_from_cache(base, CARD)
    if not isinstance(card, str | Path) or not Path(card).is_file():
        return None
    try:
        found: Any = ModelCard.load(card).data.to_dict().get("license")
    except Exception:  # a card may hold anything
        return None
    return found if isinstance(found, str) else None
