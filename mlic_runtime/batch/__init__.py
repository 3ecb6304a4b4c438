"""Many rows on this machine: results as lines or submissions, in a file that survives being killed."""
