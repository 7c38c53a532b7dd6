"""A trial's state in the middle of its training: one safetensors file, written whole by rename."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from leanformer.core.errors import LeanformerError
from leanformer.core.files import set_aside, write_atomically

T = TypeVar("T")


class CheckpointError(LeanformerError):
    """A checkpoint is damaged or belongs to another training; without it, training starts from the beginning.

    Args:
        problem: The file and what is wrong with it.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(f"{problem}; delete it to start again")
        self.problem = problem


@dataclass(frozen=True)
class Snapshot:
    """Weights, optimizer state and random state at one step, with the training's counters.

    Args:
        tensors: Flat names -> copies of the tensors.
        numbers: The counters and settings, as JSON can hold them.
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
        """Copies the current state; ``sums`` are the sums of the weights over epochs."""
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

    def difference(self, model: nn.Module) -> str | None:
        """Says where the state's weights differ from a model's in name or shape; None where they agree."""
        mine, theirs = self._weights(), model.state_dict()
        for name in sorted({*mine, *theirs}):
            shapes = [tuple(weights[name].shape) if name in weights else None for weights in (mine, theirs)]
            if shapes[0] != shapes[1]:
                return f"{name} has the shape {shapes[0]} there, and {shapes[1]} here"
        return None

    def _weights(self) -> dict[str, torch.Tensor]:
        return {
            name.removeprefix("model."): tensor for name, tensor in self.tensors.items() if name.startswith("model.")
        }

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Loads the state into the model that it was taken of, and returns a copy of the numbers."""
        model.load_state_dict(self._weights())
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
        """Writes the state to a file with its SHA-256, whole or not at all. The file's directory must exist.

        Raises:
            LeanformerError: The file cannot be written.
        """
        tensors = {name: tensor.contiguous().cpu() for name, tensor in self.tensors.items()}
        numbers = json.dumps(self.numbers)
        write_atomically(path, save(tensors, metadata={"numbers": numbers, "sha256": _digest(tensors, numbers)}))

    @classmethod
    def read(cls, path: Path, device: torch.device) -> Snapshot:
        """Reads a file back.

        Raises:
            CheckpointError: The file is damaged.
            LeanformerError: It cannot be read.
        """
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
                metadata = file.metadata()
                numbers = json.loads(metadata["numbers"])
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise LeanformerError(f"{path}: cannot be read: {error.strerror}") from None
            raise CheckpointError(
                f"{path}: the checkpoint is damaged ({' '.join(str(error).split())[:120]})"
            ) from error
        # Files of the first version have no SHA-256.
        if metadata.get("sha256", "") not in ("", _digest(tensors, metadata["numbers"])):
            raise CheckpointError(f"{path}: the checkpoint is damaged (its SHA-256 does not match)")
        return cls({name: tensor.to(device) for name, tensor in tensors.items()}, numbers)


def _digest(tensors: Mapping[str, torch.Tensor], numbers: str) -> str:
    """The SHA-256 of all names, shapes, types and values, and of the numbers."""
    digest = hashlib.sha256(numbers.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def going_on(checkpoint: Path, training: Callable[[], T], say: Callable[[str], object]) -> T:
    """Runs a training from its checkpoint, or from the beginning where that is damaged or of another training.

    Args:
        checkpoint: The file; a bad one is set aside.
        training: Runs the training; raises ``CheckpointError`` before it changes anything.
        say: Called with the reason where the training starts again.
    """
    try:
        return training()
    except CheckpointError as error:
        say(f"{error.problem}; it is now {set_aside(checkpoint)}, and this training starts again")
        return training()
