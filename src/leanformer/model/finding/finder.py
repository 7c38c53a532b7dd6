"""Finds a model's stacks, layers, attentions and MLPs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Literal

from torch import nn
from transformers import PreTrainedModel

from leanformer.blocks.kit.site import SiteKind
from leanformer.core.errors import LeanformerError
from leanformer.model.finding import facts
from leanformer.model.finding.forms import CallForm, form_of
from leanformer.model.finding.windows import max_distance
from leanformer.model.hf import STUDENT_PREFIX, recorded_attentions

Contract = Literal["whole", "core", "normed", "pair"]
"""What stands at a place: ``whole``, an attention with its output projection, or an MLP that is one module; ``core``,
an attention whose output projection stands beside it; ``normed``, one with norm and residual; ``pair``, the two maps of
an MLP that the layer holds itself."""


@dataclass(frozen=True)
class Place:
    """A place of an attention or an MLP in a model.

    Args:
        kind: ``self_attention``, ``cross_attention`` or ``mlp``.
        path: The path of its module in the model.
        contract: What stands there.
        form: The form of its calls.
        output: The path of its output projection (attentions) or second map (pairs); None where none was found.
        activation: The path of the activation between a pair's maps, where the layer holds it.
        norm: The path of the norm of a ``normed`` attention.
        width: Channels of what it reads and gives; None where that is not to be seen, and is the model's.
        max_distance: As of ``Site``.
        tells_positions: Whether it is what tells positions, by rotating queries and keys or by a bias of scores.
    """

    kind: SiteKind
    path: str
    contract: Contract
    form: CallForm
    output: str | None = None
    activation: str | None = None
    norm: str | None = None
    width: int | None = None
    max_distance: int | None = None
    tells_positions: bool = False


@dataclass
class FoundLayer:
    """A layer.

    Args:
        path: The path of its module.
        form: The form of its calls; None where it cannot be told, so that the layer cannot be taken out.
        places: What was found in it.
    """

    path: str
    form: CallForm | None
    places: dict[SiteKind, Place] = field(default_factory=dict)


@dataclass
class FoundStack:
    """Layers that follow each other.

    Args:
        body: The path of the model of transformers that holds them and is called with their masks; empty: the whole.
        causal: Whether a token reads no later ones.
        layers: The layers, in order.
        embeds_positions: Whether positions are added to the hidden states before the first layer.
    """

    body: str
    causal: bool
    layers: list[FoundLayer] = field(default_factory=list)
    embeds_positions: bool = False


def find(model: PreTrainedModel) -> dict[str, FoundStack]:
    """The stacks of a model by their names: ``encoder``, ``decoder``, or with the name of the part that they are in.

    Args:
        model: A model of transformers, as it was made; it is not changed, and may be an outline.

    Raises:
        LeanformerError: No attention was found, or one that blocks cannot stand in for; the message says why.
    """
    kind = _type_of(model)
    if kind in facts.NOT_FOUND:
        raise LeanformerError(f"{type(model).__name__}: {facts.NOT_FOUND[kind]}")
    stacks: dict[tuple[str, bool], FoundStack] = {}
    layers: dict[str, FoundLayer] = {}
    for path in _attentions(model):
        where = _layer_of(path, model)
        if where is None:
            continue
        attention, layer = model.get_submodule(path), model.get_submodule(where)
        crosses = any(word in path.removeprefix(where).lower() for word in facts.CROSS)
        body = _body_of(where, model)
        place = _attention_place(model, path, where, "cross_attention" if crosses else "self_attention")
        if not crosses:
            config = getattr(attention, "config", None) or getattr(model.get_submodule(body), "config", model.config)
            window = max_distance(attention, config, number_in_list(where), _is_causal(model, attention, body))
            place = replace(place, max_distance=window, tells_positions=_tells_positions(attention, place.form))
        if where not in layers:
            causal = _is_causal(model, attention, body) and not crosses
            form = None if kind in facts.LAYERS_STAY else _form_if_known(layer)
            found = layers[where] = FoundLayer(where, form)
            stacks.setdefault((body, causal), FoundStack(body, causal)).layers.append(found)
        if place.kind in layers[where].places:
            raise LeanformerError(
                f"{type(model).__name__}: the layer {where} has several attentions of one kind, "
                f"{layers[where].places[place.kind].path} and {path}, which blocks cannot stand in for yet"
            )
        layers[where].places[place.kind] = place
    if not layers:
        raise LeanformerError(
            f"{type(model).__name__}: no attention was found in it, neither in transformers' table of outputs nor by "
            "the names of its modules"
        )
    for stack in stacks.values():
        stack.embeds_positions = _embeds_positions(model, stack)
    for layer_path, found in layers.items():
        mlp = _mlp_place(model, model.get_submodule(layer_path), layer_path, list(found.places.values()))
        if mlp is not None:
            found.places["mlp"] = mlp
    return _named(list(stacks.values()))


def _type_of(model: PreTrainedModel) -> str:
    """The model type of an architecture, whether the model is one of its students or not."""
    return str(model.config.model_type).removeprefix(STUDENT_PREFIX)


def _attentions(model: PreTrainedModel) -> list[str]:
    """The paths of the modules that project queries, keys and values, in the model's order."""
    named = dict(model.named_modules())
    order = {path: number for number, path in enumerate(named)}
    recorded = recorded_attentions(model)
    classes = facts.ATTENTION_CLASSES.get(_type_of(model), ())
    if classes:
        recorded = {path for path, module in named.items() if type(module).__name__ in classes}
    if not recorded:
        recorded = {path for path, module in named.items() if _projects(module)}
    found = set()
    for path in recorded:
        below = ((f"{path}.{name}" if name else path, module) for name, module in named[path].named_modules())
        inner = [other for other, module in below if other in named and _projects(module)]
        # A table may name the sublayer; its attention is the module that projects.
        found.add(min(inner, key=len) if inner else path)
    return sorted(found, key=order.__getitem__)


