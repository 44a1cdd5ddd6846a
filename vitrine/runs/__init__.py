"""A run on disk: its folder, checkpoints, metrics, results of analyses, and the record of how it went."""
