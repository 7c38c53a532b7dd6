"""What a family knows of an architecture: where its sites are, how they are opened, what its students are."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import TRANSFORMERS_DYNAMIC_MODULE_NAME

from leanformer.blocks.kit.base import AttentionWeights, MlpWeights
from leanformer.blocks.kit.site import SiteKind
from leanformer.core.errors import LeanformerError
from leanformer.core.registry import Registry
from leanformer.model.finding.forms import PLAIN, CallForm
from leanformer.model.hf import STUDENT_PREFIX, classes_of, configuration_of_type

if TYPE_CHECKING:  # what is found is a student's or not, by the prefix below
    from leanformer.model.finding.finder import FoundStack


@dataclass(frozen=True)
class Part:
    """A place of a model: what stands there, and what a ``Site`` says of the place.

    Args:
        name: The site's name.
        kind: Its kind.
        present: Whether anything stands there.
        parameters: Numbers stored there, without ``norm_parameters``.
        norm_parameters: Numbers of the norm that goes with it.
        d_model: Width of the hidden states, channels.
        heads: Attention heads at this place.
        causal: Whether a token reads no later ones there.
        rotary: As of ``Site``; ``unplaced`` and ``max_distance`` likewise.
        module: What stands there, as one module; None where nothing does.
    """

    name: str
    kind: SiteKind
    present: bool
    parameters: int
    norm_parameters: int
    d_model: int
    heads: int
    causal: bool
    rotary: bool = False
    unplaced: bool = False
    max_distance: int | None = None
    module: nn.Module | None = None


@dataclass(frozen=True, kw_only=True)
class Family:
    """One Hugging Face architecture.

    Args:
        name: The configuration's ``model_type``.
        config_class: Its configuration.
        model_class: Its model for the family's task.
        student_config_class: The configuration of its students, which carries their plan.
        student_model_class: The model of its students.
        special_tokens: Tokens before an image's patches (class, distillation); 0 in texts.
        has_decoder_vocabulary: Whether the configuration can give a decoder a vocabulary of its own
            (``decoder_vocab_size``).

    Class attributes:
        auto_class: The class of transformers that loads models of this task.
        is_found: Whether its parts are found in each model, and nothing of the architecture is known beforehand.
        has_pooling: Whether a classifier reads the last layer's tokens at a site of its own.
        shape_keys: The configuration keys that say how large a model is; each is 1 or more. Empty: not known.
        without_effect: Configuration key -> why it would do nothing in a fresh model; besides those of every family.
    """

    name: str
    config_class: type[PreTrainedConfig]
    model_class: type[PreTrainedModel]
    student_config_class: type[PreTrainedConfig]
    student_model_class: type[PreTrainedModel]
    special_tokens: int = 0
    has_decoder_vocabulary: bool = False

    auto_class: ClassVar[Any]
    is_found: ClassVar[bool] = False
    has_pooling: ClassVar[bool] = False
    shape_keys: ClassVar[tuple[str, ...]] = ()
    without_effect: ClassVar[Mapping[str, str]] = {}

    @property
    def described(self) -> str:
        """Such a model in words, with an article."""
        raise NotImplementedError

    @property
    def task(self) -> str | None:
        """The study's task that such models are for; None where they are for none."""
        raise NotImplementedError

    def parts(self, model: PreTrainedModel) -> Iterator[Part]:
        """The places of a model that a plan can name, in the model's order, but for the pooling.

        Args:
            model: The model, opened or not; it is not changed.
        """
        raise NotImplementedError

    def check_config(self, config: Any, where: str) -> None:
        """Checks the keys of a configuration that must fit each other.

        Args:
            config: The configuration.
            where: What an error names as the place.

        Raises:
            LeanformerError: They do not; the message names both.
        """
        raise NotImplementedError

    def max_positions(self, config: Any) -> int | None:
        """Most tokens that the model takes; None where their number follows from the image."""
        return None

    def grid(self, model: PreTrainedModel) -> tuple[int, int] | None:
        """Rows and columns of an image's patches; None in texts."""
        return None

    def special_tokens_left(self, model: PreTrainedModel) -> int:
        """Tokens before an image's patches, as far as they have not been dropped."""
        return 0

    def drop_special_tokens(self, model: PreTrainedModel) -> None:
        """Removes class and distillation tokens, and their positions, from the embeddings. Changes the model."""
        raise NotImplementedError

    def open(self, model: PreTrainedModel) -> None:
        """Makes every place of a model one module that can be exchanged. Changes the model; a second call does not."""
        raise NotImplementedError

    def found_in(self, model: PreTrainedModel) -> Mapping[str, FoundStack]:
        """What had to be found in an opened model; nothing where an architecture is known beforehand."""
        return {}

    def module_at(self, model: PreTrainedModel, name: str) -> nn.Module | None:
        """The module at a site of an opened model: block, sublayer or layer; None if the site is empty."""
        raise NotImplementedError

    def put(self, model: PreTrainedModel, name: str, module: nn.Module | None) -> None:
        """Puts a module at a site of an opened model, or empties it."""
        raise NotImplementedError

    def without_layers(self, model: PreTrainedModel, names: Iterable[str]) -> AbstractContextManager[None]:
        """Takes layers out of an opened model, and puts them back at the end of the context.

        Args:
            model: The model.
            names: The layers' sites, such as ``decoder.1.layer``.
        """
        raise NotImplementedError

    def check_choice(self, name: str, empties: bool) -> None:
        """Checks, beyond what blocks say of kinds of sites, that one can stand at a site.

        Args:
            name: The site.
            empties: Whether nothing is to stand there.

        Raises:
            LeanformerError: No block can stand there.
        """

    def is_own_attention(self, module: nn.Module | None) -> bool:
        """Whether a module at a site is the architecture's own attention."""
        raise NotImplementedError

    def form_at(self, model: PreTrainedModel, name: str) -> CallForm:
        """How the module at a site of an opened model is called, unless it is a block.

        Args:
            model: The model.
            name: The site.
        """
        return PLAIN

    def holds_norm(self, model: PreTrainedModel, name: str) -> bool:
        """Whether the attention at a site adds the residual and norms the sum itself (ALBERT)."""
        return False

    def attention_weights(self, module: nn.Module | None) -> AttentionWeights | None:
        """The weights of the architecture's own attention in the common layout.

        None for any other module, and for an attention that does more than the layout says, such as rotate its queries.
        """
        raise NotImplementedError

    def output_projection(self, module: Any) -> nn.Module | None:
        """The map of the architecture's own attention that its heads, side by side, go through; None: not known."""
        raise NotImplementedError

    def with_heads(self, attention: Any, heads: AttentionWeights) -> nn.Module:
        """The architecture's own attention with some of its heads: smaller projections, heads as wide as before.

        Args:
            attention: The present attention, which is not changed. The new one has its settings and its configuration.
            heads: The weights of the heads that stay.
        """
        raise NotImplementedError

    def mlp_weights(self, mlp: Any, config: Any) -> MlpWeights | None:
        """The weights of an MLP, the architecture's own or a block's, in the common layout.

        None where it is of another form, such as one with gates.

        Args:
            mlp: The MLP.
            config: The model's configuration.
        """
        raise NotImplementedError

    def output_of_mlp(self, mlp: Any) -> nn.Module | None:
        """The map of an MLP that its neurons go through; None: not known."""
        raise NotImplementedError


