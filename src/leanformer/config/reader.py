"""Reads a study file, and options of the command line that are written like one."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, get_args

from pydantic import (
    BaseModel,
    ValidationError,
)

from leanformer.config import yaml_text
from leanformer.config.base import STUDIES, CandidateConfig, Study
from leanformer.core.errors import LeanformerError, quoted
from leanformer.core.fields import (
    first_of,
    keys_of,
    sentence,
)
from leanformer.core.paths import as_path


def read_study(path: str | PathLike[str], overrides: Sequence[str] = ()) -> Study:
    """Reads a study file.

    Args:
        path: A YAML file.
        overrides: ``key.key=value`` each, the value as YAML; they replace what the file says.

    Raises:
        LeanformerError: The file is missing, is not YAML, or a key or value is wrong; the message names it.
    """
    data = _read_mapping(path)
    for override in _checked(overrides, "overrides"):
        _apply(override, data)
    return make_study(data, str(path))


def _read_mapping(path: str | PathLike[str]) -> dict[str, Any]:
    data = yaml_text.read_file(as_path(path, "study"))
    if not isinstance(data, dict):
        raise LeanformerError(f"{path}: a study is a mapping with the keys {', '.join(Study.model_fields)}")
    return data


def _checked(options: object, name: str) -> Sequence[str]:
    if not isinstance(options, list | tuple) or not all(isinstance(option, str) for option in options):
        raise LeanformerError(f"{name}: give a list of texts such as ['train.epochs=5'], not {quoted(options)}")
    return options


def read_data(source: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """A study's ``data`` section as plain data: with this source, or that of a study file (.yaml) given as the source.

    Args:
        source: As ``data.source``, or a study file's path.
        overrides: ``key=value`` each, of that section.

    Raises:
        LeanformerError: The file or an override cannot be read.
    """
    data = {"source": source}
    if source.endswith((".yaml", ".yml")):
        data = _read_mapping(source).get("data", {})
        if not isinstance(data, dict):
            raise LeanformerError(f"{source}: data: give a mapping of keys, not {quoted(data)}")
    for override in overrides:
        _apply(override, data, "--set", "source_language=de")
    return data


def read_plan(path: str | PathLike[str]) -> dict[str, Any]:
    """Reads a file that holds a plan alone.

    Args:
        path: A YAML file: sites with their blocks, as in a candidate's ``plan``.

    Raises:
        LeanformerError: The file is missing, or holds no mapping.
    """
    data = yaml_text.read_file(as_path(path, "plan"))
    if not isinstance(data, dict) or not data:
        raise LeanformerError(f'{path}: a plan is a mapping of sites to blocks, such as "*.self_attention": slots')
    plan: dict[str, Any] = yaml_text.plain(data, str(path))
    return plan


def read_probes(options: Sequence[str]) -> dict[str, Any]:
    """Blocks with their arguments by name, each written ``name={block: slots, rank: 8}``.

    Raises:
        LeanformerError: One is not written so.
    """
    probes: dict[str, Any] = {}
    for option in options:
        name = option.partition("=")[0].strip()
        if name in probes:
            raise LeanformerError(f"--probe {quoted(name)}: the name is given twice; choose another")
        check_probe_name(name, "--probe")
        _apply(option, probes, "--probe", "lean={block: slots, rank: 8}")
    for name, entry in probes.items():
        if isinstance(entry, str):
            probes[name] = {"block": entry}
        elif not isinstance(entry, dict) or "block" not in entry:
            raise LeanformerError(f"--probe {name}: write a block's name or {{block: name, argument: value}}")
    return probes


def check_probe_name(name: object, where: str) -> None:
    """Refuses what cannot be the name of an inspection's probe.

    Raises:
        LeanformerError: It is no text of 1 to 40 letters, digits, spaces, - and _, or a comparison has the name.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[\w-]([\w -]{0,38}[\w-])?", name):
        raise LeanformerError(
            f"{where} {quoted(name)}: a probe's name has 1 to 40 letters, digits, spaces, - and _; its block follows "
            "it, such as 'lean={block: slots, rank: 8}'"
        )
    if name in ("none", "linear"):
        raise LeanformerError(f"{where} {name!r}: every inspection has a comparison of this name; choose another name")


def make_study(data: Mapping[str, Any], where: str = "study") -> Study:
    """Checks a study given as plain data.

    Args:
        data: Keys as in a study file -> mappings, lists, texts and numbers; a path is taken as text.
        where: What to name as the place of a mistake.

    Raises:
        LeanformerError: A key is unknown or missing, or a value is wrong; the message names it and ``where``.
    """
    if not isinstance(data, Mapping):
        raise LeanformerError(f"{where}: a study is a mapping of keys, not {quoted(data)}")
    task = data.get("task", "image-classification")
    if not isinstance(task, str) or task not in STUDIES:
        raise LeanformerError(f"{where}: task: there is no task {quoted(task)}; tasks: {', '.join(STUDIES)}")
    form = STUDIES[task]
    plain = yaml_text.plain(data, where)
    try:
        # By way of JSON: pydantic's strict mode then takes a list for a tuple, which YAML cannot write.
        return form.model_validate_json(json.dumps(plain))
    except ValidationError as error:
        raise LeanformerError(f"{where}: {_problem(error, plain, form)}") from None


def _apply(override: str, data: dict[str, Any], option: str = "--set", example: str = "train.epochs=5") -> None:
    path, equals, value = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise LeanformerError(f"{option} {override}: write key=value, such as {example}")
    if len(keys) > yaml_text.DEEPEST:
        raise LeanformerError(f"{option} {override}: keys are nested more than {yaml_text.DEEPEST} deep")
    parsed = yaml_text.read_value(value, f"{option} {override}")
    for key in keys[:-1]:
        inner = data.setdefault(key, {})
        if not isinstance(inner, dict):
            raise LeanformerError(f"{option} {override}: {quoted(key)} holds a value, not keys")
        data = inner
    data[keys[-1]] = parsed


def _problem(error: ValidationError, data: Mapping[str, Any], form: type[Study]) -> str:
    """The first mistake in one line: which key, and what would be right."""
    first = first_of(error, data)
    keys = keys_of(first)
    name = ".".join(keys)
    if first["type"] == "extra_forbidden":
        known = _known_keys(keys[:-1], form)
        close = difflib.get_close_matches(keys[-1][:100], known, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return f"unknown key {quoted(name)}; {hint}keys there: {', '.join(known)}"
    if first["type"] == "missing":
        return f"the key {quoted(name)} is missing"
    return f"{name}: {sentence(first)}" if name else sentence(first)


def _known_keys(path: list[str], form: type[Study]) -> list[str]:
    section: type[BaseModel] = form
    for key in path:
        if section is form and key == "candidates":
            section = CandidateConfig
        elif key in section.model_fields:
            annotation = section.model_fields[key].annotation
            for part in (annotation, *get_args(annotation)):
                if isinstance(part, type) and issubclass(part, BaseModel):
                    section = part
    return [field.alias or name for name, field in section.model_fields.items()]
