"""Adapters to the providers, one file each; nothing else in the package knows an SDK."""

from __future__ import annotations

from batchata_tasks.providers._base import BatchLook, Framing, Provider, is_results, lines_with
from batchata_tasks.providers.registry import PROVIDERS, provider_name, provider_of, provider_type

__all__ = ["PROVIDERS", "BatchLook", "Framing", "Provider", "is_results", "lines_with", "provider_name", "provider_of", "provider_type"]
