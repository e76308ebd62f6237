"""Adapters to the providers, a folder each; nothing else in the package imports an SDK.

Another one derives from `Provider`, implements what `Adapter` leaves abstract, and is registered by
`register`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from batchata_tasks.providers.accounts import (
    address_now,
    address_then,
    block_of,
    describe_change,
    has_forgotten,
    is_other_scope,
    names_of_account,
    scope_of,
)
from batchata_tasks.providers.base import Adapter, BatchLook, Framing, Limits, QueueRule
from batchata_tasks.providers.blocks import blocks_unread
from batchata_tasks.providers.keys import (
    check_environment,
    masked,
    unset_key,
    without_keys_set,
)
from batchata_tasks.providers.registry import (
    check_name,
    endpoint_types,
    is_built_in,
    is_of_family,
    known_providers,
    open_adapter,
    provider_name,
    provider_type,
    register,
)
from batchata_tasks.providers.result_lines import (
    breaks_off,
    lines_of,
    read_line,
    rows_named,
)

if TYPE_CHECKING:
    # the one name from a layer above: others derive from an adapter that works by itself as well
    from batchata_tasks.api.provider import Provider

__all__ = [
    "Adapter",
    "BatchLook",
    "Framing",
    "Limits",
    "Provider",
    "QueueRule",
    "address_now",
    "address_then",
    "block_of",
    "blocks_unread",
    "breaks_off",
    "check_environment",
    "check_name",
    "describe_change",
    "endpoint_types",
    "has_forgotten",
    "is_built_in",
    "is_of_family",
    "is_other_scope",
    "known_providers",
    "lines_of",
    "masked",
    "names_of_account",
    "open_adapter",
    "provider_name",
    "provider_type",
    "read_line",
    "register",
    "rows_named",
    "scope_of",
    "unset_key",
    "without_keys_set",
]


def __getattr__(name: str) -> Any:
    if name == "Provider":
        globals()[name] = import_module("batchata_tasks.api.provider").Provider
        return globals()[name]
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
