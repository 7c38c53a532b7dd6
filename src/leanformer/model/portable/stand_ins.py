"""What stands, in the file that a student carries, for definitions that need leanformer's registries or pydantic.

Each has the name of what it stands for. What a student was checked for when it was made is not checked again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from leanformer.blocks.kit.base import Block
from leanformer.blocks.kit.site import Site
from leanformer.model.family import Family
from leanformer.model.finding.finder import FoundLayer, FoundStack, Place
from leanformer.model.finding.forms import form_of
from leanformer.model.patches import read_color
from leanformer.model.surgery import kept_at, put

# ruff: noqa: F821
# What is said of one student, at the end of its file.
FAMILY: Family
SITES: Mapping[str, Site]
DEFAULTS: Mapping[str, Mapping[str, Any]]
STACKS: Mapping[str, Any]


class LeanformerError(Exception):
    """The model is called in a way that it does not understand."""


class Arguments(SimpleNamespace):
    """A block's arguments as the plan has them."""

    def model_dump(self, exclude: Collection[str] = ()) -> dict[str, Any]:
        """All arguments but the ones that are excluded."""
        return {name: value for name, value in vars(self).items() if name not in exclude}


BLOCKS: dict[str, type[Block]] = {}
"""Name -> block."""


def register(block: type[Block]) -> type[Block]:
    """Class decorator: makes a block known under its name."""
    BLOCKS[block.name] = block
    return block


def find_block(name: str, where: str) -> type[Block]:
    """The block of this name."""
    return BLOCKS[name]


def check_arguments(block: type[Block], arguments: Mapping[str, Any], where: str) -> Arguments:
    """The arguments with the defaults of those that the plan does not say."""
    return Arguments(**{**DEFAULTS[block.name], **arguments})


def build(model: PreTrainedModel, site: Site, entry: Mapping[str, Any], take_over: bool) -> nn.Module | None:
    """The module that an entry of the plan makes for a site, on the model's device and in its precision.

    It stands for the function of this name where no block is made of an attention that stands there.
    """
    arguments = dict(entry)
    block = find_block(arguments.pop("block"), site.name)
    device, dtype = kept_at(model, site)
    module = block.build(check_arguments(block, arguments, site.name), site, None)
    return None if module is None else module.to(device=device, dtype=dtype)


def memory_named(what: str, remedy: str) -> AbstractContextManager[None]:
    """Nothing: an error about memory stays as it is."""
    return nullcontext()


def find_family(model: PreTrainedModel, argument: str = "model") -> Family:
    """What is known of the architecture."""
    return FAMILY


def find(model: PreTrainedModel) -> dict[str, FoundStack]:
    """The stacks of the model by their names. Their places are told; how they are called is read from their source."""

    def form(path: str) -> Any:
        return form_of(type(model.get_submodule(path)))

    return {
        name: FoundStack(
            stack["body"],
            stack["causal"],
            [
                FoundLayer(
                    layer["path"],
                    form(layer["path"]) if layer["can_go"] else None,
                    {kind: Place(kind, form=form(place["path"]), **place) for kind, place in layer["places"].items()},
                )
                for layer in stack["layers"]
            ],
        )
        for name, stack in STACKS.items()
    }


class Student(PreTrainedModel):
    """Mixed into a Hugging Face model: reduced as its configuration's ``plan`` says."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        read_color(self)
        FAMILY.open(self)
        for name, site in SITES.items():
            put(self, site, build(self, site, config.plan[name], take_over=False))
