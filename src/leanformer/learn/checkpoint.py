"""A trial's state in the middle of its training: one safetensors file, written whole by rename."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from leanformer.errors import LeanformerError
from leanformer.files import write_atomically


@dataclass(frozen=True)
class Snapshot:
    """Weights, optimizer state and random state at one step, and the numbers that go with them.

    Args:
        tensors: Flat names to tensors, copies of the live ones.
        numbers: Anything that JSON can hold.
    """

    tensors: dict[str, torch.Tensor]
    numbers: dict[str, Any]

    @classmethod
    def take(
        cls,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        numbers: dict[str, Any],
        sums: dict[str, torch.Tensor],
    ) -> Snapshot:
        """Copies the present state; ``sums`` are those of weights over epochs."""
        tensors = {f"model.{name}": tensor.detach().clone() for name, tensor in model.state_dict().items()}
        for index, state in optimizer.state_dict()["state"].items():
            for name, tensor in state.items():
                tensors[f"optimizer.{index}.{name}"] = tensor.detach().clone()
        for name, tensor in sums.items():
            tensors[f"sum.{name}"] = tensor.clone()
        tensors["random.cpu"] = torch.get_rng_state()
        if torch.cuda.is_available():
            tensors["random.cuda"] = torch.cuda.get_rng_state()
        return cls(tensors, json.loads(json.dumps(numbers)))

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Puts the state back and returns a copy of the numbers.

        Raises:
            LeanformerError: The state is of another model.
        """
        try:
            model.load_state_dict(
                {
                    name.removeprefix("model."): tensor
                    for name, tensor in self.tensors.items()
                    if name.startswith("model.")
                }
            )
        except RuntimeError as error:
            raise LeanformerError(
                f"the checkpoint is of another model ({' '.join(str(error).split())[:120]}); delete it to start again"
            ) from error
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in self.tensors.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".", 2)
                state.setdefault(int(index), {})[key] = tensor.clone()
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        torch.set_rng_state(self.tensors["random.cpu"].cpu())
        if "random.cuda" in self.tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(self.tensors["random.cuda"].cpu())
        numbers: dict[str, Any] = json.loads(json.dumps(self.numbers))
        return numbers

    def sums(self) -> dict[str, torch.Tensor]:
        """Copies of the sums of weights over epochs."""
        return {
            name.removeprefix("sum."): tensor.clone()
            for name, tensor in self.tensors.items()
            if name.startswith("sum.")
        }

    def write(self, path: Path) -> None:
        """Writes the state to a file, whole or not at all.

        Raises:
            LeanformerError: The file cannot be written.
        """
        tensors = {name: tensor.contiguous().cpu() for name, tensor in self.tensors.items()}
        write_atomically(path, save(tensors, metadata={"numbers": json.dumps(self.numbers)}))

    @classmethod
    def read(cls, path: Path, device: torch.device) -> Snapshot:
        """Reads a file back.

        Raises:
            LeanformerError: The file is damaged.
        """
        try:
            with safe_open(path, framework="pt", device=str(device)) as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
                numbers = json.loads(file.metadata()["numbers"])
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise LeanformerError(
                f"{path}: the checkpoint is damaged ({' '.join(str(error).split())[:120]}); "
                "delete the file to start this trial again"
            ) from error
        return cls(tensors, numbers)
