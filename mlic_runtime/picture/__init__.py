"""Pictures of any format into pixels."""
