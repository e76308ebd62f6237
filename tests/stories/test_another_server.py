"""The pipeline runs against any server of the APIs; it does not know the emulator."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

from batchata_tasks import Batch
from tests.support.paths import ROOT
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

# batchlane's ids have between 200 and 1,511 characters: more than a file's name can have
LONG_ID = "batch_bl_" + "eNpFjdtq-" * 160

ANSWER = json.dumps({"topic": "web", "keywords": ["a"], "audience": None, "confidence": 0.5})


class Handler(BaseHTTPRequestHandler):
    """The few routes that a run needs, from the providers' documentation, in the plainest way."""

    protocol_version = "HTTP/1.1"
    store: dict[str, Any]

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = (
            self.rfile.read(int(self.headers["Content-Length"]))
            if "Content-Length" in self.headers
            else self._chunked()
        )
        if self.path.endswith("/messages/batches"):
            self.store["msgbatch_x"] = [
                (r["custom_id"], r["params"]) for r in json.loads(body)["requests"]
            ]
            self._json(self._message_batch())
        elif self.path.endswith("/files"):
            lines = re.findall(rb'^\{"custom_id".*$', body, re.MULTILINE)
            self.store["file-in"] = [
                (line["custom_id"], line["body"]) for line in map(json.loads, lines)
            ]
            self._json(
                {
                    "id": "file-in",
                    "object": "file",
                    "bytes": 1,
                    "created_at": 1,
                    "filename": "f.jsonl",
                    "purpose": "batch",
                    "status": "processed",
                }
            )
        else:
            self._json(self._openai_batch(json.loads(body).get("metadata")))

    def do_GET(self) -> None:
        if self.path.endswith("/results"):
            self._send("".join(map(self._message_line, self.store["msgbatch_x"])).encode())
        elif self.path.endswith("/content"):
            self._send(
                "".join(map(self._completion_line, reversed(self.store["file-in"]))).encode()
            )
        elif "?" in self.path:  # the list of batches: none yet
            self._json(
                {"object": "list", "data": [], "has_more": False, "first_id": None, "last_id": None}
            )
        else:
            self._json(
                self._message_batch() if "/messages/" in self.path else self._openai_batch(None)
            )

    def _chunked(self) -> bytes:
        parts: list[bytes] = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _json(self, value: object) -> None:
        self._send(json.dumps(value).encode(), "application/json")

    def _send(self, content: bytes, kind: str = "application/octet-stream") -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _message_batch(self) -> dict[str, Any]:
        moment = "2026-11-22T10:00:00+00:00"
        counts = {
            "processing": 0,
            "succeeded": len(self.store["msgbatch_x"]),
            "errored": 0,
            "canceled": 0,
            "expired": 0,
        }
        return {
            "id": "msgbatch_x",
            "type": "message_batch",
            "processing_status": "ended",
            "request_counts": counts,
            "created_at": moment,
            "expires_at": moment,
            "ended_at": moment,
            "cancel_initiated_at": None,
            "archived_at": None,
            "results_url": "https://elsewhere.example/never-asked",
        }

    def _openai_batch(self, metadata: Any) -> dict[str, Any]:
        total = len(self.store["file-in"])
        return {
            "id": "batch_x",
            "object": "batch",
            "endpoint": "/v1/chat/completions",
            "input_file_id": "file-in",
            "completion_window": "24h",
            "status": "completed",
            "created_at": int(time.time()),
            "output_file_id": "file-out",
            "error_file_id": "",
            "request_counts": {"total": total, "completed": total, "failed": 0},
            "metadata": metadata,
        }

    def _message_line(self, item: tuple[str, Any]) -> str:
        message = {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": item[1]["model"],
            "stop_reason": "end_turn",
            "content": [{"type": "text", "text": ANSWER}],
            "usage": {"input_tokens": 10, "output_tokens": 5},
        }
        return (
            json.dumps({"custom_id": item[0], "result": {"type": "succeeded", "message": message}})
            + "\n"
        )

    def _completion_line(self, item: tuple[str, Any]) -> str:
        choice = {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": ANSWER},
        }
        body = {
            "object": "chat.completion",
            "model": item[1]["model"],
            "choices": [choice],
            "usage": {"prompt_tokens": 10, "completion_tokens": 5},
        }
        return (
            json.dumps(
                {
                    "id": "r",
                    "custom_id": item[0],
                    "response": {"status_code": 200, "body": body},
                    "error": None,
                }
            )
            + "\n"
        )


