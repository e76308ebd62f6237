"""What `queues.toml` may say, and how a mistake in it is told; what a refusal says of a queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.settings import Settings
from batchata_tasks.providers.openai.batches import look_of
from batchata_tasks.providers.queue_file import load_queue_limits

if TYPE_CHECKING:
    from pathlib import Path


def test_a_model_has_its_own_limit_or_that_of_its_provider(tmp_path: Path) -> None:
    """A table of a model counts for it, that of the provider for its others."""
    path = tmp_path / "queues.toml"
    path.write_text(
        '[openai]\nenqueued_tokens = 2_000\n[openai."gpt-6-luna"]\nenqueued_tokens = 40\n'
        "[anthropic]\nqueued_requests = 3\n"
    )
    limits = load_queue_limits(str(path))
    assert limits.of("openai", "gpt-6-luna") == 40
    assert limits.of("openai", "gpt-6-sol") == 2_000
    assert limits.of("anthropic", "claude-haiku-5-5") == 3
    assert load_queue_limits(None).of("openai", "gpt-6-luna") is None


def test_a_file_of_the_working_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`queues.toml` counts where a run is started; BATCHATA_QUEUES names another one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "queues.toml").write_text("[openai]\nenqueued_tokens = 1\n")
    (tmp_path / "other.toml").write_text("[openai]\nenqueued_tokens = 2\n")
    assert load_queue_limits(Settings().queues).of("openai", "m") == 1
    monkeypatch.setenv("BATCHATA_QUEUES", "other.toml")
    assert load_queue_limits(Settings().queues).of("openai", "m") == 2


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[openai]\nenqueued_tokens = 0", "at least 1, such as 2_000_000 (it is 0)"),
        ("[openai]\nenqueued_tokens = true", "must be a whole number"),
        ("[openai]\nenqueued_tokens = '2M'", "must be a whole number"),
        ("[openai]\ntokens = 5", "[openai]: `tokens` is not a key; write"),
        ("[openai.m]\nqueued_requests = 5", '[openai."m"]: `queued_requests` is not a key'),
        ("[anthropic.m]\nqueued_requests = 5", "[anthropic]: `m` is not a key"),
        ("[gemini]\nx = 1", "`gemini` is not a table of a provider that has queues"),
        ("openai = 5", "`openai` is not a table"),
        ("[openai", "not valid TOML"),
    ],
)
def test_a_mistake_is_told_by_its_place(tmp_path: Path, text: str, told: str) -> None:
    """One sentence names the file, the table and what to write."""
    path = tmp_path / "queues.toml"
    path.write_text(text)
    with pytest.raises(SpecError) as error:
        load_queue_limits(str(path))
    assert str(error.value).startswith(f"{path}: ")
    assert told in str(error.value)


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """Whoever names a file counts on it."""
    with pytest.raises(SpecError, match="BATCHATA_QUEUES: there is no file"):
        load_queue_limits(str(tmp_path / "none.toml"))


@pytest.mark.parametrize(
    ("message", "limit"),
    [
        ("Enqueued token limit reached for m. Limit: 2,000,000 enqueued tokens. Please", 2_000_000),
        ("Limit: 90 enqueued tokens.", 90),
        ("Limit: 0 enqueued tokens.", None),
        ("Limit: -5 enqueued tokens.", None),
        ("Limit: 9999999999999999999 enqueued tokens.", None),  # no ledger holds it
        ("Limit: 999,999,999,999,999,999 enqueued tokens.", None),
        ("Limit: 5 requests.", None),
        ("The queue is full.", None),
    ],
)
def test_a_refusal_tells_what_the_queue_holds(message: str, limit: int | None) -> None:
    """The figure is read from the provider's sentence, if it is there."""
    errors = {"data": [{"code": "token_limit_exceeded", "message": message}]}
    look = look_of({"id": "batch_1", "status": "failed", "errors": errors})
    assert (look.no_room, look.queue_limit) == (True, limit)
