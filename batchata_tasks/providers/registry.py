"""Which providers there are, and which of them serves a model."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, TypeAlias

from batchata_tasks.common.errors import SpecError
from batchata_tasks.providers.keys import mask_too

if TYPE_CHECKING:
    from batchata_tasks.providers.base import Adapter

_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")  # ledgers keep up to 32 characters
_NEEDED = (
    "name",
    "key_variables",
    "limits",
    "framing",
    "poll_seconds",
    "reserved_params",
    "repriced_params",
    "priced_params",
    "cap_param",
    "caches_unasked",
)


_Place: TypeAlias = "type[Adapter] | tuple[str, str]"
"""A class, or the module here that it is to be imported from and its name: an SDK takes a second to import."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A provider: the names of its models, and the adapter of each of its endpoints."""

    models: re.Pattern[str]
    adapters: dict[str, _Place]


_CHAT = "chat"  # where a provider has but one endpoint, that has this name
_GROUP = "batchata.providers"
_ENTRIES = {
    "anthropic": _Entry(
        re.compile(r"^claude-"), {_CHAT: ("anthropic.adapter", "AnthropicAdapter")}
    ),
    "openai": _Entry(
        re.compile(r"^(gpt-|o\d|chatgpt-|ft:gpt-|ft:o\d)"),
        {
            _CHAT: ("openai.chat", "OpenAIAdapter"),
            "responses": ("openai.responses", "OpenAIResponsesAdapter"),
        },
    ),
}


def register(adapter: type[Adapter], *, models: str) -> None:
    """Make a further provider known to this process, under its class's `name`.

    Each process that works on its batches needs that. For commands and workers, an installed package
    names the module that calls this as an entry point of the group `batchata.providers`. Prices stand in
    prices.toml, in tables of the provider's name. A class of the same module and name takes the place of
    an earlier one.

    Args:
        adapter: the class; it takes no arguments.
        models: regular expression that the names of its models begin with, such as `^my-`.

    Raises:
        SpecError: the class is no whole adapter, its name is taken, or `models` is no regular expression.
    """
    if not isinstance(adapter, type):  # pyright: ignore[reportUnnecessaryIsInstance]
        message = f"adapter: {adapter!r:.80} is no class; give the class, not an object of it."
        raise SpecError(message)
    if not isinstance(models, str) or not models:  # pyright: ignore[reportUnnecessaryIsInstance]
        message = f"models: {models!r:.80} matches no name of a model, or all; write what they begin with, such as '^my-'."
        raise SpecError(message)
    if unbuilt := sorted(
        {
            *getattr(adapter, "__abstractmethods__", ()),
            *(name for name in _NEEDED if not hasattr(adapter, name)),
        }
    ):
        message = f"{adapter.__qualname__}: an adapter also needs {', '.join(unbuilt)}."
        raise SpecError(message)
    name = adapter.name
    if not isinstance(name, str) or not _NAME.fullmatch(name):  # pyright: ignore[reportUnnecessaryIsInstance]
        message = f"{adapter.__qualname__}.name: {name!r:.80} is no name; write 1 to 32 small letters, digits and `_`."
        raise SpecError(message)
    if name in _ENTRIES and _place(_ENTRIES[name].adapters[_CHAT]) != _place(adapter):
        message = f"{adapter.__qualname__}.name: there is a provider {name!r} already; choose another name."
        raise SpecError(message)
    try:
        _ENTRIES[name] = _Entry(re.compile(models), {_CHAT: adapter})
    except re.error as error:
        message = f"models: {models!r} is no regular expression ({error})."
        raise SpecError(message) from error
    mask_too(adapter.key_variables)


def _place(adapter: _Place) -> tuple[str, str]:
    return adapter if isinstance(adapter, tuple) else (adapter.__module__, adapter.__qualname__)


@cache
def _load_installed() -> None:
    """Import the modules that installed packages name, so that they register."""
    for point in entry_points(group=_GROUP):
        try:
            point.load()
        except (ImportError, AttributeError) as error:
            message = f"{point.value}, a provider that an installed package names, cannot be loaded ({error}); mend or remove the package."
            raise SpecError(message) from error


def known_providers() -> tuple[str, ...]:
    """Return the names of all providers that this process knows.

    Raises:
        SpecError: one that is installed cannot be loaded.
    """
    _load_installed()
    return tuple(_ENTRIES)


def provider_type(name: str, endpoint: str = _CHAT) -> type[Adapter]:
    """Return the adapter to an endpoint of a provider; an SDK, a second's work, is imported here and not before.

    Endpoints differ in bodies and answers alone: files, batches and accounts are the provider's, whichever adapter is asked.

    Raises:
        SpecError: there is no provider of this name, or it has no such endpoint.
    """
    check_name(name)
    adapters = _ENTRIES[name].adapters
    if endpoint not in adapters:
        message = f"endpoint: {name} has no endpoint {endpoint!r:.80}; remove it."
        raise SpecError(message)
    adapter = adapters[endpoint]
    if isinstance(adapter, tuple):
        module, kind = adapter
        found: type[Adapter] = getattr(import_module(f"batchata_tasks.providers.{module}"), kind)
        return found
    return adapter


def check_name(name: str) -> None:
    """Refuse the name of a provider that is not known here.

    Raises:
        SpecError: saying which ones are.
    """
    if name not in known_providers():
        message = f"provider: {name!r:.80} is none that is known here ({', '.join(_ENTRIES)}); check its spelling, or register it first."
        raise SpecError(message)


def provider_name(model: str, named: str | None = None) -> str:
    """Return the name of the provider that serves a model, by the spec's `provider` or by the model's name.

    Raises:
        SpecError: the name tells nothing, or contradicts the spec's `provider`.
    """
    if named is not None:
        check_name(named)
    by_name = [name for name in known_providers() if _ENTRIES[name].models.match(model)]
    if named is None and not by_name:
        message = f"model: {model!r} belongs to no provider known here; check its spelling, or name `provider:` ({' or '.join(_ENTRIES)})."
        raise SpecError(message)
    if named is None and len(by_name) > 1:
        message = f"model: {model!r} may be a model of {' or of '.join(by_name)}; name `provider:`."
        raise SpecError(message)
    if named is not None and by_name and named not in by_name:
        message = f"provider: {model!r} is a model of {' or '.join(by_name)}, not of {named}; remove `provider`, or change the model."
        raise SpecError(message)
    return named or by_name[0]
