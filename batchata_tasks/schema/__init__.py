"""Response models: they are read, checked, sent, and used to parse answers."""
