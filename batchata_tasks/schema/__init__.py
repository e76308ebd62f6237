"""Response models: read, checked, sent, and used to parse answers."""
