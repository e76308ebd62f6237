"""Requests that the tests send, and a client that shows what the SDKs hide."""

from __future__ import annotations

import json
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from jsonschema import Draft202012Validator

from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    import openai
    from openai.types import Batch

CLAUDE = "claude-haiku-5-5"
GPT = "gpt-6-luna"
CHAT = "/v1/chat/completions"
ANTHROPIC_HEADERS = {"x-api-key": "some-key", "anthropic-version": "2026-10-21"}
OPENAI_HEADERS = {"authorization": "Bearer some-key"}

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"topic": {"type": "string"}, "score": {"type": "integer"}},
    "required": ["topic", "score"],
    "additionalProperties": False,
}


def params(text: str, **more: Any) -> Any:
    """Return the params of an Anthropic request."""
    message = {"role": "user", "content": text}
    return {"model": CLAUDE, "max_tokens": 256, "messages": [message], **more}


def entries(*texts: str, **more: Any) -> Any:
    """Return the entries of an Anthropic create call, `r0`, `r1` and so on."""
    return [
        {"custom_id": f"r{index}", "params": params(text, **more)}
        for index, text in enumerate(texts)
    ]


def body(text: str, **more: Any) -> Any:
    """Return the body of an OpenAI chat request."""
    return {"model": GPT, "messages": [{"role": "user", "content": text}], **more}


def line(custom_id: str, content: Any, url: str = CHAT) -> Any:
    """Return one line of an OpenAI input file."""
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": content}


def jsonl(*given: Any) -> bytes:
    """Return the content of an input file; bytes and texts become lines as they are."""
    rows = [
        item if isinstance(item, bytes) else json.dumps(item, ensure_ascii=False).encode()
        for item in given
    ]
    return b"".join(row + b"\n" for row in rows)


def submit(client: openai.OpenAI, *given: Any, endpoint: Any = CHAT, **more: Any) -> Batch:
    """Upload an input file and create a batch over it."""
    file = client.files.create(file=("in.jsonl", jsonl(*given)), purpose="batch")
    return client.batches.create(
        input_file_id=file.id, endpoint=endpoint, completion_window="24h", **more
    )


def chats(client: openai.OpenAI, *texts: str, **more: Any) -> Batch:
    """Create an OpenAI batch of one chat request per text, `r0`, `r1` and so on."""
    return submit(client, *[line(f"r{i}", body(text, **more)) for i, text in enumerate(texts)])


def rows(client: openai.OpenAI, file_id: str | None) -> dict[str, Any]:
    """Return the lines of a results file by custom_id; none when there is no such file."""
    if file_id is None:
        return {}
    text = client.files.content(file_id).text
    lines = [json.loads(row) for row in text.splitlines()]
    return {row["custom_id"]: row for row in lines}


def satisfies(text: str, schema: dict[str, Any]) -> bool:
    """Whether a text is JSON that satisfies a schema, formats included."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return False
    checker: Any = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    return checker.is_valid(value)


def http(
    url: str, method: str, path: str, *, headers: dict[str, str], content: Any = None
) -> tuple[int, dict[str, str], bytes]:
    """Make a call without an SDK; return the status, the headers and the body."""
    connection = HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE)
    try:
        sent = content if content is None or isinstance(content, bytes) else json.dumps(content)
        connection.request(method, urlsplit(url).path + path, sent, headers)
        response = connection.getresponse()
        return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
    finally:
        connection.close()
