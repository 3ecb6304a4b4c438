"""The one reader of tables, of inference and of training: CSV, JSON lines, JSON arrays, Parquet."""
