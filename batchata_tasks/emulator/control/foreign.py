"""Batches of other programs: in lists like any other, in the emulator's ledger apart from ours."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

import orjson

from batchata_tasks.emulator.anthropic.batch import AnthropicBatch
from batchata_tasks.emulator.anthropic.rules import WITHOUT_SAMPLING
from batchata_tasks.emulator.core.batches import Requests
from batchata_tasks.emulator.core.clock import Clock, Pace
from batchata_tasks.emulator.core.fate import NEVER
from batchata_tasks.emulator.core.faults import Faults
from batchata_tasks.emulator.core.prompt_cache import PromptCache
from batchata_tasks.emulator.core.spool import Spool
from batchata_tasks.emulator.core.state import StoredFile, new_id
from batchata_tasks.emulator.openai.rules import CHAT

if TYPE_CHECKING:
    from batchata_tasks.emulator.answers.schemas import JSON
    from batchata_tasks.emulator.anthropic.api import AnthropicApi
    from batchata_tasks.emulator.core.batches import Batch
    from batchata_tasks.emulator.openai.api import OpenAIApi

_PROVIDERS = ("anthropic", "openai")
_ENDS = ("pace", "never", "at_once")
_CLAUDE, _GPT = "claude-haiku-5-5", "gpt-6-luna"


@dataclass(frozen=True)
class Wanted:
    """Which batches to create."""

    provider: str
    batches: int = 1
    requests: int = 1
    ends: str = "pace"
    offset: float = 0.0
    every: float = 0.0
    account: str = "default"

    def __post_init__(self) -> None:
        if self.provider not in _PROVIDERS or self.ends not in _ENDS:
            message = f"provider must be one of {_PROVIDERS}, and ends one of {_ENDS}"
            raise ValueError(message)
        if self.batches < 1 or self.requests < 1:
            message = "batches and requests must be at least 1"
            raise ValueError(message)


async def add_foreign(
    wanted: Wanted, anthropic: AnthropicApi, openai: OpenAIApi, now: float
) -> list[str]:
    """Create the batches, without faults, quotas or limits; return their ids, oldest first."""
    # All batches can share one copy of the requests: results and bills are each batch's own.
    requests = _requests(wanted)
    file_id = _input_file(requests, wanted, openai, now) if wanted.provider == "openai" else ""
    ids: list[str] = []
    for number in range(wanted.batches):
        created_at = now + wanted.offset + wanted.every * number
        batch: Batch
        if wanted.provider == "anthropic":
            batch = _message_batch(requests, wanted, created_at)
            anthropic.shelf.add(batch)
        else:
            given = _given(file_id)
            batch = openai.batch(wanted.account, created_at, requests, _GPT, given, foreign=True)
            openai.shelf.add(batch)
        if wanted.ends == "never":
            batch.fate = NEVER
        elif wanted.ends == "at_once":
            await batch.look(Pace("immediate"), created_at, read=False)
        ids.append(batch.id)
    return ids


def _message_batch(requests: Requests, wanted: Wanted, created_at: float) -> AnthropicBatch:
    batch = AnthropicBatch(
        new_id("msgbatch_01"),
        wanted.account,
        created_at,
        requests,
        version=WITHOUT_SAMPLING,
        faults=Faults(),
        cache=PromptCache(Clock()),
    )
    batch.foreign = True
    return batch


def _given(file_id: str) -> JSON:
    return {"input_file_id": file_id, "endpoint": CHAT, "completion_window": "24h"}


def _input_file(requests: Requests, wanted: Wanted, openai: OpenAIApi, now: float) -> str:
    file = StoredFile(
        id=new_id("file-"),
        account=wanted.account,
        filename="jobs.jsonl",
        purpose="batch",
        created_at=now + wanted.offset,
        expires_at=None,
        content=requests.content,
        foreign=True,
    )
    return openai.files.add(file).id


def _requests(wanted: Wanted) -> Requests:
    requests, spool = Requests(), Spool()
    for index in range(wanted.requests):
        message = {"role": "user", "content": f"Job {index} of another program."}
        custom_id, start = f"job-{index}", spool.size
        line: JSON = {"custom_id": custom_id}
        if wanted.provider == "anthropic":
            body = {"model": _CLAUDE, "max_tokens": 64, "messages": [message]}
            line["params"] = body
        else:
            body = {"model": _GPT, "messages": [message]}
            line |= {"method": "POST", "url": CHAT, "body": body}
        spool.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
        canonical = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
        content_hash = blake2b(canonical, digest_size=16).digest()
        requests.add(custom_id, start, spool.size - 1, content_hash)
    requests.content = spool.seal()
    return requests
