"""Fitting: losses, optimizer, teachers, processes, and the run from start to end."""
