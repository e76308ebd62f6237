"""The progress of a run: what it reports while it works, and how that is shown."""
