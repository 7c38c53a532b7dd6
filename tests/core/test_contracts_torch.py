"""What leanformer relies on in PyTorch without a promise: each fails when PyTorch changes that thing."""

from __future__ import annotations

import inspect
import io
import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
import torch._dynamo as dynamo
from torch._inductor import config as inductor
from torch.fx.experimental import _config as fx_config
from torch.profiler import ProfilerActivity, profile

from leanformer.blocks.kit.dot_product import FewTokens
from leanformer.core import torch_internals


def test_the_softmax_gradient_is_that_of_softmax() -> None:
    scores = torch.randn(3, 5, 7, requires_grad=True)
    weights = scores.softmax(dim=-1)
    towards = torch.randn_like(weights)
    (expected,) = torch.autograd.grad(weights, scores, towards, retain_graph=True)
    torch.testing.assert_close(torch_internals.softmax_gradient(towards, weights.detach()), expected)


def test_apply_takes_a_signature_that_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hasattr(FewTokens.forward, "__signature__")
    asked = Mock(side_effect=inspect.signature)
    monkeypatch.setattr(inspect, "signature", asked)
    FewTokens.apply(torch.randn(1, 2, 4), torch.randn(1, 2, 4), None)
    assert [call.args for call in asked.call_args_list] == [
        (FewTokens.forward,)
    ]  # else the search is no longer worth being spared


def test_limits_of_versions_are_there_and_only_raised() -> None:
    limits = ("recompile_limit", "accumulated_recompile_limit")
    with dynamo.config.patch(dict.fromkeys(limits, 3)):
        torch_internals.allow_versions(5)
        assert [getattr(dynamo.config, limit) for limit in limits] == [5, 5]
        torch_internals.allow_versions(4)
        assert [getattr(dynamo.config, limit) for limit in limits] == [5, 5]


def test_equal_sides_are_told_apart() -> None:
    with fx_config.patch(use_duck_shape=True):  # type: ignore[attr-defined]
        torch_internals.tell_sides_apart()
        assert fx_config.use_duck_shape is False


def test_the_options_are_inductors() -> None:
    options = torch_internals.compile_options(torch.device("cpu"))
    assert options is not None
    assert all(hasattr(inductor, name) for name in options)
    assert torch_internals.compile_options(torch.device("cuda")) is None


@pytest.mark.long
def test_no_compiler_is_a_compile_error() -> None:
    dynamo.reset()
    compiled = torch.compile(lambda x: x.exp() + 1, options=torch_internals.compile_options(torch.device("cpu")))
    with (
        inductor.patch({"cpp.cxx": (None, "no-such-compiler"), "force_disable_caches": True}),
        pytest.raises(Exception, match="no-such-compiler") as raised,
    ):
        compiled(torch.randn(7))
    assert torch_internals.is_compile_error(raised.value)
    assert not torch_internals.is_compile_error(RuntimeError("no-such-compiler"))


def test_too_little_memory_has_the_texts() -> None:
    with pytest.raises(RuntimeError) as told:
        torch.empty(2**50, dtype=torch.uint8)
    assert torch_internals.is_out_of_memory(told.value)
    with pytest.raises(RuntimeError) as told:
        torch.empty(2**62, 2**62)
    assert torch_internals.is_out_of_memory(told.value)
    assert torch_internals.is_out_of_memory(MemoryError())
    assert torch_internals.is_out_of_memory(torch.OutOfMemoryError())
    with pytest.raises(RuntimeError) as told:
        torch.randn(2, 3) @ torch.randn(2, 3)
    assert not torch_internals.is_out_of_memory(told.value)
    assert not torch_internals.is_out_of_memory(ValueError("not enough memory"))


def test_a_pickle_that_is_refused_has_its_line() -> None:
    file = io.BytesIO()
    torch.save({"weight": Path("anything")}, file)
    file.seek(0)
    with pytest.raises(Exception, match="pathlib") as told:
        torch.load(file, weights_only=True)
    problem = torch_internals.unpickling_problem(told.value)
    assert problem.startswith(("WeightsUnpickler error", "Unsupported", "Trying to load"))
    assert "pathlib" in problem
    assert "\n" not in problem
    assert len(problem) <= 200


def test_the_profiler_tells_each_allocation() -> None:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        kept = torch.empty(1000, dtype=torch.float32)
        torch.empty(500, dtype=torch.float32)
    sizes = list(torch_internals.allocations(record))
    assert sizes == [4000, 2000, -2000]
    assert len(kept) == 1000


@pytest.mark.long  # a new process in which the profiler starts
def test_the_profiler_is_silenced() -> None:
    program = (
        "import torch; from torch.profiler import profile, ProfilerActivity as A; "
        "from leanformer.core.torch_internals import silence_profiler; silence_profiler(); "
        "p = profile(activities=[A.CPU]); p.start(); torch.ones(2) + 1; p.stop()"
    )
    environment = {key: value for key, value in os.environ.items() if key != "KINETO_LOG_LEVEL"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert done.stderr == ""


def test_models_compute_as_while_they_are_exported() -> None:
    assert not torch.compiler.is_exporting()
    with torch_internals.as_if_exporting():
        assert torch.compiler.is_exporting()
    assert not torch.compiler.is_exporting()
