"""Addresses, proxies and certificates of the environment: one sentence that names the variable."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx2
import pytest

from batchata_tasks.common.errors import BatchataError, InputError, TransientError, UnclearError
from batchata_tasks.providers import network, provider_type
from tests.support.answering import answering

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.providers import Adapter
    from tests.support.answering import Asked

APIS = ["anthropic", "openai"]
SECRET = "pass-word-of-the-proxy"
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    for api in APIS:
        monkeypatch.setenv(f"{api.upper()}_API_KEY", "test-key")
        monkeypatch.delenv(f"{api.upper()}_BASE_URL", raising=False)


@pytest.fixture(params=APIS)
def api(request: pytest.FixtureRequest) -> str:
    """Return the name of each provider in turn."""
    return request.param


def made(api: str) -> Adapter:
    return provider_type(api)()


def refusal(api: str) -> str:
    with pytest.raises(InputError) as refused:
        made(api)
    text = str(refused.value)
    assert text.endswith(".")
    assert SECRET not in text
    assert refused.value.__cause__ is None or SECRET not in repr(refused.value.__cause__)
    return text


# --- addresses ------------------------------------------------------------------------------------

HOST = "https://gateway.example.test:8443"


@pytest.mark.parametrize(
    ("variable", "address", "right"),
    [
        ("ANTHROPIC_BASE_URL", "https://api.anthropic.com/v1", "https://api.anthropic.com"),
        ("ANTHROPIC_BASE_URL", f"{HOST}/v1/", HOST),
        ("ANTHROPIC_BASE_URL", f"{HOST}/proxy/v1", f"{HOST}/proxy"),
        ("ANTHROPIC_BASE_URL", f"{HOST}/v1/messages", HOST),
        ("ANTHROPIC_BASE_URL", f"{HOST}/v1/messages/batches", HOST),
        ("OPENAI_BASE_URL", "https://api.openai.com", "https://api.openai.com/v1"),
        ("OPENAI_BASE_URL", "https://eu.api.openai.com/", "https://eu.api.openai.com/v1"),
        ("OPENAI_BASE_URL", "https://api.openai.com/v2", "https://api.openai.com/v1"),
        ("OPENAI_BASE_URL", f"{HOST}/v1/chat/completions", f"{HOST}/v1"),
        ("OPENAI_BASE_URL", f"{HOST}/v1/batches/", f"{HOST}/v1"),
        ("OPENAI_BASE_URL", f"{HOST}/v1/responses", f"{HOST}/v1"),
    ],
)
def test_an_address_that_cannot_be_right_is_refused(
    variable: str, address: str, right: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the SDK adds by itself stands in no address; the sentence says what to write."""
    monkeypatch.setenv(variable, address)
    text = refusal(variable.split("_", maxsplit=1)[0].lower())
    assert text.startswith(variable)
    assert text.removesuffix(", or unset it.").removesuffix(".").endswith(f" set it to {right}")


