"""A trained model into a model package: graphs, precisions, parity, card, archives, signatures."""
