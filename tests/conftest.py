"""Tiny models and studies that the tests share."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from places import SHARED

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

# Imported where it is used: the process that hands tests out to others needs none of it.
if TYPE_CHECKING:
    from transformers import PreTrainedModel


@pytest.fixture(autouse=True, scope="session")
def _quiet() -> Iterator[None]:
    import torch

    from leanformer.core.progress import quiet_libraries

    torch.set_num_threads(1)  # models this small gain nothing from more, and lose much where other processes compute
    with quiet_libraries():
        yield


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What data sets leave is removed with the tests' other files, and shared with no other process."""
    import datasets

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        yield


@pytest.fixture(autouse=True, scope="session")
def _no_waiting_for_the_disk() -> Iterator[None]:
    """The tests need their files for moments; tests/study/test_power_cut.py checks what a power cut would leave."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(autouse=True, scope="session")
def _no_collection_of_garbage() -> Iterator[None]:
    """After each training accelerate collects all of Python's garbage, which takes as long as a tiny training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("accelerate.utils.memory.clear_device_cache", lambda garbage_collection=False: None)
        yield


@pytest.fixture(autouse=True)
def _repeatable() -> None:
    import torch

    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _frozen() -> None:
    """Takes what is imported out of garbage collection."""
    gc.freeze()


@pytest.fixture
def make_model() -> Callable[..., PreTrainedModel]:
    """A tiny classifier of a family whose weights, biases included, are far from their initial values."""
    import torch

    from leanformer.model.family import FAMILIES

    def make(family: str = "vit", **settings: Any) -> PreTrainedModel:
        config = {
            "hidden_size": 24,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "intermediate_size": 48,
            "patch_size": 4,
            "image_size": 16,
            "num_channels": 1,
            "num_labels": 5,
        }
        chosen = FAMILIES[family]
        model = chosen.model_class(chosen.config_class(**{**config, **settings}))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(torch.randn_like(parameter) * 0.3 + (1.0 if name.endswith("norm.weight") else 0.0))
        return model.eval()

    return make


@pytest.fixture(scope="session")
def make_translator() -> Callable[..., PreTrainedModel]:
    """A tiny translator of a family whose weights, biases included, are far from their initial values.

    Its vocabulary: 0 ends a sentence, 1 is padding and starts one, 2 to 39 are words.
    """
    import torch

    from leanformer.model.family import FAMILIES

    def make(family: str = "marian", seed: int = 0, **settings: Any) -> PreTrainedModel:
        config = {
            "vocab_size": 40,
            "d_model": 16,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 24,
            "decoder_ffn_dim": 24,
            "max_position_embeddings": 32,
            "scale_embedding": True,
            "eos_token_id": 0,
            "bos_token_id": 0,
            "forced_eos_token_id": None,
            "pad_token_id": 1,
            "decoder_start_token_id": 1,
        }
        if family == "marian":
            config["decoder_vocab_size"] = 40
        chosen = FAMILIES[family]
        model = chosen.model_class(chosen.config_class(**{**config, **settings}))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.requires_grad:  # not Marian's positions, which are computed
                    around = 1.0 if "norm" in name and name.endswith("weight") else 0.0
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3 + around)
            model.final_logits_bias.copy_(torch.randn(model.final_logits_bias.shape, generator=generator) * 0.3)
        return model.eval()

    return make


@pytest.fixture(scope="session")
def digits_study() -> Callable[..., dict[str, Any]]:
    """A study on the built-in digits that takes a few seconds."""

    def make(**changes: Any) -> dict[str, Any]:
        study: dict[str, Any] = {
            "name": "tiny",
            "data": {"source": "digits", "test_fraction": 0.5, "train_limit": 400},
            "baseline": {
                "model": "vit",
                "config": {
                    "hidden_size": 16,
                    "num_hidden_layers": 2,
                    "num_attention_heads": 2,
                    "intermediate_size": 32,
                    "patch_size": 4,
                },
            },
            "candidates": {
                "no-mlp": {"plan": {"*.mlp": "none"}},
                "minimal": {
                    "plan": {
                        "*.self_attention": {"block": "minimal_attention", "qk": "symmetric", "diagonal_value": True},
                        "*.mlp": "none",
                        "pooling": "mean",
                    }
                },
            },
            "train": {"epochs": 3, "batch_size": 64, "learning_rate": [3e-3, 1e-2], "checkpoint_seconds": 0},
            "seeds": [0, 1],
            "measure": {"repeats": 1, "latency_calls": 3, "device": "cpu", "threads": 1},
        }
        return {**study, **changes}

    return make


@pytest.fixture(scope="session")
def digits_run(digits_study: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of ``digits_study()`` after its end, which tests must not change.

    Its ``log.txt`` is what the study wrote to a console that is no terminal.
    """
    from studies import run

    directory = tmp_path_factory.mktemp("digits") / "run"
    _, log = run(digits_study(), directory, report=True)
    (directory / "log.txt").write_text(log)
    return directory


@pytest.fixture
def shared_data() -> Path:
    """The real data sets beside the checkout; the test is skipped where they are absent."""
    path = SHARED / "data"
    if not path.is_dir():
        pytest.skip("needs the data sets of ../shared/data beside the checkout")
    return path


@pytest.fixture
def fresh_accelerate() -> Iterator[None]:
    """accelerate as in a new process, whose precision is not settled; afterwards as the other tests have it."""
    import torch
    from accelerate.state import AcceleratorState

    from leanformer.learn.step import make_accelerator

    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    make_accelerator("float32", torch.device("cpu"))
