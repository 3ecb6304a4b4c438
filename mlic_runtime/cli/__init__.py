"""The commands `mlic-infer` and `mlic-bench`. No other room imports click."""
