"""Pictures of any accepted format, turned into pixels."""
