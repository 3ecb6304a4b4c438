"""Run folders: checkpoints, and the trained models in them."""
