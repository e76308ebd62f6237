"""What the queues of providers hold, as an operator states it.

It stands in the TOML file that `BATCHATA_QUEUES` names, or in `queues.toml` of the working folder.
Providers tell their limits in their consoles, and some only once a queue is full. A lower one
leaves room for other programs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.toml_file import read_toml
from batchata_tasks.providers.registry import known_providers, provider_type

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from batchata_tasks.providers.base import QueueRule

_DEFAULT, _VARIABLE = "queues.toml", "BATCHATA_QUEUES"
_KEYS = {"tokens": "enqueued_tokens", "requests": "queued_requests"}
_EXAMPLES = {"tokens": "2_000_000", "requests": "100_000"}
_MOST = 10**15


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """What queues hold, in tokens or requests, by provider and model.

    The model "" is any other one of the provider. `file` is the name of the file that says so.
    """

    file: str = _DEFAULT
    by_model: Mapping[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])

    def of(self, provider: str, model: str) -> int | None:
        """Return what the queue of a model holds; None if the file does not say."""
        return self.by_model.get((provider, model), self.by_model.get((provider, "")))


def load_queue_limits(file: str | None) -> QueueLimits:
    """Read the limits of queues from a file, or else from `queues.toml` of the working folder.

    Raises:
        SpecError: the file cannot be read, or anything in it is wrong.
    """
    found = read_toml(file, _DEFAULT, _VARIABLE, "limits of queues")
    if found is None:
        return QueueLimits()
    path, tables = found
    limits = dict[tuple[str, str], int]()
    for provider, table in tables.items():
        rule = provider_type(provider).queue if provider in known_providers() else None
        if rule is None or not isinstance(table, dict):
            message = (
                f"{path}: `{provider}` is not a table of a provider that has queues; {_forms()}."
            )
            raise SpecError(message)
        limits |= _limits(path, provider, rule, cast("dict[str, Any]", table))
    return QueueLimits(path.name, limits)


def _limits(
    path: Path, provider: str, rule: QueueRule, table: dict[str, Any]
) -> dict[tuple[str, str], int]:
    """Return the limits in the table of a provider."""
    key, limits = _KEYS[rule.counts], dict[tuple[str, str], int]()
    for name, value in table.items():
        entries, model = {name: value}, ""
        if isinstance(value, dict) and rule.per_model:
            entries, model = cast("dict[str, Any]", value), name
        label = f'{path}: [{provider}."{model}"]' if model else f"{path}: [{provider}]"
        for entry, amount in entries.items():
            if entry != key:
                message = f"{label}: `{entry}` is not a key; {_forms()}."
                raise SpecError(message)
            if not isinstance(amount, int) or not 0 < amount <= _MOST or amount is True:
                message = (
                    f"{label}: `{key}` must be a whole number of at least 1, such as "
                    f"{_EXAMPLES[rule.counts]} (it is {amount!r:.50})."
                )
                raise SpecError(message)
            limits[provider, model] = amount
    return limits


def _forms() -> str:
    """Return how a file may state limits."""
    forms = list[str]()
    for provider in known_providers():
        if (rule := provider_type(provider).queue) is not None:
            line = f"`{_KEYS[rule.counts]} = {_EXAMPLES[rule.counts]}`"
            models = f' or [{provider}."MODEL"]' if rule.per_model else ""
            forms.append(f"{line} under [{provider}]{models}")
    return f"write {', '.join(forms)}"
