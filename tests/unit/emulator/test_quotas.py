"""What an account may do: queues, spend limits, and keys that stop being valid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anthropic
import openai
import pytest

from batchata_tasks.emulator import ControlError
from batchata_tasks.emulator.answers.tokens import input_tokens
from tests.support.emulator_requests import body, chats, entries, line, submit

if TYPE_CHECKING:
    from collections.abc import Callable

    from openai.types import BatchError

    from batchata_tasks.emulator import ControlClient, Emulator

PER_CHAT = input_tokens(body("a"))


def create(client: anthropic.Anthropic, size: int) -> str:
    """Create a batch with this number of requests and return its id."""
    return client.messages.batches.create(requests=entries(*["a"] * size)).id


def failures(gpt: openai.OpenAI, batch_id: str) -> list[BatchError]:
    """Return why a batch failed its validation."""
    batch = gpt.batches.retrieve(batch_id)
    return (batch.errors.data or []) if batch.errors else []


def test_the_queue_of_unfinished_requests(
    claude: anthropic.Anthropic, control: ControlClient
) -> None:
    """A create that would exceed it is a plain 429 until earlier requests have run or gone."""
    control.limits(anthropic_queued_requests=10)
    control.progress("reads", 2)
    first = create(claude, 6)
    create(claude, 4)
    with pytest.raises(anthropic.RateLimitError, match="processing queue") as caught:
        create(claude, 1)
    assert caught.value.body["error"]["type"] == "rate_limit_error"  # type: ignore[index]
    assert "details" not in caught.value.body["error"]  # type: ignore[index]
    assert "retry-after" not in caught.value.response.headers
    claude.messages.batches.retrieve(first)
    with pytest.raises(anthropic.RateLimitError):
        create(claude, 3)
    second = create(claude, 2)
    with pytest.raises(anthropic.RateLimitError):
        create(claude, 2)
    control.vanish(second)
    create(claude, 2)
    book = control.ledger()
    assert book["anthropic"]["requests_accepted"] == 14
    assert [seen["status"] for seen in book["creates"]] == [200, 200, 429, 429, 200, 429, 200]


def test_the_queue_is_an_account_s_own_and_off_unless_asked_for(
    claude: anthropic.Anthropic, control: ControlClient, emulator: Emulator
) -> None:
    """Others' and ended batches do not count, and a batch alone may be too large."""
    control.progress("reads", 2)
    batch_id = create(claude, 9)
    create(claude, 9)
    control.limits(anthropic_queued_requests=10)
    with pytest.raises(anthropic.RateLimitError):
        create(claude, 1)
    with anthropic.Anthropic(
        api_key="acct:other:k", base_url=emulator.anthropic_url, max_retries=0
    ) as other:
        create(other, 10)
    control.progress("immediate")
    create(claude, 10)
    with pytest.raises(anthropic.RateLimitError):
        create(claude, 11)
    assert claude.messages.batches.retrieve(batch_id).processing_status == "ended"
    control.limits(anthropic_queued_requests=0)
    create(claude, 11)


def test_enqueued_tokens_fail_a_batch_at_its_validation(
    gpt: openai.OpenAI, control: ControlClient
) -> None:
    """The batch is created, then `failed` with the limit's figure; resent later it passes."""
    control.limits(openai_enqueued_tokens=PER_CHAT * 1_500)
    control.progress("reads", 4)
    texts = "a" * 1_000
    first, second = chats(gpt, *texts).id, chats(gpt, *texts).id
    assert gpt.batches.retrieve(first).status == "in_progress"
    (problem,) = failures(gpt, second)
    assert (problem.code, problem.line, problem.param) == ("token_limit_exceeded", None, None)
    assert problem.message == (
        "Enqueued token limit reached for gpt-6-luna in organization org-emulator. Limit: "
        f"{PER_CHAT * 1_500:,} enqueued tokens. Please try again once some in_progress batches "
        "have been completed."
    )
    # The one that failed does not count: a small one fits beside the first.
    third = chats(gpt, *"a" * 500).id
    assert gpt.batches.retrieve(third).status == "in_progress"
    control.progress("immediate")
    assert gpt.batches.retrieve(first).status == "completed"
    assert gpt.batches.retrieve(chats(gpt, *texts).id).status == "completed"
    book = control.ledger()["openai"]
    assert (book["batches_accepted"], book["batches_refused"]) == (3, 1)
    assert book["requests_billed"] == 2_500


def test_a_batch_over_the_enqueued_tokens_alone_always_fails(
    gpt: openai.OpenAI, control: ControlClient
) -> None:
    """A batch just at the limit passes; one over it fails however long it waits."""
    control.limits(openai_enqueued_tokens=PER_CHAT * 3)
    assert gpt.batches.retrieve(chats(gpt, *"aaa").id).status == "completed"
    for _ in range(2):
        (problem,) = failures(gpt, chats(gpt, *"aaaa").id)
        assert problem.code == "token_limit_exceeded"
    control.limits(openai_enqueued_tokens=0)
    assert gpt.batches.retrieve(chats(gpt, *"aaaa").id).status == "completed"


