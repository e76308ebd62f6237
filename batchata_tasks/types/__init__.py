"""Frozen values that travel between packages; no behaviour."""
