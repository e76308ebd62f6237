"""Batches that never end, servers that forget, and accounts that have parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anthropic
import openai
import pytest

from tests.support.emulator_requests import GPT, body, chats, entries, line, rows, submit

if TYPE_CHECKING:
    from batchata_tasks.emulator import ControlClient


def create(client: anthropic.Anthropic, *texts: str) -> str:
    """Create a batch and return its id."""
    return client.messages.batches.create(requests=entries(*(texts or ("a",)))).id


def states(claude: anthropic.Anthropic, gpt: openai.OpenAI, *ids: str) -> tuple[str, str]:
    """Return the status of Anthropic's and of OpenAI's batch."""
    first = claude.messages.batches.retrieve(ids[0]).processing_status
    return first, gpt.batches.retrieve(ids[1]).status


@pytest.mark.parametrize("days", [0, 3])
def test_a_batch_is_stuck_before_its_end(
    claude: anthropic.Anthropic, gpt: openai.OpenAI, control: ControlClient, days: int
) -> None:
    """All requests ran; neither time nor a cancel ends it, until the controls do, with results."""
    control.faults(kind="stuck_finalizing")
    ids = create(claude, "a", "b"), chats(gpt, "a", "b").id
    for _ in range(2):
        assert states(claude, gpt, *ids) == ("in_progress", "finalizing")
    assert gpt.batches.cancel(ids[1]).status == "finalizing"
    assert claude.messages.batches.cancel(ids[0]).processing_status == "in_progress"
    control.advance(86_400 * days)
    assert states(claude, gpt, *ids) == ("in_progress", "finalizing")
    assert control.ledger()["openai"]["requests_billed"] == 2
    for batch_id in ids:
        control.finish(batch_id)
    assert states(claude, gpt, *ids) == ("ended", "completed")
    assert len(list(claude.messages.batches.results(ids[0]))) == 2
    assert len(rows(gpt, gpt.batches.retrieve(ids[1]).output_file_id)) == 2


def test_a_cancel_never_comes_to_an_end(
    claude: anthropic.Anthropic, gpt: openai.OpenAI, control: ControlClient
) -> None:
    """It stays under way for good; when the controls end it, it ends as cancelled."""
    control.progress("reads", 10)
    control.faults(kind="cancel_ignored")
    ids = create(claude), chats(gpt, "a").id
    assert claude.messages.batches.cancel(ids[0]).processing_status == "canceling"
    assert gpt.batches.cancel(ids[1]).status == "cancelling"
    control.advance(3 * 86_400)
    for _ in range(5):
        assert states(claude, gpt, *ids) == ("canceling", "cancelling")
    for batch_id in ids:
        control.finish(batch_id)
    assert states(claude, gpt, *ids) == ("ended", "cancelled")


def test_a_batch_is_finished_early(
    claude: anthropic.Anthropic, gpt: openai.OpenAI, control: ControlClient
) -> None:
    """Any batch can be ended at once; one whose input is invalid fails."""
    control.progress("reads", 100)
    ids = create(claude), chats(gpt, "a").id
    wrong = submit(gpt, line("r0", body("a")), line("r0", body("b"))).id
    for batch_id in (*ids, wrong):
        control.finish(batch_id)
    assert states(claude, gpt, *ids) == ("ended", "completed")
    assert gpt.batches.retrieve(wrong).status == "failed"


def test_a_server_forgets(
    claude: anthropic.Anthropic, gpt: openai.OpenAI, control: ControlClient
) -> None:
    """By the controls or by a rule: batches and files are gone, the books keep them."""
    first, second = create(claude), chats(gpt, "a")
    control.faults(kind="forgets", route="get", nth=1, provider="anthropic")
    with pytest.raises(anthropic.NotFoundError):
        claude.messages.batches.retrieve(first)
    assert gpt.batches.retrieve(second.id).id == second.id
    control.forget("openai")
    for look in (gpt.batches.retrieve, gpt.batches.cancel):
        with pytest.raises(openai.NotFoundError):
            look(second.id)
    with pytest.raises(openai.NotFoundError):
        gpt.files.retrieve(second.input_file_id)
    assert claude.messages.batches.list().data == gpt.batches.list().data == []
    create(claude)
    assert len(claude.messages.batches.list().data) == 1
    book = control.ledger()
    assert (book["anthropic"]["batches_accepted"], book["openai"]["batches_accepted"]) == (2, 1)


@pytest.mark.parametrize("header", ["OpenAI-Project", "OpenAI-Organization", "X-Team"])
def test_a_project_has_batches_of_its_own(
    gpt: openai.OpenAI, control: ControlClient, header: str
) -> None:
    """Under another project, or under none, there is no such batch and no such file."""
    control.faults(kind="projects", header="x-team")
    ours = gpt.with_options(default_headers={header: "proj_a"})
    batch = chats(ours, "a")
    for stranger in (gpt, gpt.with_options(default_headers={header: "proj_b"})):
        assert stranger.batches.list().data == stranger.files.list().data == []
        with pytest.raises(openai.NotFoundError):
            stranger.batches.retrieve(batch.id)
        with pytest.raises(openai.NotFoundError):
            stranger.files.retrieve(batch.input_file_id)
    ended = ours.batches.retrieve(batch.id)
    assert len(rows(ours, ended.output_file_id)) == 1


@pytest.mark.parametrize("header", ["anthropic-workspace-id", "X-Team"])
def test_a_workspace_has_batches_of_its_own(
    claude: anthropic.Anthropic, control: ControlClient, header: str
) -> None:
    """Without the rule the header means nothing; with it, others see nothing."""
    ours = claude.with_options(default_headers={header: "wrkspc_a"})
    assert claude.messages.batches.retrieve(create(ours)).id
    control.faults(kind="projects", header="x-team")
    batch_id = create(ours)
    assert ours.messages.batches.retrieve(batch_id).id == batch_id
    with pytest.raises(anthropic.NotFoundError):
        claude.messages.batches.retrieve(batch_id)
    assert batch_id not in [batch.id for batch in claude.messages.batches.list()]


def test_only_max_tokens_is_a_cap(gpt: openai.OpenAI, control: ControlClient) -> None:
    """The newer name is ignored, in batches and beside them; the older one is never refused."""
    control.answers("lognormal", mean=300, sigma=0.1)
    control.faults(kind="max_tokens_only")
    caps: list[dict[str, Any]] = [
        {"max_completion_tokens": 20},
        {"max_tokens": 20},
        {"max_tokens": 20, "max_completion_tokens": 9_000},
    ]
    sent = [line(f"r{index}", body("a", **cap)) for index, cap in enumerate(caps)]
    batch = gpt.batches.retrieve(submit(gpt, *sent).id)
    found = rows(gpt, batch.output_file_id)
    tokens = [
        found[f"r{index}"]["response"]["body"]["usage"]["completion_tokens"] for index in range(3)
    ]
    assert tokens[0] > 100
    assert tokens[1:] == [20, 20]
    text: Any = body("a")["messages"]
    direct = gpt.chat.completions.create(model=GPT, messages=text, max_completion_tokens=20)
    assert direct.usage is not None
    assert direct.usage.completion_tokens == tokens[0]
