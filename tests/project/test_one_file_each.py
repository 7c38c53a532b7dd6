"""A block is one file, and so is a family of a known shape: nothing outside names them."""

from __future__ import annotations

import ast
import pkgutil
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import torch
from places import ROOT
from transformers import AutoConfig, BertModel

import leanformer.blocks
import leanformer.model.families
from leanformer.blocks.kit.base import BLOCKS, blocks_at, find_block
from leanformer.core.errors import LeanformerError
from leanformer.model.baseline import fresh_outline
from leanformer.model.family import FAMILIES, family_of
from leanformer.model.hf import STUDENT_PREFIX
from leanformer.model.surgery import sites

SOURCE = ROOT / "src" / "leanformer"


def modules_of(package: ModuleType) -> set[str]:
    return {module.name for module in pkgutil.iter_modules(package.__path__) if not module.ispkg}


def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return {name for name in found if name.startswith("leanformer")}


def test_every_module_of_blocks_registers_a_block() -> None:
    homes = {
        block.__module__.rpartition(".")[2] for block in BLOCKS.values() if "leanformer.blocks" in block.__module__
    }
    assert homes == modules_of(leanformer.blocks)
    assert all(name == block.name for name, block in BLOCKS.items())
    assert list(BLOCKS) == sorted(BLOCKS)  # as messages list them


def test_an_unknown_block_is_named_with_all_that_are_known() -> None:
    with pytest.raises(LeanformerError, match="plan: unknown block 'x'; known blocks: attention, average, class_token"):
        find_block("x", "plan")
    assert blocks_at("mlp") == ["mlp", "none"]


def test_every_other_module_of_families_registers_one() -> None:
    assert {*(name.replace("-", "_") for name in FAMILIES), "found"} == modules_of(leanformer.model.families)
    assert family_of(BertModel).is_found  # which that module registers itself for
    assert list(FAMILIES)[:4] == ["vit", "deit", "marian", "bart"]


@pytest.mark.parametrize("name", list(FAMILIES))
def test_a_family_brings_its_students(name: str) -> None:
    family = FAMILIES[name]
    import_module("leanformer.auto")
    assert family.student_config_class.model_type == f"{STUDENT_PREFIX}{name}"
    assert family.student_model_class.config_class is family.student_config_class
    assert issubclass(family.student_model_class, family.model_class)
    assert AutoConfig.for_model(f"{STUDENT_PREFIX}{name}").__class__ is family.student_config_class
    assert family.auto_class._model_mapping[family.student_config_class] is family.student_model_class


def test_nothing_names_a_block_but_its_own_file() -> None:
    """The pooling is no exception among blocks: a classifier has one before any plan is there."""
    names = {f"leanformer.blocks.{name}" for name in modules_of(leanformer.blocks)}
    for path in SOURCE.rglob("*.py"):
        found = imports_of(path) & names
        assert found <= ({"leanformer.blocks.pooling"} if path.name == "image.py" else set()), path


def test_blocks_import_nothing_above_them() -> None:
    for path in (SOURCE / "blocks").rglob("*.py"):
        allowed = ("leanformer.core.", "leanformer.blocks.kit.")
        assert all(name.startswith(allowed) for name in imports_of(path)), path


def test_nothing_names_a_family_but_its_own_file() -> None:
    names = {f"leanformer.model.families.{name}" for name in modules_of(leanformer.model.families)}
    for path in SOURCE.rglob("*.py"):
        assert not imports_of(path) & names, path


def test_a_new_family_is_known_everywhere_by_its_registration(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    others = list(FAMILIES)
    monkeypatch.setitem(FAMILIES._items, "vit_again", replace(FAMILIES["vit"], name="vit_again"))
    assert set(FAMILIES) == {*others, "vit_again"}
    with torch.device("meta"):
        assert sites(fresh_outline("vit_again", {"num_hidden_layers": 1}))
    with pytest.raises(LeanformerError, match=f"families: {', '.join(FAMILIES)}"):
        fresh_outline("other", {})
