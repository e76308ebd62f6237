"""Batch enrichment with language models at half price, with hard cost limits: tables by spec, jobs by `Batch`.

Names are imported when they are first used, so that a command that needs none of them starts at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchata_tasks.batch import Batch, BatchParams
    from batchata_tasks.cost_tracker import CostTracker
    from batchata_tasks.display import RichBatchProgressDisplay
    from batchata_tasks.errors import BatchataError, InputError, SpecError
    from batchata_tasks.job import Job, JobResult
    from batchata_tasks.jobs import Outcome
    from batchata_tasks.providers import Provider
    from batchata_tasks.providers.anthropic import AnthropicProvider
    from batchata_tasks.providers.openai import OpenAIProvider
    from batchata_tasks.run import BatchRun
    from batchata_tasks.spec import EnrichmentSpec
    from batchata_tasks.state import BatchState, StateManager

_PLACES = {
    "AnthropicProvider": "providers.anthropic", "Batch": "batch", "BatchParams": "batch", "BatchRun": "run", "BatchState": "state",
    "BatchataError": "errors", "CostTracker": "cost_tracker", "EnrichmentSpec": "spec", "InputError": "errors", "Job": "job",
    "JobResult": "job", "OpenAIProvider": "providers.openai", "Outcome": "jobs", "Provider": "providers",
    "RichBatchProgressDisplay": "display", "SpecError": "errors", "StateManager": "state",
}

__all__ = [
    "AnthropicProvider",
    "Batch",
    "BatchParams",
    "BatchRun",
    "BatchState",
    "BatchataError",
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
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    found = globals()[name] = getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
