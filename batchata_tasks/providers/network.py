"""How a provider is reached: its address, and the proxies and certificates of the environment.

The SDKs read all of these from variables. What is wrong with one would otherwise be a traceback, a
minute of retries, or an error that names no variable. Addresses may hold passwords, so they are
never quoted as they are.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from http import HTTPStatus
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2

from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.text import printable
from batchata_tasks.providers import pace, sizes
from batchata_tasks.providers.credentials import ENVIRONMENT
from batchata_tasks.providers.listing import is_official
from batchata_tasks.providers.retry_after import leave_to_caller

if TYPE_CHECKING:
    from batchata_tasks.providers.credentials import Credentials
    from batchata_tasks.providers.emulated import Answering

_ADDRESSES = {"anthropic": "ANTHROPIC_BASE_URL", "openai": "OPENAI_BASE_URL"}
# the SDKs add these to the address by themselves
_ADDED = {
    "ANTHROPIC_BASE_URL": ("/v1/messages/batches", "/v1/messages", "/v1/complete", "/v1"),
    "OPENAI_BASE_URL": (
        "/chat/completions",
        "/completions",
        "/responses",
        "/batches",
        "/files",
        "/models",
    ),
}
_OFFICIAL = ("api.anthropic.com", "api.openai.com")
# paths of calls that name no object
_COLLECTIONS = ("/files", "/batches")
_IN_BETWEEN = " Something between here and the provider answered (a proxy, say), not its API."
_HOST_CHARS = 200  # of a host that a server names
_SCHEMES = ("http", "https", "all")  # of which proxies are used
_PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")
_PROXY_FORM = "write it as http://host:port, or unset it"

# of a request: not empty once the API has answered another one of its client
_REACHED = "batchata_reached"
# of a request: what people set to its address
_SETTING = "batchata_setting"

Hook: TypeAlias = Callable[[httpx2.Request], None]


def http_client(
    kind: type[httpx2.Client],
    address: str,
    hook: Hook,
    answering: Answering,
    credentials: Credentials = ENVIRONMENT,
) -> httpx2.Client:
    """Return an SDK's HTTP client, which calls `hook` with each request.

    It reads no drips and no answers without an end, and obeys no server that asks for long waits.
    `answering` is told who answers.

    `address` names the variable with the API's address, among those of the `credentials`.

    Raises:
        SpecError: naming a variable that nothing can be reached with, and the remedy.
    """
    url, setting = credentials.get(address), credentials.word(address)
    if url is not None:
        _check_address(address, url, setting)
    _check_proxies()
    if not (url or "").lower().startswith("http://"):
        _check_certificates()
    reached = list[bool]()

    def mark(request: httpx2.Request) -> None:
        timeouts = pace.timeouts(request.extensions.get("timeout", {}))
        ours = {_REACHED: reached, _SETTING: setting, "trace": pace.trace, "timeout": timeouts}
        request.extensions = {**request.extensions, **ours}
        # what a cache on the way keeps is older than what was sent since
        request.headers.setdefault("cache-control", "no-cache")

    def note(response: httpx2.Response) -> None:
        if response.is_success and not reached:
            reached.append(True)

    hooks = [note, answering.note, leave_to_caller, pace.bound, sizes.bound]
    try:
        return kind(event_hooks={"request": [mark, hook], "response": hooks})
    except OSError as error:
        raise _unreadable_certificates(error) from error
    except (ImportError, ValueError, httpx2.InvalidURL) as error:
        message = (
            f"the proxy settings of the environment cannot be used ({type(error).__name__}); "
            "check HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY."
        )
        raise SpecError(message) from None  # the cause may quote a password


def _check_address(variable: str, text: str, setting: str) -> None:
    """Refuse an address with which the API's paths cannot be right; people set it by `setting`.

    An unknown server may have the API under any path, so that only what is certain is refused.
    """
    url = _split(text)
    if url is None:
        message = f"{setting} is no address of a server; set it to a whole one, or unset it."
        raise SpecError(message)
    path = url.path.rstrip("/")
    for added in _ADDED.get(variable, ()):
        if path.endswith(added):
            right = f"{_shown(url)}{path.removesuffix(added)}"
            message = (
                f"{setting} ends in {added}, which is added to it by itself; set it to {right}."
            )
            raise SpecError(message)
    if (
        variable == "OPENAI_BASE_URL"
        and is_official(text, "api.openai.com")
        and not path.endswith("/v1")
    ):
        message = f"{setting} leads past OpenAI's API; set it to {_shown(url)}/v1, or unset it."
        raise SpecError(message)


def _split(text: str) -> SplitResult | None:
    """Return the parts of an address, or None if it is none."""
    try:
        url = urlsplit(text)
        _ = url.port  # a ValueError if it is no port
        httpx2.URL(text)
    except (ValueError, httpx2.InvalidURL):
        return None
    return url if url.hostname and not any(map(str.isspace, text)) else None


def _shown(url: SplitResult) -> str:
    """Return an address without path and password."""
    host = f"[{url.hostname}]" if ":" in (url.hostname or "") else url.hostname
    return f"{url.scheme}://{host}:{url.port}" if url.port else f"{url.scheme}://{host}"


def asked(error: httpx2.Response, provider: str, *, by_api: bool) -> str:
    """Return what an error may come from that is not of the API, or of one at another address.

    A 404 is of a wrong address only if nothing shows that the API is there. In the API's own shape
    (`by_api`) it may be about a batch or file; if it is about all of them, no such call is known.
    """
    is_page = "html" in error.headers.get("content-type", "").lower()
    if error.status_code != HTTPStatus.NOT_FOUND:
        return _IN_BETWEEN if is_page and not by_api else ""
    url = error.request.url
    official = any(is_official(str(url), domain) for domain in _OFFICIAL)
    if error.request.extensions.get(_REACHED) or official:
        return "" if by_api else _IN_BETWEEN
    if by_api and not url.path.endswith(_COLLECTIONS):
        return ""
    setting = error.request.extensions.get(_SETTING) or _ADDRESSES.get(provider, "the address")
    place = f"{_shown(urlsplit(str(url)))}{url.path}"
    return f" There is no such API at {place}: check {setting}{_usual_end(url.path, provider)}."


def _usual_end(path: str, provider: str) -> str:
    """Return how addresses of an API usually end, if the one in use does not, as a clause."""
    is_short = provider == "openai" and path in _COLLECTIONS
    return ", which usually ends in /v1" if is_short else ""


def pointed_to(response: httpx2.Response, provider: str) -> str:
    """Return where a server pointed a call that failed; nothing if it did not.

    A create follows no redirect. A read does, and other hosts may not know its key.
    """
    url = response.request.url
    if location := response.headers.get("location"):
        there, verb = location, "points"
    elif any(_place(one.request.url) != _place(url) for one in response.history):
        there, verb = str(url), "pointed"
    else:
        return ""
    try:
        parts = urlsplit(str(url.join(there)))
        place = printable(_shown(parts))[:_HOST_CHARS]
    except (ValueError, httpx2.InvalidURL):
        return ""
    first = response.history[0].request if response.history else response.request
    setting = first.extensions.get(_SETTING) or _ADDRESSES.get(provider, "the address")
    return (
        f" The server {verb} to {place}: if the API is there, set {setting} to its address there."
    )


def _place(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


# --- proxies --------------------------------------------------------------------------------------


def _proxies() -> dict[str, str]:
    """Return the addresses of proxies by the scheme for which they are used."""
    found = getproxies()
    if "*" in map(str.strip, found.get("no", "").split(",")):
        return {}
    return {
        scheme: found[scheme] if "://" in found[scheme] else f"http://{found[scheme]}"
        for scheme in _SCHEMES
        if found.get(scheme)
    }


def _variable(scheme: str) -> str:
    """Return the name of the variable that sets the proxy for a scheme."""
    names = (f"{scheme}_proxy", f"{scheme}_proxy".upper())
    return next((name for name in names if os.environ.get(name)), "the system's proxy setting")


def _check_proxies() -> None:
    for scheme, text in _proxies().items():
        problem, url = None, _split(text)
        if url is None:
            problem = f"is no address of a proxy; {_PROXY_FORM}"
        elif url.scheme not in _PROXY_SCHEMES:
            problem = f"names a proxy of an unknown kind; {_PROXY_FORM}"
        elif url.scheme.startswith("socks") and find_spec("socksio") is None:
            problem = (
                "names a SOCKS proxy, for which a package is missing; "
                "run `pip install 'httpx2[socks]'`, or unset it"
            )
        if problem is not None:
            message = f"{_variable(scheme)} {problem}."
            raise SpecError(message)


def way_to(url: httpx2.URL) -> str:
    """Return through which proxy an address is reached, in words; nothing if through none."""
    proxies = _proxies()
    scheme = next((one for one in (url.scheme, "all") if one in proxies), None)
    if scheme is None or proxy_bypass(url.host):
        return ""
    proxy = _split(proxies[scheme])
    return "" if proxy is None else f" through the proxy {_shown(proxy)} of {_variable(scheme)}"


# --- certificates ---------------------------------------------------------------------------------


def _check_certificates() -> None:
    """Refuse a folder of certificates that does not exist: nothing would ever be trusted."""
    folders = os.environ.get("SSL_CERT_DIR")
    if not folders or os.environ.get("SSL_CERT_FILE"):  # the file is read instead
        return
    if not any(Path(folder).is_dir() for folder in folders.split(os.pathsep)):
        message = f"SSL_CERT_DIR: {folders} is no folder; name one of certificates, or unset it."
        raise SpecError(message)


def _unreadable_certificates(error: OSError) -> SpecError:
    reason = "it has no certificates" if isinstance(error, ssl.SSLError) else error.strerror
    if file := os.environ.get("SSL_CERT_FILE"):
        return SpecError(
            f"SSL_CERT_FILE: {file} cannot be read ({reason}); name a PEM file of certificates, or "
            "unset it."
        )
    return SpecError(
        f"the certificates of this system cannot be read ({reason}); set SSL_CERT_FILE to a PEM "
        "file of certificates."
    )


def certificates_of(error: BaseException) -> str:
    """Return what helps if a server's certificate was not accepted."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return ""
    return (
        " If your network has certificates of its own, set SSL_CERT_FILE to the file with them "
        "(REQUESTS_CA_BUNDLE is not read)."
    )
