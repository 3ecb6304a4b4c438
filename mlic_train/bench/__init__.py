"""PyTorch as a backend of mlic-bench."""
