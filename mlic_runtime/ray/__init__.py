"""Many rows on a Ray cluster."""
