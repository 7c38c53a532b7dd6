"""ONNX graphs of models, and their precisions."""
