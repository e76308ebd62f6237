"""The order of write, fsync, commit and send, by a trace.

A killed process cannot show what a power cut would: what it has written survives its death, fsynced
or not. So each fsync, rename, commit and first byte is recorded, and the order is checked; that the
check would notice an error is tested too.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest

from batchata_tasks.dataset import merging
from tests.support.recovery.order import Order
from tests.support.recovery.trace import Event, recorded
from tests.support.table import MODELS, Table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from batchata_tasks.emulator import Emulator
    from tests.support.recovery.trace import Trace

    Is = Callable[[Event], bool]

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="a file's name by its number is looked up in /proc"
)
_TRACES: dict[str, tuple[Trace, Path]] = {}


@pytest.fixture
def traced(emulator: Emulator, tmp_path: Path) -> Callable[[str], tuple[Trace, Path]]:
    """Return a maker of traces, which it stores.

    A trace is of a table enriched, then again under another prompt, with its folder. In the end of
    each run its small parts are merged.
    """

    def make(provider: str) -> tuple[Trace, Path]:
        if provider not in _TRACES:
            table = Table(tmp_path, emulator, provider, 14)
            with patch.object(merging, "FULL", 3), recorded() as trace:
                table.run(items_per_batch=5)
                table.run(items_per_batch=4, prompt="again: {{ text }}")
            table.check_answers()
            _TRACES[provider] = trace, table.output
        return _TRACES[provider]

    return make


@pytest.mark.parametrize("provider", MODELS)
def test_nothing_is_acted_upon_before_it_is_durable(
    traced: Callable[[str], tuple[Trace, Path]], provider: str
) -> None:
    """Nothing is used before it is durable, from the plan to the older parts.

    The order is plan, manifest, request file, intent, its file, send, batch id, results, money,
    commit record, part, older parts, merged parts. Files are fsynced whole, renamed and their
    folder fsynced before the next step.
    """
    trace, root = traced(provider)
    order = Order(trace.events, root)
    assert not order.checked()
    assert (len(order.chunks), order.sends) == (7, 7)
    assert order.older_parts_changed >= 7
    assert order.merged_away == 7


@pytest.mark.parametrize("provider", MODELS)
def test_a_commit_of_the_ledger_is_on_disk_when_it_returns(
    traced: Callable[[str], tuple[Trace, Path]], provider: str
) -> None:
    """Every connection that commits has SQLite's `synchronous` at FULL, in write-ahead mode."""
    trace, _ = traced(provider)
    assert trace.pragmas == {(2, "wal")}


def test_new_folders_are_durable_before_anything_is_sent(
    traced: Callable[[str], tuple[Trace, Path]],
) -> None:
    """A file is found again only if every folder above it is.

    Their names are fsynced before the first intent.
    """
    trace, root = traced("anthropic")
    assert not Order(trace.events, root).nameless()


# --- the check notices ---------------------------------------------------------------------------


def fsync_in(part: str) -> Is:
    return lambda event: event.kind == "fsync" and part in event.what


def folder(name: str) -> Is:
    return lambda event: event.kind == "folder" and event.what.endswith(f"/{name}")


def fact(kind: str, word: str = "") -> Is:
    return lambda event: event.kind == kind and event.what.startswith(word)


def file(kind: str, part: str, ending: str = "") -> Is:
    return lambda event: event.kind == kind and part in event.what and event.what.endswith(ending)


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        (fsync_in("/runs/"), "plan.arrow is not durable before the ledger fixes the plan"),
        (fsync_in(".arrow."), "the manifest is not durable before the ledger's intent"),
        (fsync_in("/requests/"), "the request file is not durable before the ledger's intent"),
        (folder("requests"), "the request file is not durable before the ledger's intent"),
        (folder("intents"), "the intent's file is not durable before the send"),
        (file("rename", "/intents/"), "the intent's file is not durable before the send"),
        (
            fact("committed", "intents "),
            "the ledger's intent is not committed before its file appears",
        ),
        (fact("send"), "a create has an answer, but no first byte"),
        (fsync_in("/responses/"), "the results are not durable before the ledger counts them"),
        (folder("commits"), "the commit record is not durable before the part appears"),
        (fsync_in("/commits/"), "the commit record is not durable before the part appears"),
        (fsync_in("/.part-"), "the part is not durable before the ledger says landed"),
        (folder("data"), "an older part changes before the new one is durable"),
        (fact("committed", "closed "), "plan.arrow is deleted before the ledger closes the run"),
    ],
)
def test_a_step_that_is_left_out_is_noticed(
    traced: Callable[[str], tuple[Trace, Path]], gone: Is, said: str
) -> None:
    """Without any one kind of fsync, rename or commit, the trace is invalid, for that reason."""
    trace, root = traced("openai")
    assert said in Order([event for event in trace.events if not gone(event)], root).checked()


