"""Image classifiers of any architecture in ONNX: the same logits, for any number of images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from architectures.tiny import ARCHITECTURES, Architecture, make_inputs, make_model
from cases import some

import leanformer as lf
from leanformer.export.graphs.classifier import classifier_graph

onnxruntime = pytest.importorskip("onnxruntime")
CLASSIFIERS = [
    entry
    for entry in ARCHITECTURES
    if entry.model
    in {
        "BeitForImageClassification",
        "CLIPForImageClassification",
        "Dinov2ForImageClassification",
        "Dinov2WithRegistersForImageClassification",
        "IJepaForImageClassification",
        "MobileViTForImageClassification",
        "PvtForImageClassification",
        "SiglipForImageClassification",
        "SwinForImageClassification",
        "ViTMSNForImageClassification",
    }
]
DINOV2 = next(entry for entry in CLASSIFIERS if entry.model == "Dinov2ForImageClassification")


@pytest.mark.parametrize("entry", some(CLASSIFIERS, DINOV2), ids=lambda entry: entry.model)
def test_logits_are_the_same_at_any_batch(entry: Architecture) -> None:
    model = make_model(entry)
    for plan in ({}, {"*.self_attention": "minimal_attention", "encoder.1.mlp": "none"}):
        torch.manual_seed(0)
        student = lf.reduce(model, plan)
        graph = classifier_graph(student).SerializeToString()
        session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        for batch in (1, 2, 5):
            images = make_inputs(model, entry.kind, batch=batch)["pixel_values"]
            with torch.no_grad():
                expected = student(pixel_values=images).logits.numpy()
            (logits,) = session.run(["logits"], {"pixel_values": images.numpy()})
            assert np.abs(logits - expected).max() < 1e-4
