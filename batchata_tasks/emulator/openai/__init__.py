"""The emulated OpenAI API."""