@pytest.mark.parametrize(
    ("which", "there", "said"),
    [
        (
            fact("send"),
            file("rename", "/intents/", ".json"),
            "the intent's file is not durable before the send",
        ),
        (
            fact("begins", "batches "),
            fact("send"),
            "the batch id is recorded before the answer came",
        ),
        (
            file("rename", "/intents/", ".json"),
            fact("begins", "intents "),
            "the ledger's intent is not committed before its file appears",
        ),
        (
            fact("begins", "intents "),
            file("rename", "/requests/"),
            "the request file is not durable before the ledger's intent",
        ),
        (
            fact("begins", "collected "),
            file("rename", "/responses/"),
            "the results are not durable before the ledger counts them",
        ),
        (
            file("rename", "/data/"),
            file("rename", "/commits/"),
            "the commit record is not durable before the part appears",
        ),
        (
            file("rename", "/data/"),
            fact("committed", "collected "),
            "the part appears before its money is settled",
        ),
        (
            fact("begins", "landed "),
            file("rename", "/data/"),
            "the part is not durable before the ledger says landed",
        ),
    ],
)
def test_a_step_that_comes_too_early_is_noticed(
    traced: Callable[[str], tuple[Trace, Path]], which: Is, there: Is, said: str
) -> None:
    """With two steps of a chunk in the wrong order, the trace is invalid, for that reason."""
    trace, root = traced("anthropic")
    chunk = Order(trace.events, root).chunks[0]
    here = [i for i, event in enumerate(trace.events) if chunk in event.what]
    first = next(i for i in here if which(trace.events[i]))
    target = next(i for i in here if there(trace.events[i]))
    assert target < first
    events = [event for i, event in enumerate(trace.events) if i != first]
    assert said in Order([*events[:target], trace.events[first], *events[target:]], root).checked()


def test_a_file_that_grew_after_its_fsync_is_noticed(
    traced: Callable[[str], tuple[Trace, Path]],
) -> None:
    """A renamed file must be all fsynced, to its last byte."""
    trace, root = traced("anthropic")
    events = [
        Event(e.kind, e.what, e.thread, e.source, e.size - fsync_in("/requests/")(e))
        for e in trace.events
    ]
    assert (
        "the request file is not durable before the ledger's intent"
        in Order(events, root).checked()
    )


def test_an_older_part_that_changes_after_landing_is_noticed(
    traced: Callable[[str], tuple[Trace, Path]],
) -> None:
    """Older rows are removed between the new part and `landed`; a later change is wrong."""
    trace, root = traced("anthropic")
    last = max(i for i, event in enumerate(trace.events) if fact("begins", "landed ")(event))
    change = max(i for i in range(last) if file("unlink", "/data/")(trace.events[i]))
    events = [event for i, event in enumerate(trace.events) if i != change]
    events.insert(last, trace.events[change])
    assert (
        "an older part's change is not durable before the ledger says landed"
        in Order(events, root).checked()
    )


def test_a_part_that_is_deleted_before_it_is_merged_is_noticed(
    traced: Callable[[str], tuple[Trace, Path]],
) -> None:
    """The part that takes others over is durable before the first of them is deleted."""
    trace, root = traced("anthropic")
    merged = next(i for i, one in enumerate(trace.events) if file("rename", "/data/merged")(one))
    synced = next(i for i in range(merged, len(trace.events)) if trace.events[i].kind == "folder")
    events = [event for i, event in enumerate(trace.events) if i != synced]
    assert (
        "a part is deleted before what it was merged into is durable"
        in Order(events, root).checked()
    )
