"""Files that are never seen half-written, and progress on stderr."""
