"""Documents at URLs: what is fetched, and what is never asked."""

from __future__ import annotations

import ssl
import threading
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from batchata_tasks.common.errors import SpecError
from batchata_tasks.sources import document_urls
from batchata_tasks.sources.document_urls import UrlFolder, digest_of, fetched, is_public

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONTENT = b"%PDF-1.4 content" * 100_000
INNER = [
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "64:ff9b::7f00:1",
    "2001:db8::1",
    "2002:7f00:1::",
    "fc00::1",
    "fe80::1%eth0",
    "ff02::1",
]


class Server(ThreadingHTTPServer):
    """A server of documents on loopback, with a certificate of its own."""

    def __init__(self, folder: Path) -> None:
        self.asked = list[str]()
        super().__init__(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate(folder))
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.port: int = self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that hang up."""


class Handler(BaseHTTPRequestHandler):
    """Answers by the path."""

    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        self.server.asked.append(self.path)
        if self.path.startswith("/elsewhere"):
            self.send_response(302)
            self.send_header("Location", "/docs/a.pdf")
            self.end_headers()
            return
        found = self.path.startswith("/docs/")
        self.send_response(200 if found else 404)
        self.end_headers()
        if found:
            self.wfile.write(CONTENT)

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


def certificate(folder: Path) -> Path:
    """Write a certificate for loopback, with its key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    names: list[x509.GeneralName] = [
        x509.DNSName("localhost"),
        x509.IPAddress(ip_address("127.0.0.1")),
    ]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path = folder / "server.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, *form)
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server(tmp_path) as one:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "server.pem"))
        threading.Thread(target=one.serve_forever, daemon=True).start()
        yield one
        one.shutdown()


def refusal(url: str) -> str:
    with pytest.raises(SpecError) as told:
        fetched(url)
    return str(told.value)


def test_a_document_is_fetched(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a server that proves its name, with the query as it is."""
    monkeypatch.setattr(document_urls, "is_public", lambda _address: True)
    url = f"https://localhost:{server.port}/docs/a%20b.pdf?signature=x"
    assert fetched(url) == CONTENT
    assert digest_of(url) == sha256(CONTENT).hexdigest()
    assert server.asked == ["/docs/a%20b.pdf?signature=x"] * 2


def test_what_cannot_be_fetched_is_told(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence has the URL without its query; no redirect is followed."""
    monkeypatch.setattr(document_urls, "is_public", lambda _address: True)
    base = f"https://localhost:{server.port}"
    answer = "the server answers 404 Not Found"
    told = f"file: {base}/none.pdf cannot be fetched ({answer}); check the URL."
    assert refusal(f"{base}/none.pdf?secret=1") == told
    assert "the server answers 302 Found" in refusal(f"{base}/elsewhere")
    assert server.asked == ["/none.pdf?secret=1", "/elsewhere"]
    monkeypatch.setattr(document_urls, "MOST_BYTES", 1000)
    assert "it has more than 1,000 bytes" in refusal(f"{base}/docs/a.pdf")
    monkeypatch.delenv("SSL_CERT_FILE")
    assert "certificate" in refusal(f"{base}/docs/a.pdf")


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "0",
        "LOCALHOST",
        "127.0.0.1.",
    ],
)
def test_nobody_within_is_asked(server: Server, host: str) -> None:
    """However an address of one's own network is spelled, no connection is made to it."""
    told = refusal(f"https://{host}:{server.port}/docs/a.pdf")
    assert "cannot be fetched" in told
    assert "is no public address" in told or "not known" in told or "resol" in told
    assert server.asked == []


@pytest.mark.parametrize("address", INNER)
def test_inner_addresses_are_not_public(address: str) -> None:
    """Neither are addresses within which one of those stands."""
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "::ffff:8.8.8.8", "2606:4700::1111"])
def test_other_addresses_are_public(address: str) -> None:
    """What anybody can reach may be asked."""
    assert is_public(address)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://example.com/a/b.pdf", "documents are fetched by https alone"),
        ("file:///a/b.pdf", "documents are fetched by https alone"),
        ("ftp://example.com/a/b.pdf", "documents are fetched by https alone"),
        ("https://user:word@example.com/a/b.pdf", "a user or a password is not asked"),
        ("https:///a/b.pdf", "it is no valid URL"),
        ("https://example.com/a/b c.pdf", "it is no valid URL"),
        ("https://example.com:x/a/b.pdf", "is no URL"),
        ("https://example.com/other/b.pdf", "does not lie below https://example.com/a/"),
        ("https://example.com/ab.pdf", "does not lie below"),
        ("https://example.com/a/../b.pdf", "does not lie below"),
        ("https://example.com/a/%2e%2e/b.pdf", "does not lie below"),
        ("https://example.com:8443/a/b.pdf", "does not lie below"),
        ("https://example.com.evil.org/a/b.pdf", "does not lie below"),
        ("inbox/a.pdf", "documents are fetched by https alone"),
    ],
)
def test_only_what_lies_below_the_root_is_asked(url: str, problem: str) -> None:
    """A URL has to lie below the one that the spec names; its secrets are not told."""
    with pytest.raises(SpecError) as told:
        UrlFolder("https://example.com/a/").require(url)
    assert problem in str(told.value)
    assert "word" not in str(told.value).replace("password", "")


def test_below_the_root_all_may_be_asked() -> None:
    """Case and the usual port of a server make no difference."""
    UrlFolder("https://example.com/a").require("https://EXAMPLE.com:443/a/b/c.pdf?x=../..")
