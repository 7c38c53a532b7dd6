"""Graphs of models for ONNX, as they are before they are written."""
