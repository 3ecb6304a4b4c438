"""From a trained model to a model package: graphs, precisions, parity, card, archives, signatures."""