@pytest.mark.parametrize(
    "address", ["", "http://", "http://host:port", "https://ho st", "http://[x"]
)
def test_what_is_no_address_is_refused(
    address: str, api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty variable is not unset: the SDKs would call no server at all."""
    variable = f"{api.upper()}_BASE_URL"
    monkeypatch.setenv(variable, address)
    assert variable in refusal(api)


@pytest.mark.parametrize(
    ("variable", "address"),
    [
        ("ANTHROPIC_BASE_URL", "https://api.anthropic.com"),
        ("ANTHROPIC_BASE_URL", f"{HOST}/anthropic/"),
        ("OPENAI_BASE_URL", "https://api.openai.com/v1/"),
        ("OPENAI_BASE_URL", f"{HOST}/openai"),
        ("OPENAI_BASE_URL", HOST),
        ("OPENAI_BASE_URL", "HTTP://127.0.0.1:9/v1"),
    ],
)
def test_an_address_that_may_be_right_is_taken(
    variable: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway may have the API under any path."""
    monkeypatch.setenv(variable, address)
    made(variable.split("_", maxsplit=1)[0].lower())


@pytest.mark.parametrize("body", ["<html>Not Found</html>", {"detail": "Not Found"}])
def test_a_page_that_is_not_found_names_the_address(
    body: Any, api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it is not the API that answers 404, the address is told, and where it comes from."""
    with answering(lambda _asked: (404, body)) as server:
        monkeypatch.setenv(f"{api.upper()}_BASE_URL", f"{server.url}/somewhere")
        with pytest.raises(TransientError) as error:
            made(api).look("batch_1")
    assert f"There is no such API at {server.url}/somewhere/" in str(error.value)
    assert f"check {api.upper()}_BASE_URL." in str(error.value)


def test_a_call_that_an_api_does_not_know_names_the_address(
    api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 404 of the whole list, in the API's own shape, is of an address that leads past it."""
    unknown = {"error": {"message": "Invalid URL", "type": "invalid_request_error"}}
    with answering(lambda _asked: (404, unknown)) as server:
        monkeypatch.setenv(f"{api.upper()}_BASE_URL", server.url)
        with pytest.raises(TransientError) as error:
            made(api).newest()
        assert f"check {api.upper()}_BASE_URL" in str(error.value)
        assert ("usually ends in /v1" in str(error.value)) is (api == "openai")
        with pytest.raises(TransientError) as error:
            made(api).look("batch_1")
        assert "BASE_URL" not in str(error.value)


def test_a_list_that_a_cache_kept_proves_nothing(api: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches are asked for what is new; one that answers all the same has an old list."""
    ages: list[dict[str, str]] = [{}, {"Age": "0"}, {"Age": "40"}]
    page = {"data": [], "has_more": False}
    with answering(lambda asked: (200, page, ages[int(asked.headers["x-at"])])) as server:
        monkeypatch.setenv(f"{api.upper()}_BASE_URL", server.url)
        proves = list[bool]()
        for at in range(len(ages)):
            monkeypatch.setenv(f"{api.upper()}_CUSTOM_HEADERS", f"X-At: {at}")
            provider = made(api)
            assert list(provider.recent(0.0)) == []
            proves.append(provider.lists_end)
    assert proves == [True, True, False]
    assert {asked.headers["cache-control"] for asked in server.asked} == {"no-cache"}


def test_an_answer_that_nothing_changed_is_of_something_in_between(
    api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No API answers a read with a 304: it says nothing for certain."""
    with answering(lambda _asked: iter([b"HTTP/1.1 304 Not Modified\r\n\r\n"])) as server:
        monkeypatch.setenv(f"{api.upper()}_BASE_URL", server.url)
        with pytest.raises(TransientError):
            made(api).look("batch_1")


def test_a_page_of_a_proxy_is_no_wrong_address(api: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the API has answered, a page that says 404 is of something in between."""
    pages: list[tuple[int, Any]] = [(200, {"data": [], "has_more": False})]

    def answer(_asked: Asked) -> tuple[int, Any]:
        return pages.pop() if pages else (404, "<html>Not Found</html>")

    with answering(answer) as server:
        monkeypatch.setenv(f"{api.upper()}_BASE_URL", server.url)
        adapter = made(api)
        adapter.newest()
        with pytest.raises(TransientError) as error:
            adapter.look("batch_1")
    assert "Something between here and the provider answered" in str(error.value)
    assert "BASE_URL" not in str(error.value)


@pytest.mark.parametrize("status", [403, 409, 502, 503])
def test_any_page_is_of_something_in_between(
    status: int, api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page in place of the API's answer is told as such, whatever its status."""
    monkeypatch.setattr("batchata_tasks.providers.sdk.READ_RETRIES", 0)
    with answering(lambda _asked: (status, "<html>No</html>")) as server:
        monkeypatch.setenv(f"{api.upper()}_BASE_URL", server.url)
        with pytest.raises(TransientError, match="between here and the provider"):
            made(api).look("batch_1")


def test_a_look_without_a_status_names_the_batch(api: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch whose status is null cannot be judged; the sentence says which one."""
    batch = {"id": "batch_1", "object": "batch", "status": None, "processing_status": None}
    with answering(lambda _asked: (200, batch)) as server:
        monkeypatch.setenv(f"{api.upper()}_BASE_URL", server.url)
        with pytest.raises(TransientError, match="no status of batch 'batch_1'"):
            made(api).look("batch_1")


def test_a_batch_that_is_not_found_is_nobodys_address(
    api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 404 of the API itself is about the batch."""
    error = {"type": "not_found_error", "message": "no such batch"}
    with answering(lambda _asked: (404, {"type": "error", "error": error})) as server:
        monkeypatch.setenv(f"{api.upper()}_BASE_URL", server.url)
        with pytest.raises(TransientError) as raised:
            made(api).look("batch_1")
    assert "BASE_URL" not in str(raised.value)


# --- redirections ---------------------------------------------------------------------------------


def creating(adapter: Adapter, folder: Path) -> None:
    request_file = folder / "requests.jsonl"
    request_file.write_bytes(b'{"requests":[{"custom_id":"a","params":{}}]}')
    file_id = "file-1" if adapter.name == "openai" else None
    adapter.create(request_file, file_id, "t" * 20, lambda: None)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("page", ["", "<html>Moved</html>"])
def test_a_redirect_of_a_create_names_where_it_leads(
    api: str, status: int, page: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The create stays unclear; its words name the host and the variable, and no path or secret."""
    place = f"https://user:{SECRET}@new.example.test:8443/v1/batches?key={SECRET}"
    with answering(lambda _asked: (status, page, {"Location": place})) as server:
        monkeypatch.setenv(f"{api.upper()}_BASE_URL", server.url)
        with pytest.raises(UnclearError) as raised:
            creating(made(api), tmp_path)
    text = str(raised.value)
    assert "The server points to https://new.example.test:8443: " in text
    assert f"set {api.upper()}_BASE_URL to its address there." in text
    assert SECRET not in text
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "place", ["http://[", "\x1b]8;;x", "//", "https://h\u202eost.test/", "a" * 5000]
)
def test_a_redirect_to_nowhere_is_told_without_it(
    api: str, place: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever stands in place of an address, the words can be printed, and are short."""
    location = place.encode().decode("latin-1")
    with answering(lambda _asked: (307, "", {"Location": location})) as server:
        monkeypatch.setenv(f"{api.upper()}_BASE_URL", server.url)
        with pytest.raises(UnclearError) as raised:
            creating(made(api), tmp_path)
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 1000


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, {"error": {"type": "authentication_error", "message": "no key"}}),
        (404, {"error": {"type": "not_found_error", "message": "no such batch"}}),
        (404, "<html>Not Found</html>"),
        (503, "<html>Away</html>"),
    ],
)
def test_a_read_that_was_led_elsewhere_says_so(
    api: str, status: int, body: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another host answers is told with that host, and the variable to set."""
    monkeypatch.setattr("batchata_tasks.providers.sdk.READ_RETRIES", 0)
    with answering(lambda _asked: (status, body)) as there:
        moved = {"Location": f"{there.url}/v1/batches/batch_1"}
        with answering(lambda _asked: (302, "", moved)) as server:
            monkeypatch.setenv(f"{api.upper()}_BASE_URL", server.url)
            with pytest.raises(BatchataError) as raised:
                made(api).look("batch_1")
    text = str(raised.value)
    assert f"The server pointed to {there.url}: " in text
    assert f"set {api.upper()}_BASE_URL to its address there." in text


def test_a_read_that_was_led_to_a_host_that_is_away_names_it(
    api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the host that answered is away, but the one to which it led."""
    monkeypatch.setattr("batchata_tasks.providers.sdk.READ_RETRIES", 0)
    with answering(lambda _asked: (200, {})) as there:
        away = there.url  # nobody listens there any more
    with answering(lambda _asked: (302, "", {"Location": f"{away}/v1/batches/b"})) as server:
        monkeypatch.setenv(f"{api.upper()}_BASE_URL", server.url)
        with pytest.raises(TransientError) as raised:
            made(api).look("batch_1")
    hosts = [urlsplit(url).netloc for url in (away, server.url)]
    assert f"cannot reach {hosts[0]}, to which {hosts[1]} leads (" in str(raised.value)


def test_a_read_that_stays_on_its_host_is_told_as_ever(
    api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A redirect to another path of the same host says nothing about the address."""
    error = {"type": "not_found_error", "message": "no such batch"}

    def answer(asked: Asked) -> Any:
        if asked.path.endswith("/moved"):
            return 404, {"type": "error", "error": error}
        return 302, "", {"Location": "/moved"}

    with answering(answer) as server:
        monkeypatch.setenv(f"{api.upper()}_BASE_URL", server.url)
        with pytest.raises(TransientError) as raised:
            made(api).look("batch_1")
    assert "BASE_URL" not in str(raised.value)


# --- proxies --------------------------------------------------------------------------------------


@pytest.mark.sampled(16)
@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "HTTP_PROXY"])
@pytest.mark.parametrize(
    "proxy",
    [
        f"socks4://user:{SECRET}@127.0.0.1:1",
        f"ftp://user:{SECRET}@127.0.0.1:1",
        f"http://user:{SECRET}@127.0.0.1:port",
        f"http://user:{SECRET}@",
        f"http://user:{SECRET}@127.0.0.1:99999",
        "http://",
        f"http://user:{SECRET}@127.0.0.1:1\n",
    ],
)
def test_a_proxy_that_is_none_is_refused(
    name: str, proxy: str, api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A malformed proxy is told by its variable, not by its address, which may hold a password."""
    monkeypatch.setenv(name, proxy)
    text = refusal(api)
    assert text.startswith(name)
    assert "127.0.0.1" not in text
    monkeypatch.setenv("NO_PROXY", "localhost, *")
    made(api)


def test_socks_without_its_package_is_refused(api: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence says what to install."""

    def find(name: str) -> object:
        return None if name == "socksio" else name

    monkeypatch.setattr(network, "find_spec", find)
    monkeypatch.setenv("ALL_PROXY", f"socks5://user:{SECRET}@127.0.0.1:1")
    text = refusal(api)
    assert text.startswith("ALL_PROXY")
    assert "pip install 'httpx2[socks]'" in text


@pytest.mark.parametrize(
    "target", ["http://provider.example.test", "https://provider.example.test"]
)
def test_a_proxy_that_is_down_is_named(
    target: str, api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no connection can be made, the proxy is named, without its password."""
    monkeypatch.setenv("ALL_PROXY", f"http://user:{SECRET}@127.0.0.1:9")
    monkeypatch.setenv(f"{api.upper()}_BASE_URL", target)
    monkeypatch.setattr(f"{api}._base_client.MAX_RETRY_DELAY", 0.01)
    with pytest.raises(TransientError) as error:
        made(api).look("batch_1")
    assert "through the proxy http://127.0.0.1:9 of ALL_PROXY" in str(error.value)
    assert SECRET not in str(error.value)


def test_a_proxy_that_refuses_is_named(api: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a proxy refuses was never sent to the provider, and the proxy is named."""

    def refuse(asked: Asked) -> tuple[int, Any]:
        assert asked.method == "CONNECT"
        return 407, {"error": "who are you?"}

    with answering(refuse) as server:
        monkeypatch.setenv("HTTPS_PROXY", server.url.replace("://", f"://user:{SECRET}@"))
        monkeypatch.setenv(f"{api.upper()}_BASE_URL", "https://provider.example.test")
        monkeypatch.setattr(f"{api}._base_client.MAX_RETRY_DELAY", 0.01)
        with pytest.raises(TransientError) as error:
            made(api).look("batch_1")
    assert f"through the proxy {server.url} of HTTPS_PROXY" in str(error.value)
    assert SECRET not in str(error.value)


# --- certificates ---------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_certificates_that_cannot_be_read_are_refused(
    content: str | None, api: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A file that is absent, or holds none, is named with its variable."""
    file = tmp_path / "certificates.pem"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    assert refusal(api).startswith(f"SSL_CERT_FILE: {file} cannot be read")


def test_a_folder_of_certificates_that_is_absent_is_refused(
    api: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No server would ever be trusted; one without certificates needs no folder."""
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "absent"))
    assert refusal(api).startswith("SSL_CERT_DIR")
    monkeypatch.setenv(f"{api.upper()}_BASE_URL", "http://127.0.0.1:9")
    made(api)


def test_a_certificate_that_is_not_trusted_says_what_to_set() -> None:
    """Networks with certificates of their own need SSL_CERT_FILE, and people set another one."""
    error = httpx2.ConnectError("x")
    error.__cause__ = ssl.SSLCertVerificationError("y")
    assert "set SSL_CERT_FILE" in network.certificates_of(error)
    assert network.certificates_of(ValueError()) == ""
