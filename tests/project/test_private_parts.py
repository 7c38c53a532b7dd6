"""Private names of other libraries stand behind one door each."""

from __future__ import annotations

import ast
import re

import pytest
from places import ROOT

SOURCE = ROOT / "src" / "leanformer"
DOORS = {"core/torch_internals.py", "model/hf.py", "core/sacrebleu_internals.py"}
LIBRARIES = ("torch", "transformers", "sacrebleu")
# Attributes of transformers' and sacreBLEU's objects: by their names, as nothing in a source says of what type one is.
ATTRIBUTES = {
    "_attn_implementation",
    "_can_record_outputs",
    "_extract_corpus_statistics",
    "_from_model_config",
    "_keys_to_ignore_on_load_missing",
    "_keys_to_ignore_on_load_unexpected",
    "_keys_to_ignore_on_save",
    "_tied_weights_keys",
    "kineto_results",
}
# A family's decoder declares its table of outputs in transformers' own form, made by the door.
DECLARES = re.compile(r"_can_record_outputs = decoder_records\(")


def private(tree: ast.AST) -> set[str]:
    """Private names of the libraries that a module imports, reaches or passes."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if _is_private(alias.name)}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {name for alias in node.names if _is_private(name := f"{node.module}.{alias.name}")}
        elif isinstance(node, ast.Attribute):
            if node.attr in ATTRIBUTES or _is_private(ast.unparse(node)):
                found.add(ast.unparse(node))
        elif isinstance(node, ast.keyword) and node.arg in ATTRIBUTES:
            found.add(node.arg)
        elif isinstance(node, ast.Constant) and node.value in ATTRIBUTES:
            found.add(str(node.value))
    return found


def _is_private(dotted: str) -> bool:
    library, *parts = dotted.split(".") if re.fullmatch(r"[\w.]+", dotted) else [""]
    return library in LIBRARIES and any(re.match(r"_(?!_)", part) for part in parts)


@pytest.mark.parametrize(
    ("program", "found"),
    [
        ("import torch._dynamo as dynamo", {"torch._dynamo"}),
        ("from torch.fx.experimental import _config", {"torch.fx.experimental._config"}),
        ("from transformers.utils.x import _Y", {"transformers.utils.x._Y"}),
        ("torch._softmax(x)", {"torch._softmax"}),
        ("getattr(config, '_attn_implementation')", {"_attn_implementation"}),
        ("f(_from_model_config=True)", {"_from_model_config"}),
        ("torch.nn.Linear(1, 1).weight; self._weight; torch.__version__", set()),
    ],
)
def test_what_is_looked_for_is_found(program: str, found: set[str]) -> None:
    assert private(ast.parse(program)) == found


def test_private_names_stand_behind_the_doors_alone() -> None:
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).as_posix()
        if name not in DOORS:
            text = DECLARES.sub("_ = decoder_records(", path.read_text())
            assert private(ast.parse(text)) == set(), name


def test_every_door_is_used() -> None:
    for door in DOORS:
        assert private(ast.parse((SOURCE / door).read_text())), door
