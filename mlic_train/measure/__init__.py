"""What a model says of a split, and how good that is: metrics, intervals, thresholds, calibration."""
