"""Frozen values that travel between packages, without behaviour."""
