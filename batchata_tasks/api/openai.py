"""OpenAI's batches by themselves, without a run."""

from __future__ import annotations

from batchata_tasks.api.provider import Provider
from batchata_tasks.providers.openai.chat import OpenAIAdapter


class OpenAIProvider(Provider, OpenAIAdapter):
    """Batches by file: one upload, one create; results come as an output and an error file."""
