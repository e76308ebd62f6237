"""Which provider serves a model."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from batchata_tasks.errors import SpecError

if TYPE_CHECKING:
    from batchata_tasks.providers._base import Provider

_MODELS = {
    "anthropic": re.compile(r"^claude-"),
    "openai": re.compile(r"^(gpt-|o\d|chatgpt-|ft:gpt-|ft:o\d)"),
}
PROVIDERS = tuple(_MODELS)


def provider_type(name: str) -> type[Provider]:
    """Return an adapter by its name; its SDK, a second's work, is imported here and not before."""
    if name == "anthropic":
        from batchata_tasks.providers.anthropic import AnthropicProvider  # noqa: PLC0415

        return AnthropicProvider
    from batchata_tasks.providers.openai import OpenAIProvider  # noqa: PLC0415

    return OpenAIProvider


def provider_name(model: str, named: str | None = None) -> str:
    """Return the name of the provider that serves a model, by the spec's `provider` or by the model's name.

    Raises:
        SpecError: the name tells nothing, or contradicts the spec's `provider`.
    """
    by_name = next((name for name, pattern in _MODELS.items() if pattern.match(model)), None)
    if named is None and by_name is None:
        message = f"model: {model!r} belongs to no provider known here; check its spelling, or name `provider:` (anthropic or openai)."
        raise SpecError(message)
    if named is not None and by_name not in (None, named):
        message = f"provider: {model!r} is a model of {by_name}, not of {named}; remove `provider`, or change the model."
        raise SpecError(message)
    return named or by_name or ""


def provider_of(model: str, named: str | None = None) -> type[Provider]:
    """Return the adapter for a model; see `provider_name`."""
    return provider_type(provider_name(model, named))
