"""The emulated Anthropic API."""
