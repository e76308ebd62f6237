"""API keys are checked here before anything is sent, and masked in all texts."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from os import environ
from typing import TYPE_CHECKING

from batchata_tasks.common.errors import CredentialsError, SpecError
from batchata_tasks.common.text import printable
from batchata_tasks.providers.credentials import ENVIRONMENT

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

    from batchata_tasks.providers.credentials import Credentials

_HEADERS = ("ANTHROPIC_CUSTOM_HEADERS", "OPENAI_CUSTOM_HEADERS")
_SECRET_CHARS = 12  # names of projects and the like are shorter mostly, and help
_KEY_CHARS = 20  # keys of the providers have more than 50
_KEYS = ["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "OPENAI_API_KEY"]
_OF_BLOCKS = set[str]()  # the keys themselves


_needs_key = ContextVar("needs_key", default=True)
NO_KEY = "unset"
"""What a client that asks for a key is made with, if none is needed."""


@contextmanager
def without_keys_set() -> Generator[None, None, None]:
    """Let adapters be made whose keys are not set: for a look at what would be sent, say."""
    token = _needs_key.set(False)
    try:
        yield
    finally:
        _needs_key.reset(token)


def unset_key(keys: tuple[str, ...], credentials: Credentials = ENVIRONMENT) -> str | None:
    """Return what is to be set if none of a provider's keys is, as people know it."""
    return None if any(map(credentials.get, keys)) else credentials.word(keys[0])


def mask_value(key: str | None) -> None:
    """Mask a key that did not come from the environment, too."""
    if key:
        _OF_BLOCKS.add(key)


def mask_too(variables: Iterable[str]) -> None:
    """Mask the keys in these environment variables as well."""
    _KEYS.extend(name for name in variables if name not in _KEYS)


def check_environment(
    keys: tuple[str, ...], address: str, credentials: Credentials = ENVIRONMENT
) -> None:
    """Refuse a missing key, keys that no header can carry and invalid addresses, unquoted.

    A library would refuse them later, quote the key, and leave a create in doubt.

    Raises:
        InputError: naming the variable, or the field of the block.
    """
    if (unset := unset_key(keys, credentials)) is not None and _needs_key.get():
        message = f"{unset} is not set; set it to the key of the account that is to pay."
        raise CredentialsError(message)
    for name in keys:
        key, word = credentials.get(name) or "", credentials.word(name)
        if not key.isprintable() or not key.isascii() or key != key.strip():
            message = (
                f"{word} holds a line end, a blank or a character that no key has; "
                "set it to the key alone."
            )
            raise CredentialsError(message)
    if (url := credentials.get(address)) and not url.lower().startswith(("http://", "https://")):
        message = (
            f"{credentials.word(address)} must begin with http:// or https://; "
            "set it to the whole address, or unset it."
        )
        raise SpecError(message)


def masked(text: str) -> str:
    """Return a provider's or library's text as one line, with the keys that it quotes masked."""
    for secret in (*_keys(), *_header_values()):
        text = text.replace(secret, "***")
    return printable(text)


def without_keys(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the results that a provider sent, as many bytes, with the keys that it quotes masked.

    Some servers take any key, and short ones are words that answers may hold.
    """
    keys = [key.encode() for key in _keys() if len(key) >= _KEY_CHARS]
    longest, rest = max(map(len, keys), default=1), b""
    for block in blocks:
        rest += block
        for key in keys:
            rest = rest.replace(key, b"*" * len(key))
        # the last bytes may be the first of a key
        keep = len(rest) - longest + 1
        if keep > 0:
            yield rest[:keep]
            rest = rest[keep:]
    yield rest


def _keys() -> list[str]:
    return [*filter(None, map(environ.get, _KEYS)), *_OF_BLOCKS]


def _header_values() -> list[str]:
    """Return the values of custom headers, which may be secrets; short ones are not."""
    lines = "\n".join(environ.get(name, "") for name in _HEADERS).split("\n")
    values = [line.partition(":")[2].strip() for line in lines]
    return [value for value in values if len(value) >= _SECRET_CHARS]
