"""Measurements: time of one run, of each stage, of a cold start, against other engines."""
