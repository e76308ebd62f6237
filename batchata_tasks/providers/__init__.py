"""Adapters to the providers, one file each; nothing else in the package knows an SDK.

A further one derives from `Provider`, supplies its primitives and is made known by `register`.
"""

from __future__ import annotations

from batchata_tasks.providers._base import BatchLook, Framing
from batchata_tasks.providers._keys import check_environment, masked
from batchata_tasks.providers._lines import is_results, lines_of, lines_with, read_line
from batchata_tasks.providers._provider import Provider
from batchata_tasks.providers.registry import check_name, known_providers, provider_name, provider_of, provider_type, register

__all__ = [
    "BatchLook", "Framing", "Provider", "check_environment", "check_name", "is_results", "known_providers", "lines_of", "lines_with",
    "masked", "provider_name", "provider_of", "provider_type", "read_line", "register",
]
