"""The commands mlic-infer and mlic-bench. Nothing else imports click."""
