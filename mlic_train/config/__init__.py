"""Options: what can be chosen, its range, its default, and what follows from it."""
