"""What a detector sees against what the catalog holds: the differences become a run's steps."""