FAMILIES: Registry[Family] = Registry("leanformer.model.families", order=("vit", "deit", "marian", "bart"))
"""Name -> family, in the order in which messages list them."""


_OTHERS: list[Callable[[type[PreTrainedModel]], Family]] = []
"""What makes the family of a class of models that none of these is made for; a module of the package adds it."""


def register_others(make: Callable[[type[PreTrainedModel]], Family]) -> None:
    """Makes known what finds the family of any other architecture."""
    _OTHERS[:] = [make]


def register(family: Family) -> None:
    """Makes a family known by its name."""
    FAMILIES.add(family.name, family)


def family_named(name: str, auto_class: Any) -> Family | None:
    """The family of a name: one of these, or of the models that an ``Auto`` class makes of that model type.

    Args:
        name: A model type of transformers.
        auto_class: The ``Auto`` class of the task.

    Returns:
        None where the name says no such architecture.
    """
    if name in FAMILIES:
        return FAMILIES[name]
    config_class = configuration_of_type(name)
    classes = () if config_class is None else classes_of(auto_class, config_class)
    return family_of(classes[0]) if classes else None


def find_family(model: PreTrainedModel, argument: str = "model") -> Family:
    """The family of a Hugging Face model or of a student.

    Args:
        model: The model.
        argument: The caller's name for it, for messages.

    Raises:
        LeanformerError: It is no model, of no supported architecture, or not made for the family's task.
    """
    if not isinstance(model, PreTrainedModel):
        hint = ""
        if isinstance(model, str | os.PathLike):
            hint = "; load it first: lf.load(...)"
        elif isinstance(model, PreTrainedConfig):
            hint = "; make a model of the configuration first"
        raise LeanformerError(f"{argument}: leanformer reduces Hugging Face models, not {type(model).__name__}{hint}")
    own_code = type(model).__module__.startswith(TRANSFORMERS_DYNAMIC_MODULE_NAME)
    if own_code and str(model.config.model_type).startswith(STUDENT_PREFIX):
        raise LeanformerError(
            f"{argument}: this student is made of its directory's own code (trust_remote_code), which leanformer does "
            "not know; load it with lf.load"
        )
    return family_of(type(model), argument)


def family_of(model_class: type[PreTrainedModel], argument: str = "model") -> Family:
    """The family of a class of models of transformers, or of students.

    Args:
        model_class: The class.
        argument: The caller's name for what is of that class, for messages.

    Raises:
        LeanformerError: Its architecture cannot be reduced.
    """
    own = next((family for family in FAMILIES.values() if issubclass(model_class, family.model_class)), None)
    if own is not None:
        return own
    try:
        return _OTHERS[0](model_class)
    except LeanformerError as error:
        raise LeanformerError(f"{argument}: {error}") from None
