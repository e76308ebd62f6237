"""Accounts: the key, the address, and all else that selects whose batches a request is about.

Besides a key, the SDKs send an organization, a project or a workspace if the environment, or a
block of credentials, names one. A batch can be seen only under the settings that it was created
with: under others it is not found, which must not be taken for its end.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from typing import TYPE_CHECKING, Any, ClassVar, Protocol
from urllib.parse import urlsplit, urlunsplit

from batchata_tasks.common.json import as_dict
from batchata_tasks.common.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchata_tasks.providers.credentials import Credentials
    from batchata_tasks.providers.emulated import Answering

# custom headers that say nothing about whose batches are meant, and may differ from run to run
_NO_SCOPE = frozenset(
    {
        "accept",
        "accept-encoding",
        "anthropic-beta",
        "anthropic-version",
        "baggage",
        "content-type",
        "traceparent",
        "tracestate",
        "user-agent",
        "x-client-request-id",
        "x-correlation-id",
        "x-request-id",
    }
)
_DIGITS = 12  # of the fingerprint of a header's value, which may be a secret


class Asker(Protocol):
    """What an adapter shows of the account that it asks; see `Adapter` for each."""

    name: ClassVar[str]
    key_variables: ClassVar[tuple[str, ...]]
    scope_variables: ClassVar[tuple[str, ...]]
    headers_variable: ClassVar[str | None]
    answering: Answering | None
    credentials: Credentials

    @property
    def base_url(self) -> str:
        """The address that requests go to."""
        ...

    @property
    def secret(self) -> str:
        """The API key in use."""
        ...


def account_name(adapter: Asker, ledger_id: str) -> str:
    """Return a name for the account in use that does not give away the key."""
    names = [f"{variable}={value}" for variable, value in _selected(adapter)]
    return _digest(ledger_id, " ".join([_keyed(adapter), *names]))


def names_of_account(adapter: Asker, ledger_id: str) -> set[str]:
    """Return all names under which a ledger may know the account in use.

    Older versions went by key and address alone.
    """
    return {account_name(adapter, ledger_id), _digest(ledger_id, _keyed(adapter))}


def scope_of(adapter: Asker, ledger_id: str) -> str:
    """Return, as JSON, the settings that select the account in use, to name them later.

    The key is left out; of custom headers there are names, and fingerprints instead of values.
    """
    headers = {name: _digest(ledger_id, value)[:_DIGITS] for name, value in _headers(adapter)}
    variables = {name: adapter.credentials.get(name) or None for name in adapter.scope_variables}
    facts: dict[str, Any] = {"address": _address(adapter.base_url), "variables": variables}
    if (block := adapter.credentials.block) is not None:
        facts["block"] = block
    if (emulator := _emulator(adapter)) is not None:
        facts["emulator"] = emulator
    return json.dumps({**facts, "headers": headers})


def block_of(scope: str | None) -> str | None:
    """Return the block of credentials that a scope is of; None if it is the environment's."""
    block = as_dict(json.loads(scope or "null")).get("block")
    return None if block is None else str(block)


def is_other_scope(adapter: Asker, ledger_id: str, then: str | None) -> bool:
    """Whether the settings that select an account, the key apart, differ from `then`, a scope.

    A batch is not found under others than its own, unless they come to the same.
    """
    return bool(_changes(adapter, ledger_id, as_dict(json.loads(then or "null"))))


def describe_change(adapter: Asker, ledger_id: str, then: str | None) -> str:
    """Return what is to be set again to reach the account of `then`, a scope, as a clause."""
    old = as_dict(json.loads(then or "null"))
    if not old:
        return "it was sent under another API key or address: set these again"
    if (changed := _other_emulator(adapter, old)) is not None:
        return changed
    changes = _changes(adapter, ledger_id, old)
    if not changes:
        key, block = adapter.key_variables[0], adapter.credentials.block
        to_set = f"{key} of that account"
        if block is not None:
            to_set = f"{adapter.credentials.word(key)} to the key of that account"
        return f"it was sent under another API key: set {to_set}"
    return f"it was sent under other settings: {'; '.join(changes)}; set them as they were"


