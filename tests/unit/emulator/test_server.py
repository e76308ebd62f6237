"""Running an emulator: in a thread, in a process, and at full size."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import warnings
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import anthropic
import openai
import orjson
import pytest

from batchata_tasks import emulator as package
from batchata_tasks.emulator import ControlClient, Emulator, EmulatorError, EmulatorProcess
from tests.support.emulator_requests import ANTHROPIC_HEADERS, chats, entries, http, params
from tests.support.waiting import PATIENCE, until

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def process() -> Iterator[EmulatorProcess]:
    """Run an emulator in a process of its own."""
    with EmulatorProcess() as running:
        yield running


def test_the_environment_points_both_sdks_here(
    process: EmulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The four variables are all that an unchanged program needs."""
    for name, value in process.env().items():
        monkeypatch.setenv(name, value)
    with anthropic.Anthropic() as claude, openai.OpenAI() as gpt:
        claude.messages.batches.create(requests=entries("a"))
        chats(gpt, "a")
    book = process.control.ledger()
    assert book["anthropic"]["batches_accepted"] == book["openai"]["batches_accepted"] == 1


def test_a_stopped_emulator_is_gone_and_says_nothing(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """After `stop` calls are refused; no log, no warning, no thread is left behind."""
    before = threading.active_count()
    with warnings.catch_warnings(action="error"), Emulator() as running:
        url = running.url
        running.control.faults(kind="drop_after")
        with anthropic.Anthropic(base_url=running.anthropic_url, api_key="k") as client:
            with pytest.raises(anthropic.APIConnectionError):
                client.with_options(max_retries=0).messages.batches.create(requests=entries("a"))
            assert len(client.messages.batches.list().data) == 1
    with pytest.raises(ConnectionRefusedError):
        ControlClient(url).ledger()
    with pytest.raises(EmulatorError):
        _ = running.url
    assert threading.active_count() == before
    assert capfd.readouterr() == ("", "")


def test_the_process_prints_its_url_and_ends_with_its_parent() -> None:
    """The first line of output is the URL; the end of stdin, or of the parent, is its end."""
    root = str(Path(package.__file__).parents[2])
    command = [sys.executable, "-W", "error", "-m", "batchata_tasks.emulator.server"]
    with subprocess.Popen(
        [*command, "--port", "0", "--until-stdin-closes"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=root,
        text=True,
    ) as child:
        assert child.stdin
        assert child.stdout
        assert child.stderr
        url = child.stdout.readline().strip()
        assert ControlClient(url).ledger()["anthropic"]["batches_accepted"] == 0
        child.stdin.close()
        assert child.wait(PATIENCE) == 0
        assert child.stdout.read() == child.stderr.read() == ""


def test_it_listens_on_loopback_only(process: EmulatorProcess) -> None:
    """No other machine on the network can reach it."""
    assert urlsplit(process.url).hostname == "127.0.0.1"


def test_a_client_that_leaves_in_the_middle_does_no_harm(process: EmulatorProcess) -> None:
    """Half an upload is ignored: the next call is answered as usual."""
    process.control.reset()
    connection = HTTPConnection(urlsplit(process.url).netloc)
    connection.putrequest("POST", "/anthropic/v1/messages/batches")
    for name, value in {**ANTHROPIC_HEADERS, "content-length": "1000000"}.items():
        connection.putheader(name, value)
    connection.endheaders(b'{"requests":[')
    connection.close()
    until(lambda: process.control.ledger()["creates"])
    book = process.control.ledger()
    assert [seen["status"] for seen in book["creates"]] == [None]
    assert book["anthropic"]["batches_accepted"] == 0


def memory(pid: int) -> int:
    """Return the most private memory that a process had, in megabytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = [row for row in status.splitlines() if row.startswith("VmHWM")]
    return int(line.split()[1]) // 1024


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_a_batch_of_the_largest_size(process: EmulatorProcess) -> None:
    """100,000 requests go in and come out, other calls are answered, and memory stays bounded."""
    process.control.reset()
    text = "lorem ipsum " * 60
    content = orjson.dumps(
        {
            "requests": [
                {"custom_id": f"r-{number}", "params": params(f"{number} {text}")}
                for number in range(100_000)
            ]
        }
    )
    url = process.anthropic_url
    answer: dict[str, Any] = {}

    def create() -> None:
        path = "/v1/messages/batches"
        _, _, got = http(url, "POST", path, headers=ANTHROPIC_HEADERS, content=content)
        answer.update(orjson.loads(got))

    thread = threading.Thread(target=create)
    thread.start()
    answered = 0
    while thread.is_alive():
        process.control.now()
        answered += 1
        time.sleep(0.02)
    thread.join()
    assert answered > 3  # so it did not wait for the whole of it
    path = f"/v1/messages/batches/{answer['id']}"
    _, _, got = http(url, "GET", path, headers=ANTHROPIC_HEADERS)
    assert orjson.loads(got)["request_counts"]["succeeded"] == 100_000
    _, _, got = http(url, "GET", f"{path}/results", headers=ANTHROPIC_HEADERS)
    assert got.count(b"\n") == 100_000
    assert process.control.ledger()["anthropic"]["requests_billed"] == 100_000
    assert memory(process.pid) < 600


def test_each_answer_says_that_an_emulator_made_it(process: EmulatorProcess) -> None:
    """Errors and downloads, too; each start has a value of its own, an anonymous one none."""
    name = "x-batchata-emulator"
    with Emulator() as other, Emulator(anonymous=True) as anonymous:
        urls = (process.url, other.url, anonymous.url)
        path, headers = "/anthropic/v1/messages/batches/none", ANTHROPIC_HEADERS
        answers = [http(url, "GET", path, headers=headers) for url in urls]
        one, two, none = (given.get(name) for _, given, _ in answers)
        assert one
        assert two
        assert one != two
        assert none is None
