"""A graph of a model package as a session of ONNX Runtime: loading, caching, choosing its precision."""