def test_enqueued_tokens_are_counted_at_the_moment_of_validation(
    gpt: openai.OpenAI, control: ControlClient, emulator: Emulator
) -> None:
    """They are counted at validation, not at creation or when read.

    They count by account and model, without ended batches.
    """
    control.freeze()
    control.progress("seconds", 100)
    control.limits(openai_enqueued_tokens=PER_CHAT * 5)
    first = chats(gpt, *"aaaa").id
    control.advance(50)
    second = chats(gpt, *"aa").id
    nano = {**body("a"), "model": "gpt-5-nano"}
    other_model = submit(gpt, *[line(name, nano) for name in ("r0", "r1", "r2")]).id
    with openai.OpenAI(
        api_key="acct:other:k", base_url=emulator.openai_url, max_retries=0
    ) as other:
        others = chats(other, *"aaaaa").id
        control.advance(45)
        third = chats(gpt, *"aaaa").id
        # First ended at 100; second was validated at 60, beside it, and third at 105, after it.
        control.advance(400)
        assert gpt.batches.retrieve(third).status == "completed"
        assert failures(gpt, second)[0].code == "token_limit_exceeded"
        assert gpt.batches.retrieve(first).status == "completed"
        assert gpt.batches.retrieve(other_model).status == "completed"
        assert other.batches.retrieve(others).status == "completed"


@pytest.mark.parametrize("create_batch", [True, False])
def test_a_spend_cap_is_a_429_that_waiting_does_not_cure(
    claude: anthropic.Anthropic, gpt: openai.OpenAI, control: ControlClient, create_batch: bool
) -> None:
    """It is each provider's own code without retry-after, on calls that cost money.

    Reads still work.
    """
    control.faults(kind="spend_cap")
    calls: tuple[Callable[[], Any], ...] = (
        lambda: create(claude, 1),
        lambda: chats(gpt, "a"),
    )
    if not create_batch:
        message: Any = [{"role": "user", "content": "a"}]
        calls = (
            lambda: claude.messages.create(model="claude-opus-5-5", max_tokens=9, messages=message),
            lambda: gpt.chat.completions.create(model="gpt-6-luna", messages=message),
        )
    with pytest.raises(anthropic.RateLimitError) as caught:
        calls[0]()
    assert caught.value.body["error"]["type"] == "rate_limit_error"  # type: ignore[index]
    assert caught.value.body["error"]["details"] == {  # type: ignore[index]
        "error_code": "enforced_spend_limit_reached"
    }
    assert "retry-after" not in caught.value.response.headers
    with pytest.raises(openai.RateLimitError) as spent:
        calls[1]()
    assert (spent.value.code, spent.value.type) == ("insufficient_quota", "insufficient_quota")
    assert "retry-after" not in spent.value.response.headers
    assert claude.messages.batches.list().data == gpt.batches.list().data == []


def test_a_limit_that_the_customer_has_set_is_a_400(
    claude: anthropic.Anthropic, gpt: openai.OpenAI, control: ControlClient
) -> None:
    """Nothing is accepted, and OpenAI names `billing_hard_limit_reached`."""
    control.faults(kind="hard_limit")
    with pytest.raises(anthropic.BadRequestError, match="usage limits"):
        create(claude, 1)
    with pytest.raises(openai.BadRequestError) as caught:
        chats(gpt, "a")
    assert caught.value.code == "billing_hard_limit_reached"
    book = control.ledger()
    assert book["anthropic"]["batches_accepted"] == book["openai"]["batches_accepted"] == 0


def test_keys_stop_being_valid_half_way_and_come_back(
    claude: anthropic.Anthropic, gpt: openai.OpenAI, control: ControlClient, emulator: Emulator
) -> None:
    """Every call of that account is a 401, before any fault, and of no other.

    Afterwards everything is there.
    """
    batch_id, other_id = create(claude, 1), chats(gpt, "a").id
    file_id = gpt.batches.retrieve(other_id).output_file_id
    assert file_id
    control.faults(kind="http_429")
    control.revoke()
    theirs: tuple[Callable[[], Any], ...] = (
        lambda: create(claude, 1),
        lambda: claude.messages.batches.retrieve(batch_id),
        lambda: claude.messages.batches.cancel(batch_id),
        claude.messages.batches.list,
        claude.models.list,
    )
    ours: tuple[Callable[[], Any], ...] = (
        lambda: chats(gpt, "a"),
        lambda: gpt.batches.retrieve(other_id),
        lambda: gpt.files.content(file_id),
        lambda: gpt.files.delete(file_id),
        gpt.batches.list,
    )
    for call in theirs:
        with pytest.raises(anthropic.AuthenticationError):
            call()
    for call in ours:
        with pytest.raises(openai.AuthenticationError) as caught:
            call()
        assert caught.value.code == "invalid_api_key"
    control.clear_faults()
    with openai.OpenAI(
        api_key="acct:other:k", base_url=emulator.openai_url, max_retries=0
    ) as other:
        assert other.batches.list().data == []
    control.restore()
    assert claude.messages.batches.retrieve(batch_id).processing_status == "ended"
    assert gpt.files.content(file_id).text
    assert len(claude.messages.batches.list().data) == len(gpt.batches.list().data) == 1


def test_a_key_of_one_provider_is_revoked_alone(
    claude: anthropic.Anthropic, gpt: openai.OpenAI, control: ControlClient
) -> None:
    """If a provider is named, only its key is revoked; an unknown one is an error."""
    control.revoke(provider="anthropic")
    with pytest.raises(anthropic.AuthenticationError):
        claude.messages.batches.list()
    assert gpt.batches.list().data == []
    control.reset()
    assert claude.messages.batches.list().data == []
    with pytest.raises(ControlError):
        control.revoke(provider="antropic")  # type: ignore[arg-type]
