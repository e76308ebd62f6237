"""What the emulated models answer."""
