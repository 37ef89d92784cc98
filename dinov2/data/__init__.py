"""Pictures to batches: which picture comes when, its crops, its masks, and the workers that make them ahead of time."""
