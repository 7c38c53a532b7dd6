"""Any other architecture of transformers: its attentions and MLPs are found, not known beforehand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

from torch import nn
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
)

from leanformer.blocks.kit.base import AttentionWeights, BlockModule, MlpWeights
from leanformer.blocks.kit.site import SiteKind
from leanformer.core.errors import LeanformerError
from leanformer.model.attached import Attached, AttachedLayer, AttachedMlp, Masks, OpenedCore, OpenedPair
from leanformer.model.family import Family, Part, register_others
from leanformer.model.finding import facts
from leanformer.model.finding.finder import FoundLayer, FoundStack, Place, find, number_in_list, part_at
from leanformer.model.finding.forms import CallForm, form_of, parameters_of
from leanformer.model.finding.maps import attention_weights, mlp_weights, output_map, with_heads
from leanformer.model.hf import STUDENT_PREFIX, classes_of
from leanformer.model.shapes.student import Student
from leanformer.model.vision import TASK, is_classifier, pixel_input, prefix_tokens
from leanformer.model.weights import parameter_count

_PLACES = "leanformer_places"
"""The attribute of an opened model that holds what was found in it: replaced parts cannot be found again."""


@dataclass
class Places:
    """What was found in an opened model.

    Args:
        stacks: Its stacks.
        masks: Stack -> where padding is in what it reads.
    """

    stacks: dict[str, FoundStack]
    masks: dict[str, Masks] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class FoundFamily(Family):
    """An architecture whose attentions and MLPs are found (``finding``)."""

    is_found: ClassVar[bool] = True

    def parts(self, model: PreTrainedModel) -> Iterator[Part]:
        stacks = self._stacks(model)
        for stack_name, stack in stacks.items():
            for number, layer in enumerate(stack.layers):
                prefix = f"{stack_name}.{number}"
                width, heads = _width_and_heads(model, stack, layer)
                for kind, place in layer.places.items():
                    module = _standing(model, layer, place)
                    yield Part(
                        f"{prefix}.{kind}",
                        kind,
                        module is not None,
                        parameter_count(module),
                        0,
                        width,
                        heads,
                        stack.causal,
                        rotary=kind == "self_attention" and facts.ROTARY in place.form.parameters,
                        unplaced=place.tells_positions and not stack.embeds_positions,
                        max_distance=place.max_distance,
                        module=module,
                    )
                if layer.form is not None:
                    there = model.get_submodule(layer.path)
                    present = not isinstance(there, AttachedLayer)
                    whole = parameter_count(there)
                    yield Part(f"{prefix}.layer", "layer", present, whole, 0, width, heads, stack.causal)

    @property
    def task(self) -> str | None:
        if getattr(self.config_class, "is_encoder_decoder", False) and self._made_by(AutoModelForSeq2SeqLM):
            return "translation"
        if is_classifier(self.model_class):
            return TASK
        encodes = not getattr(self.config_class, "is_encoder_decoder", False)
        return "text-classification" if encodes and self._made_by(AutoModelForSequenceClassification) else None

    @property
    def described(self) -> str:
        return f"a {self.model_class.__name__}"

    def _made_by(self, auto_class: Any) -> bool:
        return self.model_class in classes_of(auto_class, self.config_class)

    def max_positions(self, config: Any) -> int | None:
        found = [getattr(config, key, None) for key in facts.POSITIONS]
        return min((most for most in found if isinstance(most, int)), default=None)

    def grid(self, model: PreTrainedModel) -> tuple[int, int] | None:
        if getattr(model.config, "depths", None) is not None:
            return None  # patches are merged from stage to stage
        taken = pixel_input(model.config)
        if taken.size is None or taken.patch is None:
            return None
        return taken.size[0] // taken.patch[0], taken.size[1] // taken.patch[1]

    def special_tokens_left(self, model: PreTrainedModel) -> int:
        return prefix_tokens(model)

    def check_config(self, config: Any, where: str) -> None:
        """Nothing beyond what transformers checks; see ``Family``."""

    def open(self, model: PreTrainedModel) -> None:
        if hasattr(model, _PLACES):
            return
        places = Places(find(model))
        setattr(model, _PLACES, places)
        for name, stack in places.stacks.items():
            body = model.get_submodule(stack.body)
            masks = places.masks[name] = Masks(parameters_of(type(body)))
            body.register_forward_pre_hook(masks.note, with_kwargs=True)
            for layer in stack.layers:
                for place in layer.places.values():
                    _open(model, place)

    def found_in(self, model: PreTrainedModel) -> Mapping[str, FoundStack]:
        return self._stacks(model)

    def module_at(self, model: PreTrainedModel, name: str) -> nn.Module | None:
        _, layer, place, _ = self._place(model, name)
        if place is not None:
            return _standing(model, layer, place)
        module = model.get_submodule(layer.path)
        return None if isinstance(module, AttachedLayer) else module

    def put(self, model: PreTrainedModel, name: str, module: nn.Module | None) -> None:
        stack_name, layer, place, number = self._place(model, name)
        stack = self._stacks(model)[stack_name]
        if place is None:
            self.check_choice(name, module is None)
            self._take_out(model, stack, layer, number)
            return
        if not isinstance(module, BlockModule | None) and place.kind != "mlp":  # its own, with fewer heads
            model.set_submodule(place.path, module)
            return
        there = model.get_submodule(place.path)
        _hand_on_table(model, stack, place, number)
        if place.kind == "mlp":
            form = form_of(type(there)) if isinstance(there, OpenedPair) else place.form
            if isinstance(there, AttachedMlp):  # another module stands in already
                form = there.form
            model.set_submodule(place.path, AttachedMlp(module, form))
            return
        norm = None if place.norm is None else model.get_submodule(place.norm)
        masks = getattr(model, _PLACES).masks[stack_name]
        crosses = place.kind == "cross_attention"
        replaced = there.core if isinstance(there, OpenedCore) else there
        attached = Attached(cast(BlockModule | None, module), replaced, place.form, masks, number, crosses, norm)
        model.set_submodule(place.path, attached)

    def check_choice(self, name: str, empties: bool) -> None:
        if name.endswith(".layer") and not empties:
            raise LeanformerError(
                f"{name}: a layer of this architecture can be taken out (none), but no block can stand for the whole "
                "of it; name its parts"
            )

    def _take_out(self, model: PreTrainedModel, stack: FoundStack, layer: FoundLayer, number: int) -> None:
        assert layer.form is not None  # else it is no site
        for place in layer.places.values():
            _hand_on_table(model, stack, place, number)
        there = model.get_submodule(layer.path)
        model.set_submodule(layer.path, AttachedLayer(there, layer.form, number_in_list(layer.path)))

    @contextmanager
    def without_layers(self, model: PreTrainedModel, names: Iterable[str]) -> Iterator[None]:
        layers = [self._place(model, name)[1].path for name in names]
        held = {path: model.get_submodule(path) for path in layers}
        for name in names:
            self.put(model, name, None)
        try:
            yield
        finally:
            for path, layer in held.items():
                model.set_submodule(path, layer)

    def is_own_attention(self, module: nn.Module | None) -> bool:
        return module is not None and not isinstance(module, BlockModule)

    def form_at(self, model: PreTrainedModel, name: str) -> CallForm:
        _, layer, place, _ = self._place(model, name)
        form = layer.form if place is None else place.form
        assert form is not None  # else it is no site
        return form

    def holds_norm(self, model: PreTrainedModel, name: str) -> bool:
        _, _, place, _ = self._place(model, name)
        return place is not None and place.norm is not None

    def attention_weights(self, module: nn.Module | None) -> AttentionWeights | None:
        return None if module is None or isinstance(module, BlockModule) else attention_weights(module)

    def output_projection(self, module: Any) -> nn.Module | None:
        return output_map(module)

    def with_heads(self, attention: Any, heads: AttentionWeights) -> nn.Module:
        return with_heads(attention, heads)

    def mlp_weights(self, mlp: Any, config: Any) -> MlpWeights | None:
        return mlp_weights(mlp, config)

    def output_of_mlp(self, mlp: Any) -> nn.Module | None:
        return getattr(mlp, "fc2", None)

    def _stacks(self, model: PreTrainedModel) -> Mapping[str, FoundStack]:
        places: Places | None = getattr(model, _PLACES, None)
        return find(model) if places is None else places.stacks

    def _place(self, model: PreTrainedModel, name: str) -> tuple[str, FoundLayer, Place | None, int]:
        """The stack, the layer and the place of a site, and the layer's number; no place where it is the layer."""
        stack, number, kind = name.split(".")
        layer = self._stacks(model)[stack].layers[int(number)]
        return stack, layer, None if kind == "layer" else layer.places[cast(SiteKind, kind)], int(number)


