"""Prices: batch rates by provider, or one's own, and what bounds tokens."""
