"""ONNX Runtime as it is installed here, and its execution providers."""