def _children(module: nn.Module) -> dict[str, nn.Module]:
    return dict(module.named_children())


def _projects(module: nn.Module) -> bool:
    """Whether a module holds the maps to queries, keys and values itself."""
    names = set(_children(module))
    return bool(names & set(facts.FUSED)) or all(names & set(words) for words in facts.PROJECTIONS.values())


def _is_map(module: nn.Module | None) -> bool:
    """Whether a module is a linear map: it has a weight of two dimensions, as ``Linear`` and GPT-2's ``Conv1D``."""
    weight = getattr(module, "weight", None)
    return weight is not None and weight.dim() == 2 and not isinstance(module, nn.Embedding)


def _has_norm(module: nn.Module) -> bool:
    """Whether a module holds a norm of its own: then it may be more than an MLP."""
    return any("norm" in type(child).__name__.lower() for child in module.children())


def _layer_of(path: str, model: PreTrainedModel) -> str | None:
    """The path of the layer that a module is in: the innermost entry of a list of modules of one class.

    Lists of several classes, such as T5's sublayers, are layers only where no other list is around them.
    """
    parts = path.split(".")
    mixed = None
    for end in range(len(parts) - 1, 0, -1):
        holder = model.get_submodule(".".join(parts[:end]))
        if parts[end].isdecimal() and isinstance(holder, nn.ModuleList):
            entry = ".".join(parts[: end + 1])
            if len({type(module) for module in holder}) == 1:
                return entry
            mixed = entry
    return mixed


def _body_of(path: str, model: PreTrainedModel) -> str:
    """The path of the innermost model of transformers that a module is in; empty for the whole."""
    parts = path.split(".")
    for end in range(len(parts) - 1, 0, -1):
        if isinstance(model.get_submodule(".".join(parts[:end])), PreTrainedModel):
            return ".".join(parts[:end])
    return ""


def _is_causal(model: PreTrainedModel, attention: nn.Module, body: str) -> bool:
    """Whether a self-attention reads no later tokens: as it says itself, or else as the model that it is in."""
    said = getattr(attention, "is_causal", None)
    for one in (attention, getattr(attention, "config", None)):
        if said is True or getattr(one, "is_decoder", False) is True:
            return True
    if model.config.is_encoder_decoder:  # here some say that they are not, and get a mask that makes them so
        return model.can_generate() and "decoder" in body
    return said is None and model.can_generate()


def number_in_list(path: str) -> int:
    """The number of a layer in the list that holds it, in which there may be layers without attention."""
    return int(path.rpartition(".")[2])


def _tells_positions(attention: nn.Module, form: CallForm) -> bool:
    """Whether a self-attention is handed positions, or holds a table of them."""
    given = set(form.parameters) & set(facts.IN_ATTENTION)
    return bool(given) or any(getattr(attention, name, None) is not None for name in facts.SHARED_TABLES)