def _standing(model: PreTrainedModel, layer: FoundLayer, place: Place) -> nn.Module | None:
    """What stands at a place of a layer, as one module; None where nothing does. The model is not changed."""
    if isinstance(model.get_submodule(layer.path), AttachedLayer):
        return None
    module = _as_one(model, place)
    return module.block if isinstance(module, Attached | AttachedMlp) else module


def _as_one(model: PreTrainedModel, place: Place) -> nn.Module:
    """What stands at a place as one module; the model is not changed."""
    module = model.get_submodule(place.path)
    opened = isinstance(module, OpenedCore | OpenedPair | Attached | AttachedMlp)
    if opened or place.output is None or place.contract not in ("core", "pair"):
        return module
    beside = model.get_submodule(place.output)
    if place.contract == "core":
        return OpenedCore(module, beside)
    layer = model.get_submodule(place.path.rpartition(".")[0])
    activation = None if place.activation is None else getattr(layer, place.activation.rpartition(".")[2])
    dropouts = [getattr(layer, key, None) for key in facts.ACTIVATION_DROPOUTS] if activation is not None else []
    return OpenedPair(module, activation, beside, next((one for one in dropouts if isinstance(one, float)), 0.0))


def _open(model: PreTrainedModel, place: Place) -> None:
    """Makes a place one module; what stood beside it becomes the identity."""
    if place.contract not in ("core", "pair"):
        return
    assert place.output is not None
    model.set_submodule(place.path, _as_one(model, place))
    model.set_submodule(place.output, nn.Identity())
    if place.activation is not None:
        layer = model.get_submodule(place.path.rpartition(".")[0])
        setattr(layer, place.activation.rpartition(".")[2], nn.Identity())
        for key in facts.ACTIVATION_DROPOUTS:
            if isinstance(getattr(layer, key, None), float):
                setattr(layer, key, 0.0)


