"""For how long a batch can be under way at a provider."""

from __future__ import annotations

LONGEST_LIFE = 26 * 3600.0
"""Seconds from its creation within which any batch has ended.

Anthropic and OpenAI end each after 24 hours, whether or not anybody looks; the rest is for clocks
that differ.
"""
