"""What is recorded of teachers whose attentions were found, and that blocks learn from it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import slow
from found_translators import BART_SIZES, T5_SIZES
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    BloomConfig,
    BloomForSequenceClassification,
    M2M100Config,
    M2M100ForConditionalGeneration,
    PegasusConfig,
    PegasusForConditionalGeneration,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

import leanformer as lf
from leanformer.learn.observe import Observed, frozen_copy
from leanformer.model.students import reduce
from leanformer.model.surgery import module_at

WORDS = 40


def translator(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    if name == "t5":
        config = T5Config(vocab_size=WORDS, decoder_start_token_id=0, initializer_factor=2.0, **T5_SIZES)
        return T5ForConditionalGeneration(config).eval()
    if name == "m2m_100":
        return M2M100ForConditionalGeneration(M2M100Config(vocab_size=WORDS, **BART_SIZES)).eval()
    return PegasusForConditionalGeneration(PegasusConfig(vocab_size=WORDS, **BART_SIZES)).eval()


def batch(seed: int = 0) -> dict[str, torch.Tensor]:
    """Eight sentence pairs, some with padding on either side."""
    generator = torch.Generator().manual_seed(seed)
    ids, targets = (torch.randint(3, WORDS, (8, length), generator=generator) for length in (7, 6))
    mask, labels = torch.ones_like(ids), targets.clone()
    mask[:3, 5:], labels[2:5, 4:] = 0, -100
    starts = torch.zeros(8, 1, dtype=torch.long)
    return {
        "input_ids": ids.where(mask == 1, 0),
        "attention_mask": mask,
        "decoder_input_ids": torch.cat([starts, targets[:, :-1]], dim=1),
        "labels": labels,
    }


@pytest.mark.parametrize("name", ["t5", "m2m_100", "pegasus"])
def test_what_goes_in_and_out_of_attention_is_recorded(name: str) -> None:
    teacher = frozen_copy(reduce(translator(name), {}))
    wanted = [site.name for site in lf.sites(teacher) if site.kind != "layer"]
    calls: dict[str, Any] = {}

    def see(site: str) -> Any:
        def hook(_: Any, arguments: Any, named: Any, output: Any) -> None:
            calls[site] = (arguments[0] if arguments else named["hidden_states"], output)

        return hook

    for site in wanted:
        module = module_at(teacher, site)
        assert module is not None
        module.register_forward_hook(see(site), with_kwargs=True)
    with Observed(teacher, [(site, "output") for site in wanted]) as observed:
        seen = observed.read(batch())
    assert seen.inputs.keys() == set(wanted)
    for site in wanted:
        states, output = calls[site]
        assert seen.inputs[site] is states
        assert torch.equal(seen.targets[site, "output"], output[0] if isinstance(output, tuple) else output)
    assert seen.source is not None
    assert seen.source.shape == (8, 7, 16)


@pytest.mark.parametrize("name", ["t5", *slow("m2m_100", "pegasus")])
def test_blocks_learn_at_every_site(name: str) -> None:
    teacher = translator(name)
    plan = {"*attention": {"block": "slots", "slots": 8}, "*.mlp": {"block": "mlp", "hidden": 32}}
    records: list[dict[str, float]] = []
    student = lf.distill(
        teacher,
        plan,
        [batch(seed) for seed in range(6)],
        [batch(7)],
        teach=lf.DistillConfig(epochs=8, learning_rate=1e-2),
        progress=records.append,
    )
    sites = [site.name for site in lf.sites(student) if site.block != "attention" and site.kind != "layer"]
    assert len(sites) == 10
    for site in sites:
        assert records[-1][f"r2 {site}"] > records[0][f"r2 {site}"] or records[-1][f"r2 {site}"] > 0.5
        assert records[-1][f"r2 {site}"] > -0.5
    loss = student(**batch()).loss
    loss.backward()
    unreached = [key for key, value in student.named_parameters() if value.requires_grad and value.grad is None]
    assert not unreached


def test_an_attention_that_norms_the_sum_is_recorded_before_that() -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "embedding_size": 8}
    model = AlbertForSequenceClassification(AlbertConfig(vocab_size=WORDS, num_hidden_layers=1, **sizes)).eval()
    teacher = frozen_copy(reduce(model, {}))
    site = next(site.name for site in lf.sites(teacher) if site.kind == "self_attention")
    attention: Any = module_at(teacher, site)
    given = {key: value for key, value in batch().items() if key in ("input_ids", "attention_mask")}
    with Observed(teacher, [(site, "output")]) as observed:
        seen = observed.read({**given, "labels": torch.zeros(8, dtype=torch.long)})
    output = attention(seen.inputs[site], attention_mask=None)[0]
    own = seen.targets[site, "output"]
    real = given["attention_mask"][3:] == 1  # the sentences without padding
    assert torch.allclose(attention.LayerNorm(seen.inputs[site] + own)[3:][real], output[3:][real], atol=1e-5)


def test_an_attention_that_adds_the_residual_is_recorded_without_it() -> None:
    torch.manual_seed(0)
    config = BloomConfig(vocab_size=WORDS, hidden_size=16, n_head=2, n_layer=2, pad_token_id=0)
    teacher = frozen_copy(reduce(BloomForSequenceClassification(config).eval(), {}))
    sites = [site.name for site in lf.sites(teacher) if site.kind in ("self_attention", "mlp")]
    dense: dict[str, torch.Tensor] = {}
    for site in sites:
        module: Any = module_at(teacher, site)
        last = module.dense if hasattr(module, "dense") else module.dense_4h_to_h
        last.register_forward_hook(lambda _, __, output, site=site: dense.update({site: output}))
    with Observed(teacher, [(site, "output") for site in sites]) as observed:
        seen = observed.read({"input_ids": batch()["input_ids"], "labels": torch.zeros(8, dtype=torch.long)})
    for site in sites:
        assert torch.allclose(seen.targets[site, "output"], dense[site], atol=1e-5)
