"""Documents at URLs: fetched only from below a URL that the spec names, and from public addresses.

Rows may come from anybody, so that a URL in one is no reason to ask servers of one's own network.
"""

from __future__ import annotations

import hashlib
import re
import socket
import ssl
import time
from contextlib import closing, contextmanager
from http.client import HTTPException, HTTPResponse, HTTPSConnection
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from batchata_tasks.common.errors import SpecError
from batchata_tasks.sources.documents import MOST_BYTES

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from urllib.parse import SplitResult

_SCHEMES = {"https": 443}  # with their ports
_OK = 200
_BLOCK = 1 << 20
_TIMEOUT = 30  # seconds without a byte
_LONGEST = 300  # seconds for a document
# IPv4 addresses are within these, too
_TRANSLATED = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"), IPv6Network("::/96"))
_CONTROL = re.compile(r"[\x00-\x20\x7f\\]")


def is_url(name: str) -> bool:
    """Whether this names no path."""
    return "://" in name


def shown(url: str) -> str:
    """Return a URL for people, without what may be secret in it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


class UrlFolder:
    """A URL below which documents lie.

    Raises:
        SpecError: it is no URL of an allowed scheme.
    """

    def __init__(self, root: str) -> None:
        self._root = _split(root, "document_root")

    def require(self, url: str) -> None:
        """Refuse a URL that is not below this one.

        Raises:
            SpecError: with the remedy.
        """
        parts, root = _split(url, "file"), self._root
        folder = f"{root.path.rstrip('/')}/"
        steps = unquote(parts.path).split("/")
        if _server(parts) != _server(root) or not parts.path.startswith(folder) or ".." in steps:
            message = (
                f"file: {shown(url)} does not lie below {shown(root.geturl())}; name another one, "
                "or another `document_root`."
            )
            raise SpecError(message)


def _split(url: str, field: str) -> SplitResult:
    """Return the parts of a URL of an allowed scheme."""
    problem = None
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        message = f"{field}: {url!r:.200} is no URL: {error}."
        raise SpecError(message) from None
    if parts.scheme not in _SCHEMES:
        allowed = ", ".join(_SCHEMES)
        problem = f"documents are fetched by {allowed} alone"
    elif not parts.hostname or _CONTROL.search(url):
        problem = "it is no valid URL"
    elif "@" in parts.netloc:
        problem = "a URL with a user or a password is not asked"
    if problem is not None:
        message = f"{field}: {shown(url)}: {problem}; name another one."
        raise SpecError(message)
    return parts


def _server(parts: SplitResult) -> tuple[str, str | None, int]:
    return parts.scheme, parts.hostname, parts.port or _SCHEMES[parts.scheme]


def digest_of(url: str) -> str:
    """Return the `sha256` of the document at a URL.

    Raises:
        SpecError: it cannot be fetched.
    """
    digest = hashlib.sha256()
    for block in _blocks(url):
        digest.update(block)
    return digest.hexdigest()


def fetched(url: str) -> bytes:
    """Return the document at a URL.

    Raises:
        SpecError: it cannot be fetched.
    """
    return b"".join(_blocks(url))


def _blocks(url: str) -> Iterator[bytes]:
    with _told(url), closing(_asked(_split(url, "file"))) as response:
        until, size = time.monotonic() + _LONGEST, 0
        while block := response.read(_BLOCK):
            size += len(block)
            if size > MOST_BYTES or time.monotonic() > until:
                message = f"it has more than {MOST_BYTES:,} bytes, or takes too long"
                raise HTTPException(message)
            yield block


@contextmanager
def _told(url: str) -> Generator[None, None, None]:
    try:
        yield
    except (OSError, HTTPException, UnicodeError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        message = f"file: {shown(url)} cannot be fetched ({reason}); check the URL."
        raise SpecError(message) from error


class _Pinned(HTTPSConnection):
    """A connection to the one address that was looked at, whatever the name leads to by now."""

    def __init__(self, host: str, port: int, address: str) -> None:
        self._tls = ssl.create_default_context()
        super().__init__(host, port, timeout=_TIMEOUT, context=self._tls)
        self._address = address

    def connect(self) -> None:
        """Connect to the address, and prove that the name is the server's."""
        plain = socket.create_connection((self._address, self.port), _TIMEOUT)
        self.sock = self._tls.wrap_socket(plain, server_hostname=self.host)


def _asked(parts: SplitResult) -> HTTPResponse:
    """Return the server's answer; one that leads elsewhere is not followed."""
    _, host, port = _server(parts)
    connection = _Pinned(str(host), port, _address(str(host), port))
    target = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
    headers = {"Accept-Encoding": "identity", "User-Agent": "batchata-flows"}
    connection.request("GET", target, headers=headers)
    response = connection.getresponse()
    if response.status != _OK:
        response.close()
        message = f"the server answers {response.status} {response.reason}"
        raise HTTPException(message)
    return response


def _address(host: str, port: int) -> str:
    """Return an address of a host, all of whose addresses are public."""
    found = [str(one[4][0]) for one in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    if (inner := next((one for one in found if not is_public(one)), None)) is not None:
        message = f"{inner} is no public address, and no other is asked"
        raise HTTPException(message)
    return found[0]


def is_public(address: str) -> bool:
    """Whether an address is of the public network, and so are those within it."""
    one = ip_address(address.partition("%")[0])
    inner: list[IPv4Address | None] = []
    if isinstance(one, IPv6Address):
        inner = [one.ipv4_mapped, one.sixtofour, *(one.teredo or ())]
        if any(one in network for network in _TRANSLATED):
            inner.append(IPv4Address(int(one) & 0xFFFFFFFF))
    all_of_it = [one] if not isinstance(one, IPv6Address) or one.ipv4_mapped is None else []
    return all(
        each.is_global and not each.is_multicast
        for each in (*all_of_it, *inner)
        if each is not None
    )
