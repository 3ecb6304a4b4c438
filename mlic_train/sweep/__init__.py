"""Hyperparameter sweeps: many runs of `mlic-train` as the trials of one Optuna study (`mlic-sweep`)."""