def _changes(adapter: Asker, ledger_id: str, old: dict[str, Any]) -> list[str]:
    """Return how a scope differs from the present one, as texts; of one that is unknown nothing."""
    if not old:
        return []
    now, word = json.loads(scope_of(adapter, ledger_id)), adapter.credentials.word
    changes = [
        f"{word(name)} was {_shown(value)} and is {_shown(now['variables'].get(name))}"
        for name, value in as_dict(old.get("variables")).items()
        if value != now["variables"].get(name)
    ]
    if old.get("address") != now["address"]:
        changes.insert(0, f"the address was {_shown(old.get('address'))} and is {now['address']}")
    headers = as_dict(old.get("headers"))
    different = sorted(
        name
        for name in headers.keys() | now["headers"].keys()
        if headers.get(name) != now["headers"].get(name)
    )
    if different:
        changes.append(f"{adapter.headers_variable} had another {' and '.join(different)}")
    if (changed := _other_emulator(adapter, old)) is not None:
        changes.append(changed)
    return changes


def has_forgotten(adapter: Asker, then: str | None) -> bool:
    """Whether what was sent under `then`, a scope, went to an emulator that is there no more.

    Something else answers at its address now: an emulator that was started anew, say.
    """
    old = as_dict(json.loads(then or "null"))
    return bool(old.get("emulator")) and _other_emulator(adapter, old) is not None


def address_then(then: str | None) -> str:
    """Return the address of `then`, a scope, for people; empty if it is not known."""
    address = as_dict(json.loads(then or "null")).get("address")
    return _shown(address) if address else ""


def address_now(adapter: Asker) -> str:
    """Return the address in use for people: without credentials and query."""
    return _shown(_address(adapter.base_url))


def _other_emulator(adapter: Asker, old: dict[str, Any]) -> str | None:
    """Return how somebody else answers at the address of a scope, as a clause; None if not so.

    Older scopes do not tell who answered; and nobody knows who does before an answer has come.
    """
    then, now = old.get("emulator"), _emulator(adapter)
    if then is None or now is None or then == now:
        return None
    if old.get("address") != (address := _address(adapter.base_url)):
        return None  # the address tells
    if not then:
        return f"an emulator answers at {_shown(address)} now, which it was not sent to"
    what = "was started anew since" if now else "does not answer there any more"
    return f"the emulator at {_shown(address)} that it was sent to {what}"


def _emulator(adapter: Asker) -> str | None:
    return None if adapter.answering is None else adapter.answering.emulator


def _shown(value: object) -> str:
    return printable(str(value))[:200] if value else "unset"


def _selected(adapter: Asker) -> Iterator[tuple[str, str]]:
    """Yield the settings, besides key and address, that select an account; unset ones count not."""
    for name in adapter.scope_variables:
        if value := adapter.credentials.get(name):
            yield name, value
    yield from _headers(adapter)


def _headers(adapter: Asker) -> list[tuple[str, str]]:
    """Return the custom headers of the environment, by lower-case name."""
    text = os.environ.get(adapter.headers_variable or "", "")
    pairs = (line.partition(":") for line in text.split("\n") if ":" in line)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    return sorted((name, value) for name, value in headers.items() if name not in _NO_SCOPE)


def _keyed(adapter: Asker) -> str:
    return f"{adapter.name} {adapter.base_url} {adapter.secret}"


def _address(base_url: str) -> str:
    """Return an address without credentials and query, which may hold secrets."""
    parts = urlsplit(base_url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def _digest(ledger_id: str, text: str) -> str:
    return hmac.new(ledger_id.encode(), text.encode(), hashlib.sha256).hexdigest()[:32]
