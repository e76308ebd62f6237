"""OpenAI's Batch API, for chat and for responses."""
