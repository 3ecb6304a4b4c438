"""What every room stands on: texts, strict JSON, files that are never seen half-written, the machine."""