def _width_and_heads(model: PreTrainedModel, stack: FoundStack, layer: FoundLayer) -> tuple[int, int]:
    """Width of the hidden states in a layer, as its attention says or else the configuration, and heads."""
    config: Any = getattr(model.get_submodule(stack.body), "config", model.config)
    widths = (getattr(config, key, None) for key in ("hidden_size", "d_model", "dim"))
    seen = (place.width for place in layer.places.values())
    width = next((width for width in (*seen, *widths) if isinstance(width, int)), None)
    if width is None:
        raise LeanformerError(f"{type(model).__name__}: how wide its hidden states are in {layer.path} was not found")
    side = "decoder" if stack.causal else "encoder"
    keys = ("num_attention_heads", f"{side}_attention_heads", "num_heads", "n_heads", "n_head")
    heads = next((getattr(config, key) for key in keys if isinstance(getattr(config, key, None), int)), 1)
    return int(width), int(heads)


def _hand_on_table(model: PreTrainedModel, stack: FoundStack, place: Place, number: int) -> None:
    """Lets the next attention keep the table of relative positions that this one holds for all that follow (T5)."""
    attention = model.get_submodule(place.path)
    name = next((name for name in facts.SHARED_TABLES if getattr(attention, name, None) is not None), None)
    if name is None or "position_bias" not in place.form.parameters:
        return
    for layer in stack.layers[number + 1 :]:
        other = layer.places.get(place.kind)
        module: Any = None if other is None else part_at(model, other.path)
        if module is None or isinstance(module, Attached):
            continue
        if getattr(module, name, None) is None:
            setattr(module, name, getattr(attention, name))
            if (flag := facts.SHARED_TABLES[name]) is not None:
                setattr(module, flag, True)
        return


class FoundStudent(Student):
    """Mixed into any model of transformers: reduced as its plan says."""


_CONFIGURATIONS: dict[type[PreTrainedConfig], type[PreTrainedConfig]] = {}
_FAMILIES: dict[type[PreTrainedModel], FoundFamily] = {}
"""Those that were made already: a class is one, however often it is asked for."""


def student_config_class(config_class: type[PreTrainedConfig]) -> type[PreTrainedConfig]:
    """The configuration of an architecture's students: its own, with a plan and a model type of its own."""
    if config_class not in _CONFIGURATIONS:
        _CONFIGURATIONS[config_class] = _make_config_class(config_class)
    return _CONFIGURATIONS[config_class]


def _make_config_class(config_class: type[PreTrainedConfig]) -> type[PreTrainedConfig]:
    return type(
        f"Lean{config_class.__name__}",
        (config_class,),
        {
            "__doc__": f"{config_class.__name__} and the resolved plan of a student.",
            "__module__": __name__,
            "__annotations__": {"plan": "dict[str, Any] | None"},
            "model_type": f"{STUDENT_PREFIX}{config_class.model_type}",
            "plan": None,
        },
    )


def found_family(model_class: type[PreTrainedModel]) -> FoundFamily:
    """The family of a class of models of transformers, or of its students.

    Raises:
        LeanformerError: The class has no configuration that a model could be made of.
    """
    if issubclass(model_class, FoundStudent):
        _, model_class = model_class.__bases__
    if model_class not in _FAMILIES:
        _FAMILIES[model_class] = _make_family(model_class)
    return _FAMILIES[model_class]


def _make_family(model_class: type[PreTrainedModel]) -> FoundFamily:
    config_class = model_class.config_class
    if config_class is None or model_class is PreTrainedModel:
        raise LeanformerError(f"a {model_class.__name__} is no model of one architecture of transformers")
    own = student_config_class(config_class)
    student = type(
        f"Lean{model_class.__name__}",
        (FoundStudent, model_class),
        {"__doc__": f"A reduced {model_class.__name__}.", "__module__": __name__, "config_class": own},
    )
    return FoundFamily(
        name=config_class.model_type,
        config_class=config_class,
        model_class=model_class,
        student_config_class=own,
        student_model_class=student,
    )


register_others(found_family)
