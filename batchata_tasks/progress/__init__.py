"""What a run tells while it works, and how that is shown."""
