"""Writes the file by which transformers alone loads a student, and says in the configuration that it is there."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from leanformer.blocks.kit.base import Block, find_block
from leanformer.blocks.kit.site import Site
from leanformer.model.family import Family, find_family
from leanformer.model.finding.finder import FoundStack
from leanformer.model.hf import auto_classes_of
from leanformer.model.portable.bundle import Bundle, Reference
from leanformer.model.surgery import build

FILE = "modeling_leanformer.py"
"""The file's name."""
_OWN = "leanformer"
_STAND_INS = {
    "leanformer.blocks.kit.base": ("Arguments", "register", "find_block", "check_arguments"),
    "leanformer.core.errors": ("LeanformerError",),
    "leanformer.core.memory": ("memory_named",),
    "leanformer.model.family": ("find_family",),
    "leanformer.model.finding.finder": ("find",),
    "leanformer.model.shapes.student": ("Student",),
}
"""Module -> what ``stand_ins`` stands for in it."""


def student_file(model: PreTrainedModel, sites: Mapping[str, Site]) -> str:
    """The text of a student's file: its class, the blocks in it, and what these are made of.

    What was found in an architecture is written down in it, so that the finder is not needed; how its modules are
    called is read again from the source of transformers, which may be of another version.

    Args:
        model: The student.
        sites: Where blocks stand in it, as they were told of their sites.

    Raises:
        LeanformerError: The source of one of the blocks cannot be read.
    """
    family = find_family(model)
    plan: Mapping[str, Mapping[str, Any]] = model.config.plan
    blocks = [find_block(name, "plan") for name in sorted({plan[site]["block"] for site in sites})]
    packages = {_OWN, *(block.__module__.partition(".")[0] for block in blocks)}
    here = f"{__package__}.stand_ins"
    stand_ins = {
        Reference(module, name): Reference(here, name) for module, names in _STAND_INS.items() for name in names
    }
    of_heads = any(isinstance(plan[site].get("heads"), list) for site in sites)
    if of_heads or any(block.own_attention for block in blocks):  # made of an attention that stands there
        stand_ins[Reference(here, build.__name__)] = Reference(build.__module__, build.__name__)
    bundle = Bundle(packages, stand_ins, first=here)
    for block in blocks:
        bundle.add(block)
    classes = _classes(bundle, family)
    data = _data(bundle, family, blocks, sites, family.found_in(model))
    return "\n\n\n".join([_header(family, packages), bundle.text().rstrip(), *classes, *data]) + "\n"


def auto_map(family: Family) -> dict[str, str]:
    """What a configuration says of the file: which of its classes each ``Auto`` class of transformers takes."""
    stem = FILE.removesuffix(".py")
    model = f"{stem}.{family.student_model_class.__name__}"
    return {
        "AutoConfig": f"{stem}.{family.student_config_class.__name__}",
        **dict.fromkeys(auto_classes_of(family.model_class), model),
    }


def _header(family: Family, packages: set[str]) -> str:
    name = family.model_class.__name__
    auto = next(iter(auto_classes_of(family.model_class)), "AutoModel")
    others = ", ".join(sorted(packages - {_OWN}))
    also = f"Blocks of {others} are under its own license.\n" if others else ""
    return f'''"""A reduced {name}, in one file: with it transformers alone loads the model beside it.

    from transformers import {auto}
    model = {auto}.from_pretrained(DIRECTORY, trust_remote_code=True)

leanformer {importlib.metadata.version(_OWN)} wrote this file when the model was saved. It holds the parts of
leanformer's source that the model is made of (Apache License 2.0), and no others. What stands where is in config.json,
under "plan".
{also}"""'''


def _classes(bundle: Bundle, family: Family) -> list[str]:
    """The classes of the student and its configuration where they have no source: they are made from others."""
    student, config = family.student_model_class, family.student_config_class
    texts = []
    for kind, lines in (
        (config, [f"model_type = {config.model_type!r}", "plan: dict[str, Any] | None = None"]),
        (student, [f"config_class = {config.__name__}"]),
    ):
        bundle.overrides(kind)
        if hasattr(importlib.import_module(kind.__module__), kind.__name__):
            bundle.add(kind)
        else:
            bases = ", ".join(bundle.add(base) for base in kind.__bases__)
            body = "\n    ".join([f'"""{kind.__doc__}"""', "", *lines])
            texts.append(f"class {kind.__name__}({bases}):\n    {body}")
    return texts


def _data(
    bundle: Bundle,
    family: Family,
    blocks: list[type[Block]],
    sites: Mapping[str, Site],
    stacks: Mapping[str, FoundStack],
) -> list[str]:
    """What is said of this student alone."""
    made_by_hand = {family.student_model_class, family.student_config_class}
    settings = []
    for one in fields(family):
        value = getattr(family, one.name)
        if isinstance(value, type):
            settings.append(f"{one.name}={value.__name__ if value in made_by_hand else bundle.add(value)}")
        else:
            settings.append(f"{one.name}={value!r}")
    kind, site = bundle.add(type(family)), bundle.add(Site)
    told = "".join(f"    {name!r}: {_site(site, value)},\n" for name, value in sites.items())
    defaults = "".join(f"    {block.name!r}: {_defaults(block)!r},\n" for block in blocks)
    texts = [
        "# This student",
        f"FAMILY = {kind}(\n" + "".join(f"    {setting},\n" for setting in settings) + ")",
        f"SITES = {{\n{told}}}\n" + '"""Where blocks stand, in the order in which they are put there."""',
        f"DEFAULTS = {{\n{defaults}}}\n" + '"""Block -> the values of arguments that a plan leaves out."""',
    ]
    if stacks:
        found = "".join(f"    {name!r}: {_stack(stack)},\n" for name, stack in stacks.items())
        texts.append(
            f"STACKS = {{\n{found}}}\n" + '"""Where the architecture keeps its layers, attentions and MLPs."""'
        )
    return ["\n".join(texts)]


def _site(kind: str, site: Site) -> str:
    defaults = {one.name: one.default for one in fields(site)}
    told = {one.name: getattr(site, one.name) for one in fields(site)}
    return f"{kind}({', '.join(f'{key}={value!r}' for key, value in told.items() if value != defaults[key])})"


def _defaults(block: type[Block]) -> dict[str, Any]:
    known = block.Arguments.model_fields.items()
    # What is computed from other arguments was written out when the plan was resolved.
    return {name: one.default for name, one in known if not one.is_required() and one.default_factory is None}


def _stack(stack: FoundStack) -> str:
    lines = ["{", f"        'body': {stack.body!r},", f"        'causal': {stack.causal},", "        'layers': ["]
    for layer in stack.layers:
        lines.append(f"            {{'path': {layer.path!r}, 'can_go': {layer.form is not None}, 'places': {{")
        for kind, place in layer.places.items():
            told = {key: value for key, value in vars(place).items() if value is not None}
            lines.append(f"                {kind!r}: { {key: told[key] for key in told if key not in _NOT_TOLD} },")
        lines.append("            }},")
    return "\n".join([*lines, "        ],", "    }"])


_NOT_TOLD = ("kind", "form")
"""What a place says that is told before it, or read from its source."""


def write_student_file(model: PreTrainedModel, sites: Mapping[str, Site], directory: Path) -> None:
    """Writes a student's file, and names it in the configuration; see ``student_file``."""
    text = student_file(model, sites)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / FILE).write_text(text, encoding="utf-8")
    model.config.auto_map = auto_map(find_family(model))
