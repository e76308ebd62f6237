"""The contract held to the real APIs: run by hand, with keys, for a fraction of a cent.

BATCHATA_LIVE=1 ANTHROPIC_API_KEY=… OPENAI_API_KEY=… pytest -m live
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import orjson
import pytest

from batchata_tasks.providers import provider_type
from batchata_tasks.providers.request_file import write_request_file
from batchata_tasks.schema.response import ResponseSchema
from batchata_tasks.types.outcome import Outcome
from batchata_tasks.types.request import Message, Request

if TYPE_CHECKING:
    from pathlib import Path

MODELS = {"anthropic": "claude-haiku-5-5", "openai": "gpt-6-luna"}
SCHEMA = {"type": "object", "properties": {"capital": {"type": "string"}}, "required": ["capital"]}


@pytest.mark.live
@pytest.mark.timeout(90_000)
@pytest.mark.parametrize(
    ("name", "endpoint"), [("anthropic", "chat"), ("openai", "chat"), ("openai", "responses")]
)
def test_the_real_api_keeps_the_contract(name: str, endpoint: str, tmp_path: Path) -> None:
    """A batch of two is created once, listed, ends, and returns two structured answers."""
    if not (os.environ.get("BATCHATA_LIVE") and os.environ.get(f"{name.upper()}_API_KEY")):
        pytest.skip(f"needs BATCHATA_LIVE=1 and {name.upper()}_API_KEY")
    provider = provider_type(name, endpoint)()
    schema = ResponseSchema.from_json_schema(SCHEMA, "live")
    token = "live" * 5
    bodies = {
        f"{i:024}": orjson.dumps(
            provider.body(
                Request(MODELS[name], (Message("user", f"Capital of {place}?"),), 200, {}, schema)
            )
        )
        for i, place in enumerate(("France", "Japan"))
    }
    path = tmp_path / "requests.jsonl"
    write_request_file(path, provider.framing, token, bodies.items())
    since = time.time() - 60
    look = provider.create(path, provider.upload(path), token, lambda: None)
    assert look.batch_id in {found.batch_id for found in provider.recent(since)}
    while not (look := provider.look(look.batch_id)).ended:
        time.sleep(30)
    assert provider.owns(look, token) is True
    answers = [
        answer
        for file in provider.download(look, tmp_path, "live")
        for answer in provider.answers(file)
    ]
    assert sorted(answer.custom_id for answer in answers) == [f"{token}-{row}" for row in bodies]
    assert all(
        answer.outcome is Outcome.SUCCEEDED and schema.parse(answer.text or "")[0]
        for answer in answers
    )
