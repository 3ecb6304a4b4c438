"""Records into batches of tensors: augmentation, cached features, the loader."""
