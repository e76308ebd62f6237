"""The providers, and which of them serves a model."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from batchata_tasks.common.collector import collector_paused
from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.installed import entry_points_of
from batchata_tasks.providers.blocks import credentials_of
from batchata_tasks.providers.keys import mask_too
from batchata_tasks.providers.model_names import batch_models, did_you_mean

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


# a class, or its module here and its name: it is imported when needed, as an SDK takes a second
_Place: TypeAlias = "type[Adapter] | tuple[str, str]"


@dataclass(frozen=True, slots=True)
class _Entry:
    """A provider: the names of its models, and the adapter of each of its endpoints."""

    models: re.Pattern[str]
    adapters: dict[str, _Place]


_CHAT = "chat"  # the name of the endpoint if a provider has only one
_GROUP = "batchata.providers"
_OPENAI_ADAPTERS: dict[str, _Place] = {
    _CHAT: ("openai.chat", "OpenAIAdapter"),
    "responses": ("openai.responses", "OpenAIResponsesAdapter"),
}
# by the provider's name; `register` adds to it for the life of the process, and nothing removes
_ENTRIES = {
    "anthropic": _Entry(
        re.compile(r"^claude-"), {_CHAT: ("anthropic.adapter", "AnthropicAdapter")}
    ),
    "openai": _Entry(re.compile(r"^(gpt-|o\d|chatgpt-|ft:gpt-|ft:o\d)"), _OPENAI_ADAPTERS),
}


def register(adapter: type[Adapter], *, models: str) -> None:
    """Add a provider to this process, under its class's `name`.

    Each process that works on its batches needs that. For commands and workers, an installed
    package names the module that calls this as an entry point of the group `batchata.providers`.
    Prices stand in prices.toml, in tables of the provider's name. A class replaces an earlier one
    of the same module and name.

    Args:
        adapter: the class; its constructor takes no arguments.
        models: regular expression that matches how the names of its models begin, such as `^my-`.

    Raises:
        SpecError: the adapter is incomplete, its name is taken, or `models` is invalid.
    """
    if not isinstance(adapter, type):  # pyright: ignore[reportUnnecessaryIsInstance]
        message = f"adapter: {adapter!r:.80} is not a class; give the class, not an object of it."
        raise SpecError(message)
    if not isinstance(models, str) or not models:  # pyright: ignore[reportUnnecessaryIsInstance]
        message = (
            f"models: {models!r:.80} matches no name of a model, or all; "
            "write what they begin with, such as '^my-'."
        )
        raise SpecError(message)
    _check_adapter(adapter)
    try:
        pattern = re.compile(models)
    except re.error as error:
        message = f"models: {models!r} is not a regular expression ({error})."
        raise SpecError(message) from error
    _ENTRIES[adapter.name] = _Entry(pattern, {_CHAT: adapter})
    mask_too(adapter.key_variables)


def _check_adapter(adapter: type[Adapter]) -> None:
    """Refuse an incomplete adapter, and a name that is invalid or taken."""
    missing = {name for name in _NEEDED if not hasattr(adapter, name)}
    missing.update(getattr(adapter, "__abstractmethods__", ()))
    if missing:
        message = f"{adapter.__qualname__}: an adapter also needs {', '.join(sorted(missing))}."
        raise SpecError(message)
    problem, name = None, cast("Any", adapter.name)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        problem = f"{name!r:.80} is not a name; write 1 to 32 small letters, digits and `_`."
    elif name in _ENTRIES and _place(_ENTRIES[name].adapters[_CHAT]) != _place(adapter):
        problem = f"there is already a provider {name!r}; choose another name."
    if problem is not None:
        message = f"{adapter.__qualname__}.name: {problem}"
        raise SpecError(message)


def _place(adapter: _Place) -> tuple[str, str]:
    return adapter if isinstance(adapter, tuple) else (adapter.__module__, adapter.__qualname__)


# once in a process: what is installed stays the same. An error is not cached, but raised each time
@cache
def _load_installed() -> None:
    """Import the modules that installed packages name, so that they register their providers."""
    for point in entry_points_of(_GROUP):
        try:
            point.load()
        except (ImportError, AttributeError) as error:
            message = (
                f"{point.value}, a provider that an installed package names, cannot be loaded "
                f"({error}); fix or remove the package."
            )
            raise SpecError(message) from error


def known_providers() -> tuple[str, ...]:
    """Return the names of all providers that this process can use.

    Raises:
        SpecError: an installed one cannot be loaded.
    """
    _load_installed()
    return tuple(_ENTRIES)


def provider_type(name: str, endpoint: str = _CHAT) -> type[Adapter]:
    """Return the adapter to an endpoint of a provider; its SDK is imported here and not before.

    Endpoints differ in bodies and answers alone: files, batches and accounts are the provider's,
    whichever adapter is used.

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
        module, class_name = adapter
        with collector_paused():  # an SDK has many classes
            adapter = getattr(import_module(f"batchata_tasks.providers.{module}"), class_name)
    return adapter


def open_adapter(name: str, endpoint: str = _CHAT, block: str | None = None) -> Adapter:
    """Return an adapter to an endpoint of a provider, with the credentials of a block if named.

    Raises:
        SpecError: there is no such provider or endpoint, no blocks for it, or an invalid setting.
        CredentialsError: there is no key, or the block cannot be read.
    """
    kind: Any = provider_type(name, endpoint)
    return kind() if block is None else kind(credentials_of(name, block))


def is_built_in(name: str) -> bool:
    """Whether a provider came with the package: the names of its models are known from prices."""
    return name in _ENTRIES and isinstance(_ENTRIES[name].adapters[_CHAT], tuple)


def is_of_family(name: str, model: str) -> bool:
    """Whether a model's name begins as those of a provider do."""
    return name in _ENTRIES and _ENTRIES[name].models.match(model) is not None


def endpoint_types(name: str) -> list[type[Adapter]]:
    """Return the adapters to all endpoints of a provider.

    Raises:
        SpecError: there is no provider of this name.
    """
    check_name(name)
    return [provider_type(name, endpoint) for endpoint in _ENTRIES[name].adapters]


def check_name(name: str) -> None:
    """Refuse an unknown provider.

    Raises:
        SpecError: naming those that there are.
    """
    if name not in known_providers():
        message = (
            f"provider: {name!r:.80} is unknown here (there are: {', '.join(_ENTRIES)}); "
            "check its spelling, or register it first."
        )
        raise SpecError(message)


def provider_name(model: str, named: str | None = None) -> str:
    """Return the provider that serves a model: the spec's `provider` (`named`), or by its name.

    Raises:
        SpecError: the model's name does not say, or contradicts the spec's `provider`.
    """
    if named is not None:
        check_name(named)
    by_name = [name for name in known_providers() if _ENTRIES[name].models.match(model)]
    problem = None
    if named is not None and by_name and named not in by_name:
        problem = (
            f"provider: {model!r} is a model of {' or '.join(by_name)}, not of {named}; "
            "remove `provider`, or change the model."
        )
    elif named is None and not by_name:
        hint = did_you_mean(model, batch_models(name for name in _ENTRIES if is_built_in(name)))
        problem = (
            f"model: {model!r} belongs to no provider known here{hint}; "
            f"check its spelling, or name `provider:` ({' or '.join(_ENTRIES)})."
        )
    elif named is None and len(by_name) > 1:
        problem = f"model: {model!r} may be a model of {' or of '.join(by_name)}; name `provider:`."
    if problem is not None:
        raise SpecError(problem)
    return named or by_name[0]
