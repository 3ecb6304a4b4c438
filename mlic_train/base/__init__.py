"""How long the parts of a job take."""
