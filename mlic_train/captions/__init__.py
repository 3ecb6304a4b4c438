"""Tokenizers that are trained here."""
