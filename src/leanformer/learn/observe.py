"""Records the inputs and outputs of a teacher's sites while it reads batches, without changing it."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

import torch
from torch import nn
from transformers import PreTrainedModel

from leanformer.blocks.kit.base import BlockModule
from leanformer.blocks.kit.inputs import BlockInputs
from leanformer.blocks.kit.rotary import tables
from leanformer.blocks.kit.site import Site
from leanformer.core.errors import LeanformerError
from leanformer.learn.losses import Batch, inputs_of
from leanformer.model.family import find_family
from leanformer.model.finding.facts import ROTARY
from leanformer.model.finding.forms import PLAIN, RESIDUAL, CallForm
from leanformer.model.stacks import real_tokens
from leanformer.model.surgery import module_at

Target = Literal["output", "heads", "neurons"]
"""What is recorded at a site: its output, shape (batch, tokens, d_model), or what goes into its output projection: an
attention's heads side by side, shape (batch, tokens, heads * head_dim), or an MLP's neurons after their activation,
shape (batch, tokens, neurons)."""


@dataclass(frozen=True)
class Seen:
    """The record of a teacher's forward pass.

    Args:
        inputs: Site -> the hidden states that went in, shape (batch, tokens, d_model).
        targets: (site, target) -> what came out, shape (batch, tokens, channels).
        rotary: Site -> cosines and sines of the tokens' positions, where its attention was handed them.
        source: The encoder's output, shape (batch, source tokens, d_model), where the model has a decoder.
        source_mask: Boolean, True at the source's real tokens; None where there is no padding.
        target_mask: Likewise of the decoder's tokens.
    """

    inputs: Mapping[str, torch.Tensor]
    targets: Mapping[tuple[str, Target], torch.Tensor]
    rotary: Mapping[str, tuple[torch.Tensor, torch.Tensor]]
    source: torch.Tensor | None
    source_mask: torch.Tensor | None
    target_mask: torch.Tensor | None

    def mask_at(self, site: Site) -> torch.Tensor | None:
        """True at the real tokens of a site; None where there is no padding."""
        return self.target_mask if site.causal else self.source_mask

    def inputs_at(self, site: Site) -> BlockInputs:
        """The inputs of a block at a site: hidden states and their mask, and the source and its mask."""
        # A causal block reads no later tokens, and padding in training stands at the end, so that it needs no mask.
        padding_mask = None if site.causal else self.source_mask
        source = (self.source, self.source_mask) if site.reads_source else (None, None)
        return BlockInputs(self.inputs[site.name], padding_mask, *source, rotary=self.rotary.get(site.name))


def frozen_copy(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of a teacher in evaluation mode that no training changes."""
    return copy.deepcopy(model).eval().requires_grad_(False)


class Observed:
    """A teacher whose sites are recorded while it reads batches; a context manager that adds and removes the hooks.

    Args:
        teacher: A model with open layers, as ``reduce(model, {})`` makes it; it is set to evaluation mode.
        wanted: The sites, and what to record at each.

    Raises:
        LeanformerError: On entering: a site is empty, or has no attention of the teacher's own whose heads are wanted.
    """

    def __init__(self, teacher: PreTrainedModel, wanted: Iterable[tuple[str, Target]]) -> None:
        self.teacher = teacher
        self.wanted = sorted(set(wanted))
        self._inputs: dict[str, torch.Tensor] = {}
        self._targets: dict[tuple[str, Target], torch.Tensor] = {}
        self._rotary: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        self._hooks = ExitStack()

    def __enter__(self) -> Observed:
        family = find_family(self.teacher)
        self.teacher.eval()
        with self._hooks:  # an error removes those that were added
            for name, target in self.wanted:
                module = module_at(self.teacher, name)
                if module is None:
                    raise LeanformerError(f"the teacher has nothing to teach at {name}: the site is empty")
                # An attention that adds the residual and norms the sum gave its own part before that.
                normed = not isinstance(module, BlockModule) and family.holds_norm(self.teacher, name)
                whole = target == "output" and not normed
                form = PLAIN if isinstance(module, BlockModule) else family.form_at(self.teacher, name)
                self._watch(module, name, form, target if whole else None)
                if whole:
                    continue
                if target == "heads" and not family.is_own_attention(module):
                    raise LeanformerError(
                        f"the teacher has no attention of its own at {name}, and so no heads to learn from"
                    )
                projection = family.output_of_mlp(module) if target == "neurons" else family.output_projection(module)
                if projection is None:
                    raise LeanformerError(
                        f"the teacher's {target} at {name} cannot be seen: the map that they go through was not found"
                    )
                self._watch_projection(projection, name, target)
            self._hooks = self._hooks.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hooks.close()

    def _watch(self, module: nn.Module, name: str, form: CallForm, target: Target | None) -> None:
        """Records what a module reads and, where there is a target, what it gives, without a residual that it adds."""

        def hook(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
            call = form.bind(arguments, named)
            given = call[form.hidden_states]
            self._inputs[name] = given.hidden_states if isinstance(given, BlockInputs) else given
            rotary = tables(named.get(ROTARY), self._inputs[name].shape[1])
            if rotary is not None:
                self._rotary[name] = rotary
            if target is not None:
                own = output[0] if isinstance(output, tuple) else output
                self._targets[name, target] = own - call[RESIDUAL] if form.adds_residual else own

        self._hooks.callback(module.register_forward_hook(hook, with_kwargs=True).remove)

    def _watch_projection(self, projection: Any, name: str, target: Target) -> None:
        """Records what an output projection gives, or what goes into it."""

        def hook(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], output: torch.Tensor) -> None:
            given = arguments[0] if arguments else named["input"]
            self._targets[name, target] = output if target == "output" else given

        self._hooks.callback(projection.register_forward_hook(hook, with_kwargs=True).remove)

    @torch.no_grad()
    def read(self, batch: Batch) -> Seen:
        """Lets the teacher read a batch.

        Args:
            batch: Named inputs, with ``labels``.

        Raises:
            LeanformerError: The forward pass does not go through a site, or a translator's batch has no
                ``decoder_input_ids``.
        """
        has_decoder = bool(self.teacher.config.is_encoder_decoder)
        if has_decoder and "decoder_input_ids" not in batch:
            raise LeanformerError(
                "a batch has no decoder_input_ids, the tokens that the decoder reads; transformers' "
                "DataCollatorForSeq2Seq makes them where it is given the model"
            )
        self._inputs, self._targets, self._rotary = {}, {}, {}
        if has_decoder:
            outputs = self.teacher.base_model(**inputs_of(batch))  # no logits, which may cost as much as all layers
        else:
            # A classifier that is asked for its hidden states computes every token in the last layer too.
            outputs = self.teacher(**inputs_of(batch), output_hidden_states=True)
        for name, target in self.wanted:
            if name not in self._inputs or (name, target) not in self._targets:
                raise LeanformerError(f"the teacher's forward pass does not go through the site {name}")
        return Seen(
            self._inputs,
            self._targets,
            self._rotary,
            outputs.encoder_last_hidden_state if has_decoder else None,
            real_tokens(batch.get("attention_mask")),
            batch["labels"] != -100 if has_decoder else None,
        )
