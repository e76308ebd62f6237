"""Anthropic's batches by themselves, without a run."""

from __future__ import annotations

from batchata_tasks.api.provider import Provider
from batchata_tasks.providers.anthropic.adapter import AnthropicAdapter


class AnthropicProvider(Provider, AnthropicAdapter):
    """Message Batches: requests travel inline in the create, results come as one file."""