def _embeds_positions(model: PreTrainedModel, stack: FoundStack) -> bool:
    """Whether the model of a stack has what adds positions to hidden states, in front of the layers."""
    body = model.get_submodule(stack.body)
    layers = stack.layers[0].path.removeprefix(f"{stack.body}.").rpartition(".")[0]
    paths = (path for path, _ in chain(body.named_modules(), body.named_parameters()))
    names = (path.rpartition(".")[2].lower() for path in paths if not path.startswith(f"{layers}."))
    return any(
        any(word in name for word in facts.EMBEDDED_POSITIONS)
        and not any(word in name for word in facts.RELATIVE_POSITIONS)
        for name in names
    )


def _form_if_known(module: nn.Module) -> CallForm | None:
    try:
        return form_of(type(module))
    except LeanformerError:
        return None


def _attention_place(model: PreTrainedModel, path: str, layer: str, kind: SiteKind) -> Place:
    attention = model.get_submodule(path)
    children = _children(attention)
    output = next((f"{path}.{name}" for name in facts.OUTPUTS if _is_map(children.get(name))), None)
    norm = next((f"{path}.{name}" for name in facts.NORMS if name in children), None) if output is not None else None
    contract: Contract = "whole" if norm is None else "normed"
    parent = path.rpartition(".")[0]
    if output is None and parent != layer:
        beside = (f"{parent}.{name}" for name in facts.OUTPUTS_BESIDE)
        output = next((other for other in beside if _is_map(part_at(model, other))), None)
        contract = "whole" if output is None else "core"
    query = next((children[name] for name in (*facts.PROJECTIONS["query"], *facts.FUSED) if name in children), None)
    width = getattr(query, "in_features", None)
    given = getattr(None if output is None else model.get_submodule(output), "out_features", None)
    return Place(
        kind, path, contract, form_of(type(attention)), output, norm=norm, width=width if width == given else None
    )


def part_at(model: nn.Module, path: str) -> nn.Module | None:
    """The module at a path; None where there is none, as in a layer that was taken out."""
    try:
        return model.get_submodule(path)
    except AttributeError:
        return None


def _mlp_place(model: PreTrainedModel, layer: nn.Module, path: str, attentions: list[Place]) -> Place | None:
    taken = [place.path for place in attentions]
    for name, module in _inside(layer, path, taken):
        if name.rpartition(".")[2] in facts.MLPS and not _has_norm(module):
            form = _form_if_known(module)
            if form is not None and next(module.parameters(), None) is not None and not _is_map(module):
                return Place("mlp", name, "whole", form)
    for holder, module in [(path, layer), *_inside(layer, path, taken)]:
        for first, second in facts.PAIRS:
            one, two = part_at(module, first), part_at(module, second)
            if one is None or two is None or not _is_map(two) or (first != "intermediate" and not _is_map(one)):
                continue
            form = form_of(type(one))
            activation = next((name for name in facts.ACTIVATIONS if hasattr(module, name)), None)
            whole = _form_if_known(module) if holder != path and first != "intermediate" else None
            if whole is not None and not _has_norm(module):
                return Place("mlp", holder, "whole", whole)
            return Place(
                "mlp",
                f"{holder}.{first}",
                "pair",
                form,
                f"{holder}.{second}",
                activation=None if activation is None or first == "intermediate" else f"{holder}.{activation}",
            )
    return None


def _inside(layer: nn.Module, path: str, without: list[str]) -> Iterator[tuple[str, nn.Module]]:
    """The modules in a layer with their paths in the model, those of its attentions left out."""
    for name, module in layer.named_modules():
        full = f"{path}.{name}"
        if name and not any(full == other or full.startswith(f"{other}.") for other in without):
            yield full, module


def _named(stacks: list[FoundStack]) -> dict[str, FoundStack]:
    """The stacks by their names."""
    found: dict[str, FoundStack] = {}
    for stack in stacks:
        role = "decoder" if stack.causal else "encoder"
        alike = [other for other in stacks if other.causal == stack.causal]
        if len(alike) > 1:
            part = stack.body.split(".")[-1] or "main"
            role = f"{part.removesuffix('_model')}_{role}" if part not in ("encoder", "decoder") else part
        if role in found:
            role = f"{role}_{len(found)}"
        found[role] = stack
    return found
