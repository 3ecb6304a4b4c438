"""Annotated data sets in every format that people bring: their sources, rows, pictures and labels."""
