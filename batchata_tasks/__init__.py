"""Batch enrichment with language models at half price, with hard cost limits.

Specs enrich tables, `enrich` frames; a `Batch` runs single jobs. Names are imported when they are
first used, so that a command that needs none of them starts at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchata_tasks.api.anthropic import AnthropicProvider
    from batchata_tasks.api.batch import Batch
    from batchata_tasks.api.config import BatchParams
    from batchata_tasks.api.cost_tracker import CostTracker
    from batchata_tasks.api.enrich import enrich
    from batchata_tasks.api.job_result import JobResult
    from batchata_tasks.api.openai import OpenAIProvider
    from batchata_tasks.api.provider import Provider
    from batchata_tasks.api.run import BatchRun
    from batchata_tasks.api.state import BatchState, StateManager
    from batchata_tasks.api.upkeep import forget, revalidate
    from batchata_tasks.citations.citation import Citation
    from batchata_tasks.citations.mapping import map_citations
    from batchata_tasks.common.errors import BatchataError, InputError, SpecError
    from batchata_tasks.progress.display import RichBatchProgressDisplay
    from batchata_tasks.spec.enrichment import EnrichmentSpec
    from batchata_tasks.spec.job import Job
    from batchata_tasks.types.outcome import Outcome

_MODULES = {
    "AnthropicProvider": "api.anthropic",
    "Batch": "api.batch",
    "BatchParams": "api.config",
    "BatchRun": "api.run",
    "BatchState": "api.state",
    "BatchataError": "common.errors",
    "Citation": "citations.citation",
    "CostTracker": "api.cost_tracker",
    "EnrichmentSpec": "spec.enrichment",
    "InputError": "common.errors",
    "Job": "spec.job",
    "JobResult": "api.job_result",
    "OpenAIProvider": "api.openai",
    "Outcome": "types.outcome",
    "Provider": "api.provider",
    "RichBatchProgressDisplay": "progress.display",
    "SpecError": "common.errors",
    "StateManager": "api.state",
    "enrich": "api.enrich",
    "forget": "api.upkeep",
    "map_citations": "citations.mapping",
    "revalidate": "api.upkeep",
}

__all__ = [
    "AnthropicProvider",
    "Batch",
    "BatchParams",
    "BatchRun",
    "BatchState",
    "BatchataError",
    "Citation",
    "CostTracker",
    "EnrichmentSpec",
    "InputError",
    "Job",
    "JobResult",
    "OpenAIProvider",
    "Outcome",
    "Provider",
    "RichBatchProgressDisplay",
    "SpecError",
    "StateManager",
    "enrich",
    "forget",
    "map_citations",
    "revalidate",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
