"""Captions into token ids, with the tokenizer of a model package."""