class Gateway(Handler):
    """A server that keeps nothing and says little, as several that people run.

    The job is in the batch's id (batchlane), an answer stands in its line as text (ogx), lists are
    empty or not offered, and a batch expires when it is created (mock-ai-api).
    """

    creates: list[str]

    def do_POST(self) -> None:
        if self.path.endswith("/batches"):
            self.creates.append(self.path)
        super().do_POST()

    def do_GET(self) -> None:
        if "?" in self.path and self.path.split("?")[0].endswith("/files"):
            self.send_error(405)
            return
        super().do_GET()

    def do_DELETE(self) -> None:
        self.send_error(405)

    def _message_batch(self) -> dict[str, Any]:
        batch = super()._message_batch()
        kept = ("type", "processing_status", "request_counts", "created_at", "expires_at")
        results = f"/v1/messages/batches/{LONG_ID}/results"
        return {name: batch[name] for name in kept} | {"id": LONG_ID, "results_url": results}

    def _openai_batch(self, metadata: Any) -> dict[str, Any]:
        del metadata
        return {
            "id": LONG_ID,
            "object": "batch",
            "endpoint": "/v1/chat/completions",
            "input_file_id": "",
            "completion_window": "24h",
            "status": "completed",
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
            "output_file_id": f"file-out-{LONG_ID}",
        }

    def _completion_line(self, item: tuple[str, Any]) -> str:
        line = json.loads(super()._completion_line(item))
        line["response"]["body"] = json.dumps(line["response"]["body"])
        return json.dumps(line) + "\n"


def serving(kind: type[Handler]) -> Iterator[str]:
    """Serve on loopback."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def address() -> Iterator[str]:
    """Serve the few routes."""
    yield from serving(type("Bound", (Handler,), {"store": {}}))


@pytest.fixture
def creates() -> list[str]:
    """Return the paths of the creates that the gateway was sent."""
    return []


@pytest.fixture
def gateway(creates: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Serve the gateway, and lead both providers to it."""
    for address in serving(type("Bound", (Gateway,), {"store": {}, "creates": creates})):
        monkeypatch.setenv("ANTHROPIC_BASE_URL", address)
        monkeypatch.setenv("OPENAI_BASE_URL", f"{address}/v1")
        monkeypatch.setenv("ANTHROPIC_API_KEY", "key-of-a-gateway")
        monkeypatch.setenv("OPENAI_API_KEY", "key-of-a-gateway")
        yield address


@pytest.mark.parametrize("model", ["claude-haiku-5-5", "gpt-6-luna"])
def test_the_demo_spec_runs_against_another_server(
    address: str, tmp_path: Path, model: str
) -> None:
    """With the SDKs' own variables alone, sixty lines of http.server answer 400 packages."""
    env = {
        **os.environ,
        "ANTHROPIC_BASE_URL": address,
        "OPENAI_BASE_URL": f"{address}/v1",
        "ANTHROPIC_API_KEY": "k",
        "OPENAI_API_KEY": "k",
        "PYTHONPATH": str(ROOT),
    }
    command = [
        sys.executable,
        "-m",
        "batchata_tasks.cli",
        "run",
        "deployments/specs/package-topics.yaml",
        "--direct",
        "--json",
        "--set",
        f"model={model}",
        "--set",
        f"output={tmp_path / 'out'}",
    ]
    done = subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    rows = pq.read_table(tmp_path / "out/data").to_pylist()
    assert len({row["name"] for row in rows}) == len(rows) == 400
    assert {(row["topic"], row["_status"], row["_input_tokens"]) for row in rows} == {
        ("web", "succeeded", 10)
    }


@pytest.mark.usefixtures("gateway")
@pytest.mark.parametrize("model", ["claude-haiku-5-5", "gpt-6-luna"])
def test_a_gateway_that_says_little_is_sent_a_batch_once(
    creates: list[str], tmp_path: Path, model: str
) -> None:
    """An answer with an id is the batch: it lands under that id, however long, and is kept."""
    for _ in range(2):
        batch = Batch(tmp_path / "out").set_default_params(model=model, max_tokens=64)
        for number in range(3):
            batch.add_job(prompt=f"text {number}", id=f"a{number}")
        results = batch.run().results()
        assert {result.response for result in results.values()} == {ANSWER}
        rows = pq.read_table(tmp_path / "out/data").to_pylist()
        assert [row["_batch_id"] for row in rows] == [LONG_ID] * 3
    assert len(creates) == 1
    for kind in ("requests", "responses"):
        provider = "anthropic" if model.startswith("claude") else "openai"
        names = list((tmp_path / "out/raw_files" / kind).glob(f"{provider}_batch_*"))
        assert [len(path.name) < 64 for path in names] == [True]


def test_only_the_demo_knows_the_emulator() -> None:
    """Only parts of the command line import the emulator: no other is made for it alone."""
    knowing: set[str] = set()
    for path in (ROOT / "batchata_tasks").rglob("*.py"):
        if "emulator" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            if any(f"{name}.".startswith("batchata_tasks.emulator.") for name in names):
                knowing.add(path.name)
    assert knowing == {"demo.py", "fault_list.py", "fault_option.py", "rehearsal.py"}
