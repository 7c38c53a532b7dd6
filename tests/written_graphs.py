"""What graphs of translators write, beside what ``generate`` writes."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import onnxruntime
import torch
from transformers import PreTrainedModel

from leanformer.core.torch_internals import as_if_exporting
from leanformer.export.generation import Search
from leanformer.export.graphs.decoding import programs
from leanformer.export.graphs.translator import TranslatorGraphs
from leanformer.model.hf import force_end, limit_length

TOLERANCE = 1e-4
SHAPES = [(1, 1, 12), (1, 12, 5), (3, 6, 12), (7, 12, 11), (2, 3, 1), (2, 3, 2), (2, 40, 40)]
"""Sources, tokens of the longest, and most tokens of a translation: other sizes than graphs are made with."""


def sources(model: PreTrainedModel, batch: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Sentences of several lengths, and their mask; the first is as long as the batch."""
    padding = model.generation_config.pad_token_id
    generator = torch.Generator().manual_seed(100 * batch + length)
    ids = torch.randint(2, model.config.vocab_size, (batch, length), generator=generator)
    lengths = torch.randint(1, length + 1, (batch,), generator=generator)
    lengths[0] = length
    mask = torch.arange(length) < lengths[:, None]
    return ids.where(mask, padding), mask.long()


def generated(
    model: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor, most: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """What ``generate`` writes greedily, and the scores that it chose by: (batch, tokens), (batch, tokens, words)."""
    settings = copy.deepcopy(model.generation_config)
    settings.update(num_beams=1, do_sample=False, output_scores=True, return_dict_in_generate=True)
    force_end(settings, settings.eos_token_id)
    limit_length(settings, most)
    output = model.generate(ids, attention_mask=mask, generation_config=settings)
    return output.sequences[:, 1:], torch.stack(output.scores, dim=1)


@torch.no_grad()
def check_steps(model: PreTrainedModel) -> None:
    """Compares the steps of a graph, as PyTorch computes them, with the model, which reads all tokens at once."""
    search = Search.of(model)
    nothing = torch.zeros_like(search.biases(model)[0])
    traced = programs(model, search.start, nothing, nothing)
    ids, mask = sources(model, 3, 7)
    written = torch.randint(2, len(nothing), (3, 6), generator=torch.Generator().manual_seed(2))
    written[:, 0] = search.start
    with as_if_exporting():
        logits, source, state = traced.first.with_entries(ids, mask)
        steps = [logits]
        for read in range(1, 6):
            token = written[:, read]
            logits, state = traced.following.with_entries(token, mask, source, torch.zeros(read), state)
            steps.append(logits)
    expected = model(input_ids=ids, attention_mask=mask, decoder_input_ids=written).logits
    torch.testing.assert_close(torch.stack(steps, dim=1), expected, rtol=0, atol=TOLERANCE)


def check_graph(model: PreTrainedModel) -> onnx.ModelProto:
    """Compares a model's graph with the model: other batches and lengths than the graph was made with, and forced ends.

    Returns:
        The graph.
    """
    end = model.generation_config.eos_token_id
    graph = TranslatorGraphs(model).graph(with_logits=True)
    onnx.checker.check_model(graph, full_check=True)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    for batch, length, most in SHAPES:
        ids, mask = sources(model, batch, length)
        expected, scores = generated(model, ids, mask, most)
        inputs = {"input_ids": ids.numpy(), "attention_mask": mask.numpy(), "max_new_tokens": np.array(most)}
        tokens, logits = session.run(["tokens", "logits"], inputs)
        assert tokens.tolist() == expected.tolist()
        chosen = logits.shape[1]
        if most > 1:  # else the only score is that of the forced end
            ended = (expected == end).cumsum(dim=1)[:, :chosen] - (expected == end).int()[:, :chosen]
            real = (ended == 0)[..., None].numpy() & np.isfinite(scores[:, :chosen].numpy())
            if model.generation_config.forced_bos_token_id is not None:
                real[:, 0] = False  # there ``generate`` scores by no logit
            assert np.isfinite(logits[real]).all()
            assert np.abs(logits[real] - scores[:, :chosen].numpy()[real]).max(initial=0.0) < TOLERANCE
    return graph
